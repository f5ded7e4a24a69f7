"""s3prl: a folder with expert.py, as its own upstreams on the hub have one."""

from __future__ import annotations

import json
from pathlib import Path

from encoders.exports._bundle import bundle
from encoders.exports._usage import Usage
from encoders.model import Encoder

INSTALL = "pip install torch safetensors"
CODE, WEIGHTS = "expert.py", "model.safetensors"

#: Our own upstream, which takes a reference where this one takes the file beside it.
_UPSTREAM, _BY_REFERENCE = "tasks/s3prl/upstream.py", 'store.load(ckpt or "builtin")'

_LOADER = '''

def load(ckpt: str | None) -> Encoder:
    """The encoder whose weights lie there, by default beside this file, its spec with them."""
    weights = Path(ckpt or Path(__file__).parent / "model.safetensors")
    spec = json.loads((weights.parent / "encoder.json").read_text(encoding="utf-8"))
    return from_state(ModelSpec.from_json(spec), load_file(weights)).eval()
'''

LOAD = f"""\
import sys

import numpy
import torch

sys.path.insert(0, ".")
from expert import UpstreamExpert

expert = UpstreamExpert("{WEIGHTS}")"""

CALL = """\
with torch.no_grad():
    wavs = [torch.from_numpy(wav[:length]) for wav, length in zip(waveforms, lengths)]
    states = torch.stack(expert(wavs)["hidden_states"]).numpy()
frames = numpy.array([expert.encoder.spec.frames(int(length)) for length in lengths])"""

NOTE = (
    "in a process of s3prl, setattr(s3prl.hub, NAME, UpstreamExpert); then "
    f'S3PRLUpstream(NAME, "{WEIGHTS}"), or main() of s3prl.run_downstream with -u NAME -k '
    f"{WEIGHTS}. s3prl 0.4.18 imports torchaudio.sox_effects and calls "
    "torchaudio.set_audio_backend, which torchaudio 2.9 and later do not have: put empty ones there"
)


def write(encoder: Encoder, folder: Path) -> Usage:
    """Write expert.py, encoder.json (the spec) and weights."""
    from safetensors.torch import save_file

    source = bundle(_UPSTREAM)
    if source.count(_BY_REFERENCE) != 1:
        raise AssertionError(f"{_UPSTREAM} loads its encoder in another way")
    imports = "from pathlib import Path\nfrom safetensors.torch import load_file\n"
    source = source.replace("import torch\n", f"import torch\n{imports}", 1)
    code = source.replace(_BY_REFERENCE, "load(ckpt)") + _LOADER
    (folder / CODE).write_text(code, encoding="utf-8")
    spec = json.dumps(encoder.spec.to_json(), indent=1)
    (folder / "encoder.json").write_text(f"{spec}\n", encoding="utf-8")
    state = {name: value.contiguous() for name, value in encoder.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    return Usage(LOAD, CALL, INSTALL, note=NOTE)
