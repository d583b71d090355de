"""How many messages may be in flight after a long wait, when nobody knows whether it is over."""

from __future__ import annotations


class Ramp:
    """How many of a lane's messages may be in flight: `most`, or after a long wait one, then more.

    As in TCP's slow start each message that goes well makes room for one more, so that with a full lane the
    room doubles with each round trip.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._limit = most

    @property
    def limit(self) -> int:
        """How many may be in flight now."""
        return self._limit

    @property
    def full(self) -> bool:
        """Whether it holds nobody back."""
        return self._limit == self._most

    def restart(self) -> None:
        """A wait is over: begin with one."""
        self._limit = 1

    def passed(self) -> None:
        """A message went well: one more may go."""
        self._limit = min(self._limit + 1, self._most)
