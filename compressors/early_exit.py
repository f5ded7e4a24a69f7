"""Trains every layer to be the last and stops at one, or when sure (DAISY, arXiv 2406.05464).

One training gives all rates: a head behind each layer predicts the clusters of masked frames, and
the loss is the mean over the layers. `policy=layer` cuts the encoder behind the layer that the rate
leaves, for every utterance the same. `policy=confidence` lets an utterance go where the entropy of
the head's posteriors, as the mean over frames, falls below a threshold (DAISY; DeeBERT, arXiv
2004.12993): the one at which a minute of training speech runs through as many layers on average as
the rate leaves.

The paper keeps the encoder as it is and trains the heads alone (`update=heads`), and it masks
nothing. Here the loss is masked as in pre-training: without masks the upper layers forget context.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressors._base import Setting, nearest
from compressors._calibration import calibration
from compressors._trained import Trained, copy_of, corpus_of
from core.errors import Unsupported
from core.spec import Exits, ModelSpec
from encoders.corpora import Corpus
from encoders.crops import Batch
from encoders.cut import keep_layers
from encoders.exits import Exit, depths_at, entropy
from encoders.masked_prediction import MaskedPrediction
from encoders.model import Encoder, from_state
from encoders.objectives import MaskedClusters

#: Speech that a threshold is chosen on.
CALIBRATION_SECONDS = 60.0


@dataclass
class EarlyExit(Trained):
    acts_on: ClassVar[str] = "Transformer layers"
    reduces: ClassVar[str] = "macs_dense"
    uses_data: ClassVar[dict[str, Any]] = {"steps": 0, "policy": "layer"}
    #: DAISY's policy; its schedule could not be checked, so it is DistilHuBERT's.
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "untrained": {"steps": 0},
        "paper": {
            "policy": "confidence", "update": "heads", "steps": 200_000, "learning_rate": 2e-4,
            "batch_seconds": 374.4, "crop_seconds": 15.6, "augment": False,
        },
    }  # fmt: skip

    steps: int = 200  # updates of the one training; 0 trains nothing
    learning_rate: float = 1.5e-3  # peak, after which it falls linearly; of the built-in's training
    policy: Literal["layer", "confidence"] = "layer"  # stop at a layer, or when sure enough
    update: Literal["encoder", "heads"] = "encoder"  # what is trained: all, or the exits alone
    weights: Literal["uniform", "depth"] = "uniform"  # of the losses; depth: growing, as PABEE's
    clusters: int = 500  # targets of a model that brings no pre-training head

    def supports(self, spec: ModelSpec) -> str | None:
        if len(spec.layers) == 1:
            return "the model has only the one layer that is always run"
        if spec.exits is not None:
            return "the model has exits already; start from one without"
        return super().supports(spec)

    def prepare(self, encoder: Encoder, setting: Setting) -> Callable[[float], Encoder]:
        trained, heads = self._trained(encoder, setting)
        if self.policy == "layer":
            count = len(trained.layers)
            return lambda rate: keep_layers(trained, range(_depth(count, rate, whole=True)))
        return Confidence.of(trained, heads, corpus_of(setting), setting.seed).at

    def _trained(self, encoder: Encoder, setting: Setting) -> tuple[Encoder, nn.ModuleList]:
        """The encoder whose every layer may be the last, and its exits."""
        student = copy_of(encoder)
        if self.update == "heads":
            student.requires_grad_(False)
        if not self.steps and self.policy == "layer":
            return student, nn.ModuleList()
        task = MaskedPrediction.of(encoder, corpus_of(setting), setting.seed, self.clusters)
        objective = AtExits(task, student.spec, self.weights, setting.seed)
        self.train(student, objective, setting, "exits")
        return student.eval(), objective.exits

    def achieved(self, dense: Encoder, compressed: Encoder) -> float:
        exits = compressed.spec.exits
        left = len(compressed.layers) if exits is None else exits.mean_depth
        assert left is not None
        return 1 - left / len(dense.layers)


class AtExits(MaskedClusters):
    """The loss of pre-training behind every layer; the last has the head of pre-training itself."""

    def __init__(
        self, task: MaskedPrediction, spec: ModelSpec, weights: str = "uniform", seed: int = 0
    ) -> None:
        super().__init__(task, spec.dim)
        layers, classes = len(spec.layers), len(task.centroids)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            exits = [Exit(spec.dim, classes, spec.norm_first) for _ in range(layers - 1)]
        for own in exits:
            own.linear.load_state_dict(self.head.linear.state_dict())
        self.exits = nn.ModuleList(exits)
        self.shares = [1 / layers] * layers if weights == "uniform" else growing(layers)

    def forward(
        self, encoder: nn.Module, batch: Batch, generator: torch.Generator
    ) -> dict[str, Tensor]:
        states, labels = self.masked(encoder, batch, generator)
        with torch.autocast(labels.device.type, enabled=False):
            losses = [
                F.cross_entropy(head(state.float()), labels)
                for head, state in zip([*self.exits, self.head], states[1:], strict=True)
            ]
        total = sum(share * loss for share, loss in zip(self.shares, losses, strict=True))
        named = {f"loss_{index}": loss.detach() for index, loss in enumerate(losses, 1)}
        return {"loss": torch.as_tensor(total), **named}


def growing(layers: int) -> list[float]:
    """Weights in proportion to the layer's number (PABEE, Zhou et al. 2020, arXiv 2006.04152)."""
    return [2 * index / (layers * (layers + 1)) for index in range(1, layers + 1)]


