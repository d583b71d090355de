"""Tells one tenant's trouble from everybody's, which is the trouble of the road to Meta or of Meta."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

MEMORY_SECONDS = 10.0
"""For how long a tenant's latest word counts."""

_EVERYBODY = 2
"""How many tenants must be in trouble for it to be everybody's."""


@frozen
class _Word:
    at: float
    trouble: Hashable | None


class RoadWatch:
    """Tells one tenant's trouble from everybody's.

    Each tenant that was heard of in the last ten seconds counts once, by its latest word, however many
    messages it sends. Nothing here takes longer with more tenants.
    """

    def __init__(self, threshold: int, clock: IReactorTime) -> None:
        self._threshold = threshold
        self._clock = clock
        self._words: OrderedDict[str, _Word] = OrderedDict()  # the one heard last comes last
        self._tenants_with: Counter[Hashable] = Counter()
        self._troubled = 0
        self._latest: Hashable | None = None
        self._row = 0  # how many exchanges in a row ended with the latest trouble

    def heard(self, tenant_id: str, trouble: Hashable | None) -> None:
        """An exchange of the tenant's ended: well, when `trouble` is None, else with this kind of trouble.

        Troubles that are equal are the same.
        """
        self._forget()
        old = self._words.pop(tenant_id, None)
        if old is not None:
            self._uncount(old.trouble)
        self._words[tenant_id] = _Word(self._clock.seconds(), trouble)
        if trouble is not None:
            self._tenants_with[trouble] += 1
            self._troubled += 1
        self._row = self._row + 1 if trouble == self._latest else 1
        self._latest = trouble

    def all_fail_alike(self) -> bool:
        """Whether the latest word of every tenant, of two at least, is the same trouble, and the last
        exchanges, as many as the threshold at least, all ended with it."""
        self._forget()
        return (
            len(self._words) >= _EVERYBODY
            and self._latest is not None
            and self._row >= self._threshold
            and self._tenants_with[self._latest] == len(self._words)
        )

    def everybody_in_trouble(self) -> bool:
        """Whether the latest word of more than half of the tenants, of two at least, was trouble of any
        kind."""
        self._forget()
        return self._troubled >= _EVERYBODY and self._troubled * 2 > len(self._words)

    def clear(self) -> None:
        """Forget what was heard."""
        self._words.clear()
        self._tenants_with.clear()
        self._troubled = 0
        self._latest = None
        self._row = 0

    def _forget(self) -> None:
        now = self._clock.seconds()
        while self._words:
            tenant_id, word = next(iter(self._words.items()))
            # A word from the future is from before the clock was set back, and nobody knows how old it is.
            if abs(now - word.at) <= MEMORY_SECONDS:
                return
            del self._words[tenant_id]
            self._uncount(word.trouble)

    def _uncount(self, trouble: Hashable | None) -> None:
        if trouble is None:
            return
        self._troubled -= 1
        self._tenants_with[trouble] -= 1
        if not self._tenants_with[trouble]:
            del self._tenants_with[trouble]
