"""What is exported for s3prl, in s3prl itself: a process that has none of our packages."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from encoders import build, cut, exports, zoo
from encoders.exports._parity import _OURS
from encoders.exports.s3prl import NOTE, WEIGHTS

SMALL = replace(zoo.tiny(), layers=zoo.tiny().layers[:2])

#: As the card's note says, with what torchaudio has dropped since s3prl 0.4.18 left empty.
SCRIPT = f"""
import sys
import types

for name in {_OURS}:
    sys.modules[name] = None
import torch
import torchaudio

effects = types.ModuleType("torchaudio.sox_effects")
effects.apply_effects_tensor = effects.apply_effects_file = None
torchaudio.sox_effects = sys.modules[effects.__name__] = effects
torchaudio.set_audio_backend = lambda name: None

import s3prl.hub
from s3prl.nn import S3PRLUpstream

sys.path.insert(0, ".")
from expert import UpstreamExpert

setattr(s3prl.hub, "ours", UpstreamExpert)
given = torch.load("given.pt")
with torch.no_grad():
    states, lengths = S3PRLUpstream("ours", "{WEIGHTS}").eval()(*given)
    listed = s3prl.hub.ours(ckpt="{WEIGHTS}")([wav[:n] for wav, n in zip(*given)])
torch.save((torch.stack(states), torch.stack(listed["hidden_states"])), "found.pt")
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("s3prl") is None, reason="s3prl is not installed")
def test_plain_s3prl_takes_the_folder(tmp_path: Path) -> None:
    """By its hub and by S3PRLUpstream, which adds a last frame where it counts one more."""
    encoder = cut.keep_heads(build(SMALL, seed=0), [(0, 3), (1, 2, 5)]).eval()
    exports.write(encoder, "s3prl", tmp_path)
    noise, lengths = torch.randn(2, 16_000) * 0.1, torch.tensor([16_000, 9000])
    noise[1, 9000:] = 0
    torch.save((noise, lengths), tmp_path / "given.pt")
    command = [sys.executable, "-I", "-c", SCRIPT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-2000:]
    with torch.no_grad():
        hidden = encoder(noise, lengths)
    expected = torch.stack(hidden.states)
    for found in torch.load(tmp_path / "found.pt"):
        for item, frames in enumerate(hidden.lengths):
            assert torch.allclose(found[:, item, :frames], expected[:, item, :frames], atol=1e-5)
    assert all(name in NOTE for name in ("set_audio_backend", "sox_effects", "S3PRLUpstream"))
