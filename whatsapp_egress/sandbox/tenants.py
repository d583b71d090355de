"""The tenants the sandbox knows, with their credentials and what is wrong with them."""

from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import msgspec
from attrs import define, evolve, field, frozen

#: Names of the first tenants; those after them are called tenant-9, tenant-10 and so on.
_NAMES = ("acme", "bravo", "cielo", "delta", "ember", "fjord", "grove", "harbor")
#: What the Tenant Service can be made to do instead of answering: a mode or any HTTP status from 400 on.
MODES = frozenset({"ok", "suspended", "expired", "hang", "reset", "junk", "empty", "no_token", "slow"})
EVERY = "*"


class TenantError(ValueError):
    """A tenant is described in a way that makes no sense."""


class UnknownTenantError(KeyError):
    """No tenant has this id."""


@frozen
class Tenant:
    """One tenant: what the Graph API accepts from it and what the Tenant Service tells of it."""

    id: str
    phone_number_id: str
    token: str
    business_account_id: str
    messages_per_second: int | float | None = 80
    messages_per_day: int | None = 100_000
    expires_at: str | None = None  # ISO 8601; after it the Graph API refuses the token
    status: str = "active"
    served_token: str | None = None  # what the Tenant Service tells instead of the token
    more_phone_number_ids: tuple[str, ...] = ()
    mode: str = "ok"
    until: int | None = None  # the mode ends after so many fetches
    slow_ms: float = 2000.0  # how late mode "slow" answers

    @property
    def phone_number_ids(self) -> tuple[str, ...]:
        """Every phone number the token may send from."""
        return (self.phone_number_id, *self.more_phone_number_ids)

    def credentials(self, now: float, mode: str = "ok") -> dict[str, object]:
        """Return the Tenant Service's answer at *now* (epoch seconds) while it is in *mode*."""
        limits = {"messagesPerSecond": self.messages_per_second, "messagesPerDay": self.messages_per_day}
        status = mode if mode in {"suspended", "expired"} else self.status
        secret: dict[str, object] = {"systemUserAccessToken": self.served_token or self.token}
        if mode == "no_token":
            secret = {}
        return {
            "tenantId": self.id,
            "credentialType": "whatsapp",
            "status": status,
            "expiresAt": self.expires_at,
            "lastValidated": _iso(now),
            "credentials": secret
            | {
                "phoneNumberId": self.phone_number_id,
                "businessAccountId": self.business_account_id,
                "rateLimits": {name: limit for name, limit in limits.items() if limit is not None},
            },
        }


def tenant(n: int) -> Tenant:
    """Return the *n*-th default tenant, counted from 1; always the same one."""
    name = _NAMES[n - 1] if n <= len(_NAMES) else f"tenant-{n}"
    return Tenant(
        id=name,
        phone_number_id=f"{100_000_000 + n}",
        token=f"EAAsandbox{n:06d}ZD",
        business_account_id=f"{200_000_000 + n}",
    )


_JSON_NAMES = {
    "phoneNumberId": "phone_number_id",
    "morePhoneNumberIds": "more_phone_number_ids",
    "token": "token",
    "servedToken": "served_token",
    "businessAccountId": "business_account_id",
    "expiresAt": "expires_at",
    "status": "status",
    "mode": "mode",
    "until": "until",
    "slowMs": "slow_ms",
}


