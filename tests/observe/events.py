"""Things that happen to messages, to tell observers of."""

from __future__ import annotations

from tests.pipeline.doubles import FakeDelivery, a_job
from whatsapp_egress.deferred import Place
from whatsapp_egress.message import Identity
from whatsapp_egress.pipeline.job import Job, Parcel
from whatsapp_egress.policy.breaker import Breaker
from whatsapp_egress.policy.table import ErrorClass
from whatsapp_egress.policy.verdict import Dead, Fault, Reason

TRANSIENT = Fault("131000: Something went wrong", ErrorClass.TRANSIENT, code=131000, http_status=500)
WINDOW = Fault("131047: Re-engagement message", ErrorClass.PERMANENT_POLICY, code=131047, http_status=400)
REJECTED = Dead(Reason.REJECTED, "131047: Re-engagement message", WINDOW)
EXHAUSTED = Dead(Reason.RETRIES_EXHAUSTED, "131000: Something went wrong", TRANSIENT)
UNKNOWN_TENANT = Dead(Reason.TENANT_NOT_FOUND, "the Tenant Service does not know this tenant")


def job_of(tenant_id: str = "t1", received: float = 0.0) -> Job:
    return a_job(tenant_id=tenant_id, received=received)


def deferred_job_of(tenant_id: str = "t1") -> Job:
    return a_job(delivery=FakeDelivery(place=Place(tenant_id)), tenant_id=tenant_id)


def parcel_of(tenant_id: str | None) -> Parcel:
    """What is no message."""
    return Parcel(FakeDelivery(), b"digest", Identity(tenant_id), 0.0)


def opened(breaker: Breaker) -> Breaker:
    breaker.trip()
    return breaker
