"""Where a message leaves: its dead letter is confirmed, its event goes out, its delivery is acknowledged."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from whatsapp_egress import message
from whatsapp_egress.errors import Unpublished
from whatsapp_egress.pipeline.job import Broker, Job, Parcel
from whatsapp_egress.pipeline.observer import Observer
from whatsapp_egress.pipeline.recent import Ending, Recent
from whatsapp_egress.policy import trace
from whatsapp_egress.policy.verdict import Dead, Moved, Sent
from whatsapp_egress.policy.verdict import Outcome as Fate
from whatsapp_egress.tasks import Tasks

PUBLISH_AGAIN = 1.0
"""Seconds between tries to publish while the broker does not confirm."""

EVENT_PATIENCE = 30.0
"""Seconds an event is published again for, while the broker does not confirm it. Then it is given up."""

MOST_EVENTS = 5_000
"""Events that wait to be confirmed; what comes on top is lost at once. 50 MB (measured: 10 KB for one)."""


@define
class Outcome:
    """The only place that settles a delivery.

    It is acknowledged as soon as its message is safe: sent, or confirmed on the dead-letter exchange. The
    event goes out before the ack and is not waited for: if the service died meanwhile, a message that was
    sent would be sent a second time, while a lost event is only a lost event.

    `now` gives seconds since the epoch. With `events` False no event is published.
    """

    _broker: Broker
    _recent: Recent
    _observer: Observer
    _clock: IReactorTime
    _now: Callable[[], float]
    _events: bool = True
    _settling: Tasks = field(factory=Tasks, init=False)
    _announcing: Tasks = field(factory=Tasks, init=False)

    def settle(self, parcel: Parcel, verdict: Sent | Dead) -> None:
        """Bring `parcel` to its end; the caller has nothing more to do with it."""
        if isinstance(verdict, Sent):
            self._observer.delivered(parcel, verdict)
        else:
            # It may be published again, body and all, be it through another worker, and must not be dropped
            # then. So what comes next is let through, and no more: it may be a copy, and be sent.
            self._recent.one_more(parcel.digest)
        self._settling.own(self._settle(parcel, verdict, published=False))

    def settle_again(self, parcel: Parcel, ending: Ending) -> None:
        """Bring a redelivered `parcel` to the end that was decided before."""
        self._settling.own(self._settle(parcel, ending.verdict, published=ending.published))

    def moved(self, parcel: Parcel) -> None:
        """The message of `parcel` is safe in a deferred queue: acknowledge it here."""
        acked = parcel.ack()
        if acked:
            self._observer.deferred(parcel)
        else:
            self._observer.unsettled(parcel)
        self._recent.end(parcel, Ending(parcel.identity, parcel.attempts, Moved(), True, acked))

    def give_back(self, job: Job) -> None:
        """Put `job` back into its deferred queue, at its old place; what was tried is remembered."""
        self._recent.forget(job, job.history)
        self._observer.left(job)
        job.give_back()

    def settled(self) -> Deferred[None]:
        """Fires when nothing is being settled."""
        return self._settling.done()

    def cut_short(self) -> None:
        """Settle nothing more; what is not in the dead-letter queue stays with the broker."""
        self._settling.cancel()

    def announced(self) -> Deferred[None]:
        """Fires when no event waits to be confirmed."""
        return self._announcing.done()

    def give_events_up(self) -> None:
        """Wait for events no longer; those that are not confirmed are lost."""
        self._announcing.cancel()

    async def _settle(self, parcel: Parcel, verdict: Fate, *, published: bool) -> None:
        acked = False
        try:
            if not published and not isinstance(verdict, Moved):
                if isinstance(verdict, Dead):
                    await self._dead_letter(parcel, verdict)
                published = True
                self._announce(parcel, verdict)
            acked = parcel.ack()
        except DeliveryGone:
            pass
        finally:
            if not acked:
                self._observer.unsettled(parcel)
            self._recent.end(parcel, Ending(parcel.identity, parcel.attempts, verdict, published, acked))

    async def _dead_letter(self, parcel: Parcel, dead: Dead) -> None:
        """Publish until confirmed. Raises `DeliveryGone` when there is nothing left to ack meanwhile."""
        headers = message.dead_letter_headers(dead, parcel.attempts, self._now())
        told = False
        while True:
            try:
                await self._broker.dead_letter(parcel.delivery.body, parcel.delivery.properties, headers)
            except Unpublished as error:
                if not told:
                    self._observer.unpublished(parcel, "dead letter", str(error))
                told = True
            else:
                self._observer.dead_lettered(parcel, dead)
                return
            if not parcel.alive:
                raise DeliveryGone
            await deferLater(self._clock, PUBLISH_AGAIN)

    def _announce(self, parcel: Parcel, verdict: Sent | Dead) -> None:
        """Publish the event, within reason."""
        if not self._events:
            return
        if len(self._announcing) >= MOST_EVENTS:
            self._observer.unpublished(parcel, "event", "too many wait already")
            return
        routing_key, body = message.event(parcel.identity, verdict, parcel.attempts, self._now())
        self._announcing.own(self._announce_in_time(parcel, routing_key, body))

    async def _announce_in_time(self, parcel: Parcel, routing_key: str, body: bytes) -> None:
        headers = trace.headers(parcel.context)
        announcing = Deferred.fromCoroutine(self._announce_until_confirmed(routing_key, body, headers))
        try:
            await announcing.addTimeout(EVENT_PATIENCE, self._clock)
        except (CancelledError, defer.TimeoutError):
            self._observer.unpublished(parcel, "event", "not confirmed in time")

    async def _announce_until_confirmed(self, routing_key: str, body: bytes, headers: dict[str, str]) -> None:
        while True:
            try:
                return await self._broker.announce(routing_key, body, headers)
            except Unpublished:
                await deferLater(self._clock, PUBLISH_AGAIN)


class DeliveryGone(Exception):
    """The delivery's channel is gone: the broker delivers the message again, and it is settled then."""
