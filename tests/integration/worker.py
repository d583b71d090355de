"""The broker's client alone, with somebody in the pipeline's place who writes down what comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from tests.integration.rabbit import Publisher, WithRabbit
from whatsapp_egress.clients.broker import BrokerAddress, Look, RabbitBroker, Topology
from whatsapp_egress.clients.broker.delivery import RabbitDelivery
from whatsapp_egress.deferred import Place

BACK, FIRST = Place("t1"), Place("t1", first=True)
DEFERRED_QUEUES = [
    f"outbound-deferred{first}.{tenant}" for first in ("", "-first") for tenant in ("t1", "t2")
]


@define(eq=False)
class Worker:
    """What a `RabbitBroker` tells, in the order it is told."""

    client: RabbitBroker = field(init=False)
    deliveries: list[RabbitDelivery] = field(factory=list)
    leases: list[RabbitDelivery] = field(factory=list)
    came: list[RabbitDelivery] = field(factory=list)
    lost: int = 0
    deferred_lost: int = 0
    cancelled: list[Place] = field(factory=list)
    looks: list[tuple[int, int]] = field(factory=list)
    settle: Callable[[RabbitDelivery], Any] = lambda _delivery: None

    stopped: bool = False

    async def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            await self.client.stop()

    def received(self, delivery: RabbitDelivery) -> None:
        self.came.append(delivery)
        self.deliveries.append(delivery)
        self.settle(delivery)

    def leased(self, delivery: RabbitDelivery) -> None:
        self.came.append(delivery)
        self.leases.append(delivery)

    def lose(self) -> None:
        self.lost += 1

    def lose_deferred(self) -> None:
        self.deferred_lost += 1

    def looked(self, look: Look) -> None:
        self.looks.append((look.workers, look.messages))

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.body for delivery in self.deliveries]


class WithWorkers(WithRabbit):
    """A broker without a deferred queue, and `start` for workers."""

    async def setUp(self) -> None:
        await super().setUp()
        for queue in DEFERRED_QUEUES:
            self.upstream.channel.queue_delete(queue)

    def worker(self, prefetch: int = 100, queue_type: str = "classic", **login: str) -> Worker:
        who = {"user": "guest", "password": "guest"} | login
        worker = Worker()
        worker.client = RabbitBroker(
            reactor,
            BrokerAddress("127.0.0.1", self.broker.port, vhost="/", heartbeat=30, **who),
            Topology("whatsapp-exchange", "outbound-processed", queue_type),
            prefetch=prefetch,
            reconnect_delay=0.1,
            jitter=lambda: 0.0,
            receive=worker.received,
            lease=worker.leased,
            lost=worker.lose,
            deferred_lost=worker.lose_deferred,
            cancelled=worker.cancelled.append,
            looked=worker.looked,
        )
        self.addCleanup(worker.stop)
        return worker

    async def start(self, **settings: Any) -> Worker:
        publishing = len(self.events("rabbitmq_publishing"))
        worker = self.worker(**settings)
        worker.client.start()
        await self.until(lambda: worker.client.consuming, "it consumes")
        await self.until(
            lambda: len(self.events("rabbitmq_publishing")) == publishing + 3, "all its outlets are open"
        )
        return worker

    async def start_with_deferred(self, count: int, **settings: Any) -> Worker:
        """A worker, with as many messages in the back queue of t1."""
        worker = await self.start(**settings)
        await worker.client.deferred.declare("t1")
        self.put(count)
        return worker

    async def close_connections(self) -> None:
        self.upstream.close()
        await deferToThread(self.broker.close_connections)
        self.upstream = Publisher(self.broker)

    def put(self, count: int, queue: str = "outbound-deferred.t1", start: int = 0) -> None:
        for n in range(start, start + count):
            self.upstream.channel.basic_publish("", queue, b"%d" % n, mandatory=True)

    def declare_all(self, lanes: dict[str, Any] | None = None) -> None:
        """What somebody else may have declared for us; `lanes` are the arguments of the queue of leases."""
        channel = self.upstream.channel
        for exchange in ("whatsapp-exchange", "whatsapp-dlx", "whatsapp-events"):
            channel.exchange_declare(exchange, "topic", durable=True)
        for queue in ("outbound-processed", "outbound-failed"):
            channel.queue_declare(queue, durable=True)
        channel.queue_declare("outbound-lanes", durable=True, arguments=lanes)
        channel.queue_bind("outbound-processed", "whatsapp-exchange", "outbound.processed.#")
        channel.queue_bind("outbound-failed", "whatsapp-dlx", "outbound.failed")


def numbers(start: int, stop: int) -> list[bytes]:
    return [b"%d" % n for n in range(start, stop)]
