"""The broker as the pipeline sees it: deliveries, acks, dead letters and events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pika import BasicProperties
from twisted.internet.defer import Deferred

from whatsapp_egress.clients.broker.address import BrokerAddress
from whatsapp_egress.clients.broker.consumer import Consumer, RabbitDelivery
from whatsapp_egress.clients.broker.dead_letter import PERSISTENT, dead_letter_properties
from whatsapp_egress.clients.broker.link import Link
from whatsapp_egress.clients.broker.publisher import Outlet, Publisher
from whatsapp_egress.clients.broker.tables import mend_pika
from whatsapp_egress.clients.broker.topology import (
    DEAD_LETTER_EXCHANGE,
    DEAD_LETTER_KEY,
    EVENTS_EXCHANGE,
    Topology,
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
        mend_pika()
        links = [
            Link(reactor, address, f"whatsapp-egress {side}", reconnect_delay, jitter)
            for side in ("consume", "publish")
        ]
        self._dead_letters = Outlet(DEAD_LETTER_EXCHANGE, True, topology, reactor)
        self._events = Outlet(EVENTS_EXCHANGE, False, topology, reactor)
        self._publisher = Publisher(links[1], (self._dead_letters, self._events))
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
        letter = dead_letter_properties(properties, headers, self._dead_letters.frame_max)
        return self._dead_letters.publish(DEAD_LETTER_KEY, body, letter)

    def announce(self, routing_key: str, body: bytes) -> Deferred[None]:
        """Publish an event; fires when confirmed, fails with `Unpublished`."""
        properties = BasicProperties(
            content_type="application/json", delivery_mode=PERSISTENT, app_id="whatsapp-egress"
        )
        return self._events.publish(routing_key, body, properties)
