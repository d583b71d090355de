"""How many requests may be in flight over all lanes, and who goes next."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Protocol

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from whatsapp_egress.policy.blame import Word
from whatsapp_egress.policy.breaker import Breaker, State
from whatsapp_egress.policy.road import RoadWatch
from whatsapp_egress.policy.window import Window

_SLOW = "slow"


class Waiting(Protocol):
    """A lane that may have to wait for a turn."""

    @property
    def tenant_id(self) -> str:
        """Whose it is."""

    @property
    def in_flight(self) -> int:
        """How many turns it has taken."""

    def pump(self) -> None:
        """Take turns again."""


@frozen(eq=False)
class Turn:
    """The right to one exchange with Meta. `began` is by the reactor's clock."""

    lane: Waiting
    began: float
    ticket: int


class Turns:
    """Gives turns to lanes; one that gets none stands in line, fewest in flight first.

    So with more work than turns nobody gets more than its share and one. `window` says how many there are;
    `breaker` is the road's, for when all tenants fail in the same way: it lets one message find out instead
    of burning everybody's attempts.
    """

    def __init__(self, window: Window, breaker: Breaker, watch: RoadWatch, clock: IReactorTime) -> None:
        self.window = window
        self.breaker = breaker
        self._watch = watch
        self._clock = clock
        self._taken = 0
        # Those in line by how many they have in flight, and among as many as they came.
        self._line: dict[int, OrderedDict[Waiting, None]] = {}
        self._standing: dict[Waiting, int] = {}
        self._serving = False
        self._served: Waiting | None = None

    @property
    def taken(self) -> int:
        """How many are in flight."""
        return self._taken

    @property
    def starved(self) -> bool:
        """Whether lanes wait because Meta is slow for everybody, and not because there is much to do."""
        return bool(self._standing) and not self.window.full

    @property
    def wanted(self) -> bool:
        """Whether a lane has a turn, or waits for one."""
        return self._taken > 0 or bool(self._standing)

    def take(self, lane: Waiting) -> Turn | None:
        """Take a turn; None puts the lane in line."""
        first = self._served is lane or (not self._standing and not self._serving)
        if not first or self._taken >= self.window.limit or not self.breaker.allows():
            self._stand(lane)
            return None
        self._served = None
        self._taken += 1
        return Turn(lane, self._clock.seconds(), self.breaker.begin())

    def end(self, turn: Turn, word: Word, kind: Hashable, *, answered: bool) -> None:
        """The exchange is over: what it said of the road, what makes troubles the same, and whether Meta
        answered as it does when all is well with it."""
        self._taken -= 1
        if turn.lane in self._standing:
            self._stand(turn.lane)
        if word is Word.TROUBLE:
            self._trouble(turn, kind)
        elif answered:
            self._well(turn)
        else:
            self.breaker.released(turn.ticket)
        self.serve()

    def leave(self, lane: Waiting) -> None:
        """The lane does not want a turn any more."""
        in_flight = self._standing.pop(lane, None)
        if in_flight is None:
            return
        alike = self._line[in_flight]
        del alike[lane]
        if not alike:
            del self._line[in_flight]

    def serve(self) -> None:
        """Give what is free to those in line."""
        if self._serving:
            return  # the loop below sees it; from here, lanes whose messages end at once would nest in it
        self._serving = True
        try:
            while self._taken < self.window.limit and self.breaker.allows() and (lane := self._next()):
                self._served = lane
                lane.pump()
        finally:
            self._serving = False
            self._served = None

    def _stand(self, lane: Waiting) -> None:
        if self._standing.get(lane) == lane.in_flight:
            return
        self.leave(lane)
        self._standing[lane] = lane.in_flight
        self._line.setdefault(lane.in_flight, OrderedDict())[lane] = None

    def _next(self) -> Waiting | None:
        if not self._line:
            return None
        # There are few numbers in flight: of different ones no more than their sum, the window, allows.
        lane = next(iter(self._line[min(self._line)]))
        self.leave(lane)
        return lane

    def _trouble(self, turn: Turn, kind: Hashable) -> None:
        self._watch.heard(turn.lane.tenant_id, kind)
        self.breaker.failed(turn.ticket)
        if self.breaker.state is State.CLOSED and self._watch.all_fail_alike():
            self._watch.clear()
            self.breaker.trip()
        elif self._watch.everybody_in_trouble():
            self.window.troubled()

    def _well(self, turn: Turn) -> None:
        self.breaker.succeeded(turn.ticket)
        seconds = self._clock.seconds() - turn.began
        slow = self.window.slow(seconds)
        self._watch.heard(turn.lane.tenant_id, _SLOW if slow else None)
        self.window.passed(seconds, self._taken + 1)
        if slow and self._watch.everybody_in_trouble():
            self.window.troubled()
