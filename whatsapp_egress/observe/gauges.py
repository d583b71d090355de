"""How things stand, as gauges for Prometheus: read on the reactor when somebody asks, made in a thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from attrs import define, frozen
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from whatsapp_egress import __version__
from whatsapp_egress.observe.labels import OTHER, UNKNOWN, TenantLabels
from whatsapp_egress.observe.lane_view import LaneView
from whatsapp_egress.observe.overview import Overview, Totals, oldest
from whatsapp_egress.pipeline.backpressure import Reason
from whatsapp_egress.pipeline.road import Cause
from whatsapp_egress.policy.breaker import State

PREFIX = "whatsapp_egress_"

SLICE = 50
"""Lanes read at once, in about 2 ms; then the reactor has its turn."""


@frozen
class BrokerState:
    """What is read from the broker's client: by connection whether it is there and how often it was made, by
    exchange how many publishes are not confirmed."""

    connected: Mapping[str, bool]
    made: Mapping[str, int]
    unconfirmed: Mapping[str, int]


@frozen
class Reading:
    """Everything that gauges are made of, read at one moment, safe to be looked at in a thread. `labelled`
    has the lanes by label, `breakers` the state of each label's and `road` that of all, `waiting` lanes by
    what they wait for."""

    totals: Totals
    backpressure: list[str]
    road: str
    started: float
    consuming: bool
    labelled: Mapping[str, list[LaneView]]
    breakers: Mapping[str, str]
    waiting: Mapping[str, int]
    broker: BrokerState
    depths: Mapping[str, int | None]


@define(eq=False)
class Gauges:
    """Reads what gauges show. The names of `queues` are those of the queue in and of the dead-letter
    queue."""

    _overview: Overview
    _labels: TenantLabels
    _broker: Callable[[], BrokerState]
    _queues: tuple[str, str]
    _clock: IReactorTime

    async def read(self) -> Reading:
        """Everything as it is now. With many lanes it takes a while, in which messages go on."""
        views: list[LaneView] = []
        lanes = list(self._overview.lanes)
        for start in range(0, len(lanes), SLICE):
            views += [self._overview.reader.view(lane) for lane in lanes[start : start + SLICE]]
            if start + SLICE < len(lanes):
                await deferLater(self._clock, 0)
        return self._put_together(views)

    def _put_together(self, views: list[LaneView]) -> Reading:
        overview, labelled = self._overview, dict[str, list[LaneView]]()
        for view in views:
            labelled.setdefault(self._labels.find(view.tenantId) or UNKNOWN, []).append(view)
        health = overview.health
        return Reading(
            totals=overview.totals(views),
            backpressure=overview.backpressure.reasons,
            road=overview.turns.breaker.state.value,
            started=overview.times.epoch(overview.started),
            consuming=health.consuming,
            labelled=labelled,
            breakers={label: self._breaker(label, labelled) for label in {*self._labels, *labelled}},
            waiting=Counter(view.waitsFor.cause for view in views if view.waitsFor is not None),
            broker=self._broker(),
            depths=dict(zip(self._queues, (health.queue_depth, health.dead_letter_depth), strict=True)),
        )

    def _breaker(self, label: str, labelled: Mapping[str, list[LaneView]]) -> str:
        """Of `other` and `unknown` the worst of any; a tenant of which nothing is known has a closed one."""
        standing = self._overview.lanes.standing(label) if label not in (OTHER, UNKNOWN) else None
        if standing is not None:
            return standing.breaker.state.value
        states = {view.breaker.state for view in labelled.get(label, ())}
        return next((each.value for each in _WORST_FIRST if each.value in states), State.CLOSED.value)


class Shelf(Collector):
    """A collector that makes gauges of what was read last."""

    def __init__(self) -> None:
        self.reading: Reading | None = None
        # Tokens that the buckets of each label held at most when last seen: one that nobody uses is full.
        self._full: dict[str, float] = {}

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks for, in a thread."""
        reading = self.reading
        if reading is not None:
            yield from _process(reading)
            yield from _road(reading)
            yield from _broker(reading)
            yield from self._tenants(reading)

    def _tenants(self, reading: Reading) -> Iterator[Metric]:
        for name, about, value in _SUMS:
            sums = {label: sum(map(value, several)) for label, several in reading.labelled.items()}
            yield _labelled(name, about, "tenant", sums)
        ages = {label: oldest(several) or 0 for label, several in reading.labelled.items()}
        yield _labelled("lane_oldest_seconds", "Age of the tenant's oldest message.", "tenant", ages)
        yield self._tokens(reading)
        about, labels = "The tenant's breaker: 1 for its state.", ["tenant", "state"]
        breakers = GaugeMetricFamily("tenant_circuit_breaker_state", about, labels=labels)
        for label, now in reading.breakers.items():
            for state in State:
                breakers.add_metric([label, state.value], state.value == now)
        yield breakers

    def _tokens(self, reading: Reading) -> Metric:
        family = GaugeMetricFamily(
            "tenant_rate_limit_available", "Messages that the tenant may send at once.", labels=["tenant"]
        )
        there: dict[str, float] = {}
        for label, several in reading.labelled.items():
            numbers = [number for view in several for number in view.numbers]
            if numbers:
                there[label] = sum(number.tokens for number in numbers)
                self._full[label] = sum(number.burst for number in numbers)
        for label, full in self._full.items():
            family.add_metric([label], there.get(label, full))
        return family


