"""Deferred queues and leases as the pipeline sees them; the names of the queues are known here alone."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from attrs import define, field
from pika.exceptions import ChannelClosedByBroker
from twisted.internet.defer import Deferred, DeferredSemaphore

from whatsapp_egress.clients.broker.declaring import look_at
from whatsapp_egress.clients.broker.delivery import shielded
from whatsapp_egress.clients.broker.errors import PRECONDITION_FAILED, in_our_words
from whatsapp_egress.clients.broker.lane_consumer import LaneConsumer
from whatsapp_egress.clients.broker.link import Connection, Link
from whatsapp_egress.clients.broker.properties import deferred_properties, json_properties
from whatsapp_egress.clients.broker.publisher import Outlet
from whatsapp_egress.clients.broker.topology import LANES_QUEUE, Topology, deferred_queue
from whatsapp_egress.deferred import Place
from whatsapp_egress.errors import QueueTrouble

T = TypeVar("T")

AT_ONCE = 16
"""What is asked of the broker at a time, each on a channel of its own; a connection has 2,047 of them."""


class Published(Protocol):
    """A message as it was published."""

    @property
    def body(self) -> bytes:
        """What was published."""

    @property
    def properties(self) -> Any:
        """How it was published."""


@define(eq=False)
class DeferredQueues:
    """Makes, fills, empties and deletes deferred queues, and publishes leases.

    `publish` and `write_lease` fail with `Unpublished`, the others with `QueueTrouble`. Who cancels what they
    return waits no more, and knows no more whether it was done.
    """

    _link: Link
    _topology: Topology
    _consumer: LaneConsumer
    _outlet: Outlet
    _asking: DeferredSemaphore = field(factory=lambda: DeferredSemaphore(AT_ONCE), init=False)

    def declare(self, tenant_id: str) -> Deferred[None]:
        """See to it that both of the tenant's queues are there."""

        async def declare(connection: Connection) -> None:
            for first in (True, False):
                await self._topology.ensure_deferred(connection, Place(tenant_id, first))

        return self._ask(declare)

    def publish(self, place: Place, delivery: Published, headers: dict[str, Any]) -> Deferred[None]:
        """Publish a copy of the message with `headers` added; fires when confirmed."""
        properties = deferred_properties(delivery.properties, headers, self._outlet.frame_max)
        return self._outlet.publish(deferred_queue(place), delivery.body, properties)

    def depth(self, place: Place) -> Deferred[int]:
        """How many messages are ready in it, those that were delivered not counted; none where it isn't
        there."""

        async def depth(connection: Connection) -> int:
            state = await look_at(connection, deferred_queue(place))
            return 0 if state is None else state.messages

        return self._ask(depth)

    def consume(self, place: Place, prefetch: int) -> Deferred[None]:
        """Have its messages delivered, at most `prefetch` unacknowledged. Asked again with another
        `prefetch`, it is consumed anew: what was delivered before does not count towards that."""
        return self._ask(lambda connection: self._consumer.consume(connection, place, prefetch))

    def cancel(self, place: Place) -> Deferred[None]:
        """Have no more delivered: when it fires all that come have come. Those can still be settled."""
        return self._shield(lambda: self._consumer.cancel(place))

    def delete(self, place: Place) -> Deferred[bool]:
        """Delete it if it is empty and nobody consumes from it; False where it must stay, True when it is
        gone.

        What was delivered and is not acknowledged does not count for RabbitMQ, and goes with the queue.
        """

        async def delete(connection: Connection) -> bool:
            channel = await connection.channel()
            try:
                await channel.queue_delete(deferred_queue(place), if_unused=True, if_empty=True)
            except ChannelClosedByBroker as error:
                if error.reply_code == PRECONDITION_FAILED:
                    return False
                raise
            channel.close()
            return True

        return self._ask(delete)

    def write_lease(self, body: bytes) -> Deferred[None]:
        """Publish a lease; fires when confirmed."""
        return self._outlet.publish(LANES_QUEUE, body, json_properties())

    def _ask(self, what: Callable[[Connection], Coroutine[Deferred[Any], Any, T]]) -> Deferred[T]:
        async def ask() -> T:
            connection = self._link.connection
            if connection is None or not connection.is_open:
                raise QueueTrouble("no connection to RabbitMQ")
            return await what(connection)

        return self._shield(ask)

    def _shield(self, what: Callable[[], Coroutine[Deferred[Any], Any, T]]) -> Deferred[T]:
        return shielded(self._asking.run(lambda: Deferred.fromCoroutine(in_our_words(what()))))