@dataclass
class Confidence:
    """A trained encoder without exits, its exits, and their entropies over calibration speech.

    entropies: (utterances, L - 1).
    """

    encoder: Encoder
    exits: nn.ModuleList
    entropies: Tensor

    @classmethod
    def of(cls, encoder: Encoder, exits: nn.ModuleList, corpus: Corpus, seed: int) -> Confidence:
        rows = []
        with torch.no_grad():
            for waveform in calibration(encoder, corpus, CALIBRATION_SECONDS, seed):
                hidden = encoder(waveform)
                pairs = zip(exits, hidden.states[1:-1], strict=True)
                rows.append(torch.cat([entropy(own(x), hidden.lengths) for own, x in pairs]))
        return cls(encoder, exits, torch.stack(rows))

    def at(self, rate: float) -> Encoder:
        """The encoder whose mean depth on the calibration speech is nearest to what a rate leaves.

        Raises:
            Unsupported: it would be less than one layer.
        """
        wanted = _depth(len(self.encoder.layers), rate)
        ranked = self.entropies.flatten().unique()
        between = ((ranked[1:] + ranked[:-1]) / 2).tolist()
        thresholds = [0.0, *between, 1 + ranked[-1].item()]
        depths = [depths_at(self.entropies, t).double().mean().item() for t in thresholds]
        place = min(range(len(depths)), key=lambda i: abs(depths[i] - wanted))
        return with_exits(self.encoder, self.exits, thresholds[place], depths[place])


def with_exits(
    encoder: Encoder, exits: nn.ModuleList, threshold: float, mean_depth: float
) -> Encoder:
    """A copy of the encoder that utterances leave at those exits."""
    state = encoder.state_dict() | {f"exits.{k}": v for k, v in exits.state_dict().items()}
    classes = len(state["exits.0.linear.bias"])
    spec = replace(encoder.spec, exits=Exits(classes, threshold, mean_depth))
    return from_state(spec, {name: tensor.clone() for name, tensor in state.items()}).eval()


def _depth(layers: int, rate: float, whole: bool = False) -> Any:
    """How many layers a rate leaves, on average or as a whole number.

    Raises:
        Unsupported: it is less than one.
    """
    depth = layers - (nearest(rate, layers) if whole else rate * layers)
    if depth < 1 - 1e-9:
        raise Unsupported(
            f"early-exit at {rate:g} leaves {depth:.2g} of {layers} layers, and one is always run; "
            f"ask for {1 - 1 / layers:.2g} or less"
        )
    return depth
