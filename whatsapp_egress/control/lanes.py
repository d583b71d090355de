"""The calls about lanes: look at them, pause and resume, close a breaker, forget credentials."""

from __future__ import annotations

from typing import Annotated, Protocol

import msgspec
from attrs import frozen

from whatsapp_egress.control.call import NO_CONTROLS, Answer, Call, NoParameters, Order
from whatsapp_egress.control.refusal import Refusal, bad_request, not_found
from whatsapp_egress.control.routes import Route
from whatsapp_egress.message import seconds_of
from whatsapp_egress.observe.overview import Overview
from whatsapp_egress.observe.times import Times
from whatsapp_egress.pipeline.lanes import Lanes
from whatsapp_egress.policy.pause import Pause

LONGEST_PAUSE = 366 * 86_400.0
"""Seconds; a longer one is a slip, and one without an end is there for it."""

Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=NO_CONTROLS)]


class PauseOrder(Order):
    """Pause a tenant, for good or until an end that is given in one of two ways."""

    reason: Reason
    until: str | None = None
    seconds: Annotated[float, msgspec.Meta(gt=0, le=LONGEST_PAUSE)] | None = None


class ResumeOrder(Order):
    """Let a tenant go on."""

    reason: Reason | None = None


class Credentials(Protocol):
    """What is kept of tenants' credentials; `clients.credentials` provides it."""

    def forget(self, tenant_id: str) -> None:
        """Drop whatever is kept of the tenant."""


@frozen
class LaneCalls:
    """Calls under /lanes. Each that changes something answers with the lane as it is then."""

    _lanes: Lanes
    _overview: Overview
    _credentials: Credentials
    _times: Times

    def routes(self) -> list[Route]:
        """Which there are."""
        return [
            Route("GET", "/lanes", self.all),
            Route("GET", "/lanes/{tenantId}", self.one),
            Route("POST", "/lanes/{tenantId}/pause", self.pause),
            Route("POST", "/lanes/{tenantId}/resume", self.resume),
            Route("POST", "/lanes/{tenantId}/breaker/reset", self.reset_breaker),
            Route("POST", "/lanes/{tenantId}/credentials/drop", self.drop_credentials),
        ]

    async def all(self, call: Call) -> Answer:
        """Every lane, those in most trouble first."""
        call.asked(NoParameters)
        return Answer({"lanes": self._overview.view()})

    async def one(self, call: Call) -> Answer:
        """One lane."""
        call.asked(NoParameters)
        view = self._overview.lane(call.tenant_id)
        if view is None:
            raise not_found(
                "The tenant has no lane here: nothing of it is in hand, and nothing is remembered of it."
            )
        return Answer(view)

    async def pause(self, call: Call) -> Answer:
        """Let the tenant's messages wait."""
        tenant_id, order = call.tenant_id, call.order(PauseOrder)
        now = self._times.now()
        until = self._end(order, now)
        call.told |= {"reason": order.reason, "until": until}
        self._lanes.pause(tenant_id, Pause(order.reason, order.actor, now, until))
        return self._now(tenant_id)

    async def resume(self, call: Call) -> Answer:
        """Let them go."""
        tenant_id, order = call.tenant_id, call.order(ResumeOrder)
        call.told["reason"] = order.reason
        if not self._lanes.resume(tenant_id):
            raise Refusal(409, "not_paused", "The tenant is not paused here. Is it in another worker?")
        return self._now(tenant_id)

    async def reset_breaker(self, call: Call) -> Answer:
        """Close the tenant's breaker."""
        tenant_id, _ = call.tenant_id, call.order(Order)
        call.told["changed"] = self._lanes.reset_breaker(tenant_id)
        return self._now(tenant_id)

    async def drop_credentials(self, call: Call) -> Answer:
        """Have the tenant's credentials fetched anew."""
        tenant_id, _ = call.tenant_id, call.order(Order)
        self._credentials.forget(tenant_id)
        return self._now(tenant_id)

    def _now(self, tenant_id: str) -> Answer:
        return Answer(self._overview.lane_or_idle(tenant_id))

    def _end(self, order: PauseOrder, now: float) -> float | None:
        """When the pause is to end, in seconds since the epoch. Raises `Refusal`."""
        if order.seconds is not None:
            if order.until is not None:
                raise bad_request("Give until or seconds, not both.")
            return now + order.seconds
        if order.until is None:
            return None
        try:
            until = seconds_of(order.until)
        except (ValueError, OverflowError):
            raise bad_request("until is not an ISO 8601 time such as 2026-11-25T03:00:00Z.") from None
        if not now < until <= now + LONGEST_PAUSE:
            raise Refusal(
                409,
                "until_out_of_range",
                "until has passed, or is more than a year away.",
            )
        return until
