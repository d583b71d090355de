"""A real RabbitMQ, the sandbox on real sockets and the gateway in this process, for tests to play in."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pika
from attrs import frozen
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from whatsapp_egress.clients.broker.consumer import RabbitDelivery
from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.sandbox.rabbitmq import PrivateBroker
from whatsapp_egress.sandbox.server import Sandbox
from whatsapp_egress.service import Egress
from whatsapp_egress.settings import Settings

PATIENCE = 30.0

_brokers: list[PrivateBroker] = []


def the_broker() -> PrivateBroker:
    """One RabbitMQ for all tests of this process; it ends with it."""
    if not _brokers:
        _brokers.append(PrivateBroker.start())
    if not _brokers[0].running:
        _brokers[0].start_again()
    return _brokers[0]


@frozen
class DeadLetter:
    body: bytes
    properties: pika.BasicProperties

    @property
    def headers(self) -> dict[str, Any]:
        return dict(self.properties.headers or {})

    @property
    def reason(self) -> str:
        return str(self.headers["x-egress-reason"])


class Publisher:
    """What the systems before the gateway do, and those who look into its queues."""

    def __init__(self, broker: PrivateBroker) -> None:
        parameters = pika.ConnectionParameters(
            "127.0.0.1", broker.port, "/", pika.PlainCredentials("guest", "guest"), heartbeat=0
        )
        self.connection = pika.BlockingConnection(parameters)
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()
        self.published = 0

    def clean(self) -> None:
        for queue in ("outbound-processed", "outbound-failed"):
            self.channel.queue_delete(queue)
        for exchange in ("whatsapp-exchange", "whatsapp-dlx", "whatsapp-events"):
            self.channel.exchange_delete(exchange)

    def listen_to_events(self) -> str:
        self.channel.exchange_declare("whatsapp-events", "topic", durable=True)
        queue = self.channel.queue_declare("", exclusive=True).method.queue
        self.channel.queue_bind(queue, "whatsapp-events", "#")
        return str(queue)

    def publish(self, body: bytes, properties: pika.BasicProperties | None = None, tenant: str = "t") -> None:
        self.channel.basic_publish(
            "whatsapp-exchange",
            f"outbound.processed.{tenant}",
            body,
            properties or pika.BasicProperties(delivery_mode=2),
            mandatory=True,
        )
        self.published += 1

    def depth(self, queue: str) -> int:
        return int(self.channel.queue_declare(queue, passive=True).method.message_count)

    def take(self, queue: str) -> list[tuple[str, DeadLetter]]:
        taken = []
        while True:
            method, properties, body = self.channel.basic_get(queue, auto_ack=True)
            if method is None:
                return taken
            taken.append((method.routing_key, DeadLetter(body, properties)))

    def close(self) -> None:
        if self.connection.is_open:
            self.connection.close()


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


class World(TestCase):
    """A broker that is clean, a sandbox, and `start_gateway` with any settings."""

    timeout = 120
    gateway: Egress | None = None

    async def setUp(self) -> None:
        self.broker = the_broker()
        self.upstream = Publisher(self.broker)
        self.addCleanup(self.leave)
        self.upstream.clean()
        self.sandbox = Sandbox(reactor)
        self.sandbox.startService()
        self.addCleanup(self.sandbox.stopService)
        self.acked = 0
        self.patch(RabbitDelivery, "ack", self._counting(RabbitDelivery.ack))
        self.log: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.log.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.log.append)

    def leave(self) -> None:
        # Looked up when it ends, for a test that stops the broker makes itself a new one.
        self.upstream.close()

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
        gateway = Egress(reactor, Settings.from_environment(self.environment(**settings)), Redactor())
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

    async def until(self, holds: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        give_up = reactor.seconds() + patience
        while not holds():
            if reactor.seconds() > give_up:
                self.fail(f"never came true: {what}; log: {self.told()[-15:]}")
            await deferLater(reactor, 0.01)

    def _counting(self, ack: Callable[[RabbitDelivery], bool]) -> Callable[[RabbitDelivery], bool]:
        def counted(delivery: RabbitDelivery) -> bool:
            done = ack(delivery)
            self.acked += done
            return done

        return counted

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

    def told(self) -> list[str]:
        """The log, short, for the message of a failed test."""
        hidden = {"log_logger", "log_level", "log_source", "log_time", "message", "time", "system", "format"}
        return [
            " ".join(
                [event["log_format"] or ""]
                + [f"{k}={v}" for k, v in event.items() if k not in hidden and not k.startswith("log_")]
            )
            for event in self.events()
        ]

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Log events of ours, or those with one name."""
        return [
            event
            for event in self.log
            if event.get("log_namespace", "").startswith("whatsapp_egress")
            and name in (None, event["log_format"])
        ]
