"""The built-in corpus: eSpeak NG speech under channel distortion and noise, made at first use.

One pool of utterances carries every label, so that one pass of an encoder serves all tasks:

- `sentences` of random words (text, phones with their starts, emotion),
- `commands` of a small grammar (as sentences, intent as action;object;location, slots, speaker),
- `words` spoken alone (word),
- `clean` sentences without any distortion (pretext), for masked prediction.

The voices of the three splits are disjoint, also from those that speak the pre-training speech and
the babble (except for speaker identification, whose own split `sid_split` is within voices).
Evaluation audio passes a random equaliser and gets babble and modulated noise, a kind of noise
that pre-training augments with nowhere (encoders.pretrain), so a score is not memorised noise.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.errors import InputError
from core.spec import SAMPLE_RATE
from encoders.corpora import espeak
from encoders.corpora.base import Corpus, Item, with_items
from encoders.corpora.distortion import distort
from encoders.corpora.espeak import Prompt, Speech

if TYPE_CHECKING:
    from torch import Tensor

_LOG = logging.getLogger(__name__)

#: Utterances by group and split: sizes trade the noise of a score against the time of a sweep.
SIZES = {
    "sentences": {"train": 110, "dev": 30, "test": 110},
    "commands": {"train": 400, "dev": 80, "test": 280},
    "words": {"train": 640, "dev": 160, "test": 480},
    "clean": {"test": 40},
}

#: Voices by split; the same number always is the same voice.
VOICES = {
    "train": range(0, 60),
    "dev": range(60, 80),
    "test": range(80, 120),
    "babble": range(120, 140),
    "pretraining": range(140, 300),
}

#: Signal-to-noise ratio in dB, drawn uniformly, by group.
NOISE_DB = {"sentences": (9.0, 24.0), "commands": (9.0, 24.0), "words": (9.0, 24.0)}

#: Utterances of another edition are others. What was chosen (the tasks' settings, the ratios above)
#: was chosen on earlier ones, so that no choice was made on the test items of this one.
EDITION = 3

#: How many utterances of pre-training speech compressors train on: an hour and a half.
TRAINING_UTTERANCES = 2000

KEYWORDS = 80
COMMANDS_PER_VOICE = 8

#: The grammar of commands. Pre-training speech draws on all of it, the tasks on a part.
ACTIONS = {
    "activate": ("turn on {}", "switch on {}", "start {}", "put {} on"),
    "deactivate": ("turn off {}", "switch off {}", "stop {}", "put {} out"),
    "increase": ("turn up {}", "raise {}", "increase {}", "more of {}"),
    "decrease": ("turn down {}", "lower {}", "decrease {}", "less of {}"),
    "check": ("look at {}", "check {}", "is {} working", "tell me about {}"),
    "repair": ("fix {}", "repair {}", "mend {}", "take care of {}"),
}
OBJECTS = ("lights", "music", "heating", "radio", "fan", "curtain", "camera", "window")
LOCATIONS = ("kitchen", "bedroom", "bathroom", "garden", "office", "cellar", "hallway", "garage")
TASK_OBJECTS = ("lights", "music", "heating", "radio", "curtain", "camera")
TASK_LOCATIONS = ("kitchen", "bedroom", "garden", "office")
TASK_PHRASES = 2

#: eSpeak's allophones folded to 44 phones, as CMU-style sets have them; silence is `sil`.
_FOLD = {
    "I2": "I", "I#": "I", "IR": "I", "a#": "@", "@2": "@", "@-": "@", "t#": "t", "t2": "t",
    "t[": "t", "aI2": "aI", "aI3": "aI", "aI@": "aI", "o@": "O", "O@": "O", "O:": "O", "O2": "O",
    "aa": "a", "3:": "3", "VR": "3", "i:": "i", "u:": "u", "A:": "A", "A@": "A", "i@3": "i@",
    "U@": "U", "n-": "n", "w#": "w", "r-": "r", "@L": "l", "_": "sil", "_:": "sil", "?": "sil",
}  # fmt: skip
_MARKS = re.compile(r"[',%=;|]")

WORDS = (Path(__file__).parent / "words.txt").read_text().split()

#: Speaking styles, in the place of emotions: from which pace to which, in words a minute, and pitch
#: range, as eSpeak counts it. What lies between two is neither and not labelled.
PACES = {"slow": (0, 163), "fast": (177, 300)}
RANGES = {"flat": (0, 44), "lively": (55, 100)}

_QUANTUM = SAMPLE_RATE // 10  # lengths are multiples of it, so that batches need no padding


@dataclass(frozen=True)
class Utterance:
    """What is to be spoken, and its labels."""

    key: str
    group: str
    split: str
    prompt: Prompt
    labels: dict[str, str]


class BuiltinCorpus(Corpus):
    """Utterances whose samples lie in one memory-mapped file of the cache."""

    def __init__(self, name: str, folder: Path, fingerprint: str) -> None:
        entries = json.loads((folder / "items.json").read_text())
        self._spans = {entry["key"]: (entry["start"], entry["samples"]) for entry in entries}
        self._audio = np.load(folder / "audio.npy", mmap_mode="r")
        items = [
            Item(e["key"], e["samples"] / SAMPLE_RATE, e["labels"], e["split"]) for e in entries
        ]
        super().__init__(name, items, fingerprint)

    def read(self, item: Item) -> Tensor:
        import torch

        start, samples = self._spans[item.key]
        return torch.from_numpy(self._audio[start : start + samples].astype(np.float32) / 32768)

    def training(self) -> Corpus:
        """Clean speech by voices that no task uses."""
        corpus = open_pretraining(TRAINING_UTTERANCES)
        return with_items(corpus, corpus.split("train"))


def open_builtin() -> BuiltinCorpus:
    """The evaluation pool, synthesised into the cache where it is not there yet (half a minute)."""
    return _open("builtin", _pool, noisy=True)


def open_pretraining(utterances: int) -> BuiltinCorpus:
    """Clean speech to pre-train on, about 3 s an utterance, by voices that no task uses."""
    name = f"builtin-pretraining-{utterances}"
    return _open(name, lambda: _pretraining(utterances), noisy=False)


def fold_phone(symbol: str) -> str:
    """The phone class of an eSpeak symbol; empty for a mark that is not a sound."""
    bare = _MARKS.sub("", symbol)
    return _FOLD.get(bare, bare)


def cache_folder() -> Path:
    """Where made corpora are kept: $BENCH_CACHE, else the user's cache."""
    root = os.environ.get("BENCH_CACHE") or os.environ.get("XDG_CACHE_HOME")
    if root:
        return Path(root) / "speech-compression-bench"
    return Path.home() / ".cache" / "speech-compression-bench"


