"""LibriSpeech as it is unpacked: `ROOT/SUBSET/SPEAKER/CHAPTER/*.flac` and `*.trans.txt`.

Panayotov et al., ICASSP 2015; openslr.org/12. Where the subsets that are opened bring train, dev
and test (`train-clean-100`, `dev-clean`, `test-other`), these are the splits. Where they do not,
the speakers are split 60/20/20 in their order. Speaker identification, which wants every speaker in
every split, gets each one's utterances 60/20/20 in their order (`sid_split`); that is also the
split of a subset with fewer than two speakers for each split. Where speakers have too few
utterances for it, the whole list is split.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from core.errors import InputError, closest
from encoders.corpora.audio import read_header
from encoders.corpora.base import SPLITS, Corpus, Item, corpus_of_files, split_by_order


def subsets(root: Path) -> list[str]:
    """The folders below `root` that are laid out as a subset."""
    return sorted(d.name for d in _folders(root) if next(_chapters(d), None) is not None)


def is_librispeech(root: Path) -> bool:
    return bool(subsets(root))


def is_subset(root: Path) -> bool:
    return next(_chapters(root), None) is not None


def open_librispeech(root: Path, subset: str | None = None) -> Corpus:
    """The utterances of one subset, of a comma list of them, or of all; keys are `SUBSET/ID`.

    Labels: `speaker`, `sid_split`, and `text` where the chapter has a transcript.

    Raises:
        InputError: there is no such subset, a file is corrupt, or a transcript cannot be read.
    """
    chosen = _choose(root, subset)
    chapters = [(name, chapter) for name in chosen for chapter in _chapters(root / name)]
    transcripts = [file for _, chapter in chapters for file in sorted(chapter.glob("*.trans.txt"))]
    texts = dict(line for file in transcripts for line in _lines(file))
    found = [
        (name, chapter.parent.name, file)
        for name, chapter in chapters
        for file in sorted(chapter.glob("*.flac"))
    ]
    speakers = [speaker for _, speaker, _ in found]
    within = _within_speakers(speakers)
    splits = _official([name for name, _, _ in found]) or _between_speakers(speakers) or within
    headers = [read_header(file) for _, _, file in found]
    items = []
    for (name, speaker, file), split, own, header in zip(
        found, splits, within, headers, strict=True
    ):
        labels = {"speaker": speaker, "sid_split": own}
        if file.stem in texts:
            labels["text"] = texts[file.stem]
        items.append(Item(f"{name}/{file.stem}", header.seconds, labels, split, file))
    name = root.name if subset is None else f"{root.name}/{'+'.join(chosen)}"
    return corpus_of_files(name, root, items, headers, transcripts)


def _folders(root: Path) -> list[Path]:
    try:
        return sorted(d for d in root.iterdir() if d.is_dir() and not d.name.startswith("."))
    except OSError as error:
        raise InputError(f"folder {str(root)!r} cannot be read: {error.strerror}") from error


def _chapters(subset: Path) -> Iterator[Path]:
    """Folders SPEAKER/CHAPTER with numbers for names that hold SPEAKER-CHAPTER-*.flac."""
    for speaker in _folders(subset):
        if not speaker.name.isdecimal():
            continue
        for chapter in _folders(speaker):
            if any(chapter.glob(f"{speaker.name}-{chapter.name}-*.flac")):
                yield chapter


def _choose(root: Path, subset: str | None) -> list[str]:
    known = subsets(root)
    if subset is None:
        return known
    chosen = [name.strip() for name in subset.split(",") if name.strip()]
    for name in chosen or [subset]:
        if name not in known:
            raise InputError(
                f"{str(root)!r} has no subset {name!r}{closest(name, known)}; it has "
                f"{', '.join(known)}"
            )
    return list(dict.fromkeys(chosen))


def _lines(transcript: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = transcript.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"transcript {str(transcript)!r} cannot be read ({error}); expected UTF-8 text"
        ) from error
    for line in filter(str.strip, lines):
        key, _, text = line.partition(" ")
        yield key, text.strip()


def _official(subsets: list[str]) -> list[str] | None:
    """The splits that subsets are named after, if all three are there."""
    splits = [name.split("-", 1)[0] for name in subsets]
    return splits if set(splits) == set(SPLITS) else None


def _between_speakers(speakers: list[str]) -> list[str] | None:
    """No speaker in two splits, if there are two or more for each."""
    names = list(dict.fromkeys(speakers))
    places = dict(zip(names, split_by_order(len(names)), strict=True))
    counts = Counter(places.values())
    return [places[name] for name in speakers] if min(counts[s] for s in SPLITS) > 1 else None


def _within_speakers(speakers: list[str]) -> list[str]:
    """Every speaker in every split, if there are utterances enough."""
    indices = defaultdict(list)
    for index, speaker in enumerate(speakers):
        indices[speaker].append(index)
    splits = [""] * len(speakers)
    for own in indices.values():
        for index, split in zip(own, split_by_order(len(own)), strict=True):
            splits[index] = split
    return splits if set(splits) == set(SPLITS) else split_by_order(len(speakers))
