"""Models on disk: a spec and its tensors, which together rebuild the encoder exactly.

Nothing here imports torch until weights are read or written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import InputError, closest
from core.spec import ModelSpec
from encoders import zoo

if TYPE_CHECKING:
    from encoders.model import Encoder

BUILTIN = Path(__file__).parent / "weights" / "builtin"
SPEC, WEIGHTS = "spec.json", "model.safetensors"


def save(encoder: Encoder, folder: Path) -> None:
    """Write spec.json and model.safetensors; the folder appears complete or not at all.

    Raises:
        InputError: the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    folder = Path(folder)
    made = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        state = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
        save_file(state, made / WEIGHTS)
        (made / WEIGHTS).chmod(0o644)  # both are made such that nobody else may read them
        made.chmod(0o755)
        text = json.dumps(encoder.spec.to_json(), indent=1)
        (made / SPEC).write_text(text + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(made, folder)
    except (OSError, SafetensorError) as error:
        raise InputError(
            f"model folder {str(folder)!r} cannot be written: {_line(error)}"
        ) from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def load(ref: str | Path) -> Encoder:
    """The encoder that a reference names, on the CPU, ready for evaluation.

    `builtin` is the model that comes with the harness; `random:hubert_base@1` a published shape
    with weights of seed 1 (0 where not given); anything else a folder that `save` wrote.

    Raises:
        InputError: nothing has that name, or the folder does not hold a sound model.
    """
    from encoders.model import build

    named = _random(ref)
    if named is not None:
        spec, seed = named
        return build(spec, seed).eval()
    folder = _folder(ref)
    return _read_weights(_read_spec(folder), folder / WEIGHTS).eval()


def read_spec(ref: str | Path) -> ModelSpec:
    """The shape of the model that a reference names, without its weights.

    Raises:
        InputError: as `load`.
    """
    named = _random(ref)
    return named[0] if named is not None else _read_spec(_folder(ref))


def fingerprint(ref: str | Path) -> str:
    """16 hexadecimal digits that change when the model's shape or weights do.

    Raises:
        InputError: nothing has that name.
    """
    digest = hashlib.blake2b(digest_size=8)
    named = _random(ref)
    if named is not None:
        spec, seed = named
        digest.update(f"random {seed} {spec.canonical()}".encode())
        return digest.hexdigest()
    folder = _folder(ref)
    digest.update(_read_spec(folder).canonical().encode())
    with (folder / WEIGHTS).open("rb") as weights:
        while block := weights.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _random(ref: str | Path) -> tuple[ModelSpec, int] | None:
    """Shape and seed of a `random:` reference, None for any other."""
    if not isinstance(ref, str) or not ref.startswith("random:"):
        return None
    name, _, seed = ref.removeprefix("random:").partition("@")
    if name not in zoo.SPECS:
        raise InputError(
            f"unknown shape {name!r} in model {ref!r}{closest(name, zoo.SPECS)}; "
            f"known: {', '.join(zoo.SPECS)}"
        )
    if "@" in ref and not (seed.isascii() and seed.isdigit() and int(seed) < 2**63):
        raise InputError(f"model {ref!r} has seed {seed!r}; expected a whole number such as @1")
    return zoo.SPECS[name](), int(seed or 0)


def _folder(ref: str | Path) -> Path:
    """The folder that holds the model."""
    folder = BUILTIN if str(ref) == "builtin" else Path(ref)
    if (folder / SPEC).is_file() and (folder / WEIGHTS).is_file():
        return folder
    if folder == BUILTIN:
        raise InputError("the built-in model is not there yet; make it with `bench pretrain`")
    if folder.is_dir():
        raise InputError(f"folder {str(ref)!r} holds no model; expected {SPEC} and {WEIGHTS} in it")
    known = ["builtin", *(f"random:{name}" for name in zoo.SPECS)]
    raise InputError(
        f"unknown model {str(ref)!r}{closest(str(ref), known)}; expected 'builtin', "
        f"'random:SHAPE[@SEED]' or a folder with {SPEC} and {WEIGHTS}"
    )


def _read_spec(folder: Path) -> ModelSpec:
    path = folder / SPEC
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return ModelSpec.from_json(data)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise InputError(f"{path} is not the spec of a model: {_line(error)}") from error


def _read_weights(spec: ModelSpec, path: Path) -> Encoder:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from encoders.model import from_state

    try:
        return from_state(spec, load_file(path))
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is truncated or no safetensors file ({_line(error)}); save the model again"
        ) from error
    except InputError as error:
        raise InputError(f"{path.parent / SPEC} describes no model: {error}") from error
    except (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise InputError(
            f"{path} does not fit its {SPEC} ({_line(error)}); save the model again"
        ) from error


def _line(error: Exception) -> str:
    """An error's message on one line, cut where it runs on."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:197] + "..."
