"""How many requests may be in flight over all lanes, and who goes next when one ends."""

from __future__ import annotations

from typing import Protocol

from attrs import define, field


class Waiting(Protocol):
    """A lane that may have to wait for a turn."""

    @property
    def in_flight(self) -> int:
        """How many turns it has taken."""

    def pump(self) -> None:
        """Take turns again."""


@define
class Turns:
    """`most` turns; a lane that gets none is pumped when one comes back, fewest in flight first."""

    most: int
    _taken: int = field(default=0, init=False)
    _waiting: dict[int, Waiting] = field(factory=dict, init=False)
    _giving: bool = field(default=False, init=False)

    def take(self, lane: Waiting) -> bool:
        """Take a turn; False puts the lane in line."""
        if self._taken < self.most:
            self._taken += 1
            return True
        self._waiting[id(lane)] = lane
        return False

    def give_back(self) -> None:
        """A turn is free again."""
        self._taken -= 1
        if self._giving:
            return  # the loop below sees it; from here, lanes whose messages end at once would nest in it
        self._giving = True
        try:
            while self._waiting and self._taken < self.most:
                lane = min(self._waiting.values(), key=lambda waiting: waiting.in_flight)
                del self._waiting[id(lane)]
                lane.pump()
        finally:
            self._giving = False

    def leave(self, lane: Waiting) -> None:
        """The lane does not want a turn any more."""
        self._waiting.pop(id(lane), None)
