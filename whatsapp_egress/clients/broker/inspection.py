"""Looks at exchanges, queues and our rights to them, and changes nothing.

AMQP has no question for rights. But RabbitMQ checks them before it looks at what it is asked for, so each is
asked for something that comes to nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import uuid4

from pika.adapters.twisted_connection import TwistedChannel
from pika.exceptions import ChannelClosedByBroker

from whatsapp_egress.clients.broker.declaring import QueueState, attempt, look_at
from whatsapp_egress.clients.broker.errors import ACCESS_REFUSED, TopologyMissing
from whatsapp_egress.clients.broker.link import Connection

_ALWAYS_THERE = "amq.topic"
"""An exchange that every virtual host has."""


async def exchange_is_there(connection: Connection, name: str) -> bool:
    """Whether there is an exchange. Raises `TopologyMissing` when we may not know."""

    async def look(channel: TwistedChannel) -> None:
        await channel.exchange_declare(name, passive=True)

    return await attempt(connection, f"exchange {name}", look)


async def queue_state(connection: Connection, name: str) -> QueueState | None:
    """How a queue stands; None if there is none. Raises `TopologyMissing` when we may not know."""
    try:
        return await look_at(connection, name)
    except ChannelClosedByBroker as error:
        raise TopologyMissing(f"queue {name}: {error.reply_text}") from error


async def may_publish(connection: Connection, exchange: str) -> bool:
    """Whether we may publish to an exchange that is there: it takes the same right to undo a binding that
    feeds it, and RabbitMQ is content when there is no such binding."""

    async def undo(channel: TwistedChannel) -> None:
        await channel.exchange_unbind(exchange, _ALWAYS_THERE, uuid4().hex)

    refusal = await _refusal(connection, undo)
    # A refusal of the other side is no refusal of ours.
    return (
        refusal is None or refusal.reply_code != ACCESS_REFUSED or f"'{exchange}'" not in refusal.reply_text
    )


async def may_consume(connection: Connection, queue: str) -> bool:
    """Whether we may consume from a queue that is there. The consumer asked for has a priority that is no
    number: RabbitMQ refuses it, with other words if it has looked at our rights."""

    async def consume(channel: TwistedChannel) -> None:
        await channel.basic_consume(queue, arguments={"x-priority": "none"})

    refusal = await _refusal(connection, consume)
    return refusal is None or refusal.reply_code != ACCESS_REFUSED


async def _refusal(
    connection: Connection, ask: Callable[[TwistedChannel], Awaitable[None]]
) -> ChannelClosedByBroker | None:
    channel = await connection.channel()
    try:
        await ask(channel)
    except ChannelClosedByBroker as error:
        return error
    channel.close()
    return None
