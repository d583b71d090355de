"""Where a delivery enters: decoded once, refused when it is no message, handed to its tenant's lane."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from whatsapp_egress import deferred
from whatsapp_egress.message import Identity, InvalidMessage, Message
from whatsapp_egress.pipeline.job import Delivery, Job, Parcel
from whatsapp_egress.pipeline.observer import Observer
from whatsapp_egress.pipeline.outcome import Outcome
from whatsapp_egress.pipeline.recent import Ending, Recent, digest
from whatsapp_egress.policy.trace import log_fields, trace_of
from whatsapp_egress.policy.verdict import Dead, History, Reason

log = Logger()


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
        name, now = digest(delivery.body, delivery.place), self._clock.seconds()
        # The flag alone says "perhaps seen"; what we remember says what became of it.
        known = self._recent.recall(name) if delivery.redelivered else None
        if isinstance(known, Parcel):
            known.adopt(delivery)
            self._observer.recalled(known)
        elif isinstance(known, Ending):
            parcel = Parcel(delivery, name, known.identity, now, known.attempts)
            self._recent.begin(parcel)
            self._observer.recalled(parcel)
            self._outcome.settle_again(parcel, known)
        elif delivery.place is not None and self._recent.surplus(name) and known is None:
            parcel = Parcel(delivery, name, Identity(delivery.place.tenant_id), now)
            self._recent.begin(parcel)
            self._observer.recalled(parcel)
            self._outcome.moved(parcel)
        else:
            self._admit(delivery, name, now, known or _written(delivery))

    def _admit(self, delivery: Delivery, name: bytes, now: float, history: History | None) -> None:
        try:
            message = self._decode(delivery.body)
        except InvalidMessage as error:
            self._refuse(Parcel(delivery, name, error.identity, now), error.detail)
            return
        except Exception as error:  # noqa: BLE001 - a fault of ours, which each redelivery would meet again
            about = log_fields(trace_of(delivery.headers))
            log.failure("decoding_failed", bytes=len(delivery.body), **about)
            detail = f"body: can't be read, for a fault of the gateway's ({type(error).__name__})"
            self._refuse(Parcel(delivery, name, Identity(), now), detail)
            return
        job = Job.of(delivery, name, message, now, history)
        self._recent.begin(job)
        self._observer.consumed(job)
        self._offer(job)

    def _refuse(self, parcel: Parcel, detail: str) -> None:
        self._recent.begin(parcel)
        self._observer.consumed(parcel)
        self._outcome.settle(parcel, Dead(Reason.INVALID_MESSAGE, detail))


def _written(delivery: Delivery) -> History | None:
    """What was tried before it was deferred."""
    return None if delivery.place is None else deferred.history(delivery.headers)