def _open(name: str, plan: Callable[[], list[Utterance]], noisy: bool) -> BuiltinCorpus:
    fingerprint = _version(name)
    folder = cache_folder() / f"{name}-{fingerprint}"
    if not (folder / "items.json").exists():
        try:
            with _alone(folder):
                if not folder.exists():
                    _LOG.warning("synthesising the corpus %r, once, into %s", name, folder)
                    _make(plan(), folder, noisy)
        except OSError as error:
            raise InputError(
                f"the built-in corpus cannot be written to {folder} ({error.strerror}); "
                "set BENCH_CACHE to a writable folder with 1 GB of space"
            ) from error
    return BuiltinCorpus(name, folder, fingerprint)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from making the same folder; they wait, and then find it there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _version(name: str) -> str:
    """Names the audio: it changes with the code and the words that make it."""
    here = Path(__file__).parent
    state = hashlib.blake2b(name.encode(), digest_size=8)
    for file in ("builtin.py", "distortion.py", "espeak.py", "words.txt"):
        state.update((here / file).read_bytes())
    return state.hexdigest()


def _make(utterances: list[Utterance], folder: Path, noisy: bool) -> None:
    """Synthesise, distort and store; the folder appears only when it is complete."""
    scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        babble = _babble() if noisy else []
        prompts = [*babble, *(u.prompt for u in utterances)]
        speech = espeak.speak_all(prompts, scratch / "synthesis")
        voices = [next(speech).samples for _ in babble]
        _store(utterances, speech, voices, scratch)
        shutil.rmtree(scratch / "synthesis")
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _store(
    utterances: list[Utterance], speech: Iterator[Speech], babble: list[np.ndarray], folder: Path
) -> None:
    """Write audio.npy (all samples, int16) and items.json (where each utterance lies, labels)."""
    entries, waves, start = [], [], 0
    for index, (utterance, spoken) in enumerate(zip(utterances, speech, strict=True)):
        draw = np.random.default_rng((20262, index))
        wave, offset = _pad(spoken.samples, draw)
        if babble and utterance.group in NOISE_DB:
            low, high = NOISE_DB[utterance.group]
            wave = distort(wave, babble, draw.uniform(low, high), draw)
        labels = dict(utterance.labels)
        if "text" in labels:
            labels |= _phone_labels(spoken, offset, len(wave))
        waves.append(np.round(np.clip(wave, -1, 1) * 32767).astype(np.int16))
        entries.append(
            {"key": utterance.key, "split": utterance.split, "start": start, "samples": len(wave),
             "labels": labels}
        )  # fmt: skip
        start += len(wave)
    np.save(folder / "audio.npy", np.concatenate(waves))
    (folder / "items.json").write_text(json.dumps(entries))


