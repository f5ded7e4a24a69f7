"""Corpora: every layout is read as it lies, and what cannot be read is said in one sentence."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from encoders import zoo
from encoders.corpora import Corpus, Item, open_corpus
from encoders.corpora.audio import describe, read_audio, read_header
from encoders.corpora.base import split_by_order


def write(path: Path, seconds: float = 0.2, rate: int = 16_000, channels: int = 1) -> Path:
    """A file of 440 Hz, louder by one half in each further channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.2 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    soundfile.write(path, np.stack([tone * (1 + c / 2) for c in range(channels)], axis=1), rate)
    return path


def refused(text: object, subset: str | None = None) -> str:
    """The one sentence with which that corpus is refused."""
    with pytest.raises(InputError) as caught:
        open_corpus(str(text), subset)
    message = str(caught.value)
    assert "\n" not in message
    return message


def librispeech(root: Path, subsets: dict[str, dict[int, int]]) -> Path:
    """subset -> speaker -> how many utterances of 0.2 s, in one chapter, with a transcript."""
    for subset, speakers in subsets.items():
        for speaker, count in speakers.items():
            chapter = root / subset / str(speaker) / "7"
            names = [f"{speaker}-7-{index:04d}" for index in range(count)]
            for name in names:
                write(chapter / f"{name}.flac")
            lines = [f"{name} WORD {index}\n" for index, name in enumerate(names)]
            (chapter / f"{speaker}-7.trans.txt").write_text("".join(lines))
    return root


def manifest(folder: Path, text: str) -> Path:
    table = folder / "data.csv"
    table.write_text(text)
    return table


# --- audio files


def test_a_mono_16_khz_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac")
    sound, notes = read_audio(path)
    assert notes == []
    assert sound.dtype == np.float32
    np.testing.assert_array_equal(sound, soundfile.read(path, dtype="float32")[0])


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 1), (16_000, 2), (8_000, 2)])
def test_other_rates_and_stereo_are_converted_and_said(
    tmp_path: Path, rate: int, channels: int
) -> None:
    sound, notes = read_audio(write(tmp_path / "a.wav", 0.5, rate, channels))
    assert len(notes) == (rate != 16_000) + (channels != 1)
    assert sound.shape == (8_000,)
    spectrum = np.abs(np.fft.rfft(sound[2_000:6_000]))
    assert int(spectrum.argmax()) * 16_000 / 4_000 == pytest.approx(440, abs=4)
    loudness = 0.2 * (1.25 if channels == 2 else 1) / np.sqrt(2)
    assert np.sqrt(np.square(sound[2_000:6_000]).mean()) == pytest.approx(loudness, rel=0.02)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_header_and_sound_agree_on_the_length(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "a.wav", 0.31337, rate)
    assert round(read_header(path).seconds * 16_000) == len(read_audio(path)[0])


def test_conversions_are_told_once_per_corpus(tmp_path: Path) -> None:
    for index in range(3):
        write(tmp_path / f"{index}.wav", rate=8_000, channels=1 + (index == 0))
    write(tmp_path / "3.wav")
    assert open_corpus(str(tmp_path)).notes == (
        "2 channels averaged to one (1 of 4 files)",
        "8000 Hz resampled to 16000 Hz (3 of 4 files)",
    )
    assert describe([read_header(tmp_path / "3.wav")]) == ()


