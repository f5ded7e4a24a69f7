"""LibriSpeech as it is unpacked: `ROOT/SUBSET/SPEAKER/CHAPTER/*.flac` and `*.trans.txt`.

Panayotov et al., ICASSP 2015; openslr.org/12. Where the subsets that are opened bring train, dev
and test (`train-clean-100`, `dev-clean`, `test-other`), these are the splits. Where they do not,
each speaker's utterances are split 60/20/20 in their order, so that every split has every speaker;
and where speakers have too few utterances for that, the whole list is.
"""

from __future__ import annotations

from collections import defaultdict
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

    Labels: `speaker`, and `text` where the chapter has a transcript.

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
    splits = _splits([(name, speaker) for name, speaker, _ in found])
    headers = [read_header(file) for _, _, file in found]
    items = []
    for (name, speaker, file), split, header in zip(found, splits, headers, strict=True):
        labels = {"speaker": speaker}
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


def _splits(found: list[tuple[str, str]]) -> list[str]:
    """The split of each (subset, speaker), in order."""
    official = [name.split("-", 1)[0] for name, _ in found]
    if set(official) == set(SPLITS):
        return official
    indices = defaultdict(list)
    for index, (_, speaker) in enumerate(found):
        indices[speaker].append(index)
    splits = [""] * len(found)
    for own in indices.values():
        for index, split in zip(own, split_by_order(len(own)), strict=True):
            splits[index] = split
    return splits if set(splits) == set(SPLITS) else split_by_order(len(found))
