"""Hidden states on disk by content, within a limit: what was encoded once is read the next time.

`FOLDER/MODEL/KIND-BATCH.safetensors` is a shard: tensors of utterances that were encoded together,
named by the hashes of their waveforms. Together, because a batch's composition changes the last
bits of its states: what is read is exactly what would be encoded. A shard is there as a whole or
not at all and carries a checksum; one that is damaged is made again. Those used longest ago make
room for new ones, but none of a model that some process is reading. Nothing here imports torch
until hidden states are read or written.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

from core.errors import InputError, closest
from core.point import digest
from encoders import store
from encoders.corpora.builtin import cache_folder

if TYPE_CHECKING:
    from torch import Tensor

#: What frames may be kept as.
KEPT = ("float32", "float16")

#: Means are a hundredth of the frames they are made of, and go last.
Kind = Literal["means", "frames"]

_SUFFIX = ".safetensors"

#: Bytes that a shard has beside each tensor, at most.
_HEADER = 256


@dataclass(frozen=True)
class Cache:
    """Whether hidden states are kept on disk. limit: bytes of all models together, 0 for none.

    dtype: one of KEPT, of frames alone. Frames are rounded to it whether they are kept or not, so
    that a score does not depend on where they came from.

    Raises:
        InputError: a value does not exist.
    """

    limit: float = 0
    dtype: str = KEPT[0]

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise InputError(f"cache limit {self.limit}: expected bytes from 0 up, such as 8GB")
        if self.dtype not in KEPT:
            raise InputError(
                f"cache dtype {self.dtype!r}{closest(self.dtype, KEPT)}; expected "
                f"{' or '.join(KEPT)}"
            )

    @contextmanager
    def open(self, model: str | Path, *how: object) -> Iterator[Shards | None]:
        """The shards of a model while they are in use; None where nothing is kept on disk.

        model: what `store.load` takes. how: what its hidden states depend on beside its weights and
        our code. A folder that cannot be written is as if nothing were kept.

        Raises:
            InputError: as `store.fingerprint`.
        """
        if not self.limit:
            yield None
            return
        key = digest([store.fingerprint(model), *how, self.dtype, _code()])
        folder = hidden_folder() / key
        with _in_use(folder) as usable:
            yield Shards(folder, self.limit) if usable else None


def hidden_folder() -> Path:
    """Where the shards of all models are."""
    return cache_folder() / "hidden"


class Shards:
    """What is on disk of one model's hidden states. Tensors are memory-mapped: do not write."""

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder, self.limit = folder, limit

    def find(self, kind: Kind, batch: Sequence[str], names: Iterable[str]) -> list[Tensor] | None:
        """The tensors of some utterances of a batch, None unless all of them are there."""
        names = list(names)
        tensors = self._read(self._path(kind, batch)) if names else {}
        return [tensors[n] for n in names] if tensors.keys() >= set(names) else None

    def add(self, kind: Kind, batch: Sequence[str], tensors: Mapping[str, Tensor]) -> None:
        """Keep tensors of utterances of a batch, if the limit and the disk allow it."""
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        whole = {name: tensor.clone() for name, tensor in tensors.items()}
        size = sum(tensor.nbytes + _HEADER for tensor in whole.values()) + _HEADER
        path = self._path(kind, batch)
        made = path.with_name(f".{path.name}.tmp")
        try:
            with _locked(self.folder.parent):
                if self._make_room(path, size):
                    save_file(whole, made, {"checksum": _checksum(whole)})
                    os.replace(made, path)
        except (OSError, SafetensorError):
            with suppress(OSError):
                made.unlink(missing_ok=True)

    def _path(self, kind: Kind, batch: Sequence[str]) -> Path:
        return self.folder / f"{kind}-{digest(list(batch))}{_SUFFIX}"

    def _read(self, path: Path) -> dict[str, Tensor]:
        """The tensors of a shard by name, none where it is not there or is damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as shard:
                tensors = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
                if (shard.metadata() or {}).get("checksum") == _checksum(tensors):
                    os.utime(path)
                    return tensors
        except FileNotFoundError:
            return {}
        except (OSError, SafetensorError):
            pass  # cut short, or no shard at all
        path.unlink(missing_ok=True)
        return {}

    def _make_room(self, path: Path, size: int) -> bool:
        """Remove shards until that one is within the limit; none, and False, if it cannot be."""
        others = {*self.folder.parent.glob(f"*/*{_SUFFIX}*")} - {path}
        sizes = {other: other.stat().st_size for other in others}
        excess = sum(sizes.values()) + size - self.limit
        idle = {folder for folder in {other.parent for other in others} if _idle(folder)}
        free = sorted((other for other in others if other.parent in idle), key=_worth)
        if sum(sizes[other] for other in free) < excess:
            return False
        while excess > 0:
            excess -= sizes[free[0]]
            free.pop(0).unlink()
        for folder in idle - {other.parent for other in free}:
            shutil.rmtree(folder)
        return True


def _worth(shard: Path) -> tuple[bool, int]:
    """What goes last is worth most: means, and what was used last."""
    return shard.name.startswith("means"), shard.stat().st_mtime_ns


def name_of(waveform: Tensor) -> str:
    """32 hexadecimal digits that identify an utterance by its samples."""
    return hashlib.blake2b(waveform.numpy().data, digest_size=16).hexdigest()


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    checksum = 0
    for name in sorted(tensors):
        checksum = zlib.crc32(tensors[name].numpy().data, checksum)
    return f"{checksum:08x}"


@cache
def _code() -> str:
    """Changes with whatever makes hidden states of a waveform and weights."""
    state = hashlib.blake2b(version("torch").encode(), digest_size=8)
    for file in sorted(Path(__file__).parent.glob("*.py")):
        state.update(file.read_bytes())
    return state.hexdigest()


@contextmanager
def _in_use(folder: Path) -> Iterator[bool]:
    """Keep other processes from removing a model's shards; False if the folder cannot be made."""
    held = None
    with suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _locked(folder.parent):
            folder.mkdir(exist_ok=True)
            held = (folder / ".lock").open("w")
            fcntl.flock(held, fcntl.LOCK_SH)
    try:
        yield held is not None
    finally:
        if held:
            held.close()


@contextmanager
def _locked(folder: Path) -> Iterator[IO[str]]:
    """Keep other processes from changing which shards are there."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def _idle(folder: Path) -> bool:
    """Whether no process, this one included, has the model's shards in use."""
    try:
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