def _process(reading: Reading) -> Iterator[Metric]:
    totals = reading.totals
    yield _labelled("up_info", "The version that runs.", "version", {__version__: 1})
    yield _plain(
        "start_time_seconds", "When the service was started, in seconds since the epoch.", reading.started
    )
    yield _plain("consuming", "1 while messages are being consumed.", reading.consuming)
    yield _plain("lanes", "Tenants that have a lane.", totals.lanes)
    yield _plain("in_flight", "Exchanges with Meta under way.", totals.inFlight)
    yield _plain("window", "Exchanges with Meta that may be under way.", totals.window)
    yield _plain("held_bytes", "Bytes of messages in hand.", totals.heldBytes)
    about = "Age of the oldest message in hand or deferred."
    yield _plain("oldest_waiting_seconds", about, totals.oldestSeconds or 0)
    about = "Jain's index over the tenants that had work in the last minute."
    yield _plain("fairness_jain_index", about, totals.fairness)


def _road(reading: Reading) -> Iterator[Metric]:
    yield _labelled(
        "lanes_waiting",
        "Lanes whose next message waits, by what for.",
        "cause",
        {cause.value: reading.waiting.get(cause.value, 0) for cause in Cause},
    )
    yield _labelled(
        "backpressure",
        "1 while nothing is taken for this reason.",
        "reason",
        {reason.value: reason.value in reading.backpressure for reason in Reason},
    )
    yield _labelled(
        "road_breaker_state",
        "The breaker that all tenants share: 1 for its state.",
        "state",
        {state.value: state.value == reading.road for state in State},
    )


def _broker(reading: Reading) -> Iterator[Metric]:
    depth = GaugeMetricFamily(
        "rabbitmq_queue_depth", "Messages that wait in a queue, as seen last.", labels=["queue"]
    )
    for queue, messages in reading.depths.items():
        if messages is not None:
            depth.add_metric([queue], messages)
    yield depth
    broker = reading.broker
    yield _labelled("rabbitmq_connected", "1 while the connection is there.", "connection", broker.connected)
    reconnects = CounterMetricFamily(
        f"{PREFIX}rabbitmq_reconnects", "Times the connection was made again.", labels=["connection"]
    )
    for name, made in broker.made.items():
        reconnects.add_metric([name], max(0, made - 1))
    yield reconnects
    yield _labelled(
        "confirms_pending", "Publishes that are not confirmed yet.", "exchange", broker.unconfirmed
    )


def _throttled(view: LaneView) -> int:
    """A throttle of the whole tenant holds all its numbers, and one at the least."""
    numbers = sum(number.throttledUntil is not None for number in view.numbers)
    return numbers or (max(1, len(view.numbers)) if view.state == "throttled" else 0)


_WORST_FIRST = (State.OPEN, State.HALF_OPEN, State.CLOSED)

_SUMS: tuple[tuple[str, str, Callable[[LaneView], float]], ...] = (
    ("lane_in_flight", "The tenant's exchanges with Meta under way.", lambda view: view.inFlight),
    ("lane_active", "The tenant's messages in hand.", lambda view: view.active),
    (
        "lane_deferred",
        "The tenant's messages in its deferred queues, as seen last.",
        lambda view: view.deferred,
    ),
    (
        "number_throttled",
        "The tenant's phone numbers that a throttle holds, be it the tenant's or the app's.",
        _throttled,
    ),
)


def _plain(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, about, value=value)


def _labelled(name: str, about: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, about, labels=[label])
    for each, value in values.items():
        family.add_metric([each], value)
    return family
