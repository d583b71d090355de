"""The composition root: builds every part once, hands each what it needs, and ends them in order."""

from __future__ import annotations

import random
import time
from functools import partial
from typing import Any
from uuid import uuid4

from attrs import define, field
from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.web.resource import Resource

from whatsapp_egress import message, parts
from whatsapp_egress.clients.broker import Look, RabbitBroker, Topology
from whatsapp_egress.clients.credentials import CredentialCache
from whatsapp_egress.clients.http import HttpClient
from whatsapp_egress.clients.tenants import TenantFile
from whatsapp_egress.deferred import Place
from whatsapp_egress.observe.everyone import Everyone
from whatsapp_egress.observe.health import Health
from whatsapp_egress.observe.journal import Journal
from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.observe.tracing import Tracing
from whatsapp_egress.observe.web import PortTaken, WebService
from whatsapp_egress.pipeline.backpressure import Backpressure
from whatsapp_egress.pipeline.deferral import LINGER_SECONDS, Backyard
from whatsapp_egress.pipeline.intake import Intake
from whatsapp_egress.pipeline.job import Delivery, Job
from whatsapp_egress.pipeline.lanes import Lanes
from whatsapp_egress.pipeline.observer import Observer
from whatsapp_egress.pipeline.outcome import Outcome
from whatsapp_egress.pipeline.recent import Recent
from whatsapp_egress.pipeline.road import Road
from whatsapp_egress.pipeline.rounds import Rounds
from whatsapp_egress.pipeline.turns import Turns
from whatsapp_egress.policy.breaker import State
from whatsapp_egress.settings import Settings
from whatsapp_egress.steer import Steer, Steered, steer
from whatsapp_egress.tasks import Tasks
from whatsapp_egress.watch import Watch, Watched, Watchers, watch

log = Logger()

EVENTS_PATIENCE = 5.0
"""Seconds that the end waits for events alone."""


SPANS_PATIENCE = 5.0
"""Seconds that the end waits for the collector of spans."""


