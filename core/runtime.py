"""How an encoder is run while its costs are measured. Pure data; `profilers._running` obeys it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from core.errors import InputError, closest

DTYPES = ("float32", "float16", "bfloat16")

#: What runs an encoder: torch, or a session of onnxruntime that runs what it is exported to.
ENGINES = ("torch", "onnxruntime")

#: Kernels of `scaled_dot_product_attention`; auto leaves the choice to torch.
ATTENTION = ("auto", "math", "flash", "efficient", "cudnn")


@dataclass(frozen=True)
class Runtime:
    """A device and what is done on it. The defaults are one core, in the model's own numbers.

    device: cpu, cuda or cuda:N. threads: of the CPU. dtype: None for the model's own. compile:
    through `torch.compile`. tf32: of float32 products on CUDA. attention: one of ATTENTION.
    cuda_graphs: a graph per shape is captured and replayed. engine: one of ENGINES; onnxruntime
    computes in float32 on CPUs.

    Raises:
        InputError: a value does not exist, is of CUDA alone and the device is not, or of torch
            alone and the engine is not.
    """

    device: str = "cpu"
    threads: int = 1
    dtype: str | None = None
    compile: bool = False
    tf32: bool = False
    attention: str = "auto"
    cuda_graphs: bool = False
    engine: str = "torch"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise InputError(f"device {self.device!r}: expected cpu, cuda or cuda:N")
        _check("dtype", self.dtype or DTYPES[0], DTYPES)
        _check("attention", self.attention, ATTENTION)
        _check("runtime", self.engine, ENGINES)
        if self.engine != "torch":
            self._refuse_what_is_of_torch()
            object.__setattr__(self, "dtype", "float32")  # of what is exported
        for name, asked, kinds in (
            ("tf32", self.tf32, "products of float32"),
            ("cuda_graphs", self.cuda_graphs, "graphs"),
            ("attention", self.attention in ("efficient", "cudnn"), "that kernel"),
        ):
            if asked and not self.cuda:
                value = getattr(self, name)
                raise InputError(f"{name}={value}: {kinds} exist on CUDA alone; give --device cuda")
        if self.cuda_graphs and self.compile:
            raise InputError("cuda_graphs and compile exclude each other; choose one of them")

    def _refuse_what_is_of_torch(self) -> None:
        for name, asked, why in (
            ("device", self.cuda, "it is run on CPUs alone here"),
            ("dtype", self.dtype not in (None, "float32"), "what is exported is in float32"),
            ("compile", self.compile, "torch.compile is torch's own"),
            ("tf32", self.tf32, "it is run on CPUs alone here"),
            ("attention", self.attention != "auto", "the kernel is torch's own"),
            ("cuda_graphs", self.cuda_graphs, "it is run on CPUs alone here"),
        ):
            if asked:
                value = getattr(self, name)
                raise InputError(
                    f"runtime {self.engine} with {name}={value}: {why}; leave one of them out"
                )

    @property
    def cuda(self) -> bool:
        return self.device != "cpu"

    @property
    def usual(self) -> bool:
        """Whether all is as by default."""
        return self == Runtime()

    def columns(self) -> dict[str, Any]:
        """What stands beside every number that was measured in this way."""
        columns = asdict(self)
        if self.engine == "torch":  # as in the records from before there was another
            del columns["engine"]
        else:
            columns["engine"] = f"{self.engine} {metadata.version(self.engine)}"
        return columns

    def __str__(self) -> str:
        """What differs from the defaults, as in a folder's name: `cuda-bfloat16-compile`."""
        parts = [self.device.replace(":", "")]
        parts += [self.engine] if self.engine != "torch" else []
        parts += [f"{self.threads}threads"] if self.threads > 1 else []
        parts += [self.dtype] if self.dtype else []
        parts += [self.attention] if self.attention != "auto" else []
        parts += [name for name in ("compile", "tf32", "cuda_graphs") if getattr(self, name)]
        return "-".join(parts)


def _check(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(
            f"unknown {name} {value!r}{closest(value, known)}; expected {', '.join(known)}"
        )
