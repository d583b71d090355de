"""A message in our hands, and what the rooms of the pipeline expect of the outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred

from whatsapp_egress.deferred import Place
from whatsapp_egress.message import Identity, Message
from whatsapp_egress.policy.trace import TraceContext, trace_of
from whatsapp_egress.policy.verdict import History


class Delivery(Protocol):
    """One delivery of the broker's, tied to the channel it came on."""

    @property
    def place(self) -> Place | None:
        """The deferred queue it came from, None for the queue that all tenants share."""

    @property
    def body(self) -> bytes:
        """What was published."""

    @property
    def properties(self) -> Any:
        """How it was published; only the broker's client looks inside."""

    @property
    def headers(self) -> Mapping[str, Any]:
        """The headers it was published with."""

    @property
    def routing_key(self) -> str:
        """The key it was published with."""

    @property
    def redelivered(self) -> bool:
        """Whether it may have been delivered before."""

    @property
    def alive(self) -> bool:
        """Whether its channel is still there."""

    def ack(self) -> bool:
        """Acknowledge, for `outcome` alone to call; False when the channel is gone and nothing was done."""

    def give_back(self) -> None:
        """Put it back where it was in its queue, for `outcome` alone to call."""


class DeferredQueues(Protocol):
    """What `deferral` needs of the broker; `clients.broker` provides it. Names of queues are its own affair.

    `publish` and `write_lease` fail with `Unpublished`; the others with `QueueTrouble`, when there is no
    connection or the broker refuses.
    """

    def declare(self, tenant_id: str) -> Deferred[None]:
        """See to it that both of the tenant's queues are there."""

    def publish(self, place: Place, delivery: Delivery, headers: dict[str, Any]) -> Deferred[None]:
        """Publish a copy of the message with `headers` added; fires when confirmed."""

    def depth(self, place: Place) -> Deferred[int]:
        """How many messages wait in it; none where it isn't there."""

    def consume(self, place: Place, prefetch: int) -> Deferred[None]:
        """Have its messages delivered, at most `prefetch` unacknowledged; they come in as others do. Asked
        again, with another `prefetch`, that holds from now on."""

    def cancel(self, place: Place) -> Deferred[None]:
        """Have no more delivered: when it fires all that come have come. Those can still be settled."""

    def delete(self, place: Place) -> Deferred[bool]:
        """Delete it if it is empty and nobody consumes from it; False where it must stay."""

    def write_lease(self, body: bytes) -> Deferred[None]:
        """Publish a lease; fires when confirmed."""


class Broker(Protocol):
    """What `outcome` needs of the broker; `clients.broker` provides it."""

    def dead_letter(self, body: bytes, properties: Any, headers: dict[str, str | int]) -> Deferred[None]:
        """Publish a copy with `headers` added; fires when confirmed, fails with `Unpublished`."""

    def announce(self, routing_key: str, body: bytes, headers: dict[str, str]) -> Deferred[None]:
        """Publish an event with `headers`; fires when confirmed, fails with `Unpublished`."""


@define(eq=False)
class Parcel:
    """A delivery that has to be settled: what it is, whose it is, how often it was tried.

    `delivery` is the newest one of the message: after a lost connection the broker delivers it again.
    `digest` names the body; two deliveries with one digest carry the same message.
    """

    delivery: Delivery
    digest: bytes
    identity: Identity
    received: float
    """When it came in, by the reactor's clock, in seconds."""
    attempts: int = 0
    trace: TraceContext | None = field(init=False)
    """The trace that its headers name."""
    span: TraceContext | None = field(default=None, init=False)
    """The span that is open for it, where spans are made; the one thing that an observer writes."""
    _older: list[Delivery] = field(factory=list, init=False)

    @trace.default
    def _named_trace(self) -> TraceContext | None:
        return trace_of(self.delivery.headers)

    @property
    def context(self) -> TraceContext | None:
        """What comes of it is a child of this."""
        return self.span or self.trace

    @property
    def alive(self) -> bool:
        """Whether it can be settled now."""
        return self.delivery.alive or any(older.alive for older in self._older)

    def adopt(self, delivery: Delivery) -> None:
        """The broker delivered the message once more: settle that, and what came before if it can be."""
        self._older = [older for older in (*self._older, self.delivery) if older.alive]
        self.delivery = delivery

    @property
    def place(self) -> Place | None:
        """The deferred queue it came from, None for the queue that all tenants share."""
        return self.delivery.place

    def ack(self) -> bool:
        """Acknowledge, for `outcome` alone to call; False when every channel is gone and nothing was done."""
        acked = [delivery.ack() for delivery in (*self._older, self.delivery)]
        return any(acked)

    def give_back(self) -> None:
        """Put it back where it was in its queue, for `outcome` alone to call."""
        for delivery in (*self._older, self.delivery):
            delivery.give_back()


@define(eq=False)
class Job(Parcel):
    """A message on its way. The lane owns it between intake and outcome."""

    message: Message = field(kw_only=True)
    reauthorized: bool = False
    """Its one attempt with fresh credentials was granted."""
    repeated: bool = False
    """Its one more attempt (`retry: once`) was granted."""
    pair_throttles: int = 0
    """Pair throttles in a row."""
    held_back: bool = False
    """It was in hand for too long to be begun, and a round was waited for that could put it aside."""
    busy: bool = False
    """An attempt of it is under way, or its credentials are being looked up."""

    @classmethod
    def of(
        cls,
        delivery: Delivery,
        digest: bytes,
        message: Message,
        received: float,
        history: History | None = None,
    ) -> Job:
        """A job as it comes in: the attempts of `retryCount` count, or those that we know of ourselves."""
        known = history or History(message.retry_count)
        return cls(
            delivery=delivery,
            digest=digest,
            identity=message.identity,
            received=received,
            attempts=known.attempts,
            message=message,
            reauthorized=known.reauthorized,
            repeated=known.repeated,
        )

    @property
    def history(self) -> History:
        """What was tried so far."""
        return History(self.attempts, self.reauthorized, self.repeated)
