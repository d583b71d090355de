"""The consuming side of deferral: leases, and deliveries of deferred queues, on a channel of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define
from pika.adapters.twisted_connection import TwistedChannel
from pika.exceptions import ConsumerCancelled
from twisted.internet.defer import Deferred, DeferredLock, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from whatsapp_egress.clients.broker.consumer import AGAIN_SECONDS, CANCEL_SECONDS
from whatsapp_egress.clients.broker.declaring import look_at
from whatsapp_egress.clients.broker.delivery import RabbitDelivery, hand_over, require_open, shielded
from whatsapp_egress.clients.broker.errors import AMQP_TROUBLE, TopologyMissing, channel_trouble
from whatsapp_egress.clients.broker.link import Connection
from whatsapp_egress.clients.broker.topology import LANES_QUEUE, Topology, deferred_queue
from whatsapp_egress.deferred import Place
from whatsapp_egress.errors import QueueTrouble
from whatsapp_egress.tasks import Tasks

log = Logger()

LEASES_SECONDS = 30.0
"""How long the messages of the incoming queue wait for the leases that are ready."""

LEASES_LOOK_SECONDS = 0.05
"""Between looks whether leases are still ready."""

MOST_LEASES = 65_535
"""Leases held at once: as many as AMQP can say. 0 should mean no limit, but a quorum queue takes it for
2,000."""


@define(eq=False)
class _Subscription:
    """That a deferred queue is consumed from."""

    tag: str
    prefetch: int


class LaneConsumer:
    """Consumes leases whenever there is a connection, and from deferred queues when it is told to.

    `lease` gets each lease and `receive` each delivery; `cancelled` is told when the broker ended consuming
    from a deferred queue, `lost` when the channel is gone while the connection is there, and what was handed
    out can't be settled any more. All share one channel, so that tags tell in which order they came.
    """

    def __init__(
        self,
        topology: Topology,
        clock: IReactorTime,
        receive: Callable[[RabbitDelivery], None],
        lease: Callable[[RabbitDelivery], None],
        cancelled: Callable[[Place], None],
        lost: Callable[[], None],
    ) -> None:
        self._topology = topology
        self._clock = clock
        self._receive = receive
        self._lease = lease
        self._cancelled = cancelled
        self._lost = lost
        self._tasks = Tasks()
        self._stopping = False
        self._channel: TwistedChannel | None = None
        self._lease_tag: str | None = None
        self._subscriptions: dict[Place, _Subscription] = {}
        self._leases_in: Deferred[None] = Deferred()
        # One call of the channel at a time: a prefetch is that of the consumers made after it, and pika takes
        # any `cancel-ok` for the answer to every cancel that is under way.
        self._turn = DeferredLock()

    async def serve(self, connection: Connection) -> None:
        """Consume on `connection` for as long as it is open."""
        self._leases_in = Deferred()
        channel: TwistedChannel | None = None
        while connection.is_open and not self._stopping:
            try:
                await self._topology.ensure_lanes(connection)
                if channel is None or not channel.is_open:
                    channel = await connection.channel()
                await self._take_leases(connection, channel)
            except ConsumerCancelled:
                if not self._stopping:
                    log.warn("rabbitmq_consumer_cancelled", queue=LANES_QUEUE)
                continue
            except (*AMQP_TROUBLE, TopologyMissing) as error:
                if connection.is_open and not self._stopping:
                    log.error("rabbitmq_lanes_not_consuming", detail=channel_trouble(error))
            self._let_in()
            if self._channel is not None and not self._channel.is_open:
                self.down()
                if connection.is_open:
                    self._lost()
            if connection.is_open and not self._stopping:
                await deferLater(self._clock, AGAIN_SECONDS)
        self._let_in()

    async def leases_in(self) -> None:
        """Wait until the leases that are ready have been handed over, or can't be had, or for
        `LEASES_SECONDS`."""
        try:
            await shielded(self._leases_in).addTimeout(LEASES_SECONDS, self._clock)
        except TimeoutError:
            log.warn("rabbitmq_leases_late", seconds=LEASES_SECONDS)
            self._let_in()

    def down(self) -> None:
        """The channel was closed, or the connection lost."""
        self._channel = self._lease_tag = None
        self._subscriptions.clear()

    async def consume(self, connection: Connection, place: Place, prefetch: int) -> None:
        """Consume from a deferred queue, with this prefetch from now on."""
        await self._turn.run(lambda: Deferred.fromCoroutine(self._consume(connection, place, prefetch)))

    async def cancel(self, place: Place) -> None:
        """Consume from it no more. What pika gets from now on it gives back."""
        await self._turn.run(lambda: Deferred.fromCoroutine(self._cancel(place)))

    async def stop_consuming(self) -> None:
        """Take no more leases and deliveries; those taken can still be settled."""
        self._stopping = True
        cancelling = self._turn.run(lambda: Deferred.fromCoroutine(self._cancel_all()))
        try:
            await shielded(cancelling).addTimeout(CANCEL_SECONDS, self._clock)
        except Exception as error:  # noqa: BLE001 - whatever it is, the connection is closed next
            log.warn("rabbitmq_cancel_failed", detail=channel_trouble(error))

    def stop(self) -> None:
        """The connection is about to be closed."""
        self._stopping = True

    def close(self) -> None:
        """The connection was closed for good."""
        self._tasks.cancel()

    def _let_in(self) -> None:
        if not self._leases_in.called:
            self._leases_in.callback(None)

    async def _take_leases(self, connection: Connection, channel: TwistedChannel) -> None:
        queue = await self._turn.run(lambda: Deferred.fromCoroutine(self._consume_leases(channel)))
        self._tasks.own(self._count_leases_in(connection, channel))
        await hand_over(channel, queue, self._lease)

    async def _consume_leases(self, channel: TwistedChannel) -> Any:
        if self._stopping:
            raise ConsumerCancelled
        queue, self._lease_tag = await _consume_with(channel, LANES_QUEUE, MOST_LEASES)
        self._channel = channel
        return queue

    async def _count_leases_in(self, connection: Connection, channel: TwistedChannel) -> None:
        """Find out when all leases that are ready have been handed over."""
        try:
            while not self._leases_in.called:
                state = await look_at(connection, LANES_QUEUE)
                if state is None or state.messages == 0:
                    break
                await deferLater(self._clock, LEASES_LOOK_SECONDS)
            # The answers of two channels may overtake one another, those of one channel don't.
            await self._turn.run(lambda: Deferred.fromCoroutine(_set_prefetch(channel, MOST_LEASES)))
            log.info("rabbitmq_lanes_consuming", queue=LANES_QUEUE)
        except AMQP_TROUBLE as error:
            log.warn("rabbitmq_look_failed", detail=channel_trouble(error))
        self._let_in()

    def _usable(self) -> TwistedChannel:
        if self._channel is None or not self._channel.is_open or self._stopping:
            raise QueueTrouble("leases are not consumed now, so deferred messages are not either")
        return self._channel

    async def _consume(self, connection: Connection, place: Place, prefetch: int) -> None:
        channel, name = self._usable(), deferred_queue(place)
        subscription = self._subscriptions.get(place)
        if subscription is not None and subscription.prefetch == prefetch:
            return
        if subscription is not None:
            await self._cancel(place)
        elif await look_at(connection, name) is None:
            raise QueueTrouble(f"no queue {name}")  # to ask for it would close the channel
        queue, tag = await _consume_with(channel, name, prefetch)
        self._subscriptions[place] = subscription = _Subscription(tag, prefetch)
        self._tasks.own(self._take(channel, queue, place, subscription))

    async def _take(
        self, channel: TwistedChannel, queue: Any, place: Place, subscription: _Subscription
    ) -> None:
        try:
            await hand_over(channel, queue, self._receive, place)
        except ConsumerCancelled:
            if self._subscriptions.get(place) is subscription:
                del self._subscriptions[place]
                log.warn("rabbitmq_consumer_cancelled", queue=deferred_queue(place))
                self._cancelled(place)
        except AMQP_TROUBLE:
            return  # `serve` hears why the channel was closed

    async def _cancel(self, place: Place) -> None:
        subscription = self._subscriptions.pop(place, None)
        if subscription is not None and self._channel is not None and self._channel.is_open:
            await self._channel.basic_cancel(subscription.tag)

    async def _cancel_all(self) -> None:
        tag, self._lease_tag = self._lease_tag, None
        if tag is not None and self._channel is not None and self._channel.is_open:
            await self._channel.basic_cancel(tag)
        for place in list(self._subscriptions):
            await self._cancel(place)


async def _consume_with(channel: TwistedChannel, queue: str, prefetch: int) -> tuple[Any, str]:
    """pika's queue of what comes, and the consumer's tag."""
    await _set_prefetch(channel, prefetch)
    require_open(channel)
    consumed: tuple[Any, str] = await channel.basic_consume(queue)
    return consumed


async def _set_prefetch(channel: TwistedChannel, prefetch: int) -> None:
    require_open(channel)
    await channel.basic_qos(prefetch_count=prefetch)
