"""The exchanges and queues of the service: used as they are, and declared where they are missing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from attrs import define, field
from pika.adapters.twisted_connection import TwistedChannel
from pika.exceptions import ChannelClosedByBroker
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from whatsapp_egress.clients.broker.errors import (
    ACCESS_REFUSED,
    NOT_FOUND,
    TopologyMissing,
    channel_trouble,
)
from whatsapp_egress.clients.broker.link import Connection

log = Logger()

DEAD_LETTER_EXCHANGE = "whatsapp-dlx"
DEAD_LETTER_QUEUE = "outbound-failed"
DEAD_LETTER_KEY = "outbound.failed"
EVENTS_EXCHANGE = "whatsapp-events"
INCOMING_KEY = "outbound.processed.#"
MESSAGE_TTL = 86_400_000
"""Milliseconds the incoming queue keeps a message: a day (contract)."""


@define(eq=False)
class Topology:
    """RABBITMQ_EXCHANGE, RABBITMQ_QUEUE and RABBITMQ_QUEUE_TYPE; the other names are fixed."""

    exchange: str
    queue: str
    queue_type: str
    # Both connections ask for the same things at once: without turns, one could find a queue that the other
    # has declared and not bound yet, and consume from it.
    _turn: DeferredLock = field(factory=DeferredLock, init=False)

    # What we declared, for that has no bindings but those that we make.
    _declared: set[str] = field(factory=set, init=False)

    async def ensure(self, connection: Connection) -> None:
        """See to it that all is there. Raises `TopologyMissing` when it isn't and we may not make it."""
        await self._turn.run(lambda: Deferred.fromCoroutine(self._ensure(connection)))

    async def mend(self, connection: Connection) -> None:
        """The same after a dead letter came back: its queue is gone, or nobody has bound it."""
        self._declared.add(DEAD_LETTER_QUEUE)
        await self.ensure(connection)

    async def consumers(self, connection: Connection) -> int:
        """How many consumers the incoming queue has; none if it isn't there."""
        channel = await connection.channel()
        try:
            declared = await channel.queue_declare(self.queue, passive=True)
        except ChannelClosedByBroker as error:
            if error.reply_code == NOT_FOUND:
                return 0
            raise
        channel.close()
        return int(declared.method.consumer_count)

    async def _ensure(self, connection: Connection) -> None:
        for name in (self.exchange, DEAD_LETTER_EXCHANGE, EVENTS_EXCHANGE):
            await self._exchange(connection, name)
        await self._queue(connection, DEAD_LETTER_QUEUE, DEAD_LETTER_EXCHANGE, DEAD_LETTER_KEY, None)
        arguments = {
            "x-queue-type": self.queue_type,
            "x-dead-letter-exchange": DEAD_LETTER_EXCHANGE,
            "x-dead-letter-routing-key": DEAD_LETTER_KEY,
            "x-message-ttl": MESSAGE_TTL,
        }
        await self._queue(connection, self.queue, self.exchange, INCOMING_KEY, arguments)

    async def _exchange(self, connection: Connection, name: str) -> None:
        async def declare(channel: TwistedChannel, *, passive: bool) -> None:
            await channel.exchange_declare(name, exchange_type="topic", durable=True, passive=passive)

        await self._unless_there(connection, "exchange", name, declare)

    async def _queue(
        self,
        connection: Connection,
        name: str,
        exchange: str,
        key: str,
        arguments: dict[str, Any] | None,
    ) -> None:
        async def declare(channel: TwistedChannel, *, passive: bool) -> None:
            await channel.queue_declare(name, durable=True, passive=passive, arguments=arguments)

        async def bind(channel: TwistedChannel) -> None:
            await channel.queue_bind(name, exchange, key)

        await self._unless_there(connection, "queue", name, declare)
        if self._declared & {name, exchange}:
            await _try(connection, f"binding of queue {name} to exchange {exchange}", bind)

    async def _unless_there(
        self, connection: Connection, kind: str, name: str, declare: Callable[..., Awaitable[None]]
    ) -> None:
        """Look whether it is there, which needs no configure right, and declare it only if it is not."""
        what = f"{kind} {name}"
        if await _try(connection, what, partial(declare, passive=True)):
            return
        if not await _try(connection, what, partial(declare, passive=False)):
            raise TopologyMissing(f"{what}: vanished while it was declared")
        self._declared.add(name)
        log.info("rabbitmq_declared", what=what)


async def _try(
    connection: Connection, what: str, declare: Callable[[TwistedChannel], Awaitable[None]]
) -> bool:
    """Declare on a channel of its own, for a refusal closes the channel; False when it does not exist."""
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
