"""A token bucket: how fast one phone number may send."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

log = Logger()

BURST_INTERVALS = 2
"""Refill intervals' worth a full bucket holds: one that the tick brings, one against a tick that is late.

More would let a quiet sender exceed its rate by the surplus; two of 100 ms are 4% over 5 s. Where they are
worth less than two tokens, it holds a whole token and what a tick brings, or ticks would spill."""


class Bucket:
    """Gives `rate` tokens a second, a whole one a message.

    A `LoopingCall` fills it while it is not full, with what the time that really passed is worth, and calls
    `on_refill` after each tick; a full bucket has no timer.
    """

    def __init__(
        self, rate: float, interval: float, clock: IReactorTime, on_refill: Callable[[], None]
    ) -> None:
        self._interval = interval
        self._clock = clock
        self._on_refill = on_refill
        self._rate = rate
        self._tokens = self.capacity
        self._filled_at = clock.seconds()
        self._refill = LoopingCall(self._tick)
        self._refill.clock = clock

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self._rate

    @property
    def capacity(self) -> float:
        """Tokens a full bucket holds, more than one."""
        a_tick = self._rate * self._interval
        return max(1.0 + a_tick, a_tick * BURST_INTERVALS)

    @property
    def available(self) -> float:
        """Tokens there now."""
        return self._tokens

    @property
    def next_in(self) -> float:
        """Seconds until there is a token; the tick that brings it comes an interval later at the most."""
        since = max(0.0, self._clock.seconds() - self._filled_at)
        return max(0.0, (1.0 - self._tokens) / self._rate - since)

    @property
    def full(self) -> bool:
        """Whether it is full, and so costs nothing."""
        return self._tokens >= self.capacity

    def change_rate(self, rate: float) -> None:
        """Give `rate` tokens a second from now on.

        It will be full as many seconds from now as it would have been, or when an empty one is. Were it the
        tokens that are kept, or those that are missing, each change up and down would give some for nothing.
        """
        self._fill()
        missing = (self.capacity - self._tokens) * (rate / self._rate)
        self._rate = rate
        self._tokens = max(0.0, self.capacity - missing)
        if self.full:
            self.stop()

    def take(self) -> bool:
        """Take one token; False when there is none."""
        if self._tokens < 1:
            return False
        if not self._refill.running:
            self._filled_at = self._clock.seconds()
        self._tokens -= 1
        self._start()
        return True

    def stop(self) -> None:
        """Stop filling, until a token is taken."""
        if self._refill.running:
            self._refill.stop()

    def _start(self) -> None:
        if not self._refill.running:
            self._refill.start(self._interval, now=False).addErrback(
                lambda failure: log.failure("bucket_refill_failed", failure)
            )

    def _fill(self) -> None:
        now = self._clock.seconds()
        # A clock that was set back gives nothing, rather than taking tokens away.
        self._tokens = min(self.capacity, self._tokens + max(0.0, now - self._filled_at) * self._rate)
        self._filled_at = now

    def _tick(self) -> None:
        self._fill()
        self._on_refill()
        # Only now, for what was called may have taken tokens, or stopped us for good.
        if self.full:
            self.stop()
