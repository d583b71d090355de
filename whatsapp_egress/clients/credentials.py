"""Credentials kept in memory, so that the Tenant Service is asked once for many messages."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from whatsapp_egress.errors import CredentialsSuspended, CredentialsUnavailable, TenantNotFound
from whatsapp_egress.policy.credentials import Credentials, Entry, Keeping, Refusal
from whatsapp_egress.tasks import Tasks

log = Logger()

TRIES = 3
"""Times the Tenant Service is asked before it counts as away (contract)."""

FIRST_PAUSE = 0.25
"""Seconds between the first two tries, doubled after that."""

STALE_PAUSE = 10.0
"""Seconds a stale entry is used before the Tenant Service, which was away, is asked again."""

MOST_TENANTS = 100_000
"""Entries kept; what was used longest ago goes first."""


class Source(Protocol):
    """Where they come from: `clients.tenants`."""

    def fetch(self, tenant_id: str) -> Deferred[Credentials]:
        """Fails with `TenantNotFound`, `CredentialsSuspended` or `CredentialsUnavailable`."""


@define(eq=False)
class _Tenant:
    """What is known of one tenant, and who waits to learn more."""

    entry: Entry | None = None
    refusal: Refusal | None = None
    asking: bool = False
    away_until: float | None = None
    """The Tenant Service is away: a usable entry is good enough, and it is not asked again before then."""
    waiting: list[Deferred[Credentials]] = field(factory=list)


@define
class CredentialCache:
    """One fetch at a time per tenant, however many messages wait for it.

    `now` gives seconds since the epoch. `learned` is told every token, so that no log ever shows it; `asked`,
    each time the Tenant Service was asked: about whom, what went wrong (None: it answered), and how many
    seconds it took.
    """

    _source: Source
    _keeping: Keeping
    _clock: IReactorTime
    _now: Callable[[], float]
    _jitter: Callable[[], float]
    _learned: Callable[[str], None]
    _asked: Callable[[str, str | None, float], None]
    _tenants: OrderedDict[str, _Tenant] = field(factory=OrderedDict, init=False)
    _tasks: Tasks = field(factory=Tasks, init=False)

    def at_hand(self, tenant_id: str) -> Credentials | None:
        """Credentials that can be used without asking; None where `get` would have to ask, or to refuse."""
        now = self._now()
        tenant = self._tenant(tenant_id)
        entry = tenant.entry
        if entry and entry.fresh(self._keeping, now):
            return entry.credentials
        if tenant.away_until is not None and entry and entry.usable(self._keeping, now):
            if now >= tenant.away_until:
                self._ask_once(tenant_id, tenant)
            return entry.credentials
        return None

    def get(self, tenant_id: str) -> Deferred[Credentials]:
        """Fails with `TenantNotFound`, `CredentialsSuspended` or `CredentialsUnavailable`."""
        if credentials := self.at_hand(tenant_id):
            return succeed(credentials)
        tenant = self._tenant(tenant_id)
        if tenant.refusal and self._now() < tenant.refusal.until:
            return fail(_anew(tenant.refusal.error))
        waiter: Deferred[Credentials] = Deferred(tenant.waiting.remove)
        tenant.waiting.append(waiter)
        self._ask_once(tenant_id, tenant)
        return waiter

    def drop(self, tenant_id: str, refused: Credentials) -> None:
        """Meta refused the token of these credentials: fetch anew, unless they were replaced already.

        However many messages were sent with them, they are dropped once: what is fetched are others, be it
        with the same token.
        """
        tenant = self._tenant(tenant_id)
        if tenant.entry and tenant.entry.credentials is refused:
            tenant.entry = None

    def forget(self, tenant_id: str) -> None:
        """Drop whatever is kept of the tenant, a refusal too. Who waits for an answer still gets it, but it
        is not kept: it may be older than what made somebody ask for this."""
        self._tenants.pop(tenant_id, None)

    def stop(self) -> None:
        """Ask no more."""
        self._tasks.cancel()

    def _tenant(self, tenant_id: str) -> _Tenant:
        tenant = self._tenants.get(tenant_id)
        if tenant is None:
            tenant = self._tenants[tenant_id] = _Tenant()
            if len(self._tenants) > MOST_TENANTS:
                # The one just made is asked for next, and stays.
                idle = (other for other, known in self._tenants.items() if not known.asking)
                if (oldest := next(idle)) != tenant_id:
                    del self._tenants[oldest]
        self._tenants.move_to_end(tenant_id)
        return tenant

    def _ask_once(self, tenant_id: str, tenant: _Tenant) -> None:
        if not tenant.asking:
            tenant.asking = True
            self._tasks.own(self._ask(tenant_id, tenant))

    async def _ask(self, tenant_id: str, tenant: _Tenant) -> None:
        """Fetch, and tell those who wait; they wait no longer than it takes to know of a usable entry."""
        # What they hear when we are stopped, or fail by our own fault: nobody is left waiting.
        result: Credentials | Failure = Failure(CredentialsUnavailable("cut_off", "the fetch was broken off"))
        try:
            credentials = await self._fetch(tenant_id, tenant)
            self._keep(tenant, credentials)
            result = credentials
        except CredentialsUnavailable as error:
            result = Failure(error)
        except (TenantNotFound, CredentialsSuspended) as error:
            log.warn(
                "credential_fetch_failed", tenantId=tenant_id, reason=type(error).__name__, detail=str(error)
            )
            tenant.entry = None
            tenant.refusal = Refusal(_anew(error), self._now() + self._keeping.negative)
            result = Failure(error)
        finally:
            # Only now, so that who asks once more on being told is not forgotten.
            tenant.asking = False
            _tell(tenant, result)

    async def _fetch(self, tenant_id: str, tenant: _Tenant) -> Credentials:
        """Ask up to `TRIES` times. Raises what `Source.fetch` fails with."""
        tried = 0
        while True:
            try:
                return await self._ask_source(tenant_id)
            except CredentialsUnavailable as error:
                self._away(tenant_id, tenant, error)
                tried += 1
                if tried == TRIES:
                    raise
            await deferLater(self._clock, FIRST_PAUSE * 2 ** (tried - 1) * (1 + self._jitter()))

    async def _ask_source(self, tenant_id: str) -> Credentials:
        began, trouble = self._clock.seconds(), None
        try:
            return await self._source.fetch(tenant_id)
        except CredentialsUnavailable as error:
            trouble = error.reason
            raise
        finally:
            self._asked(tenant_id, trouble, self._clock.seconds() - began)

    def _away(self, tenant_id: str, tenant: _Tenant, error: CredentialsUnavailable) -> None:
        now = self._now()
        usable = tenant.entry is not None and tenant.entry.usable(self._keeping, now)
        log.error(
            "credential_fetch_failed",
            tenantId=tenant_id,
            reason=error.reason,
            detail=str(error),
            staleUsed=usable,
        )
        if usable and tenant.entry is not None:
            tenant.away_until = now + STALE_PAUSE
            _tell(tenant, tenant.entry.credentials)

    def _keep(self, tenant: _Tenant, credentials: Credentials) -> None:
        self._learned(credentials.token)
        tenant.entry = Entry(credentials, self._now())
        tenant.away_until = None


def _anew(error: Exception) -> Exception:
    """The same error once more. One that is kept and raised again would collect the frames of all messages
    that meet it, and with them their bodies."""
    return type(error)(*error.args)


def _tell(tenant: _Tenant, result: Credentials | Failure) -> None:
    waiting, tenant.waiting = tenant.waiting, []
    for waiter in waiting:
        waiter.callback(result)
