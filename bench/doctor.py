"""`bench doctor`: what is installed, what is missing, and what this machine can do."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from bench import environment

#: module -> (distribution, what needs it); extras are named by how to install them.
REQUIRED = {
    "torch": ("torch", "everything"),
    "torchaudio": ("torchaudio", "parity tests"),
    "numpy": ("numpy", "everything"),
    "safetensors": ("safetensors", "storing models"),
    "accelerate": ("accelerate", "methods that train"),
    "torchao": ("torchao", "quantization"),
    "soundfile": ("soundfile", "reading audio"),
    "soxr": ("soxr", "resampling"),
    "fvcore": ("fvcore", "the macs profiler"),
    "pynvml": ("nvidia-ml-py", "energy and foreign processes on NVIDIA's GPUs"),
    "scipy": ("scipy", "tasks"),
    "sklearn": ("scikit-learn", "pre-training and tasks"),
    "jiwer": ("jiwer", "error rates"),
    "pandas": ("pandas", "leaderboards"),
    "matplotlib": ("matplotlib", "figures"),
    "typer": ("typer", "the command line"),
    "rich": ("rich", "tables and progress"),
}
OPTIONAL = {
    "espeakng_loader": (
        "espeakng-loader",
        "making the built-in corpus: pip install -e '.[corpus]'",
    ),
    "transformers": (
        "transformers",
        "a row of bench compare-runtimes: pip install -e '.[importers]'",
    ),
    "s3prl": (
        "s3prl",
        "bench superb and a row of bench compare-runtimes: pip install -e '.[superb]'",
    ),
    "onnxscript": ("onnxscript", "bench export --to onnx: pip install -e '.[onnx]'"),
    "onnxruntime": ("onnxruntime", "bench profile --runtime onnxruntime: pip install -e '.[onnx]'"),
    "ray": ("ray", "bench sweep --executor ray: pip install -e '.[ray]'"),
    "submitit": ("submitit", "bench sweep --executor slurm: pip install -e '.[slurm]'"),
}
#: Instruction sets that decide how fast matrix products are here.
FLAGS = ("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8",
         "asimd", "bf16", "i8mm")  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One line of the report. mark: `--` for something optional that is not there."""

    name: str
    state: str
    about: str
    mark: Literal["ok", "--", "BAD"] = "ok"


def examine() -> Iterator[Finding]:
    """What is found, in the order to be shown. Imports each package to learn the real error."""
    for module, (distribution, need) in REQUIRED.items():
        yield _package(module, distribution, need, required=True)
    for module, (distribution, need) in OPTIONAL.items():
        yield _package(module, distribution, need, required=False)
    yield _attempt("eSpeak NG library", "optional: making the built-in corpus", _espeak)
    yield _attempt("GPU", "optional: larger models", _gpu)
    machine = environment.describe()
    yield Finding("CPU", machine["cpu"], f"{machine['cores']} cores, {machine['memory_gib']} GiB")
    flags = [flag for flag in FLAGS if flag in environment.cpu_flags()]
    yield Finding("CPU flags", " ".join(flags) or "unknown", "what matrix products may use")
    yield _attempt("threads", "torch's own choice; sweeps use 1 per process", _threads)
    yield Finding("Python", machine["python"], machine["platform"])
    yield Finding(environment.PACKAGE, machine["package"] or "not installed", _commit(machine))


def _package(module: str, distribution: str, need: str, *, required: bool) -> Finding:
    def load() -> str:
        importlib.import_module(module)
        return environment.version(distribution) or "no version"

    return _attempt(distribution, need if required else f"optional: {need}", load, bad=required)


def _attempt(name: str, about: str, probe: Callable[[], str], *, bad: bool = False) -> Finding:
    """A probe's answer, or the real error where it fails, be it an import or a shared library."""
    try:
        return Finding(name, probe(), about)
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        return Finding(name, f"{type(error).__name__}: {first}", about, "BAD" if bad else "--")


def _espeak() -> str:
    import ctypes

    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Info.restype = ctypes.c_char_p
    return f"{library.espeak_Info(None).decode()}"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _threads() -> str:
    import torch

    return str(torch.get_num_threads())


def _commit(machine: dict[str, Any]) -> str:
    return f"commit {machine['commit']}" if machine["commit"] else "not a git checkout"
