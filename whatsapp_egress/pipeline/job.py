"""A message in our hands, and what the rooms of the pipeline expect of the outside."""

from __future__ import annotations

from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred

from whatsapp_egress.message import Identity, Message
from whatsapp_egress.policy.verdict import History


class Delivery(Protocol):
    """One delivery of the broker's, tied to the channel it came on."""

    @property
    def body(self) -> bytes:
        """What was published."""

    @property
    def properties(self) -> Any:
        """How it was published; only the broker's client looks inside."""

    @property
    def redelivered(self) -> bool:
        """Whether it may have been delivered before."""

    @property
    def alive(self) -> bool:
        """Whether its channel is still there."""

    def ack(self) -> bool:
        """Acknowledge, for `outcome` alone to call; False when the channel is gone and nothing was done."""


class Broker(Protocol):
    """What `outcome` needs of the broker; `clients.broker` provides it."""

    def dead_letter(self, body: bytes, properties: Any, headers: dict[str, str | int]) -> Deferred[None]:
        """Publish a copy with `headers` added; fires when confirmed, fails with `Unpublished`."""

    def announce(self, routing_key: str, body: bytes) -> Deferred[None]:
        """Publish an event; fires when confirmed, fails with `Unpublished`."""


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
    _older: list[Delivery] = field(factory=list, init=False)

    @property
    def alive(self) -> bool:
        """Whether it can be settled now."""
        return self.delivery.alive or any(older.alive for older in self._older)

    def adopt(self, delivery: Delivery) -> None:
        """The broker delivered the message once more: settle that, and what came before if it can be."""
        self._older = [older for older in (*self._older, self.delivery) if older.alive]
        self.delivery = delivery

    def ack(self) -> bool:
        """Acknowledge, for `outcome` alone to call; False when every channel is gone and nothing was done."""
        acked = [delivery.ack() for delivery in (*self._older, self.delivery)]
        return any(acked)


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
