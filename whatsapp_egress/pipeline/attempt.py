"""One attempt to send one message: credentials, request, answer, verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from attrs import define
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from whatsapp_egress.errors import CredentialsSuspended, CredentialsUnavailable, TenantNotFound
from whatsapp_egress.pipeline.job import Job
from whatsapp_egress.pipeline.observer import Observer
from whatsapp_egress.policy.credentials import Credentials
from whatsapp_egress.policy.table import ErrorTable
from whatsapp_egress.policy.trace import log_fields
from whatsapp_egress.policy.verdict import (
    Dead,
    Exchange,
    Fault,
    Patience,
    Reason,
    Retry,
    Scope,
    Verdict,
    Wait,
    judge,
)

log = Logger()

CREDENTIALS_WAIT, LONGEST_CREDENTIALS_WAIT = 5.0, 30.0
"""Seconds a tenant waits when its credentials can't be had; each try asks three times."""


class CredentialSource(Protocol):
    """Where credentials come from; `clients.credentials` provides it."""

    def at_hand(self, tenant_id: str) -> Credentials | None:
        """Credentials that can be used without asking; None where `get` would have to ask, or to refuse."""

    def get(self, tenant_id: str) -> Deferred[Credentials]:
        """Fails with `TenantNotFound`, `CredentialsSuspended` or `CredentialsUnavailable`."""

    def drop(self, tenant_id: str, refused: Credentials) -> None:
        """Meta refused the token of these credentials: fetch anew, unless they were replaced already."""


class Graph(Protocol):
    """Where messages go; `clients.graph` provides it."""

    def send(self, phone_number_id: str, token: str, payload: bytes) -> Deferred[Exchange]:
        """One POST; every way an exchange can end is an `Exchange`, none a failure."""


@define
class Attempt:
    """Makes attempts. `now` gives seconds since the epoch."""

    _credentials: CredentialSource
    _graph: Graph
    _table: ErrorTable
    _patience: Patience
    _observer: Observer
    _clock: IReactorTime
    _now: Callable[[], float]

    def at_hand(self, tenant_id: str) -> Credentials | None:
        """Credentials that can be used without asking anybody."""
        began = self._clock.seconds()
        found = self._credentials.at_hand(tenant_id)
        if found is not None:
            self._observer.credentials(tenant_id, self._clock.seconds() - began, cached=True, known=True)
        return found

    async def look_up(self, job: Job) -> Credentials | Dead | Wait:
        """Ask for the credentials that `job` needs; or its verdict, where there are none."""
        began = self._clock.seconds()
        found = await self._find(job)
        known: bool | None = None  # what a wait says
        if not isinstance(found, Wait):
            known = not (isinstance(found, Dead) and found.reason is Reason.TENANT_NOT_FOUND)
        seconds = self._clock.seconds() - began
        self._observer.credentials(job.message.tenant_id, seconds, cached=False, known=known)
        return found

    async def _find(self, job: Job) -> Credentials | Dead | Wait:
        tenant_id = job.message.tenant_id
        try:
            return await self._credentials.get(tenant_id)
        except TenantNotFound:
            return Dead(Reason.TENANT_NOT_FOUND, "the Tenant Service does not know this tenant")
        except CredentialsSuspended as error:
            return Dead(Reason.CREDENTIALS_SUSPENDED, str(error))
        except CredentialsUnavailable as error:
            return _without_credentials(str(error))
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours; nothing was sent
            log.failure("attempt_failed", **_about(job))
            return _without_credentials(f"a fault of the gateway's ({type(error).__name__})")

    async def __call__(self, job: Job, credentials: Credentials) -> Verdict:
        """Try `job` once, and count it when the try was its own."""
        verdict = await self._send(job, credentials)
        if isinstance(verdict, Wait):
            job.attempts -= 1
        elif isinstance(verdict, Retry):
            job.repeated = job.repeated or verdict.once
            if verdict.reauthorize:
                job.reauthorized = True
                self._credentials.drop(job.message.tenant_id, credentials)
        return verdict

    async def _send(self, job: Job, credentials: Credentials) -> Verdict:
        began = self._clock.seconds()
        job.attempts += 1
        try:
            exchange = await self._graph.send(
                job.message.phone_number_id, credentials.token, job.message.payload
            )
            self._observer.answered(job, exchange, self._clock.seconds() - began)
            verdict = judge(exchange, self._table, job.history, self._patience)
        except CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of ours, and Meta may have the message
            log.failure("attempt_failed", **_about(job))
            return Dead(Reason.IN_DOUBT, f"a fault of the gateway's ({type(error).__name__})")
        if isinstance(verdict, (Retry, Wait, Dead)) and verdict.fault:
            self._observer.faulted(job, verdict.fault, self._clock.seconds() - began)
        return verdict


def _about(job: Job) -> dict[str, Any]:
    message = job.message
    return {"tenantId": message.tenant_id, "internalId": message.internal_id, **log_fields(job.context)}


def _without_credentials(cause: str) -> Wait:
    fault = Fault(f"no credentials: {cause}")
    return Wait(fault, Scope.TENANT, CREDENTIALS_WAIT, LONGEST_CREDENTIALS_WAIT)
