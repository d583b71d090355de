"""Finds any of many known strings in a text, in time that does not grow with their number."""

from __future__ import annotations

from collections import Counter

from attrs import define, field

SHORTEST = 3
"""Characters; anything shorter would be found everywhere."""

_GRAMS = (8, 4, 2)


@define
class Needles:
    """A bag of strings to look for; one that was put in twice must be taken out twice.

    The strings are sorted by length into three indexes, so that each can look at the text in the largest
    strides that still can't step over one of its strings.
    """

    _indexes: tuple[_Index, ...] = field(factory=lambda: tuple(_Index(gram) for gram in _GRAMS))

    def add(self, needle: str) -> None:
        """Look for `needle`, too; one shorter than `SHORTEST` is never found."""
        if index := self._index(needle):
            index.add(needle)

    def discard(self, needle: str) -> None:
        """Look for `needle` once less."""
        if index := self._index(needle):
            index.discard(needle)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Where in `text` any of the strings begin and end; in no order, and they may overlap."""
        found: list[tuple[int, int]] = []
        for index in self._indexes:
            if index.strings and len(text) >= index.gram:
                found += index.spans(text)
        return found

    def longest(self) -> int:
        """The length of the longest string there is to find."""
        return max((length for index in self._indexes for length in index.lengths), default=0)

    def _index(self, needle: str) -> _Index | None:
        return next((index for index in self._indexes if len(needle) >= 2 * index.gram - 1), None)


@define
class _Index:
    """Strings of at least `2 * gram - 1` characters.

    Wherever such a string stands in a text, it covers one of the blocks of `gram` characters that the text
    falls into when cut from its beginning. So it is enough to look each block up among the first `gram` grams
    of all strings, and only where one is known to compare in full.
    """

    gram: int
    strings: Counter[str] = field(factory=Counter)
    lengths: Counter[int] = field(factory=Counter)
    _grams: Counter[str] = field(factory=Counter)

    def add(self, needle: str) -> None:
        self.strings[needle] += 1
        if self.strings[needle] > 1:
            return
        self.lengths[len(needle)] += 1
        self._grams.update(self._grams_of(needle))

    def discard(self, needle: str) -> None:
        if needle not in self.strings or _less(self.strings, needle):
            return
        _less(self.lengths, len(needle))
        for gram in self._grams_of(needle):
            _less(self._grams, gram)

    def spans(self, text: str) -> list[tuple[int, int]]:
        gram, grams = self.gram, self._grams
        # Nearly every text ends here, so this is what the search costs.
        if grams.keys().isdisjoint([text[block : block + gram] for block in range(0, len(text), gram)]):
            return []
        return [
            span
            for block in range(0, len(text) - gram + 1, gram)
            if text[block : block + gram] in grams
            for span in self._around(text, block)
        ]

    def _around(self, text: str, block: int) -> list[tuple[int, int]]:
        return [
            (start, start + length)
            for start in range(max(0, block - self.gram + 1), block + 1)
            for length in self.lengths
            if start + length <= len(text) and text[start : start + length] in self.strings
        ]

    def _grams_of(self, needle: str) -> list[str]:
        return [needle[offset : offset + self.gram] for offset in range(self.gram)]


def _less(counter: Counter[str] | Counter[int], key: object) -> bool:
    """Count one down, drop it at 0, and say whether any are left."""
    counts: Counter[object] = counter  # type: ignore[assignment]
    counts[key] -= 1
    if counts[key] > 0:
        return True
    del counts[key]
    return False
