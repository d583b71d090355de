"""The consuming side: deliveries in, acks out, on a connection of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define
from pika.adapters.twisted_connection import TwistedChannel
from pika.exceptions import ConsumerCancelled
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from whatsapp_egress.clients.broker.errors import AMQP_TROUBLE, TopologyMissing, channel_trouble
from whatsapp_egress.clients.broker.link import Connection, Link
from whatsapp_egress.clients.broker.topology import Topology
from whatsapp_egress.tasks import Tasks

log = Logger()

AGAIN_SECONDS = 5.0
"""Before consuming again after the broker refused it, or closed the channel."""

LOOK_SECONDS = 15.0
"""Between looks whether the broker still knows of our consumer. When a queue is deleted just after consuming
began, RabbitMQ 3.10 has been seen to tell nobody."""

CANCEL_SECONDS = 3.0
"""How long the end of consuming waits for the broker's word."""


@define(eq=False)
class RabbitDelivery:
    """A delivery, tied to the channel it came on: the only one its tag means anything to."""

    channel: TwistedChannel
    tag: int
    properties: Any
    body: bytes
    redelivered: bool

    @property
    def alive(self) -> bool:
        """Whether it can still be settled."""
        return bool(self.channel.is_open)

    def ack(self) -> bool:
        """Acknowledge; False when its channel is gone."""
        if not self.alive:
            return False
        try:
            self.channel.basic_ack(self.tag)
        except AMQP_TROUBLE:
            return False  # the channel went away between the look and the ack
        return True


class Consumer:
    """Consumes whenever there is a connection. `receive` gets each delivery; `lost` is called when
    deliveries that were handed out can't be settled any more."""

    def __init__(
        self,
        link: Link,
        topology: Topology,
        prefetch: int,
        clock: IReactorTime,
        receive: Callable[[RabbitDelivery], None],
        lost: Callable[[], None],
    ) -> None:
        self._link = link
        self._topology = topology
        self._prefetch = prefetch
        self._clock = clock
        self._receive = receive
        self._lost = lost
        self._tasks = Tasks()
        self._stopping = False
        self._connection: Connection | None = None
        self._subscription: tuple[TwistedChannel, str] | None = None
        self._asking = False
        self._watch = LoopingCall(self._look)
        self._watch.clock = clock
        link.serve = self._serve
        link.on_down = self._down

    @property
    def consuming(self) -> bool:
        """Whether messages are coming in now."""
        return self._subscription is not None

    def start(self) -> None:
        """Connect, and connect again for ever."""
        self._link.start()
        self._tasks.own(self._keep_looking())

    async def cancel(self) -> None:
        """Take no more deliveries; those taken can still be acked."""
        self._stopping = True
        if self._subscription is not None:
            channel, tag = self._subscription
            self._subscription = None
            cancelled: Deferred[Any] = Deferred()
            try:
                # pika's own Deferred is not cancelled when that takes too long: it would be fired once more.
                channel.basic_cancel(tag).chainDeferred(cancelled)
                await cancelled.addTimeout(CANCEL_SECONDS, self._clock)
            except Exception as error:  # noqa: BLE001 - whatever it is, the connection is closed next
                log.warn("rabbitmq_cancel_failed", detail=channel_trouble(error))

    async def stop(self) -> None:
        """Close the connection: what is not acked goes back to the broker."""
        self._stopping = True
        if self._watch.running:
            self._watch.stop()
        await self._link.stop()
        self._tasks.cancel()

    def _down(self) -> None:
        self._connection = self._subscription = None
        self._lost()

    async def _serve(self, connection: Connection) -> None:
        """Consume on `connection` for as long as it is open."""
        self._connection = connection
        channel: TwistedChannel | None = None
        while connection.is_open and not self._stopping:
            self._asking = True
            try:
                await self._topology.ensure(connection)
                if channel is None or not channel.is_open:
                    channel = await connection.channel()
                    await channel.basic_qos(prefetch_count=self._prefetch)
                await self._consume(channel)
            except ConsumerCancelled:
                # The queue was deleted, or its node went: the channel stays, and so do its deliveries.
                self._subscription = None
                if not self._stopping:
                    log.warn("rabbitmq_consumer_cancelled", queue=self._topology.queue)
                continue
            except (*AMQP_TROUBLE, TopologyMissing) as error:
                self._subscription = None
                if not self._stopping:
                    log.error("rabbitmq_not_consuming", detail=channel_trouble(error))
            self._asking = False
            if channel is not None and not channel.is_open:
                self._lost()
            if connection.is_open and not self._stopping:
                await deferLater(self._clock, AGAIN_SECONDS)

    async def _consume(self, channel: TwistedChannel) -> None:
        queue, tag = await channel.basic_consume(self._topology.queue)
        if self._stopping:
            return
        self._subscription = (channel, tag)
        self._asking = False
        log.info("rabbitmq_consuming", queue=self._topology.queue, prefetch=self._prefetch)
        while True:
            got: Deferred[Any] = queue.get()
            _, method, properties, body = await got
            if self._stopping:
                return
            self._hand_over(
                RabbitDelivery(channel, method.delivery_tag, properties, body, method.redelivered)
            )

    def _hand_over(self, delivery: RabbitDelivery) -> None:
        try:
            self._receive(delivery)
        except Exception:  # noqa: BLE001 - a fault of ours, and the other messages are to go on
            log.failure("delivery_failed", tag=delivery.tag, bytes=len(delivery.body))

    async def _keep_looking(self) -> None:
        await self._watch.start(LOOK_SECONDS, now=False)

    async def _look(self) -> None:
        """Begin anew when the broker has forgotten our consumer without a word; say so when it is slow."""
        connection, subscription = self._connection, self._subscription
        if connection is None or subscription is None:
            if connection is not None and self._asking:
                log.warn("rabbitmq_not_consuming", detail="the broker has not answered yet")
            return
        try:
            consumers = await self._topology.consumers(connection)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look may do better
            log.warn("rabbitmq_look_failed", detail=channel_trouble(error))
            return
        if consumers == 0 and self._subscription is subscription and subscription[0].is_open:
            log.warn("rabbitmq_consumer_forgotten", queue=self._topology.queue)
            subscription[0].close()
