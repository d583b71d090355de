"""The composition root: builds every part once, hands each what it needs, and ends them in order."""

from __future__ import annotations

import random
import time
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from attrs import define
from twisted.application.service import MultiService
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from whatsapp_egress import __version__, message
from whatsapp_egress.clients.broker import BrokerAddress, RabbitBroker, Topology
from whatsapp_egress.clients.credentials import CredentialCache
from whatsapp_egress.clients.graph import Destination, GraphApi
from whatsapp_egress.clients.http import HttpClient
from whatsapp_egress.clients.tenants import TenantFile, TenantService
from whatsapp_egress.clients.tls import trust
from whatsapp_egress.observe.journal import Journal
from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.observe.web import HealthService
from whatsapp_egress.pipeline.attempt import Attempt
from whatsapp_egress.pipeline.intake import Intake
from whatsapp_egress.pipeline.lane import Pace, Road
from whatsapp_egress.pipeline.lanes import Lanes
from whatsapp_egress.pipeline.outcome import Outcome
from whatsapp_egress.pipeline.recent import Recent
from whatsapp_egress.pipeline.turns import Turns
from whatsapp_egress.policy.credentials import Keeping
from whatsapp_egress.policy.table import ErrorTable
from whatsapp_egress.policy.verdict import Patience
from whatsapp_egress.settings import Settings
from whatsapp_egress.tasks import Tasks

log = Logger()

USER_AGENT = f"whatsapp-egress/{__version__}"

IDLE_TENANT_CONNECTIONS = 10
"""Unused connections to the Tenant Service that are kept: each tenant is asked once in a while."""

EVENTS_PATIENCE = 5.0
"""Seconds that the end waits for events alone."""


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


class Egress(MultiService):
    """The service: starts the broker's connections, and on the way out drains before it closes anything."""

    def __init__(self, reactor: Any, settings: Settings, redactor: Redactor) -> None:
        MultiService.__init__(self)
        self._clock: IReactorTime = reactor
        self._patience = settings.shutdown_timeout
        self.parts = build(reactor, settings, redactor)
        self.health = HealthService(reactor, settings.health_check_port, settings.http_bind, ready=self.ready)
        MultiService.addService(self, self.health)

    def ready(self) -> bool:
        """Whether messages are being consumed."""
        return bool(self.running) and self.parts.broker.consuming

    def startService(self) -> None:
        """Connect; a broker that is away is waited for. Raises `NotStarted` where a port can't be had."""
        try:
            MultiService.startService(self)
        except CannotListenError as error:
            log.critical("service_not_started", setting="HEALTH_CHECK_PORT", detail=str(error))
            raise NotStarted(str(error)) from error
        log.info("service_started", healthPort=self.health.port)
        self.parts.broker.start()

    def stopService(self) -> Deferred[None]:
        """Drain, give back what is not settled, close."""
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        parts, give_up_at = self.parts, self._clock.seconds() + self._patience
        log.info("service_stopping", patience=self._patience)
        await parts.broker.stop_consuming()
        in_flight = parts.lanes.stop()
        # What still waits for credentials is not in flight: it goes back to the broker at once.
        parts.credentials.stop()
        await self._until(give_up_at, in_flight, parts.lanes.cut_short)
        await self._until(give_up_at, parts.outcome.settled(), parts.outcome.cut_short)
        events_until = min(give_up_at, self._clock.seconds() + EVENTS_PATIENCE)
        await self._until(events_until, parts.outcome.announced(), parts.outcome.give_events_up)
        await parts.broker.stop()
        for client in parts.http:
            await client.close()
        await maybeDeferred(MultiService.stopService, self)
        log.info("service_stopped")

    async def _until(self, when: float, done: Deferred[None], cut_short: Any) -> None:
        try:
            await done.addTimeout(max(0.0, when - self._clock.seconds()), self._clock)
        except (TimeoutError, CancelledError):
            cut_short()


