"""The broker as the pipeline sees it: deliveries, acks, dead letters, events, and what is deferred."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, FirstError, gatherResults

from whatsapp_egress.clients.broker.address import BrokerAddress
from whatsapp_egress.clients.broker.consumer import Consumer
from whatsapp_egress.clients.broker.declaring import Look
from whatsapp_egress.clients.broker.deferred import DeferredQueues
from whatsapp_egress.clients.broker.delivery import RabbitDelivery
from whatsapp_egress.clients.broker.lane_consumer import LaneConsumer
from whatsapp_egress.clients.broker.link import Connection, Link
from whatsapp_egress.clients.broker.properties import dead_letter_properties, json_properties
from whatsapp_egress.clients.broker.publisher import Outlet, Publisher
from whatsapp_egress.clients.broker.tables import mend_pika
from whatsapp_egress.clients.broker.topology import (
    DEAD_LETTER_EXCHANGE,
    DEAD_LETTER_KEY,
    EVENTS_EXCHANGE,
    Topology,
)
from whatsapp_egress.deferred import Place


class RabbitBroker:
    """Two connections to one RabbitMQ: one consumes and acks, the other publishes with confirms.

    `receive` gets each delivery and `lease` each lease; those of `receive` that are deferred messages have a
    `place`. `lost` is called when deliveries can't be settled any more, `deferred_lost` when leases and
    deliveries of deferred queues can't be, and nothing is consumed from those; `cancelled` when the broker
    ended consuming from a deferred queue. `looked` is told every few seconds how the queues stand. `links`
    and `outlets` tell those who watch what is connected and what is not confirmed.
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
        lease: Callable[[RabbitDelivery], None],
        lost: Callable[[], None],
        deferred_lost: Callable[[], None],
        cancelled: Callable[[Place], None],
        looked: Callable[[Look], None],
    ) -> None:
        mend_pika()
        self._link, publishing = (
            Link(reactor, address, f"whatsapp-egress {side}", reconnect_delay, jitter)
            for side in ("consume", "publish")
        )
        self.links = {"consume": self._link, "publish": publishing}
        ensure, lanes = topology.ensure, topology.ensure_lanes
        self._dead_letters = Outlet(DEAD_LETTER_EXCHANGE, True, ensure, topology.mend, reactor)
        self._events = Outlet(EVENTS_EXCHANGE, False, ensure, ensure, reactor)
        deferring = Outlet("", True, lanes, lanes, reactor)
        self.outlets = (self._dead_letters, self._events, deferring)
        self._publisher = Publisher(publishing, self.outlets)
        self._lost, self._deferred_lost = lost, deferred_lost
        self._consumer = Consumer(topology, prefetch, reactor, receive, lost, looked)
        self._lanes = LaneConsumer(topology, reactor, receive, lease, cancelled, self._all_deferred_lost)
        self._link.serve = self._serve
        self._link.on_down = self._down
        self.deferred = DeferredQueues(self._link, topology, self._lanes, deferring)

    @property
    def consuming(self) -> bool:
        """Whether messages are coming in now, or would if they were not held."""
        return self._consumer.consuming

    @property
    def publishing(self) -> bool:
        """Whether dead letters and events can be published."""
        return self._dead_letters.open and self._events.open

    def start(self) -> None:
        """Connect, and connect again for ever."""
        self._consumer.start()
        self._link.start()
        self._publisher.start()

    def hold(self) -> None:
        """Have no more of the incoming queue delivered until `release`; those taken can still be settled."""
        self._consumer.hold()

    def release(self) -> None:
        """Consume from the incoming queue again."""
        self._consumer.release()

    async def stop_consuming(self) -> None:
        """Take no more deliveries and leases; those taken can still be settled."""
        await gatherResults(
            [
                Deferred.fromCoroutine(self._consumer.cancel()),
                Deferred.fromCoroutine(self._lanes.stop_consuming()),
            ]
        )

    async def stop(self) -> None:
        """Close both connections; what is not acked goes back to the broker."""
        self._consumer.stop()
        self._lanes.stop()
        await self._link.stop()
        self._consumer.close()
        self._lanes.close()
        await self._publisher.stop()

    def dead_letter(self, body: bytes, properties: Any, headers: dict[str, str | int]) -> Deferred[None]:
        """Publish a copy with `headers` added; fires when confirmed, fails with `Unpublished`."""
        letter = dead_letter_properties(properties, headers, self._dead_letters.frame_max)
        return self._dead_letters.publish(DEAD_LETTER_KEY, body, letter)

    def announce(self, routing_key: str, body: bytes, headers: dict[str, str]) -> Deferred[None]:
        """Publish an event with `headers`; fires when confirmed, fails with `Unpublished`."""
        return self._events.publish(routing_key, body, json_properties(headers or None))

    async def _serve(self, connection: Connection) -> None:
        serving = [
            Deferred.fromCoroutine(self._lanes.serve(connection)),
            Deferred.fromCoroutine(self._serve_after_leases(connection)),
        ]
        try:
            await gatherResults(serving, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()

    async def _serve_after_leases(self, connection: Connection) -> None:
        """A tenant's lease first: its new messages must find their lane knowing that others wait."""
        await self._lanes.leases_in()
        await self._consumer.serve(connection)

    def _down(self) -> None:
        self._consumer.down()
        self._lanes.down()
        self._all_deferred_lost()

    def _all_deferred_lost(self) -> None:
        self._deferred_lost()
        self._lost()
