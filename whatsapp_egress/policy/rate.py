"""How fast a phone number is found to bear it, below what it is allowed."""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

CLIMB_SECONDS = 10.0
"""How long a rate has to go well before it climbs a step."""

_STEPS = 20
"""A step is this part of the limit: half of it is won back in 100 s, all of it in 200 s."""

_SLOWEST = 1.0
"""No throttle cuts a rate below this, and no step is smaller; messages a second."""


class Rate:
    """What a phone number is found to bear, in messages a second: never above `limit`.

    A throttle cuts it to a half, and it climbs back step by step while sends go well. What is told of sends
    is enough for that; it has no timer.
    """

    def __init__(self, limit: float, clock: IReactorTime) -> None:
        self._limit = limit
        self._clock = clock
        # Kept apart from the limit, which may go down and up again. None while nothing speaks against it.
        self._found: float | None = None
        # Since when sends go well at this rate; None before the first of them.
        self._well_since: float | None = None

    @property
    def limit(self) -> float:
        """Messages a second that are allowed."""
        return self._limit

    @property
    def current(self) -> float:
        """Messages a second that may be sent now, `limit` at most."""
        return self._limit if self._found is None else min(self._found, self._limit)

    @property
    def cut(self) -> bool:
        """Whether it is below what is allowed, and so worth remembering."""
        return self.current < self._limit

    def throttled(self) -> None:
        """Meta throttled the number. Call it once for a throttle, not for each message that it hit."""
        self._found = max(self.current / 2, _SLOWEST)
        self._well_since = None

    def passed(self) -> bool:
        """A send went well: climb a step if it is time to. True when `current` changed."""
        if not self.cut:
            return False
        now = self._clock.seconds()
        # The wait after a throttle proves nothing: the time begins with the first send. A clock that was set
        # back begins it anew, and must not keep the rate down for as long.
        if self._well_since is None or now < self._well_since:
            self._well_since = now
        if now - self._well_since < CLIMB_SECONDS:
            return False
        higher = self.current + max(self._limit / _STEPS, _SLOWEST)
        self._found = None if higher >= self._limit else higher
        self._well_since = now
        return True

    def change_limit(self, limit: float) -> None:
        """Allow `limit` messages a second from now on; what the number is found to bear stays as it is."""
        self._limit = limit
