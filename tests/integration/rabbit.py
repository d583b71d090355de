"""A real RabbitMQ of one's own, with somebody who publishes to it, for tests that wait and read the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pika
from attrs import frozen
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from whatsapp_egress.sandbox.rabbitmq import PrivateBroker

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
        for queue in ("outbound-processed", "outbound-failed", "outbound-lanes"):
            self.channel.queue_delete(queue)
        for exchange in ("whatsapp-exchange", "whatsapp-dlx", "whatsapp-events"):
            self.channel.exchange_delete(exchange)
        # What a gateway in a process of its own has left, of the tenant that most tests use.
        self.forget("t1")

    def forget(self, tenant_id: str) -> None:
        """Delete a tenant's deferred queues."""
        for queue in ("outbound-deferred", "outbound-deferred-first"):
            self.channel.queue_delete(f"{queue}.{tenant_id}")

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


class WithRabbit(TestCase):
    """A broker that is clean, and what was logged."""

    timeout = 120

    async def setUp(self) -> None:
        self.broker = the_broker()
        self.upstream = Publisher(self.broker)
        self.addCleanup(self.leave)
        self.upstream.clean()
        self.log: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.log.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.log.append)

    def leave(self) -> None:
        # Looked up when it ends, for a test that stops the broker makes itself a new one.
        self.upstream.close()

    async def until(self, holds: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        give_up = reactor.seconds() + patience
        while not holds():
            if reactor.seconds() > give_up:
                self.fail(f"never came true: {what}; log: {self.told()[-15:]}")
            await deferLater(reactor, 0.01)

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
