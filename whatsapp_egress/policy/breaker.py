"""A circuit breaker: stops what keeps failing, and lets one attempt at a time find out if it works again."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from twisted.internet.interfaces import IDelayedCall, IReactorTime

_UNHEARD = 0
"""The ticket of an attempt that began where none is allowed: nobody listens to its end."""


class State(str, Enum):
    """What a breaker lets through: everything, nothing, or one attempt at a time."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """A circuit breaker: `threshold` failures in a row open it, and one success after a rest closes it.

    =========  ==========  ============  ==============  ====================
    state      may begin   succeeded     failed          released
    =========  ==========  ============  ==============  ====================
    closed     all         counts anew   counts; opens   nothing
    open       none        not heard     not heard       not heard
    half-open  one: probe  closes        opens again     another probe may go
    =========  ==========  ============  ==============  ====================

    It is open for `reset(n)` seconds, n counting from 0 how often it opened in a row without closing in
    between; then it is half-open. An attempt that began in an earlier state is not heard when it ends.
    `on_change` is called after each change, with the new state; it may use the breaker.
    """

    # A plain class and not a machine of automat's: that searches the set of all transitions at each input,
    # which takes 0.5 to 2.9 µs (by the order that hashing happens to give them), and there are several inputs
    # per message.

    def __init__(
        self,
        threshold: int,
        reset: Callable[[int], float],
        clock: IReactorTime,
        on_change: Callable[[State], None],
    ) -> None:
        self._threshold = threshold
        self._reset = reset
        self._clock = clock
        self._on_change = on_change
        self._state = State.CLOSED
        # The one that is heard: each state has its own, and each probe. Nobody gets that of an open one.
        self._ticket = _UNHEARD + 1
        self._failures = 0
        self._openings = 0
        self._opened_at: float | None = None
        self._probing = False
        self._timer: IDelayedCall | None = None
        self._stopped = False

    @property
    def state(self) -> State:
        """What it lets through now."""
        return self._state

    @property
    def until(self) -> float | None:
        """When it half-opens, by its clock in seconds; None when it is not open, or was stopped."""
        return None if self._timer is None else self._timer.getTime()

    def opened_since(self, when: float) -> bool:
        """Whether it opened at `when` or later, by its clock, having been closed before, and has not closed
        again."""
        return self._opened_at is not None and self._opened_at >= when

    @property
    def failures(self) -> int:
        """How many attempts failed in a row while it is closed."""
        return self._failures

    @property
    def pristine(self) -> bool:
        """Whether there is nothing worth remembering: it is closed, and no failure is counted."""
        return self._state is State.CLOSED and self._failures == 0

    def allows(self) -> bool:
        """Whether an attempt may begin now."""
        if self._state is State.HALF_OPEN:
            return not self._probing
        return self._state is State.CLOSED

    def begin(self) -> int:
        """An attempt begins; its end is to be told with the ticket. In half-open it is the probe."""
        if not self.allows():
            return _UNHEARD
        self._probing = self._state is State.HALF_OPEN
        return self._ticket

    def succeeded(self, ticket: int) -> None:
        """An attempt went well."""
        if ticket != self._ticket:
            return
        if self._state is State.HALF_OPEN:
            self._close()
        else:
            self._failures = 0

    def failed(self, ticket: int) -> None:
        """An attempt failed, and that counts."""
        if ticket != self._ticket:
            return
        self._failures += 1
        if self._state is State.HALF_OPEN or self._failures >= self._threshold:
            self._open()

    def released(self, ticket: int) -> None:
        """An attempt ended without saying whether it works: neither for nor against."""
        if ticket == self._ticket and self._state is State.HALF_OPEN:
            self._probing = False
            self._ticket += 1

    def trip(self) -> None:
        """Open it now, whatever was counted. One that is open already is left alone."""
        if self._state is not State.OPEN:
            self._open()

    def close(self) -> None:
        """Close it now, by hand, and forget what was counted."""
        self._failures = 0
        if self._state is not State.CLOSED:
            self._close()

    def stop(self) -> None:
        """Forget the timer, for good: one that is open, or opens later, stays so until closed by hand."""
        self._stopped = True
        self._forget_timer()

    def _close(self) -> None:
        self._openings = 0
        self._opened_at = None
        self._forget_timer()
        self._enter(State.CLOSED)

    def _open(self) -> None:
        if not self._stopped:
            self._timer = self._clock.callLater(self._reset(self._openings), self._half_open)
        if self._openings == 0:
            self._opened_at = self._clock.seconds()
        self._openings += 1
        self._enter(State.OPEN)

    def _half_open(self) -> None:
        self._timer = None
        self._enter(State.HALF_OPEN)

    def _enter(self, state: State) -> None:
        self._state = state
        self._ticket += 1
        self._failures = 0
        self._probing = False
        self._on_change(state)

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
