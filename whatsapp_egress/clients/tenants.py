"""The Tenant Service: asks for a tenant's credentials, over HTTP or in a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from attrs import define, field
from hyperlink import URL
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.web.http_headers import Headers

from whatsapp_egress.clients.http import HttpClient
from whatsapp_egress.errors import (
    CredentialsSuspended,
    CredentialsUnavailable,
    NoReply,
    NotConnected,
    TenantNotFound,
)
from whatsapp_egress.message import seconds_of
from whatsapp_egress.policy.credentials import Credentials

log = Logger()

_json = msgspec.json.Decoder()
_tenants_json = msgspec.json.Decoder(dict[str, Any])
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_HIGHEST_LIMIT = 1_000_000_000
"""Messages a second or a day: as good as no limit, and unlike what may be written there it fits into a
float."""

_OK, _FORBIDDEN, _NOT_FOUND = 200, 403, 404


@define
class TenantService:
    """Asks over HTTP. `path` is TENANT_SERVICE_CREDENTIALS_PATH with `{tenantId}` in it."""

    _http: HttpClient
    _base_url: str
    _path: str
    _token: str | None
    _user_agent: str
    _now: Callable[[], float]

    def fetch(self, tenant_id: str) -> Deferred[Credentials]:
        """Fails with `TenantNotFound`, `CredentialsSuspended` or `CredentialsUnavailable`."""
        return Deferred.fromCoroutine(self._fetch(tenant_id))

    async def _fetch(self, tenant_id: str) -> Credentials:
        # The id was checked against its pattern, in which nothing has a meaning in a URL.
        url = URL.from_text(self._base_url.rstrip("/") + self._path.replace("{tenantId}", tenant_id))
        headers = Headers({"Accept": ["application/json"], "User-Agent": [self._user_agent]})
        if self._token is not None:
            headers.setRawHeaders("Authorization", [f"Bearer {self._token}"])
        try:
            reply = await self._http.exchange("GET", url, headers)
        except NotConnected as error:
            raise CredentialsUnavailable("connect", str(error)) from error
        except NoReply as error:
            raise CredentialsUnavailable("no_answer", str(error)) from error
        if reply.status == _NOT_FOUND:
            raise TenantNotFound(tenant_id)
        if reply.status == _FORBIDDEN:
            raise CredentialsSuspended("the Tenant Service forbids it (HTTP 403)")
        if reply.status != _OK:
            raise CredentialsUnavailable(f"http_{reply.status}", f"HTTP {reply.status}")
        if not reply.complete:
            raise CredentialsUnavailable("junk", "HTTP 200 whose body broke off or was too large")
        try:
            document = _json.decode(reply.body)
        except _NOT_JSON as error:
            raise CredentialsUnavailable("junk", "HTTP 200 without JSON") from error
        return read_credentials(tenant_id, document, self._now())


@define
class TenantFile:
    """Reads them from a JSON object, tenantId to the Tenant Service's answer, again whenever it changes.

    A file that can't be read, or is no such object, is like a Tenant Service that is away: what it said
    before is used for up to `stale` seconds (CREDENTIAL_STALE_TTL). `now` gives seconds since the epoch.
    """

    _path: Path
    _stale: float
    _now: Callable[[], float]
    _learned: Callable[[str], None]
    """Told every token that is given out, so that no log ever shows it."""
    _asked: Callable[[str, str | None, float], None]
    """Told when it gives no usable answer, and when it does again: about whom it was asked, what went wrong
    (None: nothing), and 0 seconds."""
    _stamp: tuple[int, int, int] | None = field(default=None, init=False)
    _tenants: dict[str, Any] = field(factory=dict, init=False)
    _problem: str | None = field(default=None, init=False)
    _good_until: float = field(default=0.0, init=False)
    _failed: bool = field(default=False, init=False)
    """Whether somebody was told that it can't be read, and not yet that it can again."""

    def at_hand(self, tenant_id: str) -> Credentials | None:
        """Credentials that can be used; None where `get` would refuse."""
        try:
            return self._read(tenant_id)
        except (CredentialsUnavailable, TenantNotFound, CredentialsSuspended):
            return None

    def get(self, tenant_id: str) -> Deferred[Credentials]:
        """Fails with `TenantNotFound`, `CredentialsSuspended` or `CredentialsUnavailable`."""
        try:
            return succeed(self._read(tenant_id))
        except CredentialsUnavailable as error:
            log.error("credential_fetch_failed", tenantId=tenant_id, reason=error.reason, detail=str(error))
            self._failed = True
            self._asked(tenant_id, error.reason, 0.0)
            return fail(error)
        except (TenantNotFound, CredentialsSuspended) as error:
            return fail(error)

    def _read(self, tenant_id: str) -> Credentials:
        now = self._now()
        self._look(now)
        if self._problem is not None and now >= self._good_until:
            raise CredentialsUnavailable("file", f"{self._path}: {self._problem}")
        if tenant_id not in self._tenants:
            raise TenantNotFound(tenant_id)
        credentials = read_credentials(tenant_id, self._tenants[tenant_id], now)
        self._learned(credentials.token)
        if self._failed:
            self._failed = False
            self._asked(tenant_id, None, 0.0)
        return credentials

    def drop(self, tenant_id: str, refused: Credentials) -> None:
        """There is nothing to drop: the file is what it is until somebody changes it."""

    def forget(self, tenant_id: str) -> None:  # noqa: ARG002 - all are in one file
        """Read the file anew, whether or not it looks like another one."""
        self._stamp = None

    def stop(self) -> None:
        """There is nothing to stop: nobody ever waits for a file."""

    def _look(self, now: float) -> None:
        """Read the file if it is not the one that was read last."""
        before = self._problem
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            if stamp != self._stamp:
                self._tenants = _tenants_json.decode(self._path.read_bytes())
                self._stamp, self._problem = stamp, None
        except OSError as error:
            self._stamp, self._problem = None, error.strerror or type(error).__name__
        except _NOT_JSON as error:
            self._stamp, self._problem = stamp, str(error)
        if self._problem is None:
            self._good_until = now + self._stale
        elif self._problem != before:
            usable = now < self._good_until
            log.error("tenant_file_unusable", path=str(self._path), detail=self._problem, staleUsed=usable)


