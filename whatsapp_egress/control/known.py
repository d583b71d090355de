"""What this gateway knows of tenants that bears on a replay."""

from __future__ import annotations

from attrs import frozen

from whatsapp_egress.observe.times import Times
from whatsapp_egress.pipeline.lanes import Lanes
from whatsapp_egress.pipeline.road import Cause, WaitsFor
from whatsapp_egress.policy.replay import Hold

_HOLDS = {
    Cause.PAUSE: "the tenant is paused",
    Cause.BREAKER: "the tenant's circuit breaker is open",
    Cause.THROTTLE: "Meta throttles the tenant",
    Cause.DAY: "the tenant's quota of the day is used up",
    Cause.CREDENTIALS: "the tenant's credentials can't be had",
}
"""What holds all messages of a tenant; what else one waits for passes in moments."""


@frozen
class Known:
    """Reads lanes, and changes none."""

    _lanes: Lanes
    _times: Times

    def hold(self, tenant_id: str) -> Hold | None:
        """Why a message of the tenant would wait, if it would."""
        waits_for = self._lanes.waits_for(tenant_id)
        standing = self._lanes.standing(tenant_id)
        if waits_for is None and standing is not None and standing.breaker.until is not None:
            waits_for = WaitsFor(Cause.BREAKER, standing.breaker.until)
        if waits_for is None or waits_for.cause not in _HOLDS:
            return None
        until = waits_for.until
        return Hold(_HOLDS[waits_for.cause], None if until is None else self._times.epoch(until))
