"""Which tenants have a label of their own in metrics."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field

UNKNOWN = "unknown"
"""The label of tenants that the Tenant Service does not know (contract)."""

OTHER = "other"
"""The label of those past METRICS_MAX_TENANTS (contract)."""

MOST_OTHERS = 100_000
"""Tenants past the limit that are remembered as known; the oldest are forgotten first."""


@define
class TenantLabels:
    """A tenant gets its label when the Tenant Service first knows it, and keeps it: there are at most `most`
    of them, whatever is in messages."""

    _most: int
    _own: dict[str, None] = field(factory=dict, init=False)
    _others: dict[str, None] = field(factory=dict, init=False)

    def __iter__(self) -> Iterator[str]:
        """The tenants that have a label of their own."""
        return iter(self._own)

    def learn(self, tenant_id: str) -> str:
        """The Tenant Service knows this tenant: return its label."""
        if tenant_id in self._own:
            return tenant_id
        if len(self._own) < self._most:
            self._others.pop(tenant_id, None)
            self._own[tenant_id] = None
            return tenant_id
        self._others[tenant_id] = None
        if len(self._others) > MOST_OTHERS:
            del self._others[next(iter(self._others))]
        return OTHER

    def find(self, tenant_id: str | None) -> str | None:
        """The label of a tenant; None while nothing is known of it."""
        if tenant_id in self._own:
            return tenant_id
        return OTHER if tenant_id in self._others else None
