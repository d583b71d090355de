"""A pause: an operator's word that a tenant's messages wait."""

from __future__ import annotations

from attrs import frozen


@frozen
class Pause:
    """Who stopped the tenant, why, since when and until when, in seconds since the epoch; None is until
    somebody resumes it."""

    reason: str
    actor: str
    since: float
    until: float | None = None

    def over(self, now: float) -> bool:
        """Whether it has ended by itself."""
        return self.until is not None and now >= self.until
