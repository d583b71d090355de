"""Tells several observers what the pipeline tells one."""

from __future__ import annotations

from attrs import frozen

from whatsapp_egress.pipeline.job import Job, Parcel
from whatsapp_egress.pipeline.observer import Observer
from whatsapp_egress.policy.breaker import Breaker
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.policy.verdict import Dead, Exchange, Fault, Sent, Wait


class Deaf:
    """An `Observer` that takes no notice: what others are made of that care for a few things only."""

    def consumed(self, parcel: Parcel) -> None: ...
    def asked(self, tenant_id: str, trouble: str | None, seconds: float) -> None: ...
    def credentials(self, tenant_id: str, seconds: float, *, cached: bool, known: bool | None) -> None: ...
    def answered(self, job: Job, exchange: Exchange, seconds: float) -> None: ...
    def faulted(self, job: Job, fault: Fault, seconds: float) -> None: ...
    def retrying(self, job: Job, fault: Fault, delay: float) -> None: ...
    def waiting(self, job: Job, wait: Wait, delay: float) -> None: ...
    def delivered(self, parcel: Parcel, sent: Sent) -> None: ...
    def dead_lettered(self, parcel: Parcel, dead: Dead) -> None: ...
    def unpublished(self, parcel: Parcel, what: str, cause: str) -> None: ...
    def unsettled(self, parcel: Parcel) -> None: ...
    def left(self, job: Job) -> None: ...
    def recalled(self, parcel: Parcel) -> None: ...
    def deferred(self, parcel: Parcel) -> None: ...
    def breaker(self, tenant_id: str | None, breaker: Breaker) -> None: ...
    def deferring(self, tenant_id: str) -> None: ...
    def deferred_over(self, tenant_id: str) -> None: ...
    def paused(self, tenant_id: str, pause: Pause | None) -> None: ...
    def backpressure(self, reason: str, *, on: bool) -> None: ...


@frozen
class Everyone:
    """An `Observer` made of several; each is told in turn."""

    observers: tuple[Observer, ...]

    def consumed(self, parcel: Parcel) -> None:
        for each in self.observers:
            each.consumed(parcel)

    def asked(self, tenant_id: str, trouble: str | None, seconds: float) -> None:
        for each in self.observers:
            each.asked(tenant_id, trouble, seconds)

    def credentials(self, tenant_id: str, seconds: float, *, cached: bool, known: bool | None) -> None:
        for each in self.observers:
            each.credentials(tenant_id, seconds, cached=cached, known=known)

    def answered(self, job: Job, exchange: Exchange, seconds: float) -> None:
        for each in self.observers:
            each.answered(job, exchange, seconds)

    def faulted(self, job: Job, fault: Fault, seconds: float) -> None:
        for each in self.observers:
            each.faulted(job, fault, seconds)

    def retrying(self, job: Job, fault: Fault, delay: float) -> None:
        for each in self.observers:
            each.retrying(job, fault, delay)

    def waiting(self, job: Job, wait: Wait, delay: float) -> None:
        for each in self.observers:
            each.waiting(job, wait, delay)

    def delivered(self, parcel: Parcel, sent: Sent) -> None:
        for each in self.observers:
            each.delivered(parcel, sent)

    def dead_lettered(self, parcel: Parcel, dead: Dead) -> None:
        for each in self.observers:
            each.dead_lettered(parcel, dead)

    def unpublished(self, parcel: Parcel, what: str, cause: str) -> None:
        for each in self.observers:
            each.unpublished(parcel, what, cause)

    def unsettled(self, parcel: Parcel) -> None:
        for each in self.observers:
            each.unsettled(parcel)

    def left(self, job: Job) -> None:
        for each in self.observers:
            each.left(job)

    def recalled(self, parcel: Parcel) -> None:
        for each in self.observers:
            each.recalled(parcel)

    def deferred(self, parcel: Parcel) -> None:
        for each in self.observers:
            each.deferred(parcel)

    def breaker(self, tenant_id: str | None, breaker: Breaker) -> None:
        for each in self.observers:
            each.breaker(tenant_id, breaker)

    def deferring(self, tenant_id: str) -> None:
        for each in self.observers:
            each.deferring(tenant_id)

    def deferred_over(self, tenant_id: str) -> None:
        for each in self.observers:
            each.deferred_over(tenant_id)

    def paused(self, tenant_id: str, pause: Pause | None) -> None:
        for each in self.observers:
            each.paused(tenant_id, pause)

    def backpressure(self, reason: str, *, on: bool) -> None:
        for each in self.observers:
            each.backpressure(reason, on=on)