class NotStarted(SystemExit, Exception):
    """The service can't start, and has logged why.

    twistd takes it for an `Exception`: it removes its pidfile, and tells the parent of a daemon. Python takes
    it for a `SystemExit`: the process ends with status 1 and no traceback, which would be a line of log for
    each of its lines.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.code = 1


@define(eq=False)
class Parts:
    """Everything that is built, in the order a message meets it."""

    broker: RabbitBroker
    lanes: Lanes
    outcome: Outcome
    recent: Recent
    credentials: CredentialCache | TenantFile
    http: list[HttpClient]
    watch: Watch
    steer: Steer


class Egress(MultiService):
    """The service: starts the broker's connections, and on the way out drains before it closes anything."""

    def __init__(
        self, reactor: Any, settings: Settings, redactor: Redactor, tracing: Tracing | None = None
    ) -> None:
        MultiService.__init__(self)
        self._clock: IReactorTime = reactor
        self._tracing = tracing
        self._patience = settings.shutdown_timeout
        self.parts = build(reactor, settings, redactor, tracing)
        operators, scrapers = Resource(), Resource()
        operators.putChild(b"health", self.parts.watch.health_resource())
        operators.putChild(b"api", self.parts.steer.resource)
        self.parts.watch.add_page(operators)
        scrapers.putChild(b"metrics", self.parts.watch.exposition)
        bind = settings.http_bind
        self.health = WebService(reactor, "HEALTH_CHECK_PORT", settings.health_check_port, bind, operators)
        self.metrics = WebService(reactor, "PROMETHEUS_PORT", settings.prometheus_port, bind, scrapers)
        MultiService.addService(self, self.health)
        MultiService.addService(self, self.metrics)

    def ready(self) -> bool:
        """Whether messages are being consumed."""
        return bool(self.running) and self.parts.broker.consuming

    def startService(self) -> None:
        """Connect; a broker that is away is waited for. Raises `NotStarted` where a port can't be had."""
        try:
            MultiService.startService(self)
        except PortTaken as error:
            log.critical("service_not_started", setting=error.setting, detail=str(error))
            raise NotStarted(str(error)) from error
        log.info("service_started", healthPort=self.health.port, metricsPort=self.metrics.port)
        self.parts.watch.start()
        self.parts.broker.start()

    def stopService(self) -> Deferred[None]:
        """Drain, give back what is not settled, close."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        built, give_up_at = self.parts, self._clock.seconds() + self._patience
        log.info("service_stopping", patience=self._patience)
        steering_over = Deferred.fromCoroutine(built.steer.stop())
        await built.broker.stop_consuming()
        in_flight = built.lanes.stop()
        # What still waits for credentials is not in flight: it goes back to the broker at once.
        built.credentials.stop()
        await self._until(give_up_at, in_flight, built.lanes.cut_short)
        await self._until(give_up_at, built.outcome.settled(), built.outcome.cut_short)
        events_until = min(give_up_at, self._clock.seconds() + EVENTS_PATIENCE)
        await self._until(events_until, built.outcome.announced(), built.outcome.give_events_up)
        await steering_over
        await built.broker.stop()
        for client in built.http:
            await client.close()
        built.watch.stop()
        await maybeDeferred(MultiService.stopService, self)
        await self._send_spans(give_up_at)
        log.info("service_stopped")

    async def _send_spans(self, give_up_at: float) -> None:
        if self._tracing is not None:
            until = min(give_up_at, self._clock.seconds() + SPANS_PATIENCE)
            await self._until(until, self._tracing.stop(self._clock), lambda: log.warn("spans_lost"))

    async def _until(self, when: float, done: Deferred[None], cut_short: Any) -> None:
        try:
            await done.addTimeout(max(0.0, when - self._clock.seconds()), self._clock)
        except (TimeoutError, CancelledError):
            cut_short()


def build(reactor: Any, settings: Settings, redactor: Redactor, tracing: Tracing | None) -> Parts:
    """Every part, wired back to front: a room gets the ones that come after it."""
    recent, rounds = Recent(reactor), Rounds(reactor)
    table = parts.error_table()
    watchers = Watchers.of(reactor, settings, table)
    # Spans first: the log then names the span that was begun.
    spans = () if tracing is None else (tracing.observer(settings),)
    observer = Everyone((*spans, Journal(reactor), watchers.metrics, watchers.chronicle, watchers.health))
    wires = Wires(observer, recent, watchers.health)
    attempt, credentials, http = parts.attempt(reactor, settings, redactor, table, observer)
    turns = wires.turns = parts.turns(reactor, settings, wires.road_changed)
    address = parts.address(settings)
    topology = Topology(settings.rabbitmq_exchange, settings.rabbitmq_queue, settings.rabbitmq_queue_type)
    broker = RabbitBroker(
        reactor,
        address,
        topology,
        prefetch=settings.rabbitmq_prefetch,
        reconnect_delay=settings.rabbitmq_reconnect_delay,
        jitter=random.random,
        receive=wires.receive,
        lost=wires.lost,
        lease=wires.lease,
        cancelled=wires.cancelled,
        deferred_lost=wires.deferred_lost,
        looked=wires.looked,
    )
    outcome = Outcome(broker, recent, observer, reactor, time.time, settings.events_enabled)
    wires.backpressure = Backpressure(
        turns, recent, settings.held_max_bytes, broker.hold, broker.release, observer, rounds
    )
    lanes = wires.lanes = Lanes(
        Road(
            attempt=attempt,
            settle=outcome.settle,
            give_up=wires.give_up,
            tasks=Tasks(),
            turns=turns,
            pace=parts.pace(settings),
            observer=observer,
            clock=reactor,
            now=time.time,
            jitter=random.random,
            app_throttled=wires.app_throttled,
        ),
        Backyard(
            queues=broker.deferred,
            outcome=outcome,
            recent=recent,
            tasks=Tasks(),
            observer=observer,
            clock=reactor,
            writer=uuid4().hex,
            give_up=wires.give_up,
            linger=settings.defer_after + LINGER_SECONDS,
            most_taken=lambda: wires.most_taken(settings.rabbitmq_prefetch),
        ),
        parts.standings(reactor, settings, observer),
        rounds,
    )
    decode = partial(
        message.decode,
        max_bytes=settings.message_max_bytes,
        track_callback_data=settings.track_callback_data,
    )
    wires.intake = Intake(decode, lanes.offer, outcome, recent, observer, reactor)
    watched = Watched(broker, lanes, turns, recent, wires.backpressure)
    seen = watch(reactor, settings, redactor, watchers, watched)
    steered = Steered(lanes, recent, credentials, seen.overview)
    steering = steer(reactor, settings, redactor, table, (address, topology), steered)
    return Parts(broker, lanes, outcome, recent, credentials, http, seen, steering)


@define(eq=False)
class Wires:
    """Lead what happens in one room to those that are built after it."""

    _observer: Observer
    _recent: Recent
    _health: Health
    turns: Turns = field(init=False)
    backpressure: Backpressure = field(init=False)
    lanes: Lanes = field(init=False)
    intake: Intake = field(init=False)

    def receive(self, delivery: Delivery) -> None:
        """A delivery came."""
        self.intake.receive(delivery)
        self.backpressure.took()

    def lost(self) -> None:
        """Deliveries can't be settled any more: the broker delivers them again."""
        self._recent.lost()
        self.lanes.abandon()

    def give_up(self, job: Job) -> None:
        """A job is left with the broker."""
        self._recent.forget(job, job.history)
        self._observer.left(job)

    def lease(self, delivery: Delivery) -> None:
        """A lease came."""
        self.lanes.lease(delivery)

    def cancelled(self, place: Place) -> None:
        """A deferred queue is gone."""
        self.lanes.cancelled(place)

    def deferred_lost(self) -> None:
        """The channel of leases and deferred messages is gone."""
        self.lanes.deferred_lost()

    def looked(self, look: Look) -> None:
        """How the queues stand: all who consume from the queue in share each tenant's rate."""
        self.lanes.share(look.workers)
        self._health.looked(look.messages, look.dead_letters, look.seconds)

    def most_taken(self, prefetch: int) -> int:
        """How many deferred messages a tenant may have in hand: all tenants together, the prefetch."""
        return 0 if self.backpressure.heavy else max(1, prefetch // max(1, self.lanes.deferring))

    def app_throttled(self, tenant_id: str) -> None:
        """The whole app is throttled."""
        self.lanes.app_throttled(tenant_id)

    def road_changed(self, state: State) -> None:
        """The road's breaker changed."""
        self._observer.breaker(None, self.turns.breaker)
        self.backpressure.road_changed()
        self.lanes.road_changed(state)
