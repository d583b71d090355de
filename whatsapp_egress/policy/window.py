"""How many requests Meta and the road to it can bear at once, found out by trying."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

FLOOR = 10
"""However much trouble there is, so many requests may be in flight: less would find out nothing."""

DECREASE = 0.7
"""What a trouble leaves of the window."""

SLOW_FACTOR = 3.0
SLOW_SECONDS = 1.0
"""An exchange is slow that takes so many times as long as usual, and so many seconds longer."""

_NEAR = 0.8
"""The part of the window that must be in use for success to prove that it could be larger."""

_SHORTEST_TRIP = 0.1
"""Seconds within which troubles are taken for one, where the usual latency is less or not known."""

_RISE, _FALL = 300.0, 30.0
"""In how many seconds the usual latency comes closer to a higher and to a lower one (by two thirds about).

An outage of a minute moves it by a fifth of the way, and recovery is followed ten times as fast."""

_LONGEST_STEP = 10.0
"""Seconds that one exchange can speak for: after a silence it must not set the norm alone."""


class Window:
    """How many requests may be in flight over all tenants, from the floor to `most`.

    Additive increase, multiplicative decrease, as TCP does it: a full window of exchanges that go well makes
    it one larger, trouble that everybody has makes it a third smaller. It begins at `most`, for nothing is
    known against it.
    """

    def __init__(self, most: int, clock: IReactorTime) -> None:
        self._most = most
        self._clock = clock
        self._limit = float(most)
        self._cut_at: float | None = None
        # Seconds that an exchange takes; it rises slowly and falls fast, so it is rather what good ones take.
        self._usual: float | None = None
        self._measured_at = 0.0

    @property
    def limit(self) -> int:
        """How many requests may be in flight now."""
        return int(self._limit)

    @property
    def full(self) -> bool:
        """Whether it holds nobody back: it is as large as it can be."""
        return self._limit >= self._most

    def passed(self, seconds: float, in_flight: int) -> None:
        """An exchange ended well after `seconds`, one of `in_flight`.

        The window grows only when it was nearly used up: room that nobody uses proves nothing.
        """
        self._measure(seconds)
        if in_flight >= _NEAR * self.limit:
            self._limit = min(self._limit + 1 / self._limit, float(self._most))

    def troubled(self) -> None:
        """Everybody has trouble. Counts once in a round trip, for what was in flight tells of the same."""
        now = self._clock.seconds()
        trip = max(self._usual or 0.0, _SHORTEST_TRIP)
        # A clock that was set back ends the trip.
        if self._cut_at is not None and 0 <= now - self._cut_at < trip:
            return
        self._cut_at = now
        self._limit = max(self._limit * DECREASE, float(min(FLOOR, self._most)))

    def slow(self, seconds: float) -> bool:
        """Whether `seconds` is far beyond what an exchange usually takes."""
        if self._usual is None:
            return False
        return seconds > self._usual * SLOW_FACTOR and seconds >= self._usual + SLOW_SECONDS

    def _measure(self, seconds: float) -> None:
        now = self._clock.seconds()
        if self._usual is None:
            self._usual = seconds
        else:
            # By time and not by exchange: a flood of slow ones must not make them the norm any sooner.
            step = min(max(0.0, now - self._measured_at), _LONGEST_STEP)
            within = _RISE if seconds > self._usual else _FALL
            self._usual += (seconds - self._usual) * step / (within + step)
        self._measured_at = now