def read_credentials(tenant_id: str, document: object, now: float) -> Credentials:
    """The Tenant Service's answer, checked. Whatever is not as agreed is junk, and never a reason to fail
    messages: `CredentialsUnavailable`."""
    if not isinstance(document, dict):
        raise CredentialsUnavailable("junk", "not a JSON object")
    if document.get("tenantId", tenant_id) != tenant_id:
        raise CredentialsUnavailable("junk", "the answer is about another tenant")
    status = document.get("status")
    if status in ("suspended", "expired"):
        raise CredentialsSuspended(f"the Tenant Service says {status}")
    inner = document.get("credentials")
    token = _token(inner.get("systemUserAccessToken")) if isinstance(inner, dict) else None
    if status != "active" or not isinstance(inner, dict) or token is None:
        raise CredentialsUnavailable("junk", "no active credentials with a token in the answer")
    limits = inner.get("rateLimits")
    credentials = Credentials(
        token,
        _limit(limits, "messagesPerSecond"),
        _expiry(document.get("expiresAt")),
        _whole(_limit(limits, "messagesPerDay")),
    )
    if credentials.expired(now):
        raise CredentialsUnavailable("expired", "the credentials are active, but their expiresAt has passed")
    return credentials


def _token(value: object) -> str | None:
    """A token that may go into a header, where a line break would begin another one."""
    if isinstance(value, str) and value.isascii() and value.isprintable() and value.split() == [value]:
        return value
    return None


def _limit(limits: object, name: str) -> float | None:
    limit = limits.get(name) if isinstance(limits, dict) else None
    if isinstance(limit, (int, float)) and not isinstance(limit, bool) and limit > 0:
        return float(min(limit, _HIGHEST_LIMIT))
    return None


def _whole(limit: float | None) -> int | None:
    return None if limit is None else max(1, int(limit))


def _expiry(value: object) -> float | None:
    if value is None:
        return None
    try:
        if isinstance(value, str):
            return seconds_of(value)
    except (ValueError, OverflowError):
        pass  # as good as no text
    raise CredentialsUnavailable("junk", "expiresAt is not an ISO 8601 time")
