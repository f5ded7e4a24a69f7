"""The built-in model's pre-training task, to be scored on any speech: masked cluster prediction."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.errors import Unsupported
from encoders.model import Encoder
from encoders.pretext import ClusterHead
from encoders.store import BUILTIN, load, save


@dataclass
class MaskedPrediction:
    """Targets are clusters of a layer of the teacher; the head predicts them at masked frames."""

    teacher: Encoder
    layer: int
    mean: Tensor
    std: Tensor
    centroids: Tensor
    head: ClusterHead

    def save(self, folder: Path) -> None:
        """Write the teacher and one file of tensors to a folder of their own, in half precision."""
        save(half(self.teacher), folder)
        tensors = {"mean": self.mean, "std": self.std, "centroids": self.centroids}
        tensors |= {f"head.{name}": value for name, value in self.head.state_dict().items()}
        tensors["layer"] = torch.tensor([self.layer])
        save_file(
            {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()},
            folder / "head.safetensors",
        )

    @classmethod
    def load(cls, folder: Path = BUILTIN / "pretext") -> MaskedPrediction:
        """The task as `save` wrote it.

        Raises:
            Unsupported: there is none beside the built-in model.
        """
        if not (folder / "head.safetensors").exists():
            raise Unsupported(f"{folder} holds no pre-training task; make it with `bench pretrain`")
        tensors = load_file(folder / "head.safetensors")
        layer = int(tensors.pop("layer"))
        tensors = {name: value.float() for name, value in tensors.items()}
        head_state = {k[5:]: tensors.pop(k) for k in list(tensors) if k.startswith("head.")}
        classes, dim = head_state["linear.weight"].shape
        head = ClusterHead(dim, classes)
        head.load_state_dict(head_state)
        return cls(load(folder), layer, head=head.eval(), **tensors)

    def targets(self, waveforms: Tensor) -> Tensor:
        """The cluster (batch, time) of each frame of unpadded waveforms (batch, samples)."""
        states = self.teacher(waveforms).states[self.layer]
        return nearest((states - self.mean) / self.std, self.centroids)


def nearest(frames: Tensor, centroids: Tensor) -> Tensor:
    """The index of the centroid nearest to each frame (..., dim)."""
    return torch.cdist(frames, centroids).argmin(-1)


def span_mask(
    batch: int, time: int, generator: torch.Generator, share: float = 0.7, span: int = 5
) -> Tensor:
    """True (batch, time) in spans; their starts are drawn without replacement.

    `share` of the frames would be covered if spans did not overlap; half of them are.
    """
    count = max(1, int(share * time / span + torch.rand(1, generator=generator)))
    starts = torch.rand(batch, time - span, generator=generator).topk(count, dim=1).indices
    covered = (starts[..., None] + torch.arange(span)).flatten(1)
    return torch.zeros(batch, time, dtype=torch.bool).scatter_(1, covered, True)


def half(encoder: Encoder) -> Encoder:
    """A copy in float16 for storage; `load` casts back to what the spec says."""
    import copy

    return copy.deepcopy(encoder).half()