def build(reactor: Any, settings: Settings, redactor: Redactor) -> Parts:
    """Every part, wired."""
    now, jitter = time.time, random.random
    observer = Journal(reactor)
    recent = Recent(reactor)

    meta = HttpClient.over(
        reactor,
        trust(_content(settings.meta_api_ca_file), platform=True),
        timeout=settings.meta_api_timeout,
        most_idle=settings.meta_api_max_connections,
    )
    graph = GraphApi(
        meta,
        Destination.parse(settings.meta_api_base_url, settings.meta_api_version, settings.meta_app_secret),
        USER_AGENT,
        now,
        redactor.known,
    )
    credentials, clients = _credentials(reactor, settings, redactor)
    attempts = Tasks()
    table = ErrorTable.parse(files("whatsapp_egress.data").joinpath("errors.json").read_bytes())
    # The rooms are wired back to front; a lane's rate is learned from the credentials of its attempts.
    broker = RabbitBroker(
        reactor,
        _address(settings),
        Topology(settings.rabbitmq_exchange, settings.rabbitmq_queue, settings.rabbitmq_queue_type),
        prefetch=settings.rabbitmq_prefetch,
        reconnect_delay=settings.rabbitmq_reconnect_delay,
        jitter=jitter,
        receive=lambda delivery: intake.receive(delivery),
        lost=lambda: _lost(recent, lanes),
    )
    outcome = Outcome(broker, recent, observer, reactor, now, settings.events_enabled)
    attempt = Attempt(
        credentials,
        graph,
        table,
        Patience(settings.meta_api_max_retries, settings.meta_api_retry_ambiguous),
        lambda tenant_id, rate: lanes.learn(tenant_id, rate),
        observer,
        reactor,
        now,
    )
    lanes = Lanes(
        Road(
            attempt=attempt,
            settle=outcome.settle,
            give_up=lambda job: recent.forget(job, job.history),
            tasks=attempts,
            turns=Turns(settings.meta_api_max_connections),
            pace=Pace(
                settings.rate_limit_default_mps,
                settings.rate_limit_refill_interval,
                settings.meta_api_retry_delay,
                settings.meta_api_max_connections_per_tenant,
            ),
            observer=observer,
            clock=reactor,
            now=now,
            jitter=jitter,
        )
    )
    decode = partial(
        message.decode,
        max_bytes=settings.message_max_bytes,
        track_callback_data=settings.track_callback_data,
    )
    intake = Intake(decode, lanes.offer, outcome, recent, observer, reactor)
    return Parts(broker, lanes, outcome, recent, credentials, [meta, *clients])


def _lost(recent: Recent, lanes: Lanes) -> None:
    """Deliveries can't be settled any more: the broker delivers them again."""
    recent.lost()
    lanes.abandon()


def _address(settings: Settings) -> BrokerAddress:
    roots = trust(_content(settings.rabbitmq_ca_file), platform=False) if settings.rabbitmq_tls else None
    return BrokerAddress(
        host=settings.rabbitmq_host,
        port=settings.rabbitmq_port,
        user=settings.rabbitmq_user,
        password=settings.rabbitmq_password,
        vhost=settings.rabbitmq_vhost,
        heartbeat=settings.rabbitmq_heartbeat,
        trust=roots,
    )


def _credentials(
    reactor: Any, settings: Settings, redactor: Redactor
) -> tuple[CredentialCache | TenantFile, list[HttpClient]]:
    """From a file, which is its own cache, or from the Tenant Service with a cache before it."""
    if settings.tenant_service_url.startswith("file:"):
        path = Path(url2pathname(urlsplit(settings.tenant_service_url).path))
        return TenantFile(path, settings.credential_stale_ttl, time.time, redactor.know), []
    client = HttpClient.over(
        reactor,
        trust(None, platform=True),
        timeout=settings.tenant_service_timeout,
        most_idle=IDLE_TENANT_CONNECTIONS,
    )
    source = TenantService(
        client,
        settings.tenant_service_url,
        settings.tenant_service_credentials_path,
        settings.tenant_service_token,
        USER_AGENT,
        time.time,
    )
    keeping = Keeping(
        settings.credential_cache_ttl, settings.credential_stale_ttl, settings.credential_negative_ttl
    )
    return CredentialCache(source, keeping, reactor, time.time, random.random, redactor.know), [client]


def _content(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
