"""The call that asks why a message waits."""

from __future__ import annotations

import msgspec
from attrs import frozen

from whatsapp_egress.control.call import Answer, Call, InternalId, TenantId
from whatsapp_egress.control.routes import Route
from whatsapp_egress.observe.lane_view import WaitsForView
from whatsapp_egress.observe.times import Times
from whatsapp_egress.observe.words import CAUSES
from whatsapp_egress.pipeline.lanes import Lanes
from whatsapp_egress.pipeline.recent import KEEP_SECONDS
from whatsapp_egress.pipeline.road import Cause, WaitsFor
from whatsapp_egress.pipeline.whereabouts import Tracker, Whereabouts

_CAUSES = {**CAUSES, Cause.RECIPIENT: "for its recipient: Meta takes no more messages to it for now"}
"""Of a single message more is known than of a lane."""


class MessageQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which message is meant."""

    internalId: InternalId
    tenantId: TenantId | None = None


@frozen
class MessageView:
    """Where a message is. `gate` is what it waits for, `ahead` how many of its conversation go before it,
    `at` when it ended."""

    tenantId: str | None
    internalId: str | None
    phoneNumberId: str | None
    where: str
    attempts: int
    gate: WaitsForView | None
    ahead: int
    at: str | None
    wamid: str | None
    reason: str | None


@frozen
class MessageCalls:
    """Calls under /messages."""

    _tracker: Tracker
    _lanes: Lanes
    _times: Times

    def routes(self) -> list[Route]:
        """Which there are."""
        return [Route("GET", "/messages", self.find)]

    async def find(self, call: Call) -> Answer:
        """The messages of one name, and what each waits for."""
        query = call.asked(MessageQuery)
        found = self._tracker.find(query.internalId, query.tenantId)
        hint = None if found else self._hint(query.tenantId)
        return Answer({"messages": [self._view(each) for each in found], "hint": hint})

    def _view(self, found: Whereabouts) -> MessageView:
        identity = found.identity
        return MessageView(
            tenantId=identity.tenant_id,
            internalId=identity.internal_id,
            phoneNumberId=identity.phone_number_id,
            where=found.where.value,
            attempts=found.attempts,
            gate=None if found.waits_for is None else self._gate(found.waits_for),
            ahead=found.ahead,
            at=self._times.at(found.at),
            wamid=found.wamid,
            reason=None if found.reason is None else found.reason.value,
        )

    def _gate(self, waits_for: WaitsFor) -> WaitsForView:
        cause, until = waits_for.cause, self._times.at(waits_for.until)
        return WaitsForView(cause.value, until, f"waits {_CAUSES[cause]}")

    def _hint(self, tenant_id: str | None) -> str:
        """What to make of it that nothing was found."""
        hint = (
            "Not in hand: it is queued, deferred or with another worker, or it ended more than"
            f" {KEEP_SECONDS / 60:.0f} minutes ago."
        )
        if tenant_id is None:
            return f"{hint} With its tenantId more can be said."
        waits_for = self._lanes.waits_for(tenant_id)
        if waits_for is None:
            return f"{hint} Nothing of its tenant waits here."
        gate = self._gate(waits_for)
        until = "" if gate.until is None else f", until {gate.until}"
        return f"{hint} Its tenant's next message {gate.inWords}{until}."
