"""What the systems before the gateway do: publish a message, and hear in the events what became of it."""

from __future__ import annotations

from typing import Any

import msgspec
from attrs import define
from pika import BasicProperties
from pika.exceptions import NackError, UnroutableError

from whatsapp_egress.clients.broker.errors import AMQP_TROUBLE, channel_trouble
from whatsapp_egress.clients.broker.link import Connection
from whatsapp_egress.clients.broker.properties import PERSISTENT
from whatsapp_egress.clients.broker.topology import EVENTS_EXCHANGE
from whatsapp_egress.errors import QueueTrouble, Unpublished


@define
class EventStream:
    """The events of one tenant, from now on, through a queue of one's own that ends with the connection."""

    _queue: Any

    @classmethod
    async def of(cls, connection: Connection, tenant_id: str) -> EventStream:
        """Begin to listen. Raises `QueueTrouble`."""
        try:
            channel = await connection.channel()
            declared = await channel.queue_declare("", exclusive=True, auto_delete=True)
            name = declared.method.queue
            for outcome in ("sent", "failed"):
                await channel.queue_bind(name, EVENTS_EXCHANGE, f"outbound.{outcome}.{tenant_id}")
            queue, _tag = await channel.basic_consume(name, auto_ack=True)
        except AMQP_TROUBLE as error:
            raise QueueTrouble(channel_trouble(error)) from error
        return cls(queue)

    async def about(self, internal_id: str) -> dict[str, Any]:
        """The next event about a message. Raises `QueueTrouble` when there will be none."""
        while True:
            try:
                delivery = await self._queue.get()
            except AMQP_TROUBLE as error:
                raise QueueTrouble(channel_trouble(error)) from error
            try:
                event = msgspec.json.decode(delivery.body)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # whoever else publishes there
            if isinstance(event, dict) and event.get("internalId") == internal_id:
                return event


async def publish(connection: Connection, exchange: str, tenant_id: str, body: bytes) -> None:
    """Publish a message for the gateway. Returns when the broker has confirmed it; raises `Unpublished`."""
    key = f"outbound.processed.{tenant_id}"
    properties = BasicProperties(content_type="application/json", delivery_mode=PERSISTENT)
    try:
        channel = await connection.channel()
        await channel.confirm_delivery()
        await channel.basic_publish(exchange, key, body, properties, mandatory=True)
    except UnroutableError as error:
        raise Unpublished(f"no queue takes {key} from exchange {exchange}") from error
    except NackError as error:
        raise Unpublished("the broker refused it: a queue is full, or broken") from error
    except AMQP_TROUBLE as error:
        raise Unpublished(channel_trouble(error)) from error
