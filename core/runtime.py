"""How an encoder is run while its costs are measured. Pure data; `profilers._running` obeys it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from core.errors import InputError, closest

DTYPES = ("float32", "float16", "bfloat16")

#: Kernels of `scaled_dot_product_attention`; auto leaves the choice to torch.
ATTENTION = ("auto", "math", "flash", "efficient", "cudnn")


@dataclass(frozen=True)
class Runtime:
    """A device and what is done on it. The defaults are one core, in the model's own numbers.

    device: cpu, cuda or cuda:N. threads: of the CPU. dtype: None for the model's own. compile:
    through `torch.compile`. tf32: of float32 products on CUDA. attention: one of ATTENTION.
    cuda_graphs: a graph per shape is captured and replayed.

    Raises:
        InputError: a value does not exist, or is of CUDA alone and the device is not.
    """

    device: str = "cpu"
    threads: int = 1
    dtype: str | None = None
    compile: bool = False
    tf32: bool = False
    attention: str = "auto"
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise InputError(f"device {self.device!r}: expected cpu, cuda or cuda:N")
        _check("dtype", self.dtype or DTYPES[0], DTYPES)
        _check("attention", self.attention, ATTENTION)
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

    @property
    def cuda(self) -> bool:
        return self.device != "cpu"

    @property
    def usual(self) -> bool:
        """Whether all is as by default."""
        return self == Runtime()

    def columns(self) -> dict[str, Any]:
        """What stands beside every number that was measured in this way."""
        return asdict(self)

    def __str__(self) -> str:
        """What differs from the defaults, as in a folder's name: `cuda-bfloat16-compile`."""
        parts = [self.device.replace(":", "")]
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
