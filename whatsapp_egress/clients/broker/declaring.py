"""Looks for exchanges and queues, and declares what is missing.

Each time on a channel of its own, for a refusal closes the channel.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from attrs import frozen
from pika.adapters.twisted_connection import TwistedChannel
from pika.exceptions import ChannelClosedByBroker
from twisted.logger import Logger

from whatsapp_egress.clients.broker.errors import (
    ACCESS_REFUSED,
    NOT_FOUND,
    TopologyMissing,
    channel_trouble,
)
from whatsapp_egress.clients.broker.link import Connection

log = Logger()


@frozen
class QueueState:
    """What a passive declare tells of a queue; messages that a consumer holds are not counted."""

    consumers: int
    messages: int


@frozen
class Look:
    """What a look at the queues found: how many workers take from the incoming one, ourselves and those that
    hold among them; how many messages it and the dead-letter queue have; in how many seconds the broker
    answered."""

    workers: int
    messages: int
    dead_letters: int
    seconds: float


async def look_at(connection: Connection, queue: str) -> QueueState | None:
    """How a queue stands; None if it isn't there."""
    channel = await connection.channel()
    try:
        declared = await channel.queue_declare(queue, passive=True)
    except ChannelClosedByBroker as error:
        if error.reply_code == NOT_FOUND:
            return None
        raise
    channel.close()
    return QueueState(int(declared.method.consumer_count), int(declared.method.message_count))


async def see_to_queue(connection: Connection, name: str, arguments: dict[str, Any] | None) -> bool:
    """See to it that a durable queue is there; True when it had to be declared. Raises `TopologyMissing`."""

    async def declare(channel: TwistedChannel, *, passive: bool) -> None:
        await channel.queue_declare(name, durable=True, passive=passive, arguments=arguments)

    return await unless_there(connection, f"queue {name}", declare)


async def unless_there(connection: Connection, what: str, declare: Callable[..., Awaitable[None]]) -> bool:
    """Look whether it is there, which needs no configure right, and declare it only if it is not; True when
    it was declared. Raises `TopologyMissing`."""
    if await attempt(connection, what, partial(declare, passive=True)):
        return False
    if not await attempt(connection, what, partial(declare, passive=False)):
        raise TopologyMissing(f"{what}: vanished while it was declared")
    log.info("rabbitmq_declared", what=what)
    return True


async def attempt(
    connection: Connection, what: str, declare: Callable[[TwistedChannel], Awaitable[None]]
) -> bool:
    """Do what may be refused; False when it does not exist. Raises `TopologyMissing`."""
    channel = await connection.channel()
    try:
        await declare(channel)
    except ChannelClosedByBroker as error:
        if error.reply_code == NOT_FOUND:
            return False
        advice = ""
        if error.reply_code == ACCESS_REFUSED:
            advice = " (declare it yourself, or give the user the configure right)"
        raise TopologyMissing(f"{what}: {channel_trouble(error)}{advice}") from error
    channel.close()
    return True
