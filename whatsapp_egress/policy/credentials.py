"""How long credentials may be used, and when it is time to ask for them again; all times in seconds."""

from __future__ import annotations

from attrs import field, frozen


@frozen
class Credentials:
    """What it takes to send for a tenant.

    `messages_per_second` is the tenant's limit per phone number, `messages_per_day` the one of all its
    numbers together, None where the Tenant Service names none; `expires_at` is in seconds since the epoch.
    """

    token: str = field(repr=False)
    messages_per_second: float | None = None
    expires_at: float | None = None
    messages_per_day: int | None = None

    def expired(self, now: float) -> bool:
        """Whether `expiresAt` has passed."""
        return self.expires_at is not None and now >= self.expires_at


@frozen
class Keeping:
    """CREDENTIAL_CACHE_TTL, CREDENTIAL_STALE_TTL and CREDENTIAL_NEGATIVE_TTL."""

    fresh: float = 900.0
    stale: float = 3600.0
    negative: float = 30.0


@frozen
class Entry:
    """Credentials as fetched."""

    credentials: Credentials
    fetched_at: float

    def fresh(self, keeping: Keeping, now: float) -> bool:
        """Use it without asking."""
        return now - self.fetched_at < keeping.fresh and not self.credentials.expired(now)

    def usable(self, keeping: Keeping, now: float) -> bool:
        """Use it while the Tenant Service can't be asked."""
        return now - self.fetched_at < keeping.stale and not self.credentials.expired(now)


@frozen
class Refusal:
    """The Tenant Service's no, as an exception to raise again, until `until`."""

    error: Exception
    until: float
