"""Phones out of words, by a pronunciation lexicon: lines of `WORD PH OH N`, the first one counts.

The form of CMUdict and of LibriSpeech's lexicon (openslr.org/11): further pronunciations of a word
repeat it, or number it as `WORD(2)`; lines that begin with `;;;` are comments.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from core.errors import InputError
from encoders.corpora.base import Corpus, Item, with_items

#: A file of this name is taken from the corpus' own folder.
LEXICON = "lexicon.txt"


def read_lexicon(path: Path) -> dict[str, str]:
    """The phones of each word, in capitals.

    Raises:
        InputError: the file cannot be read, or a word has no phones.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"lexicon {str(path)!r} cannot be read ({error}); expected UTF-8 lines of WORD PH OH N"
        ) from error
    phones: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        word, *spoken = line.split() or [";;;"]
        if word.startswith(";;;"):
            continue
        if not spoken:
            raise InputError(
                f"line {number} of lexicon {str(path)!r} is {line!r}; expected WORD PH OH N"
            )
        phones.setdefault(word.upper(), " ".join(spoken))
    return phones


def with_phones(corpus: Corpus, path: Path) -> Corpus:
    """The corpus with `phones` for every utterance that has `text` of known words alone.

    Those that have phones already keep them.

    Raises:
        InputError: the lexicon cannot be read, or gives phones to no utterance.
    """
    lexicon = read_lexicon(path)
    wanting = {i.key for i in corpus.items if i.labels.get("text") and not i.labels.get("phones")}
    items = [_spoken(i, lexicon) if i.key in wanting else i for i in corpus.items]
    lacking = [i.labels["text"] for i in items if i.key in wanting and "phones" not in i.labels]
    unknown = next((w for text in lacking for w in text.split() if w.upper() not in lexicon), "")
    if len(lacking) == len(wanting):
        raise InputError(
            f"lexicon {str(path)!r} gives phones to no utterance of corpus {corpus.name!r}"
            + (
                f"; it lacks {unknown!r} for one"
                if unknown
                else ", which has no texts without them"
            )
        )
    made = with_items(corpus, items)
    state = hashlib.blake2b(corpus.fingerprint.encode() + path.read_bytes(), digest_size=8)
    made.fingerprint = state.hexdigest()
    if lacking:
        note = f"{len(lacking)} of {len(wanting)} utterances have no phones: words that"
        made.notes = (*corpus.notes, f"{note} {path.name} lacks, such as {unknown!r}")
    return made


def _spoken(item: Item, lexicon: dict[str, str]) -> Item:
    """The utterance with its phones, if the lexicon has all of its words."""
    words = item.labels["text"].upper().split()
    if not all(word in lexicon for word in words):
        return item
    phones = " ".join(lexicon[word] for word in words)
    return replace(item, labels={**item.labels, "phones": phones})
