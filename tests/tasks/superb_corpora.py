"""SUPERB's corpora in small: their layouts, filled with LibriSpeech test-other and spoken digits.

What they are labelled with means nothing where the real corpora have it and these have not
(intents, slots, emotions): they show that a recipe runs, not what a model knows.
"""

from __future__ import annotations

import csv
import itertools
import json
import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile

RATE = 16_000
SOUNDS = "AE1 B K D EH1 F G HH IH1 IY1 JH L M N AA1 P NG R S T AH1 V W Z Y ZH AH0"
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "bed")
SNIPS = {"train": ["Ivy", "Joey"], "valid": ["Amy"], "test": ["Brian"]}

#: The utterances of a speaker that are in train, dev and test.
SPANS = {"train": range(0, 7), "dev": range(7, 8), "test": range(8, 10)}


class Speech:
    """Transcribed utterances by speaker, and digits."""

    def __init__(self, data: Path) -> None:
        subset = data / "LibriSpeech" / "test-other"
        self.recordings = data / "fsdd" / "recordings"
        self.text: dict[str, str] = {}
        self.files: dict[str, list[Path]] = {}
        for file in sorted(subset.glob("*/*/*.trans.txt")):
            for line in file.read_text().splitlines():
                name, _, text = line.partition(" ")
                self.text[name] = text
        for file in sorted(subset.glob("*/*/*.flac")):
            self.files.setdefault(file.parts[-3], []).append(file)

    def digit(self, digit: int, speaker: str, index: int) -> Path:
        return self.recordings / f"{digit}_{speaker}_{index}.wav"

    def part(self, part: str) -> list[tuple[int, str, Path]]:
        """Number and name of the speaker, and file, of each utterance in a part."""
        return [
            (number, speaker, self.files[speaker][index])
            for number, speaker in enumerate(sorted(self.files))
            for index in SPANS[part]
        ]


def build(data: Path, root: Path, tasks: Iterable[str] = ()) -> Path:
    """The corpora of some tasks, of all where none is named, below a root; the root itself."""
    speech = Speech(data)
    wanted = set(tasks) or {name for names in BUILDERS for name in names.split()}
    for names, builder in BUILDERS.items():
        if wanted & set(names.split()):
            random.seed(0)
            builder(speech, root)
    return root


def librispeech(speech: Speech, root: Path) -> None:
    for part, subset in (
        ("train", "train-clean-100"),
        ("dev", "dev-clean"),
        ("test", "test-clean"),
    ):
        for _, speaker, file in speech.part(part):
            folder = root / "LibriSpeech" / subset / speaker / file.parts[-2]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, folder)
            with (folder / f"{speaker}-{file.parts[-2]}.trans.txt").open("a") as lines:
                lines.write(f"{file.stem} {speech.text[file.stem]}\n")
    words = sorted({word for text in speech.text.values() for word in text.split()})
    phones = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ'", SOUNDS.split(), strict=True))
    spelt = [f"{word}\t{' '.join(phones[letter] for letter in word)}" for word in words]
    _lines(root / "lexicon" / "librispeech-lexicon-200k-g2p.txt", spelt)


def voxceleb(speech: Speech, root: Path) -> None:
    corpus, split, tested = root / "VoxCeleb1", [], []
    for place, part in enumerate(SPANS, 1):
        for number, _, file in speech.part(part):
            name = f"id{10001 + number}/video/{file.stem}.wav"
            for folder in ("dev", *(["test"] if part == "test" else [])):
                _copy(file, corpus / folder / "wav" / name)
            split.append(f"{place} {name}")
            tested += [name] if part == "test" else []
    _lines(corpus / "iden_split.txt", split)
    pairs = [(a[:7] == b[:7], a, b) for a, b in itertools.combinations(tested, 2)]
    chosen = [pair for pair in pairs if pair[0]] + random.sample(pairs, 30)
    _lines(corpus / "veri_test2.txt", [f"{int(same)} {a} {b}" for same, a, b in chosen])


def speech_commands(speech: Speech, root: Path) -> None:
    train, test = root / "speech_commands_v0.01", root / "speech_commands_test_set_v0.01"
    for digit, word in enumerate(KEYWORDS):
        for speaker, index in itertools.product(("george", "jackson", "lucas", "theo"), range(8)):
            wave, rate = soundfile.read(speech.digit(digit, speaker, index))
            wave = np.pad(wave, (0, max(0, rate - len(wave))))[:rate]
            unknown = "_unknown_" if word == "bed" else word
            folder = train / word if index < 6 else test / unknown
            _write(folder / f"{speaker}{digit}{index}_nohash_0.wav", wave, rate)
    noise = np.random.default_rng(0).normal(0, 0.05, (2, 2 * RATE))
    for index, wave in enumerate(noise):
        _write(train / "_background_noise_" / f"{index}.wav", wave)
        _write(test / "_silence_" / f"{index}.wav", wave[:RATE])


def fluent(speech: Speech, root: Path) -> None:
    corpus = root / "fluent_speech_commands_dataset"
    for part, named in (("train", "train"), ("dev", "valid"), ("test", "test")):
        rows = []
        for number, speaker, file in speech.part(part):
            path = f"wavs/speakers/{speaker}/{file.stem}.wav"
            _copy(file, corpus / path, 3)
            slots = ("on" if number % 2 else "off", f"lamp{number % 3}", f"room{number % 2}")
            rows.append((path, speaker, "", *slots))
        table = corpus / "data" / f"{named}_data.csv"
        table.parent.mkdir(parents=True, exist_ok=True)
        with table.open("w", newline="") as out:
            head = ("path", "speakerId", "transcription", "action", "object", "location")
            csv.writer(out).writerows([head, *rows])


