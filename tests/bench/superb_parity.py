"""s3prl's recipes and the quick suite's heads on the same real speech: scores, and time taken.

    python tests/bench/superb_parity.py --model builtin --seeds 0,1,2 --out results/superb-parity

Keywords and speakers of the spoken digits, phones of LibriSpeech test-other as eSpeak NG says its
words; files and splits are the same on both sides. s3prl keeps its recipes but for the number of
updates, the learning rate and the accumulated batches, which are given with each row. Seconds are
of whole processes on one thread, importing included.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import soxr

sys.path.insert(0, str(Path(__file__).parents[1] / "tasks"))
import superb_corpora as corpora

from encoders.corpora.builtin import fold_phone
from encoders.corpora.espeak import Prompt, speak_all

RATE = corpora.RATE
TASKS = ("ks", "sid", "pr")
#: Two kinds of silence come first.
NAMES = Path(__file__).parents[2] / "tasks" / "s3prl" / "settings" / "phones.txt"
METRICS = {"ks": "ks_acc", "sid": "sid_acc", "pr": "pr_per"}

#: Of s3prl, so that training comes to its end in minutes: updates, learning rate, other settings.
SHORT = {
    "ks": (3000, 3e-3, ()),
    "sid": (5000, 3e-3, ("runner.gradient_accumulate_steps=1",)),
    "pr": (300, 1e-2, ("runner.gradient_accumulate_steps=1",)),
}  # fmt: skip
COLUMNS = ("task", "side", "seed", "metric", "value", "seconds", "steps", "learning_rate", "model")

#: The manifest's row of an utterance: path, split, and its label under the name of a column.
Row = tuple[str, str, str]


def compare(
    model: str, data: Path, out: Path, tasks: Sequence[str], seeds: Sequence[int], steps: int | None
) -> list[dict[str, object]]:
    """A row per task, side and seed; also written to `parity.csv` as they come."""
    root = out / "data"
    rows: list[dict[str, object]] = []
    for task in tasks:
        if not (root / f"{task}.csv").is_file():
            manifest(root / f"{task}.csv", LABELS[task], list(MAKERS[task](data, root)))
        for seed in seeds:
            rows += [ours(task, model, root, seed), theirs(task, model, root, out, seed, steps)]
            with (out / "parity.csv").open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                table.writeheader()
                table.writerows(rows)
            print(*rows[-2:], sep="\n", flush=True)
    return rows


def ours(task: str, model: str, root: Path, seed: int) -> dict[str, object]:
    """The quick suite's head, in a process of its own."""
    arguments = [model, task, str(root / f"{task}.csv"), str(seed)]
    begin = time.perf_counter()
    done = _process([sys.executable, __file__, "quick", *arguments])
    seconds = time.perf_counter() - begin
    value = float(done.stdout.splitlines()[-1])
    return _row(task, "ours", seed, value, seconds, "", "", model)


def theirs(
    task: str, model: str, root: Path, out: Path, seed: int, steps: int | None
) -> dict[str, object]:
    """s3prl's recipe, through the command line."""
    usual, rate, changes = SHORT[task]
    steps, folder = steps or usual, out / f"s3prl-{seed}"
    overrides = [part for change in changes for part in ("--override", change)]
    line = ["superb", "--model", model, "--task", task, "--data-root", str(root), "--seed",
            str(seed), "--steps", str(steps), "--lr", str(rate), "--device", "cpu", "--workers",
            "0", "--out", str(folder), *overrides]  # fmt: skip
    begin = time.perf_counter()
    _process([sys.executable, "-m", "bench", *line])
    seconds = time.perf_counter() - begin
    found = json.loads((folder / f"{task}.json").read_text())
    value = found["values"][METRICS[task]]
    return _row(task, "s3prl", seed, value, seconds, steps, rate, model)


def quick(model: str, task: str, table: str, seed: str) -> float:
    """The score of one task of the quick suite on a manifest."""
    import torch

    from encoders import store
    from encoders.corpora import open_corpus
    from tasks._suite import score_tasks

    torch.set_num_threads(1)
    ((_, outcome),) = score_tasks(store.load(model), [task], open_corpus(table), int(seed))
    assert outcome.reason is None, outcome.reason
    return outcome.values[METRICS[task]]


def keywords(data: Path, root: Path) -> Iterator[Row]:
    """The ten digits as ten of Speech Commands' words, split by a hash of names as those are."""
    test = root / "speech_commands_test_set_v0.01"
    for folder in (root / "speech_commands_v0.01" / "_background_noise_", test / "_silence_"):
        folder.mkdir(parents=True, exist_ok=True)  # looked for, and empty: no such class here
    words = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
    for digit, speaker, index, file in _digits(data):
        name = f"{speaker}{digit}{index}"
        split = "test" if index < 5 else _hashed(name)
        folder = test if split == "test" else root / "speech_commands_v0.01"
        path = folder / words[digit] / f"{name}_nohash_0.wav"
        if split:
            _resampled(file, path)
            yield str(path.relative_to(root)), split, words[digit]


