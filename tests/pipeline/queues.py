"""A model of the broker's deferred queues: they deliver up to a prefetch, and put back what is given back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed

from tests.pipeline.doubles import FakeDelivery
from whatsapp_egress.deferred import Place
from whatsapp_egress.errors import QueueTrouble, Unpublished
from whatsapp_egress.pipeline.job import Delivery


@define(eq=False)
class Copy:
    """A message in a deferred queue."""

    number: int
    body: bytes
    headers: dict[str, Any]
    redelivered: bool = False


@define(eq=False)
class CopyDelivery(FakeDelivery):
    """A delivery of one."""

    queue: Queue = field(kw_only=True)
    copy: Copy = field(kw_only=True)

    def ack(self) -> bool:
        if self.alive and self in self.queue.unacked:
            self.queue.unacked.remove(self)
            self.acks += 1
            self.queue.deliver()
        return self.alive

    def give_back(self) -> None:
        if self.alive:
            self.queue.unacked.remove(self)
            self.queue.put_back(self.copy)
            self.queue.deliver()


@define(eq=False)
class Queue:
    place: Place
    receive: Callable[[Delivery], None]
    ready: list[Copy] = field(factory=list)
    unacked: list[CopyDelivery] = field(factory=list)
    prefetch: int = 0
    consumed: list[int] = field(factory=list)

    def put_back(self, copy: Copy) -> None:
        copy.redelivered = True
        self.ready.append(copy)
        self.ready.sort(key=lambda each: each.number)

    def deliver(self) -> None:
        while self.ready and len(self.unacked) < self.prefetch:
            copy = self.ready.pop(0)
            delivery = CopyDelivery(
                copy.body,
                headers=copy.headers,
                redelivered=copy.redelivered,
                place=self.place,
                queue=self,
                copy=copy,
            )
            self.unacked.append(delivery)
            self.receive(delivery)


@define(eq=False, slots=False)
class FakeQueues:
    """All of them, and the queue of leases. With `away` everything fails; `on_publish` says what becomes of a
    publish."""

    receive: Callable[[Delivery], None]
    lease: Callable[[Delivery], None]
    on_publish: Callable[[], Deferred[None]] = lambda: succeed(None)
    away: bool = False
    refuses: bool = False
    hands_leases_on: bool = True
    queues: dict[Place, Queue] = field(factory=dict)
    leases: list[FakeDelivery] = field(factory=list)
    deleted: list[Place] = field(factory=list)
    _published: int = 0

    def declare(self, tenant_id: str) -> Deferred[None]:
        if self.away:
            return fail(QueueTrouble("away"))
        for place in (Place(tenant_id), Place(tenant_id, first=True)):
            self.queues.setdefault(place, Queue(place, self.receive))
        return succeed(None)

    def publish(self, place: Place, delivery: Delivery, headers: Mapping[str, Any]) -> Deferred[None]:
        if self.away or place not in self.queues:
            return fail(Unpublished("away"))
        queue = self.queues[place]
        copy = self.copy(delivery.body, headers)

        def stored(_: None) -> None:
            queue.ready.append(copy)
            queue.ready.sort(key=lambda each: each.number)
            queue.deliver()

        return self.on_publish().addCallback(stored)

    def copy(self, body: bytes, headers: Mapping[str, Any] | None = None) -> Copy:
        """A message as it is in a queue."""
        self._published += 1
        return Copy(self._published, body, dict(headers or {}))

    def depth(self, place: Place) -> Deferred[int]:
        if self.away:
            return fail(QueueTrouble("away"))
        queue = self.queues.get(place)
        return succeed(len(queue.ready) if queue else 0)

    def consume(self, place: Place, prefetch: int) -> Deferred[None]:
        if self.away or self.refuses or place not in self.queues:
            return fail(QueueTrouble("away"))
        queue = self.queues[place]
        queue.prefetch = prefetch
        queue.consumed.append(prefetch)
        queue.deliver()
        return succeed(None)

    def cancel(self, place: Place) -> Deferred[None]:
        if place in self.queues:
            self.queues[place].prefetch = 0
        return succeed(None)

    def delete(self, place: Place) -> Deferred[bool]:
        queue = self.queues.get(place)
        if queue is not None and (queue.ready or queue.prefetch):
            return succeed(False)
        self.queues.pop(place, None)
        self.deleted.append(place)
        return succeed(True)

    def write_lease(self, body: bytes) -> Deferred[None]:
        if self.away:
            return fail(Unpublished("away"))
        delivery = FakeDelivery(body)
        self.leases.append(delivery)
        if self.hands_leases_on:
            self.lease(delivery)
        return succeed(None)

    @property
    def held(self) -> list[bytes]:
        """The leases that are not acked."""
        return [lease.body for lease in self.leases if not lease.acks]

    def lose(self) -> None:
        """The channel is lost: what was delivered is put back, and nobody consumes."""
        for queue in self.queues.values():
            queue.prefetch = 0
            for delivery in queue.unacked:
                delivery.alive = False
                queue.put_back(delivery.copy)
            queue.unacked.clear()
