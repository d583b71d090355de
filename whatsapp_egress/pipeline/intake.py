"""Where a delivery enters: decoded once, refused when it is no message, handed to its tenant's lane."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.internet.interfaces import IReactorTime

from whatsapp_egress.message import InvalidMessage, Message
from whatsapp_egress.pipeline.job import Delivery, Job, Parcel
from whatsapp_egress.pipeline.observer import Observer
from whatsapp_egress.pipeline.outcome import Outcome
from whatsapp_egress.pipeline.recent import Recent, digest
from whatsapp_egress.policy.verdict import Dead, Reason


@define
class Intake:
    """Takes deliveries from the broker. `decode` is bytes to `Message`; `offer` is the lanes'."""

    _decode: Callable[[bytes], Message]
    _offer: Callable[[Job], None]
    _outcome: Outcome
    _recent: Recent
    _observer: Observer
    _clock: IReactorTime

    def receive(self, delivery: Delivery) -> None:
        """Take one delivery; from here on it is settled by `outcome` or stays with the broker."""
        name = digest(delivery.body)
        if delivery.redelivered and self._known(delivery, name):
            return
        received = self._clock.seconds()
        try:
            message = self._decode(delivery.body)
        except InvalidMessage as error:
            parcel = Parcel(delivery, name, error.identity, received)
            self._recent.begin(parcel)
            self._observer.consumed(parcel)
            self._outcome.settle(parcel, Dead(Reason.INVALID_MESSAGE, error.detail))
            return
        job = Job.of(delivery, name, message, received)
        self._recent.begin(job)
        self._observer.consumed(job)
        self._offer(job)

    def _known(self, delivery: Delivery, name: bytes) -> bool:
        """Whether this is the broker's second copy of a message whose first one we still have, or had.

        The flag alone says "perhaps seen"; what we remember says what became of it.
        """
        parcel = self._recent.in_hand(name)
        if parcel is not None and not parcel.delivery.alive:
            parcel.delivery = delivery
            self._observer.recalled(parcel)
            return True
        ending = None if parcel is not None else self._recent.ending(name)
        if ending is None:
            return False
        again = Parcel(delivery, name, ending.identity, self._clock.seconds(), ending.attempts)
        self._recent.begin(again)
        self._observer.recalled(again)
        self._outcome.settle_again(again, ending)
        return True
