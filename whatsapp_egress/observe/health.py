"""How the things we depend on are, from what was seen of them last."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import define, frozen

from whatsapp_egress.observe.everyone import Deaf
from whatsapp_egress.observe.times import iso
from whatsapp_egress.pipeline.job import Job
from whatsapp_egress.policy.verdict import Answer, Exchange

HEALTHY, DEGRADED, UNHEALTHY, UNKNOWN = "healthy", "degraded", "unhealthy", "unknown"

IN_A_ROW = 3
"""Troubles in a row after which something is unhealthy: one may be a tenant's own, or a hiccup. The Tenant
Service is asked three times within two seconds when it is away."""

_SERVER_ERROR = 500


@frozen
class Check:
    """One dependency. `latency` in ms and `lastSeen` are None until something was seen; `detail` says what is
    wrong."""

    status: str
    latency: float | None = None
    lastSeen: str | None = None
    detail: str | None = None


@frozen
class BrokerCheck:
    """The broker, with how many messages wait in the queue in."""

    status: str
    latency: float | None = None
    lastSeen: str | None = None
    detail: str | None = None
    queueDepth: int | None = None


@frozen
class Checks:
    """All dependencies."""

    rabbitmq: BrokerCheck
    tenantService: Check
    metaApi: Check

    @property
    def status(self) -> str:
        """The service's own: without the broker it is unhealthy, without the others degraded."""
        if self.rabbitmq.status == UNHEALTHY:
            return UNHEALTHY
        states = {self.rabbitmq.status, self.tenantService.status, self.metaApi.status}
        return DEGRADED if states & {DEGRADED, UNHEALTHY} else HEALTHY


@define(eq=False)
class Watched:
    """Somebody we ask, and how that went."""

    now: Callable[[], float]
    seconds: float | None = None
    seen_at: float | None = None
    troubles: int = 0
    trouble: str | None = None

    def heard(self, seconds: float, trouble: str | None) -> None:
        """An answer came, or did not, and why."""
        self.seen_at = self.now()
        if trouble is None:
            self.seconds, self.troubles, self.trouble = seconds, 0, None
        else:
            self.troubles += 1
            self.trouble = trouble

    def check(self) -> Check:
        """How it is."""
        if self.seen_at is None:
            return Check(UNKNOWN)
        status = UNHEALTHY if self.troubles >= IN_A_ROW else HEALTHY
        latency = None if self.seconds is None else round(self.seconds * 1000, 1)
        return Check(status, latency, iso(self.seen_at), self.trouble)


class BrokerSeen(Protocol):
    """What is asked of the broker's client."""

    @property
    def consuming(self) -> bool:
        """Whether messages are being consumed."""

    @property
    def publishing(self) -> bool:
        """Whether dead letters and events can be published."""


class Health(Deaf):
    """An `Observer` of the Tenant Service and of Meta; of the broker it is told by `looked`. `now` gives
    seconds since the epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.broker: BrokerSeen | None = None
        """None until it is built."""
        self._tenant_service = Watched(now)
        self._meta = Watched(now)
        self._queue = Watched(now)
        self.queue_depth: int | None = None
        self.dead_letter_depth: int | None = None

    def asked(self, tenant_id: str, trouble: str | None, seconds: float) -> None:
        """The Tenant Service was asked."""
        self._tenant_service.heard(seconds, trouble)

    def answered(self, job: Job, exchange: Exchange, seconds: float) -> None:
        """Meta was asked. A no is an answer; a 5xx is none, whoever gave it."""
        if not isinstance(exchange, Answer):
            trouble: str | None = exchange.cause
        else:
            trouble = f"HTTP {exchange.status}" if exchange.status >= _SERVER_ERROR else None
        self._meta.heard(seconds, trouble)

    def looked(self, messages: int, dead_letters: int, seconds: float) -> None:
        """The broker told how its queues stand."""
        self.queue_depth, self.dead_letter_depth = messages, dead_letters
        self._queue.heard(seconds, None)

    @property
    def consuming(self) -> bool:
        """Whether messages are being consumed."""
        return self.broker is not None and self.broker.consuming

    def checks(self) -> Checks:
        """How all is now."""
        seen, detail = self._queue.check(), None
        if not self.consuming:
            status, detail = UNHEALTHY, "nothing is consumed"
        elif self.broker is None or not self.broker.publishing:
            status, detail = DEGRADED, "nothing can be published"
        else:
            status = HEALTHY
        queue = BrokerCheck(status, seen.latency, seen.lastSeen, detail, self.queue_depth)
        return Checks(queue, self._tenant_service.check(), self._meta.check())
