"""s3prl's recipes and the quick suite's heads on the same real speech: scores, and time taken.

    python tests/bench/superb_parity.py --model builtin --seeds 0,1,2 --out results/superb-parity

Keywords and speakers of the spoken digits, phones of LibriSpeech test-other as eSpeak NG says its
words, and phones of the built-in corpus; files and splits are the same on both sides. s3prl keeps
its recipes but for the number of updates, the learning rate and the accumulated batches, which are
given with each row. Seconds are of whole processes on one thread, importing included.
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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
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
#: Two kinds of silence come first.
NAMES = Path(__file__).parents[2] / "tasks" / "s3prl" / "settings" / "phones.txt"
SUBSETS = {"train": "train-clean-100", "dev": "dev-clean", "test": "test-clean"}
METRICS = {"ks": "ks_acc", "sid": "sid_acc", "pr": "pr_per"}

COLUMNS = (
    "task", "data", "side", "seed", "metric", "value", "seconds", "steps", "learning_rate", "model"
)  # fmt: skip

#: The manifest's row of an utterance: path, split, and its label.
Row = tuple[str, str, str]


@dataclass(frozen=True)
class Case:
    """A task on some data. make: lays out a corpus and tells its rows. label: what they hold.

    steps, rate, changes: of s3prl, so that training comes to its end in minutes.
    """

    task: str
    data: str
    make: Callable[[Path, Path], Iterator[Row]]
    label: str
    steps: int
    rate: float
    changes: tuple[str, ...] = ()


def compare(
    model: str, data: Path, out: Path, cases: Sequence[str], seeds: Sequence[int], steps: int | None
) -> list[dict[str, object]]:
    """A row per case, side and seed; also written to `parity.csv` as they come."""
    rows: list[dict[str, object]] = []
    for name in cases:
        case, root = CASES[name], out / "data" / name
        if not (root / "manifest.csv").is_file():
            manifest(root / "manifest.csv", case.label, list(case.make(data, root)))
        for seed in seeds:
            for side, score in {"ours": ours, "s3prl": theirs}.items():
                rows.append(_row(case, side, seed, model, score(case, model, root, seed, steps)))
                print(rows[-1], flush=True)
                with (out / "parity.csv").open("w", newline="", encoding="utf-8") as file:
                    table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                    table.writeheader()
                    table.writerows(rows)
    return rows


def ours(case: Case, model: str, root: Path, seed: int, _: int | None) -> dict[str, object]:
    """The quick suite's head, in a process of its own."""
    arguments = [model, case.task, str(root / "manifest.csv"), str(seed)]
    begin = time.perf_counter()
    done = _process([sys.executable, __file__, "quick", *arguments])
    seconds = time.perf_counter() - begin
    return {"value": float(done.stdout.splitlines()[-1]), "seconds": seconds}


def theirs(case: Case, model: str, root: Path, seed: int, steps: int | None) -> dict[str, object]:
    """s3prl's recipe, through the command line."""
    steps, folder = steps or case.steps, root / f"s3prl-{seed}"
    overrides = [part for change in case.changes for part in ("--override", change)]
    line = ["superb", "--model", model, "--task", case.task, "--data-root", str(root), "--seed",
            str(seed), "--steps", str(steps), "--lr", str(case.rate), "--device", "cpu",
            "--workers", "0", "--out", str(folder), *overrides]  # fmt: skip
    begin = time.perf_counter()
    _process([sys.executable, "-m", "bench", *line])
    seconds = time.perf_counter() - begin
    found = json.loads((folder / f"{case.task}.json").read_text())
    value = found["values"][METRICS[case.task]]
    return {"value": value, "seconds": seconds, "steps": steps, "learning_rate": case.rate}


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
    splits = {subset: split for split, subset in SUBSETS.items()}
    for file, text in texts.items():
        label = " ".join(spoken[word] for word in text.split())
        yield str(file.relative_to(root)), splits[file.parts[-4]], label


def synthetic_phones(data: Path, root: Path) -> Iterator[Row]:
    """The built-in corpus' utterances, each one word of a lexicon that spells it."""
    from encoders.corpora import open_corpus
    from tasks.pr import Pr

    corpus, task = open_corpus("builtin"), Pr()
    items = task.select(corpus)
    names = named({phone for item in items for phone in task.spell(item)})
    lexicon = root / "lexicon" / "librispeech-lexicon-200k-g2p.txt"
    lexicon.parent.mkdir(parents=True)
    words = []
    for number, item in enumerate(items):
        word, said = f"U{number}", " ".join(names[phone] for phone in task.spell(item))
        words.append(f"{word}\t{said}\n")
        folder = root / "LibriSpeech" / SUBSETS[item.split] / "1" / "1"
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"1-1-{number:04}.flac", corpus.waveform(item).numpy(), RATE)
        with (folder / "1-1.trans.txt").open("a") as transcript:
            transcript.write(f"1-1-{number:04} {word}\n")
        yield str((folder / f"1-1-{number:04}.flac").relative_to(root)), item.split, said
    lexicon.write_text("".join(words))


def pronounced(words: Sequence[str], root: Path) -> dict[str, str]:
    """The phones of each word, under the names that s3prl's recipe has for its own."""
    voice = Prompt("", "en-us", 0, pitch=50, pitch_range=50, rate=160, seed=0)
    prompts = [replace(voice, text=word.lower()) for word in words]
    with TemporaryDirectory(dir=root) as scratch:
        heard = [
            [phone for name, _ in speech.phones if (phone := fold_phone(name)) not in ("", "sil")]
            for speech in speak_all(prompts, Path(scratch))
        ]
    names = named({phone for said in heard for phone in said})
    spoken = (" ".join(names[phone] for phone in said) for said in heard)
    return dict(zip(words, spoken, strict=True))


def named(phones: set[str]) -> dict[str, str]:
    """A name of s3prl's recipe for each phone."""
    return dict(zip(sorted(phones), NAMES.read_text().split()[2:], strict=False))


def manifest(file: Path, label: str, rows: Sequence[Row]) -> None:
    """What the quick suite reads the same files by."""
    with file.open("w", newline="", encoding="utf-8") as out:
        csv.writer(out).writerows([("path", "split", label), *rows])


#: Each update takes one batch, where s3prl adds up several for lack of memory.
ONE = ("runner.gradient_accumulate_steps=1",)
CASES = {
    "ks": Case("ks", "spoken digits", keywords, "word", 3000, 3e-3),
    "sid": Case("sid", "spoken digits", speakers, "speaker", 5000, 3e-3, ONE),
    "pr": Case("pr", "LibriSpeech test-other", phones, "phones", 300, 1e-2, ONE),
    "pr-builtin": Case("pr", "built-in corpus", synthetic_phones, "phones", 300, 1e-2, ONE),
}


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


def _row(case: Case, side: str, seed: int, model: str, found: dict) -> dict[str, object]:
    found |= {"value": f"{found['value']:.4g}", "seconds": f"{found['seconds']:.1f}"}
    what = {"task": case.task, "data": case.data, "side": side, "seed": seed, "model": model}
    return {"steps": "", "learning_rate": "", "metric": METRICS[case.task]} | what | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("SPEECH_DATA", "")))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int, help="of s3prl, for all cases")
    given = parser.parse_args()
    seeds = [int(seed) for seed in given.seeds.split(",")]
    compare(given.model, given.data, given.out, given.cases.split(","), seeds, given.steps)


if __name__ == "__main__":
    if sys.argv[1:2] == ["quick"]:
        print(quick(*sys.argv[2:]))
    else:
        main()
