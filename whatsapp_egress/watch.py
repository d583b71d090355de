"""What watches, put together: observers that are told, and readers of what they watch."""

from __future__ import annotations

import time
from typing import Any

from attrs import define
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry
from twisted.logger import globalLogPublisher
from twisted.web.resource import Resource

from whatsapp_egress.clients.broker import RabbitBroker
from whatsapp_egress.clients.broker.topology import DEAD_LETTER_QUEUE
from whatsapp_egress.observe.chronicle import Chronicle
from whatsapp_egress.observe.exposition import Exposition
from whatsapp_egress.observe.gauges import BrokerState, Gauges, Reading, Shelf
from whatsapp_egress.observe.health import UNHEALTHY, Health
from whatsapp_egress.observe.labels import TenantLabels
from whatsapp_egress.observe.lane_view import LaneReader
from whatsapp_egress.observe.metrics import Metrics
from whatsapp_egress.observe.overview import Overview
from whatsapp_egress.observe.page.resource import page_resources
from whatsapp_egress.observe.pulse import Pulse
from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.observe.stream import EventStream
from whatsapp_egress.observe.times import Times
from whatsapp_egress.observe.values import Presenter
from whatsapp_egress.observe.web import health_resource
from whatsapp_egress.observe.words import Words
from whatsapp_egress.pipeline.backpressure import Backpressure
from whatsapp_egress.pipeline.lanes import Lanes
from whatsapp_egress.pipeline.recent import Recent
from whatsapp_egress.pipeline.turns import Turns
from whatsapp_egress.policy.table import ErrorTable
from whatsapp_egress.settings import Settings


@define(eq=False)
class Watchers:
    """The observers, which are there before what they watch."""

    registry: CollectorRegistry
    labels: TenantLabels
    metrics: Metrics
    chronicle: Chronicle
    health: Health
    words: Words

    @classmethod
    def of(cls, reactor: Any, settings: Settings, table: ErrorTable) -> Watchers:
        """As the settings say."""
        registry = CollectorRegistry()
        for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR):
            registry.register(collector)
        labels = TenantLabels(settings.metrics_max_tenants)
        metrics = Metrics(registry, reactor, labels, lambda code: table.by_code(code, None, "") is not None)
        return cls(registry, labels, metrics, Chronicle(reactor, time.time), Health(time.time), Words(table))


@define(eq=False)
class Watch:
    """Everything that shows how things are; it reads and changes nothing."""

    watchers: Watchers
    overview: Overview
    pulse: Pulse
    exposition: Exposition
    stream: EventStream

    def start(self) -> None:
        """Look at what no event tells."""
        globalLogPublisher.addObserver(self.watchers.metrics.logged)
        self.pulse.start()

    def stop(self) -> None:
        """Look no more, and tell nobody any more."""
        self.stream.stop()
        self.pulse.stop()
        globalLogPublisher.removeObserver(self.watchers.metrics.logged)

    def add_page(self, root: Resource) -> None:
        """Put the operators' page and what it asks for below `root`."""
        index, files = page_resources()
        root.putChild(b"", index)
        root.putChild(b"page", files)
        root.putChild(b"events", self.stream)

    def health_resource(self) -> Resource:
        """`/health` and the probes below it."""
        overview, health = self.overview, self.watchers.health
        return health_resource(
            lambda: health.checks().status != UNHEALTHY,
            lambda: overview.json(overview.health_document()),
            lambda: health.consuming,
        )


@define(eq=False)
class Watched:
    """What is read."""

    broker: RabbitBroker
    lanes: Lanes
    turns: Turns
    recent: Recent
    backpressure: Backpressure


def watch(
    reactor: Any, settings: Settings, redactor: Redactor, watchers: Watchers, watched: Watched
) -> Watch:
    """Put the readers together, once there is something to read."""
    broker, times = watched.broker, Times(reactor, time.time)
    watchers.health.broker = broker
    pulse = Pulse(watchers.registry, reactor, watched.lanes, watchers.chronicle)
    show = Presenter(redactor, settings.log_pii).text
    overview = Overview(
        times,
        reactor.seconds(),
        watched.lanes,
        watched.turns,
        watched.recent,
        watched.backpressure,
        watchers.chronicle,
        watchers.health,
        pulse,
        watchers.words,
        LaneReader(times, watched.lanes, watchers.chronicle, watchers.words, show),
        redactor.known,
    )

    def broker_state() -> BrokerState:
        return BrokerState(
            connected={name: link.connection is not None for name, link in broker.links.items()},
            made={name: link.made for name, link in broker.links.items()},
            unconfirmed={outlet.name: outlet.unconfirmed for outlet in broker.outlets},
        )

    gauges = Gauges(
        overview,
        watchers.labels,
        broker_state,
        (settings.rabbitmq_queue, DEAD_LETTER_QUEUE),
        reactor,
    )

    async def read() -> Reading:
        watchers.metrics.give_up_unresolved()
        return await gauges.read()

    shelf = Shelf()
    watchers.registry.register(shelf)
    stream = EventStream(
        reactor,
        lambda: overview.json(overview.now()),
        lambda: overview.json(watchers.chronicle.series()),
    )
    return Watch(watchers, overview, pulse, Exposition(reactor, watchers.registry, shelf, read), stream)