def speakers(data: Path, root: Path) -> Iterator[Row]:
    """The six speakers of the digits; what they say is on both sides of the split."""
    (root / "VoxCeleb1" / "test" / "wav").mkdir(parents=True, exist_ok=True)
    lines, names = [], {}
    for digit, speaker, index, file in _digits(data):
        named = f"id{10001 + names.setdefault(speaker, len(names))}"
        place = 3 if index < 5 else 2 if index < 10 else 1
        name = f"{named}/{digit}/{index:05d}.wav"
        _resampled(file, root / "VoxCeleb1" / "dev" / "wav" / name)
        lines.append(f"{place} {name}")
        yield f"VoxCeleb1/dev/wav/{name}", ("train", "dev", "test")[place - 1], speaker
    (root / "VoxCeleb1" / "iden_split.txt").write_text("\n".join(lines) + "\n")


def phones(data: Path, root: Path) -> Iterator[Row]:
    """LibriSpeech's utterances with the phones that eSpeak NG speaks their words by."""
    corpora.build(data, root, ["pr"])
    texts: dict[Path, str] = {}
    for table in sorted((root / "LibriSpeech").glob("*/*/*/*.trans.txt")):
        for line in table.read_text().splitlines():
            name, _, text = line.partition(" ")
            texts[table.parent / f"{name}.flac"] = text
    spoken = pronounced(sorted({word for text in texts.values() for word in text.split()}), root)
    lexicon = root / "lexicon" / "librispeech-lexicon-200k-g2p.txt"
    lexicon.write_text("".join(f"{word}\t{said}\n" for word, said in spoken.items()))
    splits = {"train-clean-100": "train", "dev-clean": "dev", "test-clean": "test"}
    for file, text in texts.items():
        label = " ".join(spoken[word] for word in text.split())
        yield str(file.relative_to(root)), splits[file.parts[-4]], label


def pronounced(words: Sequence[str], root: Path) -> dict[str, str]:
    """The phones of each word, under the names that s3prl's recipe has for its own."""
    voice = Prompt("", "en-us", 0, pitch=50, pitch_range=50, rate=160, seed=0)
    prompts = [replace(voice, text=word.lower()) for word in words]
    with TemporaryDirectory(dir=root) as scratch:
        heard = [
            [phone for name, _ in speech.phones if (phone := fold_phone(name)) not in ("", "sil")]
            for speech in speak_all(prompts, Path(scratch))
        ]
    symbols = sorted({phone for said in heard for phone in said})
    names = dict(zip(symbols, NAMES.read_text().split()[2:], strict=False))
    spoken = (" ".join(names[phone] for phone in said) for said in heard)
    return dict(zip(words, spoken, strict=True))


def manifest(file: Path, label: str, rows: Sequence[Row]) -> None:
    """What the quick suite reads the same files by."""
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("path", "split", label), *rows])


MAKERS = {"ks": keywords, "sid": speakers, "pr": phones}
LABELS = {"ks": "word", "sid": "speaker", "pr": "phones"}


def _digits(data: Path) -> Iterator[tuple[int, str, int, Path]]:
    for file in sorted((data / "fsdd" / "recordings").glob("*.wav")):
        digit, speaker, index = file.stem.split("_")
        yield int(digit), speaker, int(index), file


def _hashed(name: str) -> str:
    """The split that Speech Commands gives to a speaker's name, by s3prl's reading of it."""
    most = 2**27 - 1
    number = int(hashlib.sha1(name.encode()).hexdigest(), 16) % (most + 1)
    share = number * 100 / most
    return "dev" if share < 10 else "" if share < 20 else "train"


def _resampled(source: Path, target: Path) -> None:
    """At 16 kHz, so that neither side resamples; SoX' gain of -3 dB stays s3prl's own."""
    if not target.exists():
        wave, rate = soundfile.read(source, dtype="float32")
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(target, soxr.resample(np.atleast_1d(wave), rate, RATE, quality="HQ"), RATE)


def _process(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **threads})
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {(done.stdout + done.stderr)[-800:]}")
    return done


def _row(task: str, side: str, seed: int, value: float, *rest: object) -> dict[str, object]:
    seconds, *more = rest
    numbers = (f"{value:.4g}", f"{seconds:.1f}")
    whole = (task, side, seed, METRICS[task], *numbers, *more)
    return dict(zip(COLUMNS, whole, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SPEECH_DATA", "")))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int, help="of s3prl, for all tasks")
    given = parser.parse_args()
    seeds = [int(seed) for seed in given.seeds.split(",")]
    compare(given.model, given.data, given.out, given.tasks.split(","), seeds, given.steps)


if __name__ == "__main__":
    if sys.argv[1:2] == ["quick"]:
        print(quick(*sys.argv[2:]))
    else:
        main()