def _pad(samples: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, int]:
    """The level set to an RMS of 0.05, 100 to 250 ms of near-silence at both ends.

    eSpeak starts and ends exactly at the speech, which would tell a mean-pooled feature the first
    and the last phone. Also returns how many samples precede the speech.
    """
    before, after = (int(draw.uniform(0.10, 0.25) * SAMPLE_RATE) for _ in range(2))
    after += -(before + len(samples) + after) % _QUANTUM
    wave = samples / 32768.0
    wave *= 0.05 / max(1e-6, float(np.sqrt((wave**2).mean())))
    wave = np.pad(wave, (before, after))
    return wave + draw.standard_normal(len(wave)) * 1e-4, before


def _phone_labels(speech: Speech, offset: int, samples: int) -> dict[str, str]:
    """Phones and the sample at which each starts, from `sil` before to `sil` after the speech."""
    phones, starts = ["sil"], [0]
    for symbol, start in speech.phones:
        phone = fold_phone(symbol)
        if phone and not phone == phones[-1] == "sil":
            phones.append(phone)
            starts.append(min(start + offset, samples))
    return {"phones": " ".join(phones), "phone_starts": " ".join(map(str, starts))}


def _pool() -> list[Utterance]:
    makers = {"sentences": _sentence, "commands": _command, "words": _word, "clean": _clean}
    return [
        makers[group](split, index)
        for group, sizes in SIZES.items()
        for split, count in sizes.items()
        for index in range(count)
    ]


def _sentence(split: str, index: int) -> Utterance:
    draw = _draw(f"sentences/{split}/{EDITION}", index)
    text = " ".join(draw.choice(WORDS, draw.integers(5, 8), replace=False))
    prompt = _prompt(text, VOICES[split][index % len(VOICES[split])], draw)
    labels = {"text": text, **_style(prompt)}
    return Utterance(f"sentences-{split}-{index:04d}", "sentences", split, prompt, labels)


def _clean(split: str, index: int) -> Utterance:
    """The label keeps it apart: no other task reads it."""
    spoken = _sentence(split, index + 10_000)
    return Utterance(f"clean-{split}-{index:04d}", "clean", split, spoken.prompt, {"pretext": "1"})


