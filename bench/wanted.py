"""What a sweep still has to make, kept so that each finished section costs the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

Pair = tuple[str, str]  # (point key, section name)


class Wanted:
    """Sections in the order in which they were given. by_name: how many there are of each name."""

    def __init__(self, pairs: Iterable[Pair]) -> None:
        self._by_key: dict[str, dict[str, None]] = {}
        self.by_name: Counter[str] = Counter()
        for key, name in dict.fromkeys(pairs):
            self._by_key.setdefault(key, {})[name] = None
            self.by_name[name] += 1

    def __len__(self) -> int:
        return self.by_name.total()

    def __iter__(self) -> Iterator[Pair]:
        return ((key, name) for key, names in self._by_key.items() for name in names)

    def __contains__(self, pair: Pair) -> bool:
        return pair[1] in self._by_key.get(pair[0], ())

    def points(self) -> list[str]:
        """The points that lack something."""
        return list(self._by_key)

    def of(self, key: str) -> list[str]:
        """What that point lacks."""
        return list(self._by_key.get(key, ()))

    def remove(self, pair: Pair) -> None:
        """Take off what is made, or cannot be."""
        key, name = pair
        del self._by_key[key][name]
        self.by_name[name] -= 1
        if not self._by_key[key]:
            del self._by_key[key]
