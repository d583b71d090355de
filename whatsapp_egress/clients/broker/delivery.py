"""Deliveries, each tied to the channel it came on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from attrs import define
from pika.adapters.twisted_connection import TwistedChannel
from pika.exceptions import ChannelWrongStateError
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from whatsapp_egress.clients.broker.errors import AMQP_TROUBLE
from whatsapp_egress.deferred import Place

log = Logger()

T = TypeVar("T")


@define(eq=False)
class RabbitDelivery:
    """A delivery, tied to the channel it came on: the only one its tag means anything to."""

    channel: TwistedChannel
    tag: int
    properties: Any
    body: bytes
    redelivered: bool
    place: Place | None = None
    """The deferred queue it came from, None for the queue that all tenants share, and for leases."""
    routing_key: str = ""

    @property
    def alive(self) -> bool:
        """Whether it can still be settled."""
        return bool(self.channel.is_open)

    @property
    def headers(self) -> Mapping[str, Any]:
        """The headers it was published with."""
        return self.properties.headers or {}

    def ack(self) -> bool:
        """Acknowledge; False when its channel is gone."""
        if not self.alive:
            return False
        try:
            self.channel.basic_ack(self.tag)
        except AMQP_TROUBLE:
            return False  # the channel went away between the look and the ack
        return True

    def give_back(self) -> None:
        """Put it back where it was in its queue; the broker does so by itself when its channel is gone."""
        if not self.alive:
            return
        try:
            # Not a reject: from RabbitMQ 4.3 that counts towards the delivery limit of a quorum queue, and a
            # nack does not (https://github.com/rabbitmq/rabbitmq-server/discussions/18226).
            self.channel.basic_nack(self.tag, requeue=True)
        except AMQP_TROUBLE:
            return


async def hand_over(
    channel: TwistedChannel, queue: Any, receive: Callable[[RabbitDelivery], None], place: Place | None = None
) -> None:
    """Hand what comes into pika's `queue` to `receive`, each in the moment it comes, until that is cancelled
    or the channel closed, which is raised."""
    while True:
        got: Deferred[Any] = queue.get()
        _, method, properties, body = await got
        delivery = RabbitDelivery(
            channel, method.delivery_tag, properties, body, method.redelivered, place, method.routing_key
        )
        try:
            receive(delivery)
        except Exception:  # noqa: BLE001 - a fault of ours, and the other messages are to go on
            log.failure("delivery_failed", tag=delivery.tag, bytes=len(delivery.body))


def shielded(task: Deferred[T]) -> Deferred[T]:
    """What `task` fires with, for one who may give up waiting: `task` is not cancelled then.

    A Deferred of pika's must not be: it would be fired once more when its channel closes.
    """
    waiting: Deferred[T] = Deferred()
    task.chainDeferred(waiting)
    return waiting


def require_open(channel: TwistedChannel) -> None:
    """To be asked before a call that follows another one: a stop may have begun to close the channel
    meanwhile.

    Of a call that it refuses pika keeps a Deferred, and fires it when nobody has it.
    """
    if channel.is_closing:
        raise ChannelWrongStateError("the channel is being closed")
