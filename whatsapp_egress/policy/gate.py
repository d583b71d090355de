"""A gate that shuts for a while: what a throttle does to a sender, and an outage to a tenant."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Gate:
    """Open, or shut until a time; `on_open` is called when it opens again.

    `shuttings` counts how often in a row it was shut, so that each wait can be longer than the one before.
    """

    def __init__(self, clock: IReactorTime, on_open: Callable[[], None]) -> None:
        self._clock = clock
        self._on_open = on_open
        self._timer: IDelayedCall | None = None
        self.shuttings = 0

    @property
    def shut(self) -> bool:
        """Whether nothing passes now."""
        return self._timer is not None

    @property
    def opens_at(self) -> float | None:
        """When it opens, by its clock; None when it is open."""
        return None if self._timer is None else self._timer.getTime()

    def shut_for(self, first: float, step: Callable[[int], float]) -> float:
        """Shut it, and return for how many seconds from now.

        An open gate is shut for `step(n)` seconds, n counting from 0. What arrives at a shut gate was sent
        before it shut and says nothing new: it can lengthen the wait to `first` seconds, never shorten it.
        """
        if self._timer is None:
            seconds = max(first, step(self.shuttings))
            self.shuttings += 1
            self._timer = self._clock.callLater(seconds, self._open)
            return seconds
        left = self._timer.getTime() - self._clock.seconds()
        if first > left:
            self._timer.reset(first)
        return max(first, left)

    def passed(self) -> None:
        """Something came through well: the next wait begins anew. A shut gate does not listen."""
        if self._timer is None:
            self.shuttings = 0

    def stop(self) -> None:
        """Forget the timer, for good."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _open(self) -> None:
        self._timer = None
        self._on_open()
