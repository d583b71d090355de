"""What happens to messages, as log events."""

from __future__ import annotations

from typing import Any

from attrs import define
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from whatsapp_egress.observe.everyone import Deaf
from whatsapp_egress.pipeline.job import Job, Parcel
from whatsapp_egress.policy.breaker import Breaker, State
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.policy.table import ErrorClass
from whatsapp_egress.policy.trace import log_fields
from whatsapp_egress.policy.verdict import Dead, Fault, Sent, Wait

log = Logger()


@define
class Journal(Deaf):
    """An `Observer` that writes the log."""

    _clock: IReactorTime

    def consumed(self, parcel: Parcel) -> None:
        about = _about(parcel, parcel.attempts)
        log.debug("message_consumed", **about, redelivered=parcel.delivery.redelivered)

    def faulted(self, job: Job, fault: Fault, seconds: float) -> None:
        event = "meta_api_auth_error" if fault.error_class is ErrorClass.AUTH else "meta_api_error"
        log.warn(event, **_about(job), **_of(fault), duration=_ms(seconds))

    def retrying(self, job: Job, fault: Fault, delay: float) -> None:
        log.info("message_retry", **_about(job, job.attempts), **_of(fault), delay=_ms(delay))

    def waiting(self, job: Job, wait: Wait, delay: float) -> None:
        # A tenant that waits for its credentials is told of by `credential_fetch_failed`.
        if wait.fault.error_class is not None:
            about = {**_about(job, job.attempts), **_of(wait.fault)}
            log.warn("rate_limit_exceeded", **about, scope=wait.scope.value, delay=_ms(delay))

    def delivered(self, parcel: Parcel, sent: Sent) -> None:
        log.info(
            "message_delivered",
            **_about(parcel),
            wamid=sent.wamid,
            duration=_ms(self._clock.seconds() - parcel.received),
        )

    def dead_lettered(self, parcel: Parcel, dead: Dead) -> None:
        fields = _of(dead.fault) if dead.fault else {}
        fields |= {"reason": dead.reason.value, "detail": dead.detail}
        log.warn(
            "message_dead_lettered",
            **_about(parcel),
            **fields,
            duration=_ms(self._clock.seconds() - parcel.received),
        )

    def unpublished(self, parcel: Parcel, what: str, cause: str) -> None:
        log.error("message_unpublished", **_ids(parcel), what=what, detail=cause)

    def unsettled(self, parcel: Parcel) -> None:
        log.warn("message_unsettled", **_about(parcel))

    def left(self, job: Job) -> None:
        log.debug("message_left", **_about(job, job.attempts))

    def recalled(self, parcel: Parcel) -> None:
        log.info("message_recalled", **_about(parcel))

    def deferred(self, parcel: Parcel) -> None:
        log.debug("message_deferred", **_about(parcel, parcel.attempts))

    def breaker(self, tenant_id: str | None, breaker: Breaker) -> None:
        fields: dict[str, Any] = {"scope": "road"} if tenant_id is None else {"tenantId": tenant_id}
        if breaker.until is not None:
            fields["delay"] = _ms(breaker.until - self._clock.seconds())
        if breaker.state is State.CLOSED:
            log.info("circuit_breaker_closed", **fields)
        elif breaker.state is State.OPEN:
            log.warn("circuit_breaker_opened", **fields)
        else:
            log.info("circuit_breaker_half_open", **fields)

    def deferring(self, tenant_id: str) -> None:
        log.info("deferral_began", tenantId=tenant_id)

    def deferred_over(self, tenant_id: str) -> None:
        log.info("deferral_ended", tenantId=tenant_id)

    def paused(self, tenant_id: str, pause: Pause | None) -> None:
        if pause is None:
            log.info("tenant_resumed", tenantId=tenant_id)
        else:
            until = {} if pause.until is None else {"until": pause.until}
            log.info("tenant_paused", tenantId=tenant_id, reason=pause.reason, actor=pause.actor, **until)

    def backpressure(self, reason: str, *, on: bool) -> None:
        if on:
            log.warn("backpressure_on", reason=reason)
        else:
            log.info("backpressure_off", reason=reason)


def _about(parcel: Parcel, before: int | None = None) -> dict[str, Any]:
    """Whose it is, and the attempts made before; by default all but the last one, which is being told of."""
    retries = max(0, parcel.attempts - 1) if before is None else before
    return {**_ids(parcel), "retryCount": retries}


def _ids(parcel: Parcel) -> dict[str, Any]:
    """Whose it is, and the trace it belongs to, if any."""
    identity = parcel.identity
    ids = {
        "tenantId": identity.tenant_id,
        "phoneNumberId": identity.phone_number_id,
        "internalId": identity.internal_id,
    }
    context = parcel.context
    return ids if context is None else {**ids, **log_fields(context)}


def _of(fault: Fault) -> dict[str, Any]:
    fields = {
        "errorCode": fault.code,
        "errorSubcode": fault.subcode,
        "fbtrace": fault.fbtrace_id,
        "httpStatus": fault.http_status,
        "detail": fault.detail,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)
