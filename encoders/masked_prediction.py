"""Masked cluster prediction: the built-in model's own task, and one made for any other model."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from core.errors import Unsupported
from encoders.clusters import cluster, nearest
from encoders.corpora import Corpus
from encoders.model import Encoder
from encoders.pretext import ClusterHead
from encoders.store import BUILTIN, load, read_spec, save


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
        with torch.random.fork_rng(devices=[]):
            head = ClusterHead(dim, classes)
        head.load_state_dict(head_state)
        return cls(load(folder), layer, head=head.eval(), **tensors)

    @classmethod
    def of(cls, encoder: Encoder, corpus: Corpus, seed: int, clusters: int) -> MaskedPrediction:
        """The task that the encoder was pre-trained on, or one as HuBERT's second round made it.

        The built-in model and whatever has its front end and width get the built-in task. Others
        bring no head with them: clusters are found in their own states, at two thirds of their
        depth (Hsu et al. 2021, arXiv 2106.07447, sec. IV-C takes layers 6 and 9 of 12), over ten
        minutes of the training speech at most, and the head is new.
        """
        if own := cls.own(encoder):
            return own
        layer = -(-2 * len(encoder.layers) // 3)
        frames = _frames(encoder, layer, corpus.training(), seed)
        found = cluster(frames, min(clusters, max(2, len(frames) // 20)), seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = ClusterHead(encoder.spec.dim, len(found.centroids))
        teacher = copy.deepcopy(encoder).eval()
        return cls(teacher, layer, found.mean, found.std, found.centroids, head)

    @classmethod
    def own(cls, encoder: Encoder) -> MaskedPrediction | None:
        """The built-in task if it is one for that encoder: same features, same width."""
        ours, its = read_spec(BUILTIN / "pretext"), encoder.spec
        if (ours.front_end, ours.dim) != (its.front_end, its.dim):
            return None  # weights are not read to find this out
        builtin = cls.load()
        mine = builtin.teacher.front_end.state_dict()
        same = all(torch.equal(v, mine[k]) for k, v in encoder.front_end.state_dict().items())
        return builtin if same else None

    def to(self, device: torch.device) -> MaskedPrediction:
        """The same task on that device."""
        if self.centroids.device != device:
            self.teacher.to(device)
            self.mean, self.std = self.mean.to(device), self.std.to(device)
            self.centroids = self.centroids.to(device)
        return self

    def targets(self, waveforms: Tensor) -> Tensor:
        """The cluster (batch, time) of each frame of unpadded waveforms (batch, samples)."""
        return self.labels(self.teacher.features(waveforms)[0])

    @torch.no_grad()
    def labels(self, features: Tensor) -> Tensor:
        """The cluster (batch, time) of each frame of features (batch, time, F) without padding."""
        states = self.teacher.encode(features, depth=self.layer).states[self.layer].float()
        return nearest((states - self.mean) / self.std, self.centroids)


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


@torch.no_grad()
def _frames(encoder: Encoder, layer: int, corpus: Corpus, seed: int) -> Tensor:
    """That layer's states (frames, dim) over at most ten minutes of utterances, drawn at random."""
    drawn = corpus.draw(encoder.spec, 600.0, seed)
    states = [encoder(corpus.waveform(item)[None]).states[layer][0] for item in drawn]
    return torch.cat(states).float()


def half(encoder: Encoder) -> Encoder:
    """A copy in float16 for storage; `load` casts back to what the spec says."""
    return copy.deepcopy(encoder).half()
