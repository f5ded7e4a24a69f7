"""transformers: as its own class where that can be, else with the encoder's code in the folder."""

from __future__ import annotations

import json
from pathlib import Path

from core.errors import Unsupported
from core.spec import ModelSpec
from encoders.counterparts import Transformers
from encoders.exports._bundle import bundle
from encoders.exports._usage import Usage
from encoders.model import Encoder

INSTALL, NEEDS = "pip install transformers", "pip install '.[importers]'"
CODE, MODEL = "modeling_compressed.py", "encoders/exports/_transformers_model.py"

LOAD_CODE = """\
import torch
from transformers import AutoModel

model = AutoModel.from_pretrained(".", trust_remote_code=True)"""

CALL_CODE = """\
samples = torch.from_numpy(lengths)
mask = (torch.arange(waveforms.shape[1])[None] < samples[:, None]).long()
with torch.no_grad():
    output = model(torch.from_numpy(waveforms), attention_mask=mask, output_hidden_states=True)
states, frames = torch.stack(output.hidden_states).float().numpy(), model.frames(samples).numpy()"""

LOAD = """\
import numpy
import torch
from transformers import AutoFeatureExtractor, AutoModel

model, reader = AutoModel.from_pretrained("."), AutoFeatureExtractor.from_pretrained(".")"""

CALL = """\
given = reader(list(waveforms), sampling_rate=16000, return_tensors="pt").input_values
with torch.no_grad():
    output = model(given, output_hidden_states=True)
states = torch.stack([*output.hidden_states[:-1], output.last_hidden_state]).numpy()
frames = numpy.full(len(waveforms), states.shape[2])"""

STOCK_NOTE = (
    "utterances of unequal lengths are padded as transformers pads them, which for models with a "
    "GroupNorm is not the same as each alone"
)


def write(encoder: Encoder, folder: Path) -> Usage:
    """Write config.json and weights, and what transformers has no class for as code.

    Raises:
        ImportError: transformers is missing.
    """
    import transformers  # noqa: F401  # without it there is nothing to save as, or to check with

    try:
        stock = Transformers(encoder)
    except Unsupported:
        return _with_code(encoder, folder)
    from transformers import Wav2Vec2FeatureExtractor
    from transformers.utils import logging

    logging.disable_progress_bar()
    stock.model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(
        do_normalize=encoder.spec.normalize_waveform,
        return_attention_mask=encoder.spec.front_end.norm == "layer",  # type: ignore[union-attr]
    ).save_pretrained(folder)
    return Usage(LOAD, CALL, INSTALL, padded=False, note=STOCK_NOTE)


def _with_code(encoder: Encoder, folder: Path) -> Usage:
    from safetensors.torch import save_file

    state = {f"encoder.{name}": value.contiguous() for name, value in encoder.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(encoder.spec), indent=1) + "\n")
    (folder / CODE).write_text(bundle(MODEL), encoding="utf-8")
    return Usage(LOAD_CODE, CALL_CODE, INSTALL)


def _config(spec: ModelSpec) -> dict[str, object]:
    module = CODE.removesuffix(".py")
    return {
        "model_type": "compressed-speech-encoder",
        "architectures": ["CompressedModel"],
        "auto_map": {
            "AutoConfig": f"{module}.CompressedConfig",
            "AutoModel": f"{module}.CompressedModel",
        },
        "dtype": spec.dtype,
        "hidden_size": spec.dim,
        "num_hidden_layers": len(spec.layers),
        "spec": spec.to_json(),
    }