def settings_of(document: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a JSON *document* names, under the names :class:`Tenant` has for them.

    Raises:
        TenantError: a name that a tenant doesn't have.
    """
    settings: dict[str, Any] = {}
    for name, value in document.items():
        if name == "rateLimits" and isinstance(value, dict):
            settings["messages_per_second"] = value.get("messagesPerSecond")
            settings["messages_per_day"] = value.get("messagesPerDay")
        elif name in _JSON_NAMES:
            settings[_JSON_NAMES[name]] = value
        else:
            raise TenantError(f"unknown: {name}; known: {', '.join(sorted([*_JSON_NAMES, 'rateLimits']))}")
    return settings


@define
class Tenants:
    """The directory of tenants that the Graph API and the Tenant Service share."""

    mode: str = "ok"  # of the whole Tenant Service
    until: int | None = None
    slow_ms: float = 2000.0
    _tenants: dict[str, Tenant] = field(factory=dict, init=False)
    _by_token: dict[str, str] = field(factory=dict, init=False)
    _old_tokens: dict[str, str] = field(factory=dict, init=False)
    _numbers: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[Tenant]:
        return iter(self._tenants.values())

    def __len__(self) -> int:
        return len(self._tenants)

    def add(self, tenant_id: str | None = None, **settings: Any) -> Tenant:
        """Add a tenant (or replace it); what *settings* don't say comes from the next default tenant."""
        self._numbers += 1
        default = tenant(self._numbers)
        return self._keep(_checked(evolve(default, **{"id": tenant_id or default.id, **settings})))

    def get(self, tenant_id: str) -> Tenant:
        """Return a tenant.

        Raises:
            UnknownTenantError: there is none with this id.
        """
        try:
            return self._tenants[tenant_id]
        except KeyError:
            raise UnknownTenantError(tenant_id) from None

    def change(self, tenant_id: str, **settings: Any) -> Tenant:
        """Change a tenant's settings; a token that it had before is from then on refused with 190."""
        return self._keep(_checked(evolve(self.get(tenant_id), **settings)))

    def rotate(self, tenant_id: str, token: str | None = None) -> Tenant:
        """Give a tenant a new token, told by the Tenant Service at once; the old one is refused with 190."""
        before = self.get(tenant_id)
        return self.change(tenant_id, token=token or f"{before.token}r", served_token=None)

    def remove(self, tenant_id: str) -> None:
        """Forget a tenant; the Tenant Service then answers 404."""
        gone = self.get(tenant_id)
        del self._tenants[tenant_id]
        self._by_token.pop(gone.token, None)
        self._old_tokens[gone.token] = tenant_id

    def outage(self, mode: str, *, until: int | None = None, slow_ms: float = 2000.0) -> None:
        """Put the whole Tenant Service into *mode* for *until* fetches, or until it is put back to ``ok``."""
        self.mode, self.until, self.slow_ms = _mode(mode), until, slow_ms

    def next_mode(self, tenant_id: str) -> tuple[str, float]:
        """Return mode and slowness (ms) for a fetch that has come, and count it where the mode is to end."""
        if self.mode != "ok":
            mode = self.mode
            if self.until is not None:
                self.until -= 1
                if self.until <= 0:
                    self.mode, self.until = "ok", None
            return mode, self.slow_ms
        known = self._tenants.get(tenant_id)
        if known is None:
            return "ok", 0.0
        if known.mode != "ok" and known.until is not None:
            left = known.until - 1
            self._tenants[tenant_id] = evolve(
                known, until=left or None, mode=known.mode if left > 0 else "ok"
            )
        return known.mode, known.slow_ms

    def by_token(self, token: str) -> Tenant | None:
        """Return whose token this is, if it is one in force."""
        owner = self._by_token.get(token)
        return None if owner is None else self._tenants[owner]

    def had_token(self, token: str) -> str | None:
        """Return the id of the tenant that once had this token."""
        return self._old_tokens.get(token)

    def _keep(self, kept: Tenant) -> Tenant:
        before = self._tenants.get(kept.id)
        if before is not None and before.token != kept.token:
            self._by_token.pop(before.token, None)
            self._old_tokens[before.token] = kept.id
        self._tenants[kept.id] = kept
        self._by_token[kept.token] = kept.id
        self._old_tokens.pop(kept.token, None)
        return kept


def expired(a_tenant: Tenant, now: float) -> bool:
    """Say whether the tenant's token has run out at *now* (epoch seconds)."""
    if a_tenant.expires_at is None:
        return False
    end = msgspec.convert(a_tenant.expires_at, datetime)
    return end.timestamp() <= now


def _checked(a_tenant: Tenant) -> Tenant:
    _mode(a_tenant.mode)
    try:
        document = msgspec.to_builtins(a_tenant)
        sound = msgspec.convert(document, Tenant)
        expired(sound, 0.0)
    except msgspec.ValidationError as error:
        raise TenantError(str(error)) from error
    return sound


def _mode(mode: str) -> str:
    if mode in MODES or (mode.isdigit() and "400" <= mode <= "599" and len(mode) == 3):
        return mode
    raise TenantError(f"mode {mode!r} is none of {', '.join(sorted(MODES))} or an HTTP status from 400 on")


def _iso(now: float) -> str:
    return datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