def _command(split: str, index: int) -> Utterance:
    """Voices speak eight commands each; `sid_split` parts these for speaker identification."""
    draw = _draw(f"commands/{split}/{EDITION}", index)
    text, intent = _instruction(draw, TASK_OBJECTS, TASK_LOCATIONS, TASK_PHRASES)
    _, thing, place = intent
    voices = VOICES[split]
    voice = voices[(index // COMMANDS_PER_VOICE) % len(voices)]
    turn = index % COMMANDS_PER_VOICE
    labels = {
        "text": text,
        "intent": ";".join(intent),
        "slots": " ".join(
            "B-object" if word == thing else "B-location" if word == place else "O"
            for word in text.split()
        ),
        "speaker": f"voice-{voice:03d}",
        "sid_split": "train" if turn < 5 else "dev" if turn < 6 else "test",
    }
    prompt = _prompt(text, voice, draw)
    key = f"commands-{split}-{index:04d}"
    return Utterance(key, "commands", split, prompt, labels | _style(prompt))


def _instruction(
    draw: np.random.Generator, objects: tuple[str, ...], places: tuple[str, ...], phrases: int
) -> tuple[str, tuple[str, str, str]]:
    """A command's text and its intent: action, object, location."""
    action, thing, place = (str(draw.choice(v)) for v in (list(ACTIONS), objects, places))
    phrase = str(draw.choice(ACTIONS[action][:phrases])).format(f"the {thing}")
    return f"{phrase} in the {place}", (action, thing, place)


def _word(split: str, index: int) -> Utterance:
    draw = _draw(f"words/{split}/{EDITION}", index)
    word = WORDS[(index % KEYWORDS) * (len(WORDS) // KEYWORDS)]
    prompt = _prompt(word, int(draw.choice(VOICES[split])), draw)
    return Utterance(f"words-{split}-{index:04d}", "words", split, prompt, {"word": word})


def _babble() -> list[Prompt]:
    """What the crowd in the background says."""
    draws = [_draw("babble/babble", index) for index in range(60)]
    return [
        _prompt(" ".join(draw.choice(WORDS, 12)), VOICES["babble"][i % 20], draw)
        for i, draw in enumerate(draws)
    ]


def _pretraining(count: int) -> list[Utterance]:
    """Random sentences, every fifth a command, by the pre-training voices."""
    utterances = []
    for index in range(count):
        draw = _draw("pretraining/pretraining", index)
        if index % 5 == 0:
            text, _ = _instruction(draw, OBJECTS, LOCATIONS, 4)
        else:
            text = " ".join(draw.choice(WORDS, draw.integers(4, 9), replace=False))
        voices = VOICES["pretraining"]
        prompt = _prompt(text, voices[index % len(voices)], draw)
        split = "dev" if index % 50 == 49 else "train"
        utterances.append(Utterance(f"{index:06d}", "sentences", split, prompt, {"text": text}))
    return utterances


def _prompt(text: str, voice: int, draw: np.random.Generator) -> Prompt:
    """A voice keeps its accent; pitch, liveliness and pace change from utterance to utterance."""
    return Prompt(
        text,
        espeak.ACCENTS[voice % len(espeak.ACCENTS)],
        voice,
        pitch=int(draw.integers(38, 63)),
        pitch_range=int(draw.integers(25, 75)),
        rate=int(draw.integers(140, 201)),
        seed=int(draw.integers(1, 2**31)),
    )


def _style(prompt: Prompt) -> dict[str, str]:
    """The label `emotion` of an utterance whose style is a clear one."""
    paces = [name for name, (low, high) in PACES.items() if low <= prompt.rate <= high]
    ranges = [name for name, (low, high) in RANGES.items() if low <= prompt.pitch_range <= high]
    return {"emotion": f"{paces[0]}-{ranges[0]}"} if paces and ranges else {}


def _draw(stream: str, index: int) -> np.random.Generator:
    """Random numbers of one utterance alone, so that sizes can change without changing the rest."""
    return np.random.default_rng([*stream.encode(), index])
