"""What is mended in a module of s3prl right after its import, each by one function.

Caches that s3prl keeps inside its own package go to the user's cache, by what they were made from:
s3prl would take those of another corpus for this one's.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from core.point import digest
from encoders.corpora.builtin import cache_folder
from tasks.s3prl import stubs

Repair = Callable[[ModuleType], None]


class AfterImport(MetaPathFinder):
    """Finds modules as Python does, and has their repair done when they were executed."""

    def __init__(self, repairs: dict[str, Repair]) -> None:
        self.waiting = dict(repairs)

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        repair = self.waiting.pop(name, None)
        if repair is None:
            return None
        spec = importlib.util.find_spec(name)
        if spec is not None and isinstance(spec.loader, Loader):
            spec.loader.exec_module = partial(_run, spec.loader.exec_module, repair)  # type: ignore[method-assign]
        return spec


def _run(execute: Callable[[ModuleType], None], repair: Repair, module: ModuleType) -> None:
    execute(module)
    repair(module)


def register_upstream(hub: ModuleType) -> None:
    """Our encoders are an upstream like any other: `-u bench_local -k MODEL`."""
    from tasks.s3prl.upstream import NAME, UpstreamExpert

    setattr(hub, NAME, UpstreamExpert)


def add_find_files(package: ModuleType) -> None:
    """VoxCeleb's and IEMOCAP's files are found without librosa, which brings 150 MB."""
    stubs.fill_in_librosa()


def add_corpora(ctc: Any) -> None:
    """Readers of libriphone and snips, where s3prl comes without (its wheel and sdist do)."""
    if importlib.util.find_spec(f"{ctc.__name__}.corpus") is not None:
        return
    from tasks.s3prl import libriphone, snips

    corpus = sys.modules[f"{ctc.__name__}.corpus"] = ModuleType(f"{ctc.__name__}.corpus")
    for module in (libriphone, snips):
        name = module.__name__.rpartition(".")[2]
        setattr(corpus, name, module)
        sys.modules[f"{corpus.__name__}.{name}"] = module


def keep_workers(expert: Any) -> None:
    """Every loader of ctc gets the settings' number of workers; s3prl's second one takes 12."""
    load = expert.load_dataset
    expert.load_dataset = lambda split, tokenizer, corpus: load(split, tokenizer, dict(corpus))


def cache_speakers(dataset: Any) -> None:
    """The list of VoxCeleb's files lies in the user's cache, by the paths that it was made from."""
    reader = dataset.SpeakerClassifiDataset
    begin = reader.__init__

    def init(
        self: Any, mode: str, file_path: Any, meta_data: Any, max_timestep: Any = None
    ) -> None:
        split = Path(meta_data).read_text(encoding="utf-8")
        dataset.CACHE_PATH = str(_cache("sid", str(Path(file_path).absolute()), split))
        begin(self, mode, file_path, meta_data, max_timestep)

    reader.__init__ = init


def cache_lengths(dataset: Any) -> None:
    """Likewise the lengths of trimmed utterances; and as many processes as there are cores."""
    reader, parallel = dataset.SpeakerVerifi_train, dataset.Parallel
    begin = reader.__init__

    def init(
        self: Any, vad_config: Any, key_list: Any, file_path: Any, *rest: Any, **more: Any
    ) -> None:
        roots = [str(Path(root).absolute()) for root in file_path]
        dataset.__file__ = str(_cache("sv", *roots) / "dataset.py")
        begin(self, vad_config, key_list, file_path, *rest, **more)

    reader.__init__ = init
    dataset.Parallel = lambda n_jobs: parallel(n_jobs=min(n_jobs, os.cpu_count() or 1))


def _cache(kind: str, *made_from: str) -> Path:
    """A folder of the user's cache for what is made from these paths and contents."""
    folder = cache_folder() / "s3prl" / f"{kind}-{digest(made_from)}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


REPAIRS: dict[str, Repair] = {
    "s3prl.hub": register_upstream,
    "s3prl.downstream.ctc": add_corpora,
    "s3prl.downstream.emotion": add_find_files,
    "s3prl.downstream.voxceleb1": add_find_files,
    "s3prl.downstream.sv_voxceleb1": add_find_files,
    "s3prl.downstream.ctc.expert": keep_workers,
    "s3prl.downstream.voxceleb1.dataset": cache_speakers,
    "s3prl.downstream.sv_voxceleb1.dataset": cache_lengths,
}
