"""Speaker diarization: which of two people speaks when (SUPERB's SD, diarization error rate).

Yang et al. 2021 (arXiv 2105.01051), sec. 2.3: one LSTM and a linear map to two speakers, trained on
the order of speakers that fits best (Fujita et al. 2019, arXiv 1909.05952, eq. 3). The utterances
are mixtures of two of the corpus' own, by different speakers. Somebody speaks from the first to the
last sound of each word group, by the labels `phones` and `phone_starts` or else by the level of the
sound. The error rate is pyannote.metrics': overlap counts, no collar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from pyannote.core import Annotation, Segment, Timeline
from pyannote.metrics.diarization import DiarizationErrorRate
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from core.errors import Unsupported
from core.metric import Metric
from core.spec import SAMPLE_RATE
from encoders.corpora.base import Corpus, Item, Part
from encoders.corpora.mixtures import mix
from encoders.model import Encoder
from tasks._base import Outcome, Task, labelled, parted
from tasks._features import Features
from tasks._heads import descend, draw_training, layers, mixed

MIXTURES = {"train": 200, "dev": 40, "test": 120}
WIDTH, BATCH, EPOCHS, LEARNING_RATE = 64, 10, 10, 0.01
SMOOTHING = 0.2  # seconds of the median filter over guesses
QUIET = 30.0  # dB below an utterance's loudest hundredths of a second
PAUSE = 0.3  # seconds of silence that part two stretches of speech
LEVEL_STEP, LEVEL_WINDOW = 160, 400  # samples

#: Stretches of speech as (first, last) sample.
Stretches = list[tuple[int, int]]


class Sd(Task):
    groups = ("superb",)
    metric = Metric("sd_der", "%", "lower", "diarization error rate, two speakers, no collar")
    needs = "frames"

    def select(self, corpus: Corpus) -> list[Item]:
        _, items = labelled(corpus, ("speaker",), "sd")
        parts = parted(items, "sd")
        chosen = []
        for split, count in MIXTURES.items():
            mixtures = mix(parts[split], count, split)
            if not mixtures:
                raise Unsupported(f"task sd needs two speakers or more in split {split!r}")
            chosen += mixtures
        return chosen

    def score(
        self, encoder: Encoder, corpus: Corpus, items: list[Item], features: Features, seed: int
    ) -> Outcome:
        parts = {split: [item for item in items if item.split == split] for split in MIXTURES}
        drawn = draw_training(len(parts["train"]), seed).tolist()
        parts["train"] = [parts["train"][index] for index in drawn]
        made = {split: batches(part, corpus, features) for split, part in parts.items()}
        generator = torch.Generator().manual_seed(seed)
        states, dim = features.mean.shape
        head = Diarizer(states, dim, generator)
        head, details = descend(
            head, loss, made["train"], made["dev"], EPOCHS, LEARNING_RATE, generator
        )
        rates = {split: error_rate(head, made[split]) for split in ("dev", "test")}
        details |= {"dev": rates["dev"], "layer_weights": layers(head)}
        details["mixtures"] = {split: len(part) for split, part in parts.items()}
        return Outcome({self.metric.name: rates["test"]}, details)


@dataclass(frozen=True)
class Batch:
    """Mixtures of similar length: features (states, batch, time, dim), padded.

    frames: of each. active: (batch, time, 2), whether each speaker speaks in the midst of a frame.
    speech: of each mixture each speaker's stretches.
    """

    features: Tensor
    frames: Tensor
    active: Tensor
    items: list[Item]
    speech: list[list[Stretches]]


def batches(items: Sequence[Item], corpus: Corpus, features: Features) -> list[Batch]:
    """The mixtures in batches, the shortest first."""
    items = sorted(items, key=lambda item: (item.samples, item.key))
    made = []
    for start in range(0, len(items), BATCH):
        some = items[start : start + BATCH]
        lengths = features.lengths(some)
        frames = [part.transpose(0, 1) for part in features.joined(some).split(lengths, dim=1)]
        speech = [[part_speech(corpus, part) for part in item.parts] for item in some]
        active = [
            activity(own, item.samples, length)
            for own, item, length in zip(speech, some, lengths, strict=True)
        ]
        padded = pad_sequence(frames, batch_first=True).permute(2, 0, 1, 3).contiguous()
        truth = pad_sequence(active, batch_first=True)
        made.append(Batch(padded, torch.tensor(lengths), truth, some, speech))
    return made


def part_speech(corpus: Corpus, part: Part) -> Stretches:
    """When the speaker of a part speaks, in samples of the mixture."""
    labels = part.item.labels
    if labels.get("phones") and labels.get("phone_starts"):
        starts = [*map(int, labels["phone_starts"].split()), part.item.samples]
        sounds = zip(labels["phones"].split(), pairwise(starts), strict=True)
        stretches = [span for phone, span in sounds if phone != "sil"]
    else:
        stretches = loud(corpus.read(part.item))
    cut = [(first, min(last, part.samples)) for first, last in together(stretches)]
    return [(part.start + first, part.start + last) for first, last in cut if first < last]


def loud(wave: Tensor) -> Stretches:
    """Where an utterance is less than QUIET below its loudest."""
    if len(wave) < LEVEL_WINDOW:
        return [(0, len(wave))]
    level = 10 * wave.unfold(0, LEVEL_WINDOW, LEVEL_STEP).square().mean(1).clamp(min=1e-12).log10()
    places = (level > level.quantile(0.99) - QUIET).nonzero().flatten() * LEVEL_STEP
    return [(place, place + LEVEL_WINDOW) for place in places.tolist()]


def together(stretches: Stretches) -> Stretches:
    """Stretches, in order, without the pauses between them that are too short to be one."""
    joined: Stretches = []
    for first, last in stretches:
        if joined and first - joined[-1][1] < PAUSE * SAMPLE_RATE:
            first = joined.pop()[0]
        joined.append((first, last))
    return joined


def activity(speech: Sequence[Stretches], samples: int, frames: int) -> Tensor:
    """Whether each speaker speaks in the midst of each of so many equal frames: (frames, 2)."""
    middle = (torch.arange(frames) + 0.5) * (samples / frames)
    active = torch.zeros(frames, len(speech))
    for speaker, stretches in enumerate(speech):
        for first, last in stretches:
            active[(middle >= first) & (middle < last), speaker] = 1
    return active


class Diarizer(nn.Module):
    """Weighted sum of the states, one LSTM, linear map: (states, batch, time, dim) to logits."""

    def __init__(self, states: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(states))
        self.lstm, self.output = nn.LSTM(dim, WIDTH), nn.Linear(WIDTH, 2)
        for parameter in (*self.lstm.parameters(), *self.output.parameters()):
            nn.init.uniform_(parameter, -(WIDTH**-0.5), WIDTH**-0.5, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.lstm(mixed(self.weights, x).transpose(0, 1))[0]).transpose(0, 1)


def loss(head: Diarizer, batch: Batch) -> Tensor:
    """Cross-entropy by frame and speaker, in the order of speakers that fits a mixture best."""
    logits = head(batch.features)
    valid = (torch.arange(logits.shape[1]) < batch.frames[:, None])[..., None]
    orders = torch.stack([batch.active, batch.active.flip(-1)])
    wrong = F.binary_cross_entropy_with_logits(logits.expand_as(orders), orders, reduction="none")
    return ((wrong * valid).sum((2, 3)).amin(0) / (2 * batch.frames)).mean()


@torch.no_grad()
def error_rate(head: Diarizer, batches: list[Batch]) -> float:
    """Percent of the time that people speak: missed, made up and confused, over all mixtures."""
    total = DiarizationErrorRate()
    for batch in batches:
        guesses = head(batch.features) > 0
        for guess, frames, item, speech in zip(
            guesses, batch.frames.tolist(), batch.items, batch.speech, strict=True
        ):
            heard = smoothed(guess[:frames], item.seconds)
            total(annotation(speech), annotation(heard_speech(heard, item.samples)),
                  uem=Timeline([Segment(0, item.seconds)]))  # fmt: skip
    return 100 * abs(total)


def smoothed(guess: Tensor, seconds: float) -> Tensor:
    """The median over SMOOTHING seconds around each frame (frames, 2)."""
    reach = round(SMOOTHING * len(guess) / seconds) // 2
    padded = F.pad(guess.T.float(), (reach, reach), mode="replicate")
    return padded.unfold(1, 2 * reach + 1, 1).median(-1).values.bool().T


def heard_speech(active: Tensor, samples: int) -> list[Stretches]:
    """Each speaker's stretches, out of (frames, speakers) that are equally long."""
    edges = F.pad(active.int(), (0, 0, 1, 1)).diff(dim=0)
    frame = samples / len(active)
    return [
        [
            (round(first * frame), round(last * frame))
            for first, last in zip(
                (edge > 0).nonzero().flatten().tolist(),
                (edge < 0).nonzero().flatten().tolist(),
                strict=True,
            )
        ]
        for edge in edges.T
    ]


def annotation(speech: Sequence[Stretches]) -> Annotation:
    """As pyannote has it, in seconds."""
    made = Annotation()
    for speaker, stretches in enumerate(speech):
        for first, last in stretches:
            made[Segment(first / SAMPLE_RATE, last / SAMPLE_RATE), speaker] = speaker
    return made
