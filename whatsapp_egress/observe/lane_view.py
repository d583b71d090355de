"""One tenant's lane as people see it."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from whatsapp_egress.observe.chronicle import Chronicle, Trouble
from whatsapp_egress.observe.times import Times, iso
from whatsapp_egress.observe.words import CAUSES, Words
from whatsapp_egress.pipeline.lane import Lane
from whatsapp_egress.pipeline.lanes import Lanes
from whatsapp_egress.pipeline.road import Cause, WaitsFor
from whatsapp_egress.pipeline.standing import Standing
from whatsapp_egress.policy.breaker import Breaker, State
from whatsapp_egress.policy.pause import Pause

TROUBLE = {
    "breaker_open": 9,
    "credentials": 8,
    "half_open": 7,
    "throttled": 6,
    "day_limit": 5,
    "paused": 4,
    "deferring": 3,
    "waiting": 2,
    "sending": 1,
    "idle": 0,
}
"""The states of a lane, and which of them to look at first: what nobody wanted before what somebody did."""

_MANY = 1_000_000
"""More messages than any lane has waiting."""

_STATES = {
    Cause.BREAKER: "breaker_open",
    Cause.THROTTLE: "throttled",
    Cause.DAY: "day_limit",
    Cause.CREDENTIALS: "credentials",
}

_IDLE_STATES = {State.CLOSED: "idle", State.HALF_OPEN: "half_open", State.OPEN: "breaker_open"}


@frozen
class WaitsForView:
    """What the next message waits for."""

    cause: str
    until: str | None
    inWords: str


@frozen
class BreakerView:
    """A tenant's breaker; `failures` in a row while it is closed."""

    state: str
    failures: int
    until: str | None


@frozen
class PauseView:
    """An operator's pause."""

    reason: str
    actor: str
    since: str | None
    until: str | None


@frozen
class NumberView:
    """One phone number of a tenant: `rate` in messages a second; the bucket has `tokens`, `burst` at most."""

    phoneNumberId: str
    active: int
    inFlight: int
    rate: float
    tokens: float
    burst: float
    throttledUntil: str | None


@frozen
class ErrorView:
    """The last thing that went wrong; `reason` where a message was dead-lettered for it."""

    at: str | None
    code: int | None
    subcode: int | None
    title: str
    detail: str
    advice: str
    reason: str | None


@frozen
class LaneView:
    """A lane. Ages in seconds, rates in messages a second; `trouble` is larger the more there is."""

    tenantId: str
    state: str
    waitsFor: WaitsForView | None
    inFlight: int
    active: int
    deferred: int
    oldestSeconds: float | None
    sentLastMinute: int
    failedLastMinute: int
    rate: float
    limit: float
    breaker: BreakerView
    pause: PauseView | None
    numbers: list[NumberView]
    lastError: ErrorView | None
    trouble: int


