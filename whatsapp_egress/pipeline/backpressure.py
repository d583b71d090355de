"""When to take no more messages from the queue that all tenants share, and why."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from attrs import define, field

from whatsapp_egress.pipeline.observer import Observer
from whatsapp_egress.pipeline.recent import Recent
from whatsapp_egress.pipeline.rounds import Rounds
from whatsapp_egress.pipeline.turns import Turns
from whatsapp_egress.policy.breaker import State

LESS = 0.5
"""Part of the bytes allowed in hand below which there is room again."""

SLOW_LOOKS = 2
"""Looks in a row, one a second, that must find Meta slow, or fast again: one would flutter."""


class Reason(str, Enum):
    """Why nothing is taken: the road to Meta is broken, Meta is slow for everybody, too many bytes in
    hand."""

    ROAD = "road"
    SLOW = "slow"
    BYTES = "bytes"


@define(eq=False)
class Backpressure:
    """Stops consumption while there is a reason to. A deep queue is none.

    `hold` and `release` are the broker's; both are called once for each change.
    """

    _turns: Turns
    _recent: Recent
    _most_bytes: int
    """Of bodies in hand (HELD_MAX_BYTES)."""
    _hold: Callable[[], None]
    _release: Callable[[], None]
    _observer: Observer
    _rounds: Rounds
    _reasons: set[Reason] = field(factory=set, init=False)
    _slow_looks: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._rounds.looks.append(self._look)

    @property
    def on(self) -> bool:
        """Whether nothing is taken now."""
        return bool(self._reasons)

    @property
    def reasons(self) -> list[str]:
        """Why nothing is taken now."""
        return sorted(reason.value for reason in self._reasons)

    @property
    def heavy(self) -> bool:
        """Whether too many bytes are in hand."""
        return Reason.BYTES in self._reasons

    def took(self) -> None:
        """A message was taken."""
        if self._recent.bytes > self._most_bytes:
            self._set(Reason.BYTES, True)
        self._look_at_road()

    def road_changed(self) -> None:
        """The road's breaker changed."""
        self._look_at_road()

    def _look(self) -> bool:
        if self._recent.bytes <= self._most_bytes * LESS:
            self._set(Reason.BYTES, False)
        self._look_at_road()
        slow = Reason.SLOW in self._reasons
        self._slow_looks = self._slow_looks + 1 if self._turns.starved != slow else 0
        if self._slow_looks >= SLOW_LOOKS:
            self._slow_looks = 0
            self._set(Reason.SLOW, not slow)
        return self.on

    def _look_at_road(self) -> None:
        state = self._turns.breaker.state
        # Half-open, one message must find out: where none in hand can, one has to come.
        probe_in_hand = state is State.HALF_OPEN and self._turns.wanted
        self._set(Reason.ROAD, state is State.OPEN or probe_in_hand)

    def _set(self, reason: Reason, holds: bool) -> None:
        if holds == (reason in self._reasons):
            return
        before = self.on
        (self._reasons.add if holds else self._reasons.discard)(reason)
        self._observer.backpressure(reason.value, on=holds)
        self._rounds.wake()
        if self.on != before:
            (self._hold if self.on else self._release)()
