"""The consuming side: deliveries of the queue that all tenants share, on a channel of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika.adapters.twisted_connection import TwistedChannel
from pika.exceptions import ConsumerCancelled
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from whatsapp_egress.clients.broker.declaring import Look, QueueState, look_at
from whatsapp_egress.clients.broker.delivery import RabbitDelivery, hand_over, require_open, shielded
from whatsapp_egress.clients.broker.errors import AMQP_TROUBLE, TopologyMissing, channel_trouble
from whatsapp_egress.clients.broker.link import Connection
from whatsapp_egress.clients.broker.topology import DEAD_LETTER_QUEUE, LANES_QUEUE, Topology
from whatsapp_egress.tasks import Tasks

log = Logger()

AGAIN_SECONDS = 5.0
"""Before consuming again after the broker refused it, or closed the channel."""

LOOK_SECONDS = 5.0
"""Between looks how the queues stand, and whether the broker still knows of our consumer. When a queue is
deleted just after consuming began, RabbitMQ 3.10 has been seen to tell nobody."""

CANCEL_SECONDS = 3.0
"""How long the end of consuming waits for the broker's word."""


class Consumer:
    """Consumes from the incoming queue whenever there is a connection and it is not held.

    `receive` gets each delivery; `lost` is called when the channel is gone while the connection is there, and
    what was handed out can't be settled any more. `looked` is told how the queues stand, every
    few seconds.
    """

    def __init__(
        self,
        topology: Topology,
        prefetch: int,
        clock: IReactorTime,
        receive: Callable[[RabbitDelivery], None],
        lost: Callable[[], None],
        looked: Callable[[Look], None],
    ) -> None:
        self._topology = topology
        self._prefetch = prefetch
        self._clock = clock
        self._receive = receive
        self._lost = lost
        self._looked = looked
        self._tasks = Tasks()
        self._stopping = False
        self._held = False
        self._ready = False
        self._asking = False
        self._connection: Connection | None = None
        self._subscription: tuple[TwistedChannel, str] | None = None
        self._resting: Deferred[None] | None = None
        self._watch = LoopingCall(self._look)
        self._watch.clock = clock

    @property
    def consuming(self) -> bool:
        """Whether messages are coming in now, or would if it were not held."""
        return self._ready

    def start(self) -> None:
        """Look at the queue now and then."""
        self._tasks.own(self._keep_looking())

    def hold(self) -> None:
        """Have no more delivered until `release`; those taken can still be settled.

        What arrives after that is given back by pika itself: it rejects the deliveries of a consumer that it
        was told to cancel, and the broker puts them back where they were.
        """
        self._held = True
        self._unsubscribe()

    def release(self) -> None:
        """Consume again."""
        self._held = False
        self._wake()

    async def cancel(self) -> None:
        """Take no more deliveries; those taken can still be settled."""
        self._stopping, self._ready = True, False
        self._wake()
        try:
            await shielded(self._unsubscribe()).addTimeout(CANCEL_SECONDS, self._clock)
        except Exception as error:  # noqa: BLE001 - whatever it is, the connection is closed next
            log.warn("rabbitmq_cancel_failed", detail=channel_trouble(error))

    def stop(self) -> None:
        """Look no more; the connection is about to be closed."""
        self._stopping = True
        if self._watch.running:
            self._watch.stop()

    def down(self) -> None:
        """The connection was lost."""
        self._connection = self._subscription = None
        self._ready = False

    def close(self) -> None:
        """The connection was closed for good."""
        self._tasks.cancel()

    async def serve(self, connection: Connection) -> None:
        """Consume on `connection` for as long as it is open."""
        self._connection = connection
        channel: TwistedChannel | None = None
        while connection.is_open and not self._stopping:
            self._asking = True
            try:
                await self._topology.ensure(connection)
                if channel is None or not channel.is_open:
                    channel = await self._open(connection)
                await self._consume(channel)
            except ConsumerCancelled:
                # The queue was deleted, or its node went: the channel stays, and so do its deliveries.
                self._ready, self._subscription = False, None
                if not self._stopping:
                    log.warn("rabbitmq_consumer_cancelled", queue=self._topology.queue)
                continue
            except (*AMQP_TROUBLE, TopologyMissing) as error:
                self._ready, self._subscription = False, None
                # A connection that is gone was told of already, and is no matter of queues or rights.
                if connection.is_open and not self._stopping:
                    log.error("rabbitmq_not_consuming", detail=channel_trouble(error))
            self._asking = False
            if channel is not None and not channel.is_open and connection.is_open:
                self._lost()
            if connection.is_open and not self._stopping:
                await deferLater(self._clock, AGAIN_SECONDS)

    async def _open(self, connection: Connection) -> TwistedChannel:
        channel = await connection.channel()
        await channel.basic_qos(prefetch_count=self._prefetch)
        channel.on_closed.addCallback(self._channel_closed)
        return channel

    def _channel_closed(self, reason: object) -> object:
        self._wake()  # nobody who rests has a call under way that would fail
        return reason

    async def _consume(self, channel: TwistedChannel) -> None:
        """Consume, and rest while held, until the broker has it otherwise, which is raised."""
        while not self._stopping:
            if self._held:
                await self._rest(channel)
                continue
            try:
                await self._take(channel)
            except ConsumerCancelled:
                if self._subscription is not None:
                    raise  # not our doing

    async def _take(self, channel: TwistedChannel) -> None:
        require_open(channel)
        queue, tag = await channel.basic_consume(self._topology.queue)
        self._subscription = (channel, tag)
        self._asking = False
        if self._held or self._stopping:
            self._unsubscribe()
        else:
            self._ready = True
            log.info("rabbitmq_consuming", queue=self._topology.queue, prefetch=self._prefetch)
            self._tasks.own(self._first_look())
        await hand_over(channel, queue, self._receive)

    async def _rest(self, channel: TwistedChannel) -> None:
        """Wait to be released. Raises why the channel was closed, if that comes first."""
        self._asking, self._ready = False, True
        if channel.is_open:
            self._resting = Deferred()
            await self._resting
        if not channel.is_open:
            raise await shielded(channel.on_closed)

    def _wake(self) -> None:
        resting, self._resting = self._resting, None
        if resting is not None and not resting.called:
            resting.callback(None)

    def _unsubscribe(self) -> Deferred[Any]:
        """Have the broker send no more, and fire when it has said so. `_take` learns of it as of any
        cancel."""
        subscription, self._subscription = self._subscription, None
        said: Deferred[Any] = Deferred()
        if subscription is None or not subscription[0].is_open:
            said.callback(None)
            return said
        channel, tag = subscription
        channel.basic_cancel(tag).addErrback(_tell_not_cancelled).chainDeferred(said)
        return said

    async def _keep_looking(self) -> None:
        await self._watch.start(LOOK_SECONDS, now=False)

    async def _first_look(self) -> None:
        await self._tell_of_queue()

    async def _look(self) -> None:
        """Begin anew when the broker has forgotten our consumer without a word; say so when it is slow."""
        if self._connection is not None and self._asking:
            log.warn("rabbitmq_not_consuming", detail="the broker has not answered yet")
        subscription = self._subscription
        state = await self._tell_of_queue()
        if state is None or state.consumers > 0 or subscription is None:
            return
        if self._subscription is subscription and subscription[0].is_open:
            log.warn("rabbitmq_consumer_forgotten", queue=self._topology.queue)
            subscription[0].close()

    async def _tell_of_queue(self) -> QueueState | None:
        """Tell `looked` how the queue stands; None where that is not known."""
        connection = self._connection
        if connection is None or not self._ready:
            return None
        try:
            began = self._clock.seconds()
            state = await self._topology.look(connection) or QueueState(0, 0)
            seconds = self._clock.seconds() - began
            # Workers that hold consume leases all the same, and go on sending.
            leases = await look_at(connection, LANES_QUEUE) or QueueState(0, 0)
            ourselves = 0 if self._subscription is not None else 1
            workers = max(1, state.consumers + ourselves, leases.consumers)
            dead = await look_at(connection, DEAD_LETTER_QUEUE) or QueueState(0, 0)
            self._looked(Look(workers, state.messages, dead.messages, seconds))
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the next look may do better
            log.warn("rabbitmq_look_failed", detail=channel_trouble(error))
            return None
        return state


def _tell_not_cancelled(failure: Failure) -> None:
    log.warn("rabbitmq_cancel_failed", detail=channel_trouble(failure.value))
