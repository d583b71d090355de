"""What states and errors are called when people read them."""

from __future__ import annotations

from attrs import define

from whatsapp_egress.pipeline.road import Cause
from whatsapp_egress.policy.table import ErrorTable
from whatsapp_egress.policy.verdict import Fault, Reason

CAUSES = {
    Cause.TOKEN: "for its rate: the tenant sends as fast as it may",
    Cause.RECIPIENT: "for a recipient whose last message is being tried again",
    Cause.BREAKER: "for the circuit breaker: sending failed too often in a row",
    Cause.THROTTLE: "for a throttle of Meta's to end",
    Cause.CREDENTIALS: "for its credentials from the Tenant Service",
    Cause.PAUSE: "for an operator, who has paused it",
    Cause.TURN: "for a turn: all tenants together have as much under way as Meta bears",
    Cause.DAY: "for tomorrow: the day's quota is used up",
    Cause.CONVERSATION: "for the message before it in its conversation, which is under way",
    Cause.RETRY: "for its time to be tried again",
    Cause.ROAD: "for Meta: sending fails for all tenants, and one message at a time finds out",
    Cause.BROKER: "for the broker to confirm that it is safe in another queue",
}
"""What is waited for, after "waits"."""

_REASONS = {
    Reason.INVALID_MESSAGE: ("Not a message", "Mend what publishes it; sent again as it is, it fails again."),
    Reason.EXPIRED: ("Expired", "Its expiresAt passed before it could be sent. See what it waited for."),
    Reason.TENANT_NOT_FOUND: ("Unknown tenant", "Register the tenant, or mend the publisher's tenantId."),
    Reason.CREDENTIALS_SUSPENDED: (
        "Credentials suspended",
        "Renew the tenant's credentials in the Tenant Service, then replay.",
    ),
    Reason.REJECTED: ("Rejected", "Meta refused it for good."),
    Reason.AUTH_FAILED: ("Token refused", "Renew the tenant's access token, then replay."),
    Reason.RETRIES_EXHAUSTED: ("Retries exhausted", "When Meta is well again, replay."),
    Reason.IN_DOUBT: ("In doubt", "Meta may have sent it. Ask the recipient's side before you replay."),
}


@define
class Words:
    """Titles and advice, Meta's where the table has the code."""

    _table: ErrorTable

    def of(self, fault: Fault | None, reason: Reason | None = None) -> tuple[str, str]:
        """A title and what to do, for an error of Meta's or else a reason."""
        if fault is not None and fault.code is not None:
            found = self._table.by_code(fault.code, fault.subcode, fault.detail)
            if found is not None:
                return found.title, found.advice
        if reason is not None:
            return _REASONS[reason]
        return "", ""
