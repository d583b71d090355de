"""How long to wait before the next try; all times in seconds."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

LONGEST_RETRY = 60.0
"""Cap of the wait between attempts and between connections (contract)."""

LONGEST_THROTTLE = 600.0

SHORTEST_ROAD = 5.0
"""Seconds after which a broken road is tried again; a message is enough to find out."""

SHORTEST_PAIR, LONGEST_PAIR = 6.0, 900.0
"""Meta: pair rate limit, one message per 6 s; 4^n s to 15 min (contract)."""

_MAX_EXPONENT = 30  # keeps 2**n a small number; every cap is reached long before


def retry(n: int, base: float, jitter: Callable[[], float]) -> float:
    """Before attempt `n`+2: min(base * 2^n, 60) + jitter() with jitter in 0..1 s."""
    return min(base * 2.0 ** min(n, _MAX_EXPONENT), LONGEST_RETRY) + jitter()


def throttle(n: int, first: float, longest: float = LONGEST_THROTTLE) -> float:
    """After the `n`+1st throttle in a row: doubled from `first` up to `longest`, or six times `first`."""
    return min(first * 2.0 ** min(n, _MAX_EXPONENT), max(longest, 6 * first))


def pair(n: int) -> float:
    """After the `n`+1st pair throttle in a row: 4^n, at least 6 s and at most 15 min."""
    return min(max(4.0 ** min(n, _MAX_EXPONENT), SHORTEST_PAIR), LONGEST_PAIR)


def road(n: int, longest: float) -> float:
    """After the road was found broken `n`+1 times in a row: doubled from 5 s up to `longest`."""
    return min(SHORTEST_ROAD * 2.0 ** min(n, _MAX_EXPONENT), longest)


class Reconnecting:
    """How long to wait before connecting again: at once after a loss, else `first` * 2^n up to 60 s.

    The jitter takes away up to a tenth, so that workers that lost the same broker do not come back together.
    Connections that were lost in a row, each less than `first` after it was made, count as tries that failed:
    a broker that throws us out each time is not to be stormed.
    """

    def __init__(self, first: float, clock: IReactorTime, jitter: Callable[[], float]) -> None:
        self._first = first
        self._clock = clock
        self._jitter = jitter
        self._made_at = 0.0
        self._failures = 0
        self._short_lived = 0
        self._lost = False

    def made(self) -> None:
        """A connection was made."""
        self._made_at = self._clock.seconds()

    def lost(self) -> None:
        """It was lost."""
        self._lost = True
        if self._clock.seconds() - self._made_at >= self._first:
            self._short_lived = 0
        self._failures = self._short_lived
        self._short_lived += 1

    def wait(self) -> float:
        """Seconds from now to the next try, after a connection was lost or could not be made."""
        if not self._lost:
            self._failures += 1
        self._lost = False
        if self._failures == 0:
            return 0.0
        longest = min(self._first * 2.0 ** min(self._failures - 1, _MAX_EXPONENT), LONGEST_RETRY)
        return longest * (1 - self._jitter() / 10)