def test_corrupt_empty_short_and_missing_files_are_named(tmp_path: Path) -> None:
    good = write(tmp_path / "good.flac", 1.0).read_bytes()
    (tmp_path / "empty.flac").write_bytes(b"")
    (tmp_path / "text.flac").write_text("this is no sound")
    (tmp_path / "half.flac").write_bytes(good[: len(good) // 2])
    write(tmp_path / "short.flac", 0.01)
    soundfile.write(tmp_path / "nan.wav", np.full(8_000, np.nan), 16_000, subtype="FLOAT")
    for name in ("empty.flac", "text.flac", "half.flac", "short.flac", "nan.wav", "gone.flac"):
        with pytest.raises(InputError, match=re.escape(name)) as caught:
            read_audio(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_header_that_claims_more_than_a_day_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(100_000), samplerate=1)
    with pytest.raises(InputError, match="100000 s by its header"):
        read_header(tmp_path / "a.wav")


# --- LibriSpeech


def test_librispeech_is_read_in_its_own_layout(tmp_path: Path) -> None:
    root = librispeech(tmp_path / "LS", {"test-other": {12: 2, 5: 1}, "dev-clean": {9: 1}})
    corpus = open_corpus(str(root), "test-other")
    assert corpus.name == "LS/test-other"
    assert [item.key for item in corpus.items] == [
        "test-other/12-7-0000", "test-other/12-7-0001", "test-other/5-7-0000",
    ]  # fmt: skip
    assert corpus.items[1].labels == {"speaker": "12", "text": "WORD 1", "sid_split": "train"}
    assert corpus.items[0].seconds == pytest.approx(0.2)
    waveform = corpus.waveform(corpus.items[0])
    assert waveform.shape == (corpus.items[0].samples,) == (3_200,)
    assert waveform.dtype == torch.float32


def test_one_subset_is_split_60_20_20_per_speaker_in_order(tmp_path: Path) -> None:
    root = librispeech(tmp_path, {"test-other": {3: 10, 4: 5}})
    corpus = open_corpus(str(root), "test-other")
    for speaker, count in (("3", 10), ("4", 5)):
        splits = [item.split for item in corpus.items if item.labels["speaker"] == speaker]
        assert splits == ["train"] * (count * 3 // 5) + ["dev"] * (count // 5) + ["test"] * (
            count // 5
        )
    assert corpus.items == open_corpus(str(root / "test-other")).items


def test_one_subset_of_many_speakers_is_split_between_them(tmp_path: Path) -> None:
    root = librispeech(tmp_path, {"test-other": dict.fromkeys(range(10, 20), 5)})
    corpus = open_corpus(str(root))
    speakers = [corpus.split(name) for name in ("train", "dev", "test")]
    assert [len({item.labels["speaker"] for item in part}) for part in speakers] == [6, 2, 2]
    for speaker in map(str, range(10, 20)):
        own = [item for item in corpus.items if item.labels["speaker"] == speaker]
        assert len({item.split for item in own}) == 1
        assert [item.labels["sid_split"] for item in own] == ["train"] * 3 + ["dev", "test"]


def test_official_splits_are_kept_where_all_three_are_there(tmp_path: Path) -> None:
    root = librispeech(
        tmp_path, {"train-clean-100": {1: 3}, "dev-clean": {2: 2}, "test-other": {3: 1}}
    )
    splits = {item.key.split("/")[0]: item.split for item in open_corpus(str(root)).items}
    assert splits == {"train-clean-100": "train", "dev-clean": "dev", "test-other": "test"}
    two = open_corpus(str(root), "dev-clean,train-clean-100")
    assert {item.key.split("/")[0] for item in two.items} == {"dev-clean", "train-clean-100"}
    assert Counter(item.split for item in two.items) == {"train": 3, "dev": 1, "test": 1}


def test_speakers_of_one_utterance_are_split_among_them(tmp_path: Path) -> None:
    root = librispeech(tmp_path, {"train-clean-100": dict.fromkeys(range(10, 20), 1)})
    corpus = open_corpus(str(root), "train-clean-100")
    assert [item.split for item in corpus.items] == ["train"] * 6 + ["dev"] * 2 + ["test"] * 2


def test_a_chapter_without_transcript_has_no_text(tmp_path: Path) -> None:
    root = librispeech(tmp_path, {"dev-clean": {2: 2}})
    (root / "dev-clean/2/7/2-7.trans.txt").unlink()
    assert [item.labels for item in open_corpus(str(root)).items] == [
        {"speaker": "2", "sid_split": "train"}, {"speaker": "2", "sid_split": "dev"}
    ]  # fmt: skip


def test_an_unknown_subset_is_refused_with_those_there_are(tmp_path: Path) -> None:
    root = librispeech(tmp_path, {"test-other": {3: 1}, "dev-clean": {4: 1}})
    message = refused(root, "test-othr")
    assert "did you mean 'test-other'" in message
    assert "dev-clean, test-other" in message
    assert "no subset" in refused(root, "")


def test_corrupt_transcripts_and_audio_are_named(tmp_path: Path) -> None:
    root = librispeech(tmp_path, {"dev-clean": {2: 2}})
    (root / "dev-clean/2/7/2-7.trans.txt").write_bytes(b"\xff\xfe\xff")
    assert "2-7.trans.txt" in refused(root)
    (root / "dev-clean/2/7/2-7.trans.txt").unlink()
    (root / "dev-clean/2/7/2-7-0001.flac").write_bytes(b"")
    assert "2-7-0001.flac" in refused(root, "dev-clean")


# --- the Free Spoken Digit Dataset


def test_digits_have_words_speakers_and_the_official_test_split(tmp_path: Path) -> None:
    for index in (0, 4, 5, 9, 10, 49):
        write(tmp_path / f"recordings/7_theo_{index}.wav", rate=8_000)
    for text in (tmp_path, tmp_path / "recordings"):
        corpus = open_corpus(str(text))
        assert corpus.name == "fsdd"
        assert {item.key: item.split for item in corpus.items} == {
            "7_theo_0.wav": "test", "7_theo_4.wav": "test", "7_theo_5.wav": "dev",
            "7_theo_9.wav": "dev", "7_theo_10.wav": "train", "7_theo_49.wav": "train",
        }  # fmt: skip
        assert corpus.items[0].labels == {"word": "seven", "speaker": "theo"}
        assert corpus.waveform(corpus.items[0]).shape == (3_200,)
    write(tmp_path / "recordings/extra.wav")
    assert "extra.wav" in refused(tmp_path)


# --- plain folders


def test_a_plain_folder_is_searched_sorted_and_all_test(tmp_path: Path) -> None:
    for name in ("b.wav", "sub/a.flac", "a.WAV", "a.flac", ".hidden.wav"):
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no audio")
    corpus = open_corpus(str(tmp_path))
    assert [item.key for item in corpus.items] == ["a.WAV", "a.flac", "b.wav", "sub/a.flac"]
    assert {item.split for item in corpus.items} == {"test"}
    assert corpus.split("test") == corpus.items
    assert corpus.seconds == pytest.approx(0.8)


def test_what_is_no_corpus_is_refused(tmp_path: Path) -> None:
    assert "holds no audio files" in refused(tmp_path)
    assert "holds no audio files" in refused(tmp_path, "test-other")
    assert "does not exist" in refused(tmp_path / "gone")
    assert "did you mean 'builtin'" in refused("bultin")
    assert "no .csv" in refused(write(tmp_path / "a.wav"))
    assert "has no subsets" in refused(tmp_path, "dev-clean")
    (tmp_path / "b.flac").write_bytes(b"fLaC")
    assert "b.flac" in refused(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_an_unreadable_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0)
    assert "shut" in refused(tmp_path)


# --- manifests


def test_a_manifest_may_split_a_task_in_its_own_way(tmp_path: Path) -> None:
    write(tmp_path / "a.wav")
    write(tmp_path / "b.wav")
    table = tmp_path / "mine.csv"
    table.write_text("path,split,speaker,sid_split\na.wav,test,x,train\nb.wav,test,x,\n")
    labels = [item.labels for item in open_corpus(str(table)).items]
    assert labels == [{"speaker": "x", "sid_split": "train"}, {"speaker": "x"}]
    table.write_text("path,split,sid_split\na.wav,test,trian\n")
    assert "sid_split 'trian' (did you mean 'train'?)" in refused(table)
    table.write_text("path,split,pretex_split\na.wav,test,train\n")
    assert "unknown column 'pretex_split' (did you mean 'pretext_split'?)" in refused(table)


def test_a_manifest_gives_paths_splits_and_labels(tmp_path: Path) -> None:
    write(tmp_path / "audio/a.wav", 0.5, rate=8_000)
    write(tmp_path / "b.flac")
    rows = [
        "\ufeffpath, split,label,text",
        "audio/a.wav,train,yes,SAY YES",
        "",
        "./b.flac,test,no,",
    ]
    corpus = open_corpus(str(manifest(tmp_path, "\n".join(rows))))
    assert corpus.items == [
        Item(
            "audio/a.wav",
            0.5,
            {"label": "yes", "text": "SAY YES"},
            "train",
            tmp_path / "audio/a.wav",
        ),
        Item("b.flac", 0.2, {"label": "no"}, "test", tmp_path / "b.flac"),
    ]
    assert corpus.notes == ("8000 Hz resampled to 16000 Hz (1 of 2 files)",)
    assert corpus.waveform(corpus.items[0]).shape == (8_000,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no column 'path'"),
        ("path,label\na.wav,x\n", "no column 'split'"),
        ("path,split,speakr\na.wav,test,x\n", "did you mean 'speaker'"),
        ("path,split,label,label\na.wav,test,x,y\n", "'label' twice"),
        ("path,split\n", "no rows"),
        ("path,split\na.wav,trian\n", "line 2.*did you mean 'train'"),
        ("path,split\na.wav,test\nb.wav,test\n", "line 3.*b.wav"),
        ("path,split\n,test\n", "line 2.*no path"),
        ("path,split\na.wav\n", "line 2.*has 1 cells; expected 2"),
        ("path,split\na.wav,test\n./a.wav,train\n", "'a.wav' twice"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    write(tmp_path / "a.wav")
    assert re.search(expected, refused(manifest(tmp_path, text)))


def test_a_manifest_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_bytes(b"path,split\n\xff\xfe,test\n")
    assert "UTF-8" in refused(tmp_path / "data.csv")


# --- all of them


def test_keys_cannot_repeat_and_a_corpus_cannot_be_empty() -> None:
    with pytest.raises(InputError, match="'x' twice"):
        Corpus("c", [Item("x", 1.0), Item("x", 1.0)], "0")
    with pytest.raises(InputError, match="no utterances"):
        Corpus("c", [], "0")


def test_speech_is_drawn_until_it_fills_the_seconds() -> None:
    spec, short = zoo.tiny(), Item("short", 0.01)
    corpus = Corpus("c", [short, *(Item(str(i), 1 + i / 10) for i in range(20))], "0")
    drawn = corpus.draw(spec, 10, seed=3)
    assert sum(item.seconds for item in drawn[:-1]) < 10 <= sum(item.seconds for item in drawn)
    assert drawn == corpus.draw(spec, 10, seed=3) != corpus.draw(spec, 10, seed=4)
    everything = corpus.draw(spec, 1000, seed=0)
    assert sorted(everything, key=lambda item: int(item.key)) == corpus.items[1:] != everything
    with pytest.raises(InputError, match="no utterance of one frame"):
        Corpus("c", [short], "0").draw(spec, 10, seed=0)


def test_the_fingerprint_follows_the_files(tmp_path: Path) -> None:
    root = librispeech(tmp_path / "one", {"dev-clean": {2: 2}})
    before = open_corpus(str(root)).fingerprint
    assert open_corpus(str(root)).fingerprint == before
    root = root.rename(tmp_path / "two")
    assert open_corpus(str(root)).fingerprint == before, "where the corpus lies is no part of it"
    transcript = root / "dev-clean/2/7/2-7.trans.txt"
    transcript.write_text("2-7-0000 ANOTHER TEXT\n")
    changed = open_corpus(str(root)).fingerprint
    assert changed != before
    os.utime(root / "dev-clean/2/7/2-7-0000.flac", ns=(1, 1))
    assert open_corpus(str(root)).fingerprint not in (before, changed)


@given(st.integers(1, 300))
def test_splits_by_order_are_60_20_20(count: int) -> None:
    splits = split_by_order(count)
    assert splits == sorted(splits, key=["train", "dev", "test"].index)
    shares = Counter(splits)
    for name, part in (("train", 0.6), ("dev", 0.2), ("test", 0.2)):
        assert abs(shares[name] - part * count) <= 1


def test_real_speech_is_read_as_it_lies(speech_data: Path) -> None:
    digits = open_corpus(str(speech_data / "fsdd"))
    assert Counter(item.split for item in digits.items) == {"train": 2400, "dev": 300, "test": 300}
    assert digits.seconds == pytest.approx(21.9 * 60, rel=0.01)
    assert digits.notes == ("8000 Hz resampled to 16000 Hz (3000 of 3000 files)",)
    read = open_corpus(str(speech_data / "LibriSpeech"), "test-other")
    assert len(read.items) == 100
    assert read.seconds == pytest.approx(12.8 * 60, rel=0.01)
    assert len({item.labels["speaker"] for item in read.split("test")}) == 2
    assert all(item.labels["text"].isupper() for item in read.items)
    assert read.waveform(read.items[0]).abs().max() > 0.01