def snips(speech: Speech, root: Path) -> None:
    labels = []
    for part, named in (("train", "train"), ("dev", "valid"), ("test", "test")):
        for number, _, file in speech.part(part):
            name = f"{SNIPS[named][number % len(SNIPS[named])]}-snips-{file.stem}"
            _copy(file, root / "SNIPS" / named / f"{name}.wav", 4)
            words = speech.text[file.stem].split()[:6]
            slots = ["artist", *["O"] * (len(words) - 2), "city"]
            labels.append(f"{name} BOS {' '.join(words)} EOS\tO {' '.join(slots)} O")
    _lines(root / "SNIPS" / "all.iob.snips.txt", labels)
    (root / "SNIPS" / "slots.txt").write_text(
        "O\nartist\ncity"
    )  # s3prl takes an empty line for one


def iemocap(speech: Speech, root: Path) -> None:
    corpus, labels = root / "IEMOCAP", {"neu": 0, "hap": 1, "ang": 2, "sad": 3}
    items = []
    for number, speaker in enumerate(sorted(speech.files)):
        for index, file in enumerate(speech.files[speaker]):
            session = f"Session{index % 5 + 1}"
            path = f"{session}/sentences/wav/{file.stem}.wav"
            _copy(file, corpus / path, 3)
            items.append((session, {"path": path, "label": list(labels)[number % 4]}))
    for held in sorted({session for session, _ in items}):
        for part in ("train", "test"):
            chosen = [item for session, item in items if (session == held) == (part == "test")]
            file = corpus / "meta_data" / held / f"{part}_meta_data.json"
            _lines(file, [json.dumps({"labels": labels, "meta_data": chosen})])


def librimix(speech: Speech, root: Path) -> None:
    for part, count in (("train", 12), ("dev", 4), ("test", 4)):
        folder = root / "diarization" / part
        lists: dict[str, list[str]] = {
            name: [] for name in ("wav.scp", "segments", "utt2spk", "reco2dur", "rttm")
        }
        spoken: dict[str, list[str]] = {}
        for index in range(count):
            name = f"{part}{index:02d}"
            a, b = random.sample(sorted(speech.files), 2)
            waves = [soundfile.read(speech.files[s][SPANS[part][0]])[0][: 6 * RATE] for s in (a, b)]
            starts = (0, random.randrange(len(waves[0]) // 2))
            mixed = np.zeros(max(s + len(w) for s, w in zip(starts, waves, strict=True)))
            for speaker, start, wave in zip((a, b), starts, waves, strict=True):
                mixed[start : start + len(wave)] += wave * 0.7
                utterance, begin, length = f"{speaker}_{name}", start / RATE, len(wave) / RATE
                lists["segments"].append(f"{utterance} {name} {begin:.3f} {begin + length:.3f}")
                lists["utt2spk"].append(f"{utterance} {speaker}")
                turn = f"{begin:.2f} {length:.2f} <NA> <NA> {speaker} <NA>"
                lists["rttm"].append(f"SPEAKER {name} 1 {turn}")
                spoken.setdefault(speaker, []).append(utterance)
            file = folder / "wav" / f"{name}.wav"
            _write(file, mixed)
            lists["wav.scp"].append(f"{name} {file}")
            lists["reco2dur"].append(f"{name} {len(mixed) / RATE:.3f}")
        for name, lines in lists.items():
            _lines(folder / name, lines)
        _lines(folder / "spk2utt", [f"{s} {' '.join(names)}" for s, names in spoken.items()])


def quesst(speech: Speech, root: Path) -> None:
    database, documents = root / "quesst14Database", {}
    for index in range(10):
        said = random.sample(range(10), 4)
        waves = [soundfile.read(speech.digit(d, "theo", index))[0] for d in said]
        documents[f"quesst14_{index:05d}"] = said
        _write(database / "Audio" / f"quesst14_{index:05d}.wav", np.concatenate(waves), 8000)
    _language_key(database, "utterances", [f"Audio/{name}.wav" for name in documents])
    for split in ("dev", "eval"):
        truth, paths = [], []
        for digit in range(3):
            name = f"quesst14_{split}_{digit:04d}"
            paths.append(f"{split}_queries/{name}.wav")
            wave, rate = soundfile.read(speech.digit(digit, "theo", 20 + (split == "eval")))
            _write(database / paths[-1], wave, rate)
            holding = [document for document, said in documents.items() if digit in said]
            truth += [f"LEXEME {d} 1 0.000 1.000 {name} lex 1 <NA>" for d in holding]
        _language_key(database, split, paths)
        folder = database / "scoring" / f"groundtruth_quesst14_{split}"
        _lines(folder / f"quesst14_{split}.rttm", truth)


def _language_key(database: Path, name: str, paths: Sequence[str]) -> None:
    lines = [f"quesst14Database/{path} nnenglish" for path in paths]
    _lines(database / "scoring" / f"language_key_{name}.lst", lines)


def _copy(source: Path, target: Path, seconds: float | None = None) -> None:
    """As WAV, its beginning alone where so many seconds are given."""
    if not target.exists():
        wave, rate = soundfile.read(source)
        _write(target, wave[: round(seconds * rate)] if seconds else wave, rate)


def _write(file: Path, wave: np.ndarray, rate: int = RATE) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, wave, rate, subtype="PCM_16")


def _lines(file: Path, lines: Iterable[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n")


BUILDERS: dict[str, Callable[[Speech, Path], None]] = {
    "pr asr": librispeech, "sid sv": voxceleb, "ks": speech_commands, "ic": fluent, "sf": snips,
    "er": iemocap, "sd": librimix, "qbe": quesst,
}  # fmt: skip
