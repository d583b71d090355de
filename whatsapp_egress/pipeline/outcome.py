"""Where a message leaves: its dead letter and its event are published, then its delivery is acknowledged."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from whatsapp_egress import message
from whatsapp_egress.errors import Unpublished
from whatsapp_egress.pipeline.job import Broker, Parcel
from whatsapp_egress.pipeline.observer import Observer
from whatsapp_egress.pipeline.recent import Ending, Recent
from whatsapp_egress.policy.verdict import Dead, Sent
from whatsapp_egress.tasks import Tasks

PUBLISH_AGAIN = 1.0
"""Seconds between tries to publish while the broker does not confirm."""

EVENT_PATIENCE = 30.0
"""Seconds an event may hold up the ack of its message. A sent message must not wait unacknowledged for long:
if the service dies before the ack it is sent twice, while a lost event is only a lost event."""


@define
class Outcome:
    """The only place that settles a delivery.

    `now` gives seconds since the epoch. With `events` False no event is published.
    """

    _broker: Broker
    _recent: Recent
    _observer: Observer
    _clock: IReactorTime
    _now: Callable[[], float]
    _events: bool = True
    _settling: Tasks = field(factory=Tasks, init=False)

    def settle(self, parcel: Parcel, verdict: Sent | Dead) -> None:
        """Bring `parcel` to its end; the caller has nothing more to do with it."""
        if isinstance(verdict, Sent):
            self._observer.delivered(parcel, verdict)
        self._settling.own(self._settle(parcel, verdict, published=False))

    def settle_again(self, parcel: Parcel, ending: Ending) -> None:
        """Bring a redelivered `parcel` to the end that was decided before."""
        self._settling.own(self._settle(parcel, ending.verdict, published=ending.published))

    def settled(self) -> Deferred[None]:
        """Fires when nothing is being settled."""
        return self._settling.done()

    def cut_short(self) -> None:
        """Ack what only waits for its event; what is not in the dead-letter queue stays with the broker."""
        self._settling.cancel()

    async def _settle(self, parcel: Parcel, verdict: Sent | Dead, *, published: bool) -> None:
        try:
            if isinstance(verdict, Dead) and not published:
                await self._dead_letter(parcel, verdict)
            if not published:
                published = True
                await self._announce(parcel, verdict)
            if not parcel.delivery.ack():
                self._observer.unsettled(parcel)
        except DeliveryGone:
            self._observer.unsettled(parcel)
        finally:
            self._recent.end(parcel, Ending(parcel.identity, parcel.attempts, verdict, published))

    async def _dead_letter(self, parcel: Parcel, dead: Dead) -> None:
        """Publish until confirmed. Raises `DeliveryGone` when there is nothing left to ack meanwhile."""
        delivery = parcel.delivery
        headers = message.dead_letter_headers(dead, parcel.attempts, self._now())
        while True:
            try:
                await self._broker.dead_letter(delivery.body, delivery.properties, headers)
            except Unpublished as error:
                self._observer.unpublished(parcel, "dead letter", str(error))
            else:
                self._observer.dead_lettered(parcel, dead)
                return
            if not parcel.delivery.alive:
                raise DeliveryGone
            await deferLater(self._clock, PUBLISH_AGAIN)

    async def _announce(self, parcel: Parcel, verdict: Sent | Dead) -> None:
        """Publish the event, within reason."""
        if not self._events:
            return
        announcing = Deferred.fromCoroutine(
            self._announce_until_confirmed(
                *message.event(parcel.identity, verdict, parcel.attempts, self._now())
            )
        )
        try:
            await announcing.addTimeout(EVENT_PATIENCE, self._clock)
        except (CancelledError, defer.TimeoutError):
            # Cut short, or the patience is over: the ack is what matters.
            self._observer.unpublished(parcel, "event", "not confirmed in time")

    async def _announce_until_confirmed(self, routing_key: str, body: bytes) -> None:
        while True:
            try:
                return await self._broker.announce(routing_key, body)
            except Unpublished:
                await deferLater(self._clock, PUBLISH_AGAIN)


class DeliveryGone(Exception):
    """The delivery's channel is gone: the broker delivers the message again, and it is settled then."""
