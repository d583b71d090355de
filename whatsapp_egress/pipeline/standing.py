"""What is known of a tenant beyond the messages it has in hand."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from whatsapp_egress.policy.breaker import Breaker, State
from whatsapp_egress.policy.credentials import Credentials
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.policy.quota import DailyQuota
from whatsapp_egress.policy.rate import Rate
from whatsapp_egress.policy.road import MEMORY_SECONDS

KEEP_RATES = 3_600.0
"""How long the rate that a number was found to bear is remembered, in seconds."""

KEEP = 86_400.0
"""How long the rest is remembered of a tenant that sends nothing: a day's quota needs it."""

NO_LIMIT = sys.maxsize
"""Messages a day of a tenant that had a limit and has none now."""

KEEP_MOST = 10_000
"""Tenants that something is remembered of while they have no lane; the one gone longest is forgotten
first."""


def _nobody() -> None:
    """Who is told of a change while the tenant has no lane."""


@define(eq=False)
class Standing:
    """A tenant's breaker, what its numbers were found to bear, its day's quota, an operator's pause.

    It outlives the lane, which is there only while there is something to send. `on_change` is the lane's.
    """

    _clock: IReactorTime
    _default_rate: float
    _observe: Callable[[Breaker], None]
    _threshold: int
    _reset: float
    on_change: Callable[[], None] = field(default=_nobody, init=False)
    breaker: Breaker = field(init=False)
    rates: dict[str, Rate] = field(factory=dict, init=False)
    quota: DailyQuota | None = field(default=None, init=False)
    pause: Pause | None = field(default=None, init=False)
    limit: float = field(init=False)
    """Messages a second that each number may send, by the credentials seen last."""
    _per_day: int | None = field(default=None, init=False)
    left_at: float = field(default=0.0, init=False)
    """When its lane was let go, by the reactor's clock."""

    def __attrs_post_init__(self) -> None:
        self.limit = self._default_rate
        self.breaker = Breaker(self._threshold, lambda _n: self._reset, self._clock, self._changed)

    def rate(self, phone_number_id: str) -> Rate:
        """What the number may send."""
        rate = self.rates.get(phone_number_id)
        if rate is None:
            rate = self.rates[phone_number_id] = Rate(self.limit, self._clock)
        return rate

    def learn(self, credentials: Credentials, workers: int) -> bool:
        """Take the limits of the credentials over; True when they are others than before."""
        self._per_day = credentials.messages_per_day
        changed = self.share(workers)
        limit = credentials.messages_per_second or self._default_rate
        if limit == self.limit:
            return changed
        self.limit = limit
        for rate in self.rates.values():
            rate.change_limit(limit)
        return True

    def forget_whole(self) -> None:
        """Drop what is not worth keeping: numbers that may send as fast as they are allowed to."""
        for number in [number for number, rate in self.rates.items() if not rate.cut]:
            del self.rates[number]

    @property
    def noteworthy(self) -> bool:
        """Whether anything in it differs from what a tenant begins with."""
        return (
            not self.breaker.pristine
            or bool(self.rates)
            or self.pause is not None
            or (self.quota is not None and not self.quota.unused)
        )

    def share(self, workers: int) -> bool:
        """So many workers share the day's quota; True when its part is another one than before. Not left to
        the next message: while the quota is used up there is none."""
        if self.quota is None and self._per_day is None:
            return False
        # What was counted still counts when the limit comes back.
        share = NO_LIMIT if self._per_day is None else max(1, self._per_day // workers)
        if self.quota is None:
            self.quota = DailyQuota(share, self._clock)
        elif self.quota.per_day != share:
            self.quota.change(share)
        else:
            return False
        return True

    def _changed(self, _state: State) -> None:
        self._observe(self.breaker)
        self.on_change()


@define(eq=False)
class Standings:
    """The standing of each tenant that has a lane, and of those that something is worth remembering of.

    `observe` is told of each change of a tenant's breaker. `threshold` and `reset` are the breakers'
    (BREAKER_FAILURE_THRESHOLD, and BREAKER_RESET_TIMEOUT in seconds).
    """

    _clock: IReactorTime
    _default_rate: float
    _threshold: int
    _reset: float
    _observe: Callable[[str, Breaker], None]
    _in_use: dict[str, Standing] = field(factory=dict, init=False)
    _left: OrderedDict[str, Standing] = field(factory=OrderedDict, init=False)

    def take(self, tenant_id: str) -> Standing:
        """The standing of a tenant that gets a lane."""
        standing = self._left.pop(tenant_id, None)
        if standing is None:
            standing = self.new(tenant_id)
        elif self._clock.seconds() - standing.left_at > KEEP_RATES:
            standing.rates.clear()
        self._in_use[tenant_id] = standing
        return standing

    def new(self, tenant_id: str) -> Standing:
        """What a tenant begins with; it is not kept here."""
        return Standing(
            self._clock, self._default_rate, partial(self._observe, tenant_id), self._threshold, self._reset
        )

    def leave(self, tenant_id: str) -> None:
        """The tenant has no lane any more."""
        standing = self._in_use.pop(tenant_id)
        standing.on_change = _nobody
        standing.left_at = self._clock.seconds()
        standing.forget_whole()
        if standing.noteworthy:
            self._left[tenant_id] = standing
        self._forget_old()

    def find(self, tenant_id: str) -> Standing | None:
        """What is known of the tenant, if anything is."""
        return self._in_use.get(tenant_id) or self._left.get(tenant_id)

    def acquit(self) -> None:
        """The road is broken: what opened breakers just now was not their tenants' trouble."""
        since = self._clock.seconds() - MEMORY_SECONDS
        for standing in (*self._in_use.values(), *self._left.values()):
            if standing.breaker.opened_since(since):
                standing.breaker.close()

    def stop(self) -> None:
        """Forget the timers, for good."""
        for standing in (*self._in_use.values(), *self._left.values()):
            standing.breaker.stop()

    def _forget_old(self) -> None:
        oldest = self._clock.seconds() - KEEP
        while self._left:
            tenant_id, standing = next(iter(self._left.items()))
            if standing.left_at > oldest and len(self._left) <= KEEP_MOST:
                return
            standing.breaker.stop()
            del self._left[tenant_id]
