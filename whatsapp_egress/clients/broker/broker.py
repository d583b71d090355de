"""The broker as the pipeline sees it: deliveries, acks, dead letters and events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika import BasicProperties
from twisted.internet.defer import Deferred

from whatsapp_egress.clients.broker.consumer import Consumer, RabbitDelivery
from whatsapp_egress.clients.broker.link import BrokerAddress, Link
from whatsapp_egress.clients.broker.publisher import Publisher
from whatsapp_egress.clients.broker.topology import (
    DEAD_LETTER_EXCHANGE,
    DEAD_LETTER_KEY,
    EVENTS_EXCHANGE,
    Topology,
)

PERSISTENT = 2
"""AMQP delivery mode: on disk before it is confirmed."""

_COPIED = (
    "content_type",
    "content_encoding",
    "priority",
    "correlation_id",
    "reply_to",
    "message_id",
    "timestamp",
    "type",
    "app_id",
)


class RabbitBroker:
    """Two connections to one RabbitMQ: one consumes and acks, the other publishes with confirms.

    `receive` gets each delivery; `lost` is called when deliveries can't be settled any more.
    """

    def __init__(
        self,
        reactor: Any,
        address: BrokerAddress,
        topology: Topology,
        *,
        prefetch: int,
        reconnect_delay: float,
        jitter: Callable[[], float],
        receive: Callable[[RabbitDelivery], None],
        lost: Callable[[], None],
    ) -> None:
        links = [
            Link(reactor, address, f"whatsapp-egress {side}", reconnect_delay, jitter)
            for side in ("consume", "publish")
        ]
        self._publisher = Publisher(links[1], topology, reactor)
        self._consumer = Consumer(links[0], topology, prefetch, reactor, receive, lost)

    @property
    def consuming(self) -> bool:
        """Whether messages are coming in now."""
        return self._consumer.consuming

    def start(self) -> None:
        """Connect, and connect again for ever."""
        self._consumer.start()
        self._publisher.start()

    async def stop_consuming(self) -> None:
        """Take no more deliveries; those taken can still be settled."""
        await self._consumer.cancel()

    async def stop(self) -> None:
        """Close both connections; what is not acked goes back to the broker."""
        await self._consumer.stop()
        await self._publisher.stop()

    def dead_letter(self, body: bytes, properties: Any, headers: dict[str, str | int]) -> Deferred[None]:
        """Publish a copy with `headers` added; fires when confirmed, fails with `Unpublished`."""
        return self._publisher.publish(
            DEAD_LETTER_EXCHANGE,
            DEAD_LETTER_KEY,
            body,
            dead_letter_properties(properties, headers),
            mandatory=True,
        )

    def announce(self, routing_key: str, body: bytes) -> Deferred[None]:
        """Publish an event; fires when confirmed, fails with `Unpublished`."""
        properties = BasicProperties(
            content_type="application/json", delivery_mode=PERSISTENT, app_id="whatsapp-egress"
        )
        return self._publisher.publish(EVENTS_EXCHANGE, routing_key, body, properties, mandatory=False)


def dead_letter_properties(original: BasicProperties, headers: dict[str, str | int]) -> BasicProperties:
    """The properties of a dead letter: the original's, but for two that would lose the message.

    `expiration` would let it expire in the dead-letter queue too (RabbitMQ drops it when it dead-letters, for
    the same reason), and a foreign `user_id` is refused by the broker. Both become headers.
    """
    kept = {name: getattr(original, name) for name in _COPIED}
    said = {"x-egress-expiration": original.expiration, "x-egress-user-id": original.user_id}
    return BasicProperties(
        delivery_mode=PERSISTENT,
        headers={
            **(original.headers or {}),
            **{name: value for name, value in said.items() if value is not None},
            **headers,
        },
        **kept,
    )
