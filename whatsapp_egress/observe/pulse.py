"""A look once in a while at what no event tells: how late the reactor is, what lanes wait for, how fair it
is."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client import Counter as Counting
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from whatsapp_egress.observe.chronicle import Chronicle
from whatsapp_egress.pipeline.lanes import Lanes
from whatsapp_egress.pipeline.road import Cause

log = Logger()

BEAT_SECONDS = 1.0
"""Between two looks how late the reactor is."""

LOOK_BEATS = 5
"""Beats between two looks at all lanes: with thousands of them each costs milliseconds."""

LAG_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Pulse:
    """Beats while the service runs."""

    def __init__(
        self, registry: CollectorRegistry, clock: IReactorTime, lanes: Lanes, chronicle: Chronicle
    ) -> None:
        self.lag = 0.0
        """Seconds that the last beat was late."""
        self.fairness = 1.0
        """Jain's index over the tenants that had work in the last minute: 1 is fair, 1/n is one for all."""
        self._clock = clock
        self._lanes = lanes
        self._chronicle = chronicle
        self._beats = 0
        self._due = 0.0
        self._lags = Histogram(
            "whatsapp_egress_loop_lag_seconds",
            "How late the reactor was, looked at once a second.",
            buckets=LAG_SECONDS,
            registry=registry,
        )
        self._waited = Counting(
            "whatsapp_egress_waited_seconds",
            "Seconds that messages waited, all added up, by what for.",
            ["cause"],
            registry=registry,
        )
        for cause in Cause:
            self._waited.labels(cause.value)
        self._call = LoopingCall(self._beat)
        self._call.clock = clock

    def start(self) -> None:
        """Beat."""
        self._due = self._clock.seconds() + BEAT_SECONDS
        self._call.start(BEAT_SECONDS, now=False).addErrback(
            lambda failure: log.failure("pulse_failed", failure)
        )

    def stop(self) -> None:
        """Beat no more."""
        if self._call.running:
            self._call.stop()

    def _beat(self) -> None:
        self.lag = max(0.0, self._clock.seconds() - self._due)
        self._lags.observe(self.lag)
        self._due += BEAT_SECONDS * (1 + self.lag // BEAT_SECONDS)  # the call skips the beats it missed
        self._beats += 1
        if self._beats % LOOK_BEATS == 0:
            self._look()

    def _look(self) -> None:
        served = dict(self._chronicle.busy())
        standing = {}
        for lane in self._lanes:
            waits = lane.outlook.waits_for()
            if waits is None:
                continue
            deferral = self._lanes.deferral(lane.tenant_id)
            waiting = lane.active - lane.in_flight + (deferral.waiting if deferral is not None else 0)
            self._waited.labels(waits.cause.value).inc(waiting * LOOK_BEATS * BEAT_SECONDS)
            if waits.cause is Cause.TURN:
                standing[lane.tenant_id] = waiting
        had_work = served.keys() | standing.keys()
        self.fairness = jain([_share(served.get(each, 0), standing.get(each, 0)) for each in had_work])


def jain(shares: Iterable[float]) -> float:
    """Jain's fairness index of what each got: (Σx)² / (n·Σx²); 1.0 where nobody wanted anything."""
    got = list(shares)
    squares = sum(each * each for each in got)
    return sum(got) ** 2 / (len(got) * squares) if squares else 1.0


def _share(served: int, standing: int) -> float:
    """The part of its work that a tenant got done, of what waits for nothing but a turn: what it may not send
    for reasons of its own (rate, pause, throttle) is nobody's unfairness."""
    return served / (served + standing)
