"""What happened in the last quarter of an hour, for people to look at."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime

from whatsapp_egress.message import Identity
from whatsapp_egress.observe.everyone import Deaf
from whatsapp_egress.pipeline.job import Job, Parcel
from whatsapp_egress.policy.verdict import Dead, Fault, Reason, Sent, Wait

STEP = 5
"""Seconds that one point of a plot stands for."""

POINTS = 180
"""Points kept: a quarter of an hour."""

MINUTE = 60 // STEP

MOST_DEAD_LETTERS = 50
"""Latest dead letters kept."""

MOST_TENANTS = 10_000
"""Tenants of which something is remembered; who was heard of longest ago is forgotten first."""

BOUNDS = tuple(0.01 * 1.25**power for power in range(60))
"""Upper bounds of latency classes in seconds, 10 ms to an hour and a half: a percentile is off by a quarter
at the most."""


@define(eq=False)
class Point:
    """What happened in one step. `latencies` counts deliveries by class: from taken to accepted by Meta."""

    number: int
    sent: int = 0
    failed: int = 0
    retried: int = 0
    throttled: int = 0
    latencies: dict[int, int] = field(factory=dict)

    def percentile(self, part: float) -> float | None:
        """Milliseconds within which that part was sent; None where nothing was."""
        left = part * sum(self.latencies.values())
        for each in sorted(self.latencies):
            left -= self.latencies[each]
            if left <= 0:
                return round(BOUNDS[min(each, len(BOUNDS) - 1)] * 1000, 1)
        return None


@frozen
class Trouble:
    """The last thing that went wrong for a tenant; `at` in seconds since the epoch."""

    at: float
    fault: Fault
    reason: Reason | None = None


@frozen
class DeadLetter:
    """A message that was dead-lettered; `at` in seconds since the epoch."""

    at: float
    identity: Identity
    dead: Dead
    attempts: int


@define(eq=False)
class Minute:
    """What ended for one tenant, as [step, sent, failed], in the steps in which anything did."""

    steps: list[list[int]] = field(factory=list)

    def at(self, number: int) -> list[int]:
        """The counts of this step."""
        if not self.steps or self.steps[-1][0] != number:
            self.steps = [step for step in self.steps if step[0] >= number - MINUTE]
            self.steps.append([number, 0, 0])
        return self.steps[-1]

    def since(self, number: int) -> tuple[int, int]:
        """How many were sent and how many failed from that step on."""
        recent = [step for step in self.steps if step[0] >= number]
        return sum(step[1] for step in recent), sum(step[2] for step in recent)


@frozen
class Series:
    """The plots: `until` is when the last step ends, in seconds since the epoch; latencies in ms."""

    step: int
    until: float
    sent: list[int]
    failed: list[int]
    retried: list[int]
    throttled: list[int]
    p50Ms: list[float | None]
    p95Ms: list[float | None]


class Chronicle(Deaf):
    """An `Observer` that remembers. `now` gives seconds since the epoch."""

    def __init__(self, clock: IReactorTime, now: Callable[[], float]) -> None:
        self._clock = clock
        self._now = now
        self._points: deque[Point] = deque([Point(self._number)], maxlen=POINTS)
        # Those of which something ended in the last minute, and what went wrong for whom; latest last.
        self._minutes: OrderedDict[str, Minute] = OrderedDict()
        self._troubles: OrderedDict[str, Trouble] = OrderedDict()
        self.dead_letters: deque[DeadLetter] = deque(maxlen=MOST_DEAD_LETTERS)

    # -- what is observed --------------------------------------------------------------------------

    def delivered(self, parcel: Parcel, sent: Sent) -> None:
        point = self._point()
        point.sent += 1
        kind = bisect_left(BOUNDS, self._clock.seconds() - parcel.received)
        point.latencies[kind] = point.latencies.get(kind, 0) + 1
        if parcel.identity.tenant_id is not None:
            self._minute(parcel.identity.tenant_id, point.number)[1] += 1

    def dead_lettered(self, parcel: Parcel, dead: Dead) -> None:
        point = self._point()
        point.failed += 1
        self.dead_letters.appendleft(DeadLetter(self._now(), parcel.identity, dead, parcel.attempts))
        if parcel.identity.tenant_id is not None:
            self._minute(parcel.identity.tenant_id, point.number)[2] += 1
        self._trouble(parcel, dead.fault or Fault(dead.detail), dead.reason)

    def retrying(self, job: Job, fault: Fault, delay: float) -> None:
        self._point().retried += 1
        self._trouble(job, fault)

    def waiting(self, job: Job, wait: Wait, delay: float) -> None:
        if wait.fault.error_class is not None:
            self._point().throttled += 1
        self._trouble(job, wait.fault)

    # -- what is asked -----------------------------------------------------------------------------

    def series(self) -> Series:
        """The last quarter of an hour, the oldest step first; the last step is still going on."""
        last = self._point().number
        by_number = {point.number: point for point in self._points}
        points = [by_number.get(number) or Point(number) for number in range(last - POINTS + 1, last + 1)]
        return Series(
            step=STEP,
            until=self._now() + (last + 1) * STEP - self._clock.seconds(),
            sent=[point.sent for point in points],
            failed=[point.failed for point in points],
            retried=[point.retried for point in points],
            throttled=[point.throttled for point in points],
            p50Ms=[point.percentile(0.5) for point in points],
            p95Ms=[point.percentile(0.95) for point in points],
        )

    def last_minute(self) -> tuple[int, int]:
        """How many were sent and how many failed in the last minute (to 65 seconds)."""
        since = self._number - MINUTE
        recent = [point for point in self._points if point.number >= since]
        return sum(point.sent for point in recent), sum(point.failed for point in recent)

    def of(self, tenant_id: str) -> tuple[int, int, Trouble | None]:
        """The same of one tenant, and its last trouble."""
        minute = self._minutes.get(tenant_id)
        sent, failed = (0, 0) if minute is None else minute.since(self._number - MINUTE)
        return sent, failed, self._troubles.get(tenant_id)

    def busy(self) -> Iterator[tuple[str, int]]:
        """The tenants of which something ended in the last minute, and how much."""
        self._forget_quiet(self._number)
        for tenant_id, minute in self._minutes.items():
            yield tenant_id, sum(minute.since(self._number - MINUTE))

    # -- keeping -----------------------------------------------------------------------------------

    @property
    def _number(self) -> int:
        return int(self._clock.seconds() // STEP)

    def _point(self) -> Point:
        number = self._number
        if self._points[-1].number != number:
            self._points.append(Point(number))
        return self._points[-1]

    def _minute(self, tenant_id: str, number: int) -> list[int]:
        minute = self._minutes.get(tenant_id)
        if minute is None:
            minute = self._minutes[tenant_id] = Minute()
        self._minutes.move_to_end(tenant_id)
        counts = minute.at(number)
        self._forget_quiet(number)
        return counts

    def _forget_quiet(self, number: int) -> None:
        while self._minutes:
            tenant_id, minute = next(iter(self._minutes.items()))
            if minute.steps[-1][0] >= number - MINUTE and len(self._minutes) <= MOST_TENANTS:
                return
            del self._minutes[tenant_id]

    def _trouble(self, parcel: Parcel, fault: Fault, reason: Reason | None = None) -> None:
        tenant_id = parcel.identity.tenant_id
        if tenant_id is None:
            return
        self._troubles[tenant_id] = Trouble(self._now(), fault, reason)
        self._troubles.move_to_end(tenant_id)
        if len(self._troubles) > MOST_TENANTS:
            self._troubles.popitem(last=False)
