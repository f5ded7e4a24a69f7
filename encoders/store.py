"""Models on disk: a spec and its tensors, which together rebuild the encoder exactly.

Nothing here imports torch until weights are read or written.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import InputError, closest
from core.spec import ROLES, SCHEMA, ModelSpec
from encoders import card, sources, zoo
from encoders.card import Origin
from encoders.files import one_line, read_json, read_safetensors

if TYPE_CHECKING:
    from torch import Tensor

    from encoders.model import Encoder

BUILTIN = Path(__file__).parent / "weights" / "builtin"
SPEC, WEIGHTS, CHECK = "spec.json", "model.safetensors", "check.json"


def save(encoder: Encoder, folder: Path, origin: Origin | None = None) -> None:
    """Write spec.json, model.safetensors, a model card and numbers to check a copy by.

    The folder appears complete or not at all. origin: how the model was made, for its card.

    Raises:
        InputError: the folder cannot be written.
        RuntimeError: the spec is not true of the encoder's tensors.
    """
    from safetensors.torch import save_file

    from encoders import check
    from encoders.model import from_state

    state = {name: tensor.cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    numbers = check.take(from_state(encoder.spec, state).eval())
    with replacing(Path(folder)) as made:
        save_file(state, made / WEIGHTS)
        (made / WEIGHTS).chmod(0o644)  # it is made such that nobody else may read it
        version = ".".join(map(str, SCHEMA))
        _write(made / SPEC, {"schema": version, **encoder.spec.to_json()})
        _write(made / CHECK, numbers)
        text = card.write(encoder.spec, origin or Origin())
        (made / card.FILE).write_text(text, encoding="utf-8")


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A new folder to be filled, which takes the place of that one when all went well.

    Raises:
        InputError: it cannot be written, or holds what nothing here has written.
    """
    from safetensors import SafetensorError

    made = None
    strange = folder.is_dir() and any(folder.iterdir())
    if strange and not (folder / SPEC).is_file() and not card.is_ours(folder / card.FILE):
        raise InputError(f"folder {str(folder)!r} holds other files; choose one that does not")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        yield made
        made.chmod(0o755)  # it is made such that nobody else may read it
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(made, folder)
    except (OSError, SafetensorError) as error:
        raise InputError(f"folder {str(folder)!r} cannot be written: {one_line(error)}") from error
    finally:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)


def _write(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")


def verify(folder: Path) -> tuple[list[float], float]:
    """How far each hidden state of a saved model is from what it was, and how far it may be.

    Both are fractions of the state's level (`encoders.check`).

    Raises:
        InputError: the folder holds no sound model, or no numbers to check it by.
    """
    from encoders import check

    encoder = read_folder(_folder(folder))
    if not (folder / CHECK).is_file():
        raise InputError(f"{folder} has no {CHECK}, by which to check it; save the model again")
    kept = read_json(folder / CHECK)
    return check.differences(encoder, kept), check.tolerance(encoder.spec)


def load(ref: str | Path) -> Encoder:
    """The encoder that a reference names, on the CPU, ready for evaluation.

    `builtin` is the model that comes with the harness; `random:hubert_base@1` a published shape
    with weights of seed 1 (0 where not given); `hf:`, `torchaudio:`, `s3prl:`, `melhubert:` and
    `dphubert:` checkpoints of theirs (`encoders.sources`); anything else a folder that `save`
    wrote.

    Raises:
        InputError: nothing has that name, or it does not hold a sound model.
    """
    from encoders.model import build, from_state

    named = _random(ref)
    if named is not None:
        spec, seed = named
        return build(spec, seed).eval()
    if sources.split(ref):
        spec, state = sources.read(str(ref))  # which may be a view of the file: not so a model
        return from_state(spec, {name: value.clone() for name, value in state.items()}).eval()
    return read_folder(_folder(ref))


def read_folder(folder: Path) -> Encoder:
    """The encoder that `save` wrote there.

    Raises:
        InputError: the folder does not hold a sound model.
    """
    return _read_weights(_read_spec(folder), folder / WEIGHTS).eval()


def read_spec(ref: str | Path) -> ModelSpec:
    """The shape of the model that a reference names, without its weights.

    Raises:
        InputError: as `load`.
    """
    named = _random(ref)
    if named is not None:
        return named[0]
    return sources.read_spec(str(ref)) if sources.split(ref) else _read_spec(_folder(ref))


def fingerprint(ref: str | Path) -> str:
    """16 hexadecimal digits that change when the model's shape or weights do.

    Of a checkpoint it is the content too, wherever it came from: a branch of the hub that moved is
    another model, a copy on the disk is not.

    Raises:
        InputError: nothing has that name.
    """
    digest = hashlib.blake2b(digest_size=8)
    named = _random(ref)
    if named is not None:
        spec, seed = named
        digest.update(f"random {seed} {spec.canonical()}".encode())
        return digest.hexdigest()
    if sources.split(ref):
        spec, state = sources.read(str(ref))
        digest.update(spec.canonical().encode())
        for name, tensor in sorted(state.items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(_content(tensor))
        return digest.hexdigest()
    folder = _folder(ref)
    digest.update(_read_spec(folder).canonical().encode())
    with (folder / WEIGHTS).open("rb") as weights:
        while block := weights.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _content(tensor: Tensor) -> memoryview:
    """A tensor's numbers as bytes."""
    import torch

    return tensor.contiguous().flatten().view(torch.uint8).numpy().data


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
        f"'random:SHAPE[@SEED]', a checkpoint ({', '.join(f'{n}:' for n in sources.names())}) or "
        f"a folder with {SPEC} and {WEIGHTS}"
    )


def _read_spec(folder: Path) -> ModelSpec:
    path = folder / SPEC
    data = read_json(path)
    try:
        spec = ModelSpec.from_json(data)
        count = sum(layer.weights(role, spec.dim) for layer in spec.layers for role in ROLES)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise InputError(f"{path} is not the spec of a model: {one_line(error)}") from error
    if count > 2 * (folder / WEIGHTS).stat().st_size:  # a byte holds two weights at most
        raise InputError(
            f"{folder / WEIGHTS} is truncated or no safetensors file: {SPEC} tells of {count} "
            "weights; save the model again"
        )
    return spec


def _read_weights(spec: ModelSpec, path: Path) -> Encoder:
    from encoders.model import from_state

    state = read_safetensors(path)
    try:
        return from_state(spec, state)
    except InputError as error:
        raise InputError(f"{path.parent / SPEC} describes no model: {error}") from error
    except (RuntimeError, ValueError, TypeError, LookupError, ArithmeticError) as error:
        raise InputError(
            f"{path} does not fit its {SPEC} ({one_line(error)}); save the model again"
        ) from error
