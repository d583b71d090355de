"""A real RabbitMQ, the sandbox on real sockets and the gateway in this process, for tests to play in."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor

from tests.integration.rabbit import DeadLetter, WithRabbit
from whatsapp_egress.clients.broker.delivery import RabbitDelivery
from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.observe.tracing import Tracing
from whatsapp_egress.pipeline.job import Parcel
from whatsapp_egress.pipeline.outcome import Outcome
from whatsapp_egress.sandbox.server import Sandbox
from whatsapp_egress.service import Egress
from whatsapp_egress.settings import Settings


def message(
    tenant: Any, to: str = "15550001111", internal_id: str = "m-1", payload: Any = None, **metadata: Any
) -> bytes:
    """A body for the queue."""
    text = {"messaging_product": "whatsapp", "to": to, "type": "text", "text": {"body": "hello"}}
    return json.dumps(
        {
            "metadata": {
                "tenantId": tenant.id,
                "phoneNumberId": tenant.phone_number_id,
                "internalId": internal_id,
                **metadata,
            },
            "wabaPayload": text if payload is None else payload,
        }
    ).encode()


class World(WithRabbit):
    """A broker that is clean, a sandbox, and `start_gateway` with any settings."""

    gateway: Egress | None = None
    tracing: Tracing | None = None

    async def setUp(self) -> None:
        await super().setUp()
        self.sandbox = Sandbox(reactor)
        self.sandbox.startService()
        self.addCleanup(self.sandbox.stopService)
        self.acked = 0
        self.patch(RabbitDelivery, "ack", self._counting(RabbitDelivery.ack))
        self.patch(Outcome, "moved", self._not_counting(Outcome.moved))
        self.addCleanup(self.forget_deferred)

    def forget_deferred(self) -> None:
        """Delete the deferred queues that a gateway has left."""
        for event in self.events("deferral_began"):
            self.upstream.forget(event["tenantId"])

    def environment(self, **settings: object) -> dict[str, str]:
        return {
            **self.broker.settings(),
            "META_API_BASE_URL": self.sandbox.graph_url,
            "TENANT_SERVICE_URL": self.sandbox.tenants_url,
            "META_API_RETRY_DELAY": "10",
            "RABBITMQ_RECONNECT_DELAY": "200",
            "HEALTH_CHECK_PORT": "0",
            "PROMETHEUS_PORT": "0",
            **{name: str(value) for name, value in settings.items()},
        }

    async def start_gateway(self, *, until_ready: bool = True, **settings: object) -> Egress:
        environment = self.environment(**settings)
        gateway = Egress(reactor, Settings.from_environment(environment), Redactor(), self.tracing)
        self.gateway = gateway
        gateway.startService()
        self.addCleanup(self.stop_gateway)
        if until_ready:
            await self.until(gateway.ready, "the gateway consumes")
        return gateway

    async def stop_gateway(self) -> None:
        gateway, self.gateway = self.gateway, None
        if gateway is not None:
            await gateway.stopService()

    def _counting(self, ack: Callable[[RabbitDelivery], bool]) -> Callable[[RabbitDelivery], bool]:
        def counted(delivery: RabbitDelivery) -> bool:
            done = ack(delivery)
            lease = delivery.properties.app_id == "whatsapp-egress"
            self.acked += done and not lease
            return done

        return counted

    def _not_counting(self, moved: Callable[[Outcome, Parcel], None]) -> Callable[[Outcome, Parcel], None]:
        """A message that was deferred is acked once more when it is settled."""

        def not_counted(outcome: Outcome, parcel: Parcel) -> None:
            before = self.acked
            moved(outcome, parcel)
            self.acked = before

        return not_counted

    async def until_settled(self) -> None:
        """Until every message that was published is acknowledged."""
        await self.until(lambda: self.acked == self.upstream.published, "all is settled")

    def sent(self) -> list[Any]:
        """What the Graph API accepted."""
        return [arrival for arrival in self.sandbox.record if arrival.status == 200]

    async def told_events(self, queue: str, count: int) -> list[tuple[str, dict[str, Any]]]:
        """Routing keys and bodies of the events, once there are `count`: no ack waits for them."""
        await self.until(lambda: self.upstream.depth(queue) == count, f"{count} events are there")
        return [(key, json.loads(event.body)) for key, event in self.upstream.take(queue)]

    def dead_letters(self) -> list[DeadLetter]:
        return [letter for _, letter in self.upstream.take("outbound-failed")]
