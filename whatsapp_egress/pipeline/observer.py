"""What the pipeline tells those who watch it."""

from __future__ import annotations

from typing import Protocol

from whatsapp_egress.pipeline.job import Job, Parcel
from whatsapp_egress.policy.breaker import Breaker
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.policy.verdict import Dead, Exchange, Fault, Sent, Wait


class Observer(Protocol):
    """Small calls, made as things happen; an observer raises nothing, and changes `Parcel.span` alone."""

    def consumed(self, parcel: Parcel) -> None:
        """A delivery came in."""

    def asked(self, tenant_id: str, trouble: str | None, seconds: float) -> None:
        """The Tenant Service was asked about a tenant and answered after `seconds`, be it with a no; or did
        not, and `trouble` is the reason in a word (`connect`, `no_answer`, `http_503`, `junk`, `file`)."""

    def credentials(self, tenant_id: str, seconds: float, *, cached: bool, known: bool | None) -> None:
        """A message looked for credentials: in `seconds` they were found, or the tenant is not `known`; None
        where nobody can say now. `cached`: nobody had to be asked."""

    def answered(self, job: Job, exchange: Exchange, seconds: float) -> None:
        """An exchange with Meta ended, in whatever way, after `seconds`."""

    def faulted(self, job: Job, fault: Fault, seconds: float) -> None:
        """Meta said no, or nothing, after `seconds`."""

    def retrying(self, job: Job, fault: Fault, delay: float) -> None:
        """`job` will be tried again in `delay` seconds."""

    def waiting(self, job: Job, wait: Wait, delay: float) -> None:
        """A throttle, or credentials that can't be had, hold `job` and its like for `delay` seconds."""

    def delivered(self, parcel: Parcel, sent: Sent) -> None:
        """Meta took it."""

    def dead_lettered(self, parcel: Parcel, dead: Dead) -> None:
        """It is safe in the dead-letter queue."""

    def unpublished(self, parcel: Parcel, what: str, cause: str) -> None:
        """The broker did not confirm `what`: a dead letter (published again) or an event (lost)."""

    def unsettled(self, parcel: Parcel) -> None:
        """The delivery's channel went away before the ack; the broker delivers it again."""

    def left(self, job: Job) -> None:
        """It was left with the broker, or given back to it, without an outcome: it comes again."""

    def recalled(self, parcel: Parcel) -> None:
        """A redelivery was recognised: its message is in hand already, or ended."""

    def deferred(self, parcel: Parcel) -> None:
        """Its message is safe in its tenant's deferred queue, and comes again from there."""

    def breaker(self, tenant_id: str | None, breaker: Breaker) -> None:
        """A breaker changed: the tenant's, or with None the one of the road that all share."""

    def deferring(self, tenant_id: str) -> None:
        """The tenant's new messages go to its deferred queue from now on."""

    def deferred_over(self, tenant_id: str) -> None:
        """The tenant's deferred queues are empty, and its messages are sent directly again."""

    def paused(self, tenant_id: str, pause: Pause | None) -> None:
        """An operator paused the tenant, or with None let it go on."""

    def backpressure(self, reason: str, *, on: bool) -> None:
        """A reason to take no messages has come, or is gone."""
