"""Names that s3prl imports and that are not there: most are never used by a recipe of SUPERB."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

#: Packages that a recipe imports for what only other uses of it need: s3prl's DDP, dead code.
UNUSED = {"catalyst.data.sampler": "DistributedSamplerWrapper", "sox": "Transformer"}

AUDIO = {".aac", ".au", ".flac", ".m4a", ".mp3", ".ogg", ".wav"}


def fill_in() -> None:
    """Put the missing names in place; what is installed stays as it is."""
    for name, attribute in UNUSED.items():
        if _missing(name):
            _provide(name, **{attribute: None})
    import huggingface_hub

    for attribute in ("HfFolder", "Repository"):  # gone since 1.0; for uploads to its hub
        if not hasattr(huggingface_hub, attribute):
            setattr(huggingface_hub, attribute, None)


def fill_in_librosa() -> None:
    """Its one function that recipes use; after the hub, where transformers looks for it too."""
    if _missing("librosa"):
        _provide("librosa.util", find_files=find_files)


def find_files(directory: str | Path) -> list[str]:
    """The audio files below a folder in the order of their paths."""
    files = Path(directory).absolute().rglob("*")
    return sorted(str(file) for file in files if file.suffix.lower() in AUDIO)


def _missing(name: str) -> bool:
    top = name.partition(".")[0]
    return top not in sys.modules and importlib.util.find_spec(top) is None


def _provide(name: str, **attributes: Any) -> None:
    """A module of that name with these attributes, and the packages above it."""
    parent = None
    for depth in range(1, name.count(".") + 2):
        path = ".".join(name.split(".")[:depth])
        module = sys.modules.setdefault(path, ModuleType(path))
        module.__path__, module.__spec__ = [], ModuleSpec(path, None)
        if parent is not None:
            setattr(parent, path.rpartition(".")[2], module)
        parent = module
    vars(parent).update(attributes)
