"""The messages that wait to be tried again, and with them their conversations."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from attrs import define, field, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from whatsapp_egress.pipeline.job import Job

Key = tuple[str, Hashable]
"""A conversation: phone number id and recipient."""


def key_of(job: Job) -> Key | None:
    """The conversation of a message, None for one that waits for nobody."""
    message = job.message
    return None if message.recipient is None else (message.phone_number_id, message.recipient)


@frozen
class _Memory:
    until: float
    pair_throttles: int


@define(eq=False)
class Holds:
    """One timer per message held. A conversation that is put aside meanwhile is held again when it comes
    back, for the rest of its time. `release` gets a message whose time has come."""

    _clock: IReactorTime
    _release: Callable[[Job], None]
    _timers: dict[int, IDelayedCall] = field(factory=dict, init=False)
    _aside: dict[Key, _Memory] = field(factory=dict, init=False)

    def hold(self, job: Job, delay: float) -> None:
        """Keep `job` back for `delay` seconds."""
        self._timers[id(job)] = self._clock.callLater(delay, self._over, job)

    def until(self, job: Job) -> float | None:
        """When its time comes, by the clock; None where it is not held."""
        timer = self._timers.get(id(job))
        return None if timer is None else timer.getTime()

    def put_aside(self, job: Job) -> None:
        """`job` leaves, and its conversation with it."""
        timer = self._timers.pop(id(job), None)
        if timer is None:
            return
        timer.cancel()
        if (key := key_of(job)) is not None:
            self._aside[key] = _Memory(timer.getTime(), job.pair_throttles)

    def rest(self, job: Job) -> float:
        """Seconds that a message which came back has still to wait; its conversation is not aside any
        more."""
        key = key_of(job)
        memory = None if key is None else self._aside.pop(key, None)
        if memory is None:
            return 0.0
        job.pair_throttles = memory.pair_throttles
        return max(0.0, memory.until - self._clock.seconds())

    @property
    def first(self) -> float | None:
        """When the time of the next one comes, by the clock; None where none is held."""
        return min((timer.getTime() for timer in self._timers.values()), default=None)

    @property
    def empty(self) -> bool:
        """Whether nothing is held, nor remembered."""
        return not self._timers and not self._aside

    def forget_over(self) -> None:
        """Drop what is aside and whose time has come."""
        now = self._clock.seconds()
        for key in [key for key, memory in self._aside.items() if memory.until <= now]:
            del self._aside[key]

    def stop(self) -> None:
        """Forget all timers, for good."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _over(self, job: Job) -> None:
        del self._timers[id(job)]
        self._release(job)