@frozen
class LaneReader:
    """Reads lanes. `show` takes out of a text what nobody is to see."""

    times: Times
    lanes: Lanes
    chronicle: Chronicle
    words: Words
    show: Callable[[str], str]

    def view(self, lane: Lane) -> LaneView:
        """The lane as it is now."""
        waits_for, standing = lane.outlook.waits_for(), lane.standing
        deferral = self.lanes.deferral(lane.tenant_id)
        deferred = deferral.waiting if deferral is not None else 0
        state = _state(lane, waits_for, behind=deferral is not None and deferral.behind)
        numbers = [self._number(number, lane) for number in lane.senders]
        sent, failed, trouble = self.chronicle.of(lane.tenant_id)
        return LaneView(
            tenantId=lane.tenant_id,
            state=state,
            waitsFor=None if waits_for is None else self._waits_for(waits_for),
            inFlight=lane.in_flight,
            active=lane.active,
            deferred=deferred,
            oldestSeconds=self._oldest(lane),
            sentLastMinute=sent,
            failedLastMinute=failed,
            rate=round(sum(each.rate for each in numbers), 3),
            limit=standing.limit,
            breaker=self._breaker(standing.breaker),
            pause=self._pause(standing.pause),
            numbers=numbers,
            lastError=self._error(trouble),
            trouble=TROUBLE[state] * _MANY + min(_MANY - 1, lane.active + deferred),
        )

    def view_idle(self, tenant_id: str, standing: Standing) -> LaneView:
        """A tenant of which nothing is in hand, but something is known."""
        sent, failed, trouble = self.chronicle.of(tenant_id)
        state = _IDLE_STATES[standing.breaker.state] if standing.pause is None else "paused"
        return LaneView(
            tenantId=tenant_id,
            state=state,
            waitsFor=None,
            inFlight=0,
            active=0,
            deferred=0,
            oldestSeconds=None,
            sentLastMinute=sent,
            failedLastMinute=failed,
            rate=round(sum(rate.current for rate in standing.rates.values()) or standing.limit, 3),
            limit=standing.limit,
            breaker=self._breaker(standing.breaker),
            pause=self._pause(standing.pause),
            numbers=[],
            lastError=self._error(trouble),
            trouble=TROUBLE[state] * _MANY,
        )

    def _number(self, phone_number_id: str, lane: Lane) -> NumberView:
        sender = lane.senders[phone_number_id]
        return NumberView(
            phoneNumberId=phone_number_id,
            active=len(sender.order),
            inFlight=sender.in_flight,
            rate=round(sender.bucket.rate, 3),
            tokens=round(max(0.0, sender.bucket.available), 3),
            burst=round(sender.bucket.capacity, 3),
            throttledUntil=self.times.at(sender.gate.opens_at),
        )

    def _waits_for(self, waits_for: WaitsFor) -> WaitsForView:
        cause = waits_for.cause
        return WaitsForView(cause.value, self.times.at(waits_for.until), f"waits {CAUSES[cause]}")

    def _breaker(self, breaker: Breaker) -> BreakerView:
        return BreakerView(breaker.state.value, breaker.failures, self.times.at(breaker.until))

    def _pause(self, pause: Pause | None) -> PauseView | None:
        """What operators write there is shown to all who look."""
        if pause is None:
            return None
        return PauseView(self.show(pause.reason), self.show(pause.actor), iso(pause.since), iso(pause.until))

    def _oldest(self, lane: Lane) -> float | None:
        """By the time that upstream gave the message, and since it came where it gave none. What is deferred
        can't be seen, but not been there for longer than the lane is behind."""
        now = self.times.now()
        ages = [
            now - job.message.created if job.message.created is not None else self.times.since(job.received)
            for sender in lane.senders.values()
            for job in sender.order
        ]
        deferral = self.lanes.deferral(lane.tenant_id)
        if deferral is not None and deferral.behind and deferral.waiting:
            ages.append(self.times.since(deferral.since))
        return round(max(0.0, *ages), 1) if ages else None

    def _error(self, trouble: Trouble | None) -> ErrorView | None:
        if trouble is None:
            return None
        fault = trouble.fault
        title, advice = self.words.of(fault, trouble.reason)
        return ErrorView(
            at=iso(trouble.at),
            code=fault.code,
            subcode=fault.subcode,
            title=title,
            detail=self.show(fault.detail),
            advice=advice,
            reason=None if trouble.reason is None else trouble.reason.value,
        )


def _state(lane: Lane, waits_for: WaitsFor | None, *, behind: bool) -> str:
    standing = lane.standing
    if standing.pause is not None:
        return "paused"
    if standing.breaker.state is State.HALF_OPEN:
        return "half_open"
    if waits_for is not None and waits_for.cause in _STATES:
        return _STATES[waits_for.cause]
    if behind:
        return "deferring"
    if lane.in_flight:
        return "sending"
    return "waiting" if lane.active else "idle"
