"""The exchanges and queues of the service: used as they are, and declared where they are missing."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from pika.adapters.twisted_connection import TwistedChannel
from twisted.internet.defer import Deferred, DeferredLock

from whatsapp_egress.clients.broker.declaring import (
    QueueState,
    attempt,
    look_at,
    see_to_queue,
    unless_there,
)
from whatsapp_egress.clients.broker.link import Connection
from whatsapp_egress.deferred import Place

DEAD_LETTER_EXCHANGE = "whatsapp-dlx"
DEAD_LETTER_QUEUE = "outbound-failed"
DEAD_LETTER_KEY = "outbound.failed"
EVENTS_EXCHANGE = "whatsapp-events"
INCOMING_KEY = "outbound.processed.#"
MESSAGE_TTL = 86_400_000
"""Milliseconds the incoming queue keeps a message: a day (contract)."""

LANES_QUEUE = "outbound-lanes"
"""Where leases are: which tenants have deferred queues, and who looks after them."""

REPLAYS_QUEUE = "outbound-replays"
"""Where notes are: which dead letters a replay has in hand."""

LEASE_DELIVERIES = 1_000_000
"""Deliveries after which a quorum queue gives a lease up. From RabbitMQ 4.0 that is 20 if nobody says
otherwise, and each restart of a worker delivers its leases once more."""


def deferred_queue(place: Place) -> str:
    """The name of a tenant's deferred queue."""
    return f"outbound-deferred{'-first' if place.first else ''}.{place.tenant_id}"


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

    @property
    def exchanges(self) -> tuple[str, ...]:
        """The exchanges that must be there."""
        return (self.exchange, DEAD_LETTER_EXCHANGE, EVENTS_EXCHANGE)

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues that must be there, but for those of tenants."""
        return (self.queue, DEAD_LETTER_QUEUE, LANES_QUEUE)

    async def ensure(self, connection: Connection) -> None:
        """See to it that all is there but what deferral needs. Raises `TopologyMissing` when it isn't and we
        may not make it."""
        await self._turn.run(lambda: Deferred.fromCoroutine(self._ensure(connection)))

    async def mend(self, connection: Connection) -> None:
        """The same after a dead letter came back: its queue is gone, or nobody has bound it."""
        self._declared.add(DEAD_LETTER_QUEUE)
        await self.ensure(connection)

    async def ensure_lanes(self, connection: Connection) -> None:
        """See to it that the queue of leases is there, apart from the rest: messages go on without it. Raises
        `TopologyMissing`."""
        arguments: dict[str, Any] = {"x-queue-type": self.queue_type}
        if self.queue_type == "quorum":
            arguments["x-delivery-limit"] = LEASE_DELIVERIES
        await see_to_queue(connection, LANES_QUEUE, arguments)

    async def ensure_replays(self, connection: Connection) -> None:
        """See to it that the queue of notes is there. Raises `TopologyMissing`.

        It is a classic one whatever RABBITMQ_QUEUE_TYPE says: who replays is its exclusive consumer, and
        quorum queues let others in (https://github.com/rabbitmq/rabbitmq-website/issues/1973).
        """
        await see_to_queue(connection, REPLAYS_QUEUE, {"x-queue-type": "classic"})

    async def ensure_deferred(self, connection: Connection, place: Place) -> None:
        """See to it that a deferred queue is there. Raises `TopologyMissing`.

        It is a classic one whatever RABBITMQ_QUEUE_TYPE says: of a quorum queue RabbitMQ can't tell whether
        it is empty and unused when it deletes it, and refuses
        (https://github.com/rabbitmq/rabbitmq-server/pull/2211, /issues/10543, /pull/17075). No TTL: it would
        take messages that wait for good reason.
        """
        arguments = {
            "x-queue-type": "classic",
            "x-single-active-consumer": True,
            "x-dead-letter-exchange": DEAD_LETTER_EXCHANGE,
            "x-dead-letter-routing-key": DEAD_LETTER_KEY,
        }
        await see_to_queue(connection, deferred_queue(place), arguments)

    async def look(self, connection: Connection) -> QueueState | None:
        """How the incoming queue stands; None if it isn't there."""
        return await look_at(connection, self.queue)

    async def _ensure(self, connection: Connection) -> None:
        for name in self.exchanges:
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

        if await unless_there(connection, f"exchange {name}", declare):
            self._declared.add(name)

    async def _queue(
        self,
        connection: Connection,
        name: str,
        exchange: str,
        key: str,
        arguments: dict[str, Any] | None,
    ) -> None:
        async def bind(channel: TwistedChannel) -> None:
            await channel.queue_bind(name, exchange, key)

        if await see_to_queue(connection, name, arguments):
            self._declared.add(name)
        if self._declared & {name, exchange}:
            await attempt(connection, f"binding of queue {name} to exchange {exchange}", bind)
