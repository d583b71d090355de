"""A message in our hands, and what the rooms of the pipeline expect of the outside."""

from __future__ import annotations

from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred

from whatsapp_egress.message import Identity, Message


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
    def of(cls, delivery: Delivery, digest: bytes, message: Message, received: float) -> Job:
        """A job as it comes in: the attempts of `retryCount` count."""
        return cls(
            delivery=delivery,
            digest=digest,
            identity=message.identity,
            received=received,
            attempts=message.retry_count,
            message=message,
        )
