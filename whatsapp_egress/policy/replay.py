"""Which dead letters an operator means, and what would become of each if it were sent again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from enum import Enum

from attrs import frozen

from whatsapp_egress.policy.table import ErrorClass, ErrorTable, Rule
from whatsapp_egress.policy.verdict import Reason

MOST_REPLAYS = 3
"""Replays after which a dead letter is left alone, unless it is forced: what failed so often fails again."""

_NEVER = {
    ErrorClass.PERMANENT_RECIPIENT,
    ErrorClass.PERMANENT_PAYLOAD,
    ErrorClass.PERMANENT_POLICY,
    ErrorClass.TEMPLATE,
}


@frozen
class DeadLetter:
    """The facts of a dead letter; what it does not say is None. Times are in seconds since the epoch.

    `id` stays the same while it is in the queue. `reason` is one of `Reason`, or `broker_` and RabbitMQ's own
    (`broker_expired`, `broker_rejected`, `broker_maxlen`, `broker_delivery_limit`), or `unknown`.
    """

    id: str
    reason: str
    tenant_id: str | None = None
    phone_number_id: str | None = None
    internal_id: str | None = None
    detail: str = ""
    error_code: int | None = None
    error_subcode: int | None = None
    http_status: int | None = None
    fbtrace_id: str | None = None
    attempts: int = 0
    failed_at: float | None = None
    replays: int = 0
    expires_at: float | None = None
    broken_off: bool = False
    """A replay was broken off with it in hand: its copy may be in the queue already, or sent."""
    no_message: bool = False
    """Its body can't be read as a message, whoever put it there."""

    def age(self, now: float) -> float | None:
        """Seconds since it failed."""
        return None if self.failed_at is None else now - self.failed_at


@frozen
class Filter:
    """Which dead letters are meant: those that agree with all that is given; `older_than` and `younger_than`
    are in seconds. One that does not say when it failed is neither old nor young."""

    tenant_id: str | None = None
    reason: str | None = None
    code: int | None = None
    older_than: float | None = None
    younger_than: float | None = None
    id: str | None = None

    def takes(self, letter: DeadLetter, now: float) -> bool:
        """Whether `letter` is meant."""
        asked = (
            (self.tenant_id, letter.tenant_id),
            (self.reason, letter.reason),
            (self.code, letter.error_code),
            (self.id, letter.id),
        )
        if any(wanted is not None and wanted != found for wanted, found in asked):
            return False
        if self.older_than is None and self.younger_than is None:
            return True
        age = letter.age(now)
        if age is None or (self.older_than is not None and age <= self.older_than):
            return False
        return self.younger_than is None or age < self.younger_than


class Would(str, Enum):
    """What would happen to a dead letter that is replayed now."""

    SEND = "send"
    EXPIRE = "expire"
    WAIT = "wait"
    FAIL = "fail"
    DOUBT = "doubt"
    SENT = "sent"


@frozen
class Forecast:
    """What would happen, and why, in one sentence."""

    would: Would
    why: str


@frozen
class Hold:
    """Why a tenant's messages wait, as in "the tenant is paused"; `until` None where nobody knows."""

    why: str
    until: float | None = None


@frozen
class Circumstances:
    """What is known when a replay is foretold.

    `sent` has tenant id and internal id of what was sent of late, and when; `hold` tells whether a tenant
    waits.
    """

    now: float
    table: ErrorTable
    hold: Callable[[str], Hold | None]
    sent: Mapping[tuple[str, str], float]


def forecast(letter: DeadLetter, known: Circumstances) -> Forecast:
    """What would happen to `letter` if it were replayed now: what would double it comes first, then what
    would be in vain, then what would delay it."""
    if (when := _sent_since(letter, known.sent)) is not None:
        return Forecast(Would.SENT, f"a message with its ids was sent at {_clock_time(when)}")
    if letter.broken_off:
        return Forecast(
            Would.DOUBT, "a replay was broken off with this message in hand; it may be in the queue already"
        )
    if letter.reason == Reason.IN_DOUBT:
        return Forecast(Would.DOUBT, "Meta may have sent it: there was no answer that says so or not")
    if letter.expires_at is not None and known.now >= letter.expires_at:
        return Forecast(Would.EXPIRE, f"its expiresAt has passed at {_clock_time(letter.expires_at)}")
    if (why := _in_vain(letter, known.table)) is not None:
        return Forecast(Would.FAIL, why)
    hold = None if letter.tenant_id is None else known.hold(letter.tenant_id)
    if hold is not None:
        until = "" if hold.until is None else f" until {_clock_time(hold.until)}"
        return Forecast(Would.WAIT, f"{hold.why}{until}")
    return Forecast(Would.SEND, "nothing is known that would keep it from being sent")


def held_back(letter: DeadLetter, foretold: Forecast, *, force: bool) -> str | None:
    """Why `letter` is not replayed, though it is meant: `sent`, `doubt` or `replayed_often`; None if it is.

    `force` holds nothing back.
    """
    if force:
        return None
    if foretold.would in (Would.SENT, Would.DOUBT):
        return str(foretold.would.value)
    return "replayed_often" if letter.replays >= MOST_REPLAYS else None


def rule_of(letter: DeadLetter, table: ErrorTable) -> Rule | None:
    """What Meta's table says of its error; None where it has no code, or one that is not in the table."""
    return table.by_code(letter.error_code, letter.error_subcode, letter.detail)


def _in_vain(letter: DeadLetter, table: ErrorTable) -> str | None:
    if letter.no_message or letter.reason == Reason.INVALID_MESSAGE:
        return "it is no message that can be sent"
    if letter.reason == Reason.TENANT_NOT_FOUND:
        return "the Tenant Service does not know the tenant, or did not when it failed"
    rule = rule_of(letter, table)
    if rule is None or rule.error_class not in _NEVER:
        return None
    return " ".join(
        filter(None, (f"Meta refuses it for good: {letter.error_code} {rule.title}.", rule.advice))
    )


def _sent_since(letter: DeadLetter, sent: Mapping[tuple[str, str], float]) -> float | None:
    """When it was sent after it had failed; what was sent before that was another with the same ids."""
    if letter.tenant_id is None or letter.internal_id is None:
        return None
    when = sent.get((letter.tenant_id, letter.internal_id))
    return when if when is not None and when >= (letter.failed_at or 0.0) else None


_LATEST = 253_402_300_799.0
"""The last second that Python's calendar has."""


def _clock_time(moment: float) -> str:
    moment = max(0.0, min(moment, _LATEST))
    return datetime.fromtimestamp(moment, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")
