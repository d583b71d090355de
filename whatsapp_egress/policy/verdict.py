"""What an exchange with Meta means for the message: sent, try again, wait, or dead."""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from whatsapp_egress.policy.backoff import LONGEST_RETRY, LONGEST_THROTTLE
from whatsapp_egress.policy.table import Case, ErrorClass, ErrorTable, Rule

THROTTLE_DELAY = 10.0
"""Seconds a throttled sender waits at the least (contract: from 10 s up)."""

SPAM_THROTTLE_CODE = 131048
SPAM_THROTTLE_DELAY = 600.0
"""Seconds after 131048 at the least: Meta holds the number for spam, and every try makes it worse."""

LONGEST_RETRY_AFTER = 86_400.0
"""Seconds a throttled sender waits at the most: a day, as long as the queue keeps a message. A `Retry-After`
beyond that is a mistake, and would stop it for ever. A retry waits no longer than any other."""


# -- what went in: how an exchange ended ------------------------------------------------------------


@frozen
class MetaError:
    """The `error` object of an answer. `code` is None when there was none that is a number."""

    code: int | None = None
    subcode: int | None = None
    message: str = ""
    details: str = ""
    is_transient: bool = False
    fbtrace_id: str | None = None


@frozen
class Answer:
    """An answer with its headers. `complete` is False when the body broke off, stalled or was too large.

    `retry_after` is in seconds.
    """

    status: int
    wamid: str | None = None
    wa_id: str | None = None
    message_status: str | None = None
    success: bool = False
    error: MetaError | None = None
    retry_after: float | None = None
    complete: bool = True


@frozen
class Unsent:
    """No byte of the request was written: name lookup, connecting or the TLS handshake failed."""

    cause: str


@frozen
class Unanswered:
    """Bytes of the request were written and no answer came: Meta may have the message."""

    cause: str


Exchange = Answer | Unsent | Unanswered


# -- what comes out ---------------------------------------------------------------------------------


class Reason(str, Enum):
    """`x-egress-reason` of a dead letter."""

    INVALID_MESSAGE = "invalid_message"
    EXPIRED = "expired"
    TENANT_NOT_FOUND = "tenant_not_found"
    CREDENTIALS_SUSPENDED = "credentials_suspended"
    REJECTED = "rejected"
    AUTH_FAILED = "auth_failed"
    RETRIES_EXHAUSTED = "retries_exhausted"
    IN_DOUBT = "in_doubt"


class Scope(str, Enum):
    """Who waits: one recipient's conversation, one phone number, or the tenant's whole lane."""

    RECIPIENT = "recipient"
    SENDER = "sender"
    TENANT = "tenant"


@frozen
class Fault:
    """What went wrong, for people and for the breaker. `detail` is one line without secrets."""

    detail: str
    error_class: ErrorClass | None = None
    code: int | None = None
    subcode: int | None = None
    fbtrace_id: str | None = None
    http_status: int | None = None
    app_wide: bool = False
    """The table says that it concerns the whole app, and with it other tenants."""


NO_FAULT = Fault("")
"""Stands where Meta was not asked."""


@frozen
class Sent:
    """Meta has it. A mark-as-read has no wamid."""

    wamid: str | None = None
    wa_id: str | None = None
    message_status: str | None = None


@frozen
class Retry:
    """One more attempt, not sooner than `floor` seconds; with fresh credentials after an auth error.

    `once`: it is the only one that the table grants for this error.
    """

    fault: Fault
    floor: float = 0.0
    reauthorize: bool = False
    once: bool = False


@frozen
class Wait:
    """Not the message's fault: whom `scope` names waits `floor` seconds or longer; no attempt is used up.

    Waits in a row grow up to `longest` seconds.
    """

    fault: Fault
    scope: Scope
    floor: float = 0.0
    longest: float = LONGEST_THROTTLE


@frozen
class Dead:
    """The message ends in the dead-letter queue."""

    reason: Reason
    detail: str
    fault: Fault | None = None


@frozen
class Moved:
    """The message is safe in its tenant's deferred queue, and comes again from there."""


Verdict = Sent | Retry | Wait | Dead
Outcome = Sent | Dead | Moved
"""How a delivery can end."""

EXPIRED = Dead(Reason.EXPIRED, "expiresAt has passed")
"""A message whose time is over is not sent (contract)."""


@frozen
class Patience:
    """How long the operator lets a message try (META_API_MAX_RETRIES, META_API_RETRY_AMBIGUOUS)."""

    max_retries: int = 3
    retry_ambiguous: bool = True


@frozen
class History:
    """What was tried before: `attempts` made so far, this one and `retryCount` included."""

    attempts: int = 1
    reauthorized: bool = False
    repeated: bool = False


def judge(exchange: Exchange, table: ErrorTable, history: History, patience: Patience) -> Verdict:
    """What to do after an exchange (contract: Meta Graph API)."""
    if isinstance(exchange, Answer) and 200 <= exchange.status < 300:
        if exchange.wamid is not None or exchange.success:
            return Sent(exchange.wamid, exchange.wa_id, exchange.message_status)
        fault = _fault(exchange, table.case(Case.UNIDENTIFIED))
        return Dead(Reason.IN_DOUBT, f"HTTP {exchange.status} without a message id", fault)
    rule = classify(exchange, table)
    fault = _fault(exchange, rule)
    wished = (exchange.retry_after or 0.0) if isinstance(exchange, Answer) else 0.0
    floor = max(rule.min_delay, min(wished, LONGEST_RETRY))
    if rule.ambiguous and not patience.retry_ambiguous:
        return Dead(Reason.IN_DOUBT, fault.detail, fault)
    if rule.error_class in _THROTTLES:
        wished = min(wished, LONGEST_RETRY_AFTER)
        return Wait(fault, _throttled(rule), max(floor, wished, _least_delay(rule, fault)))
    if rule.error_class is ErrorClass.AUTH:
        if history.reauthorized:
            return Dead(Reason.AUTH_FAILED, fault.detail, fault)
        return Retry(fault, floor, reauthorize=True)
    if rule.error_class is ErrorClass.TRANSIENT:
        if history.attempts > patience.max_retries:
            return Dead(Reason.RETRIES_EXHAUSTED, fault.detail, fault)
        return Retry(fault, floor)
    if rule.once and not history.repeated:
        return Retry(fault, floor, once=True)
    return Dead(Reason.REJECTED, fault.detail, fault)


def classify(exchange: Exchange, table: ErrorTable) -> Rule:
    """The table's rule: by (code, subcode), then code, then `is_transient`, then HTTP status."""
    if isinstance(exchange, Unsent):
        return table.case(Case.UNSENT)
    if isinstance(exchange, Unanswered):
        return table.case(Case.UNANSWERED)
    error = exchange.error
    if error is not None:
        if rule := table.by_code(error.code, error.subcode, f"{error.message} {error.details}"):
            return rule
        if error.is_transient:
            return table.case(Case.FLAGGED_TRANSIENT)
    return table.by_status(exchange.status, complete=exchange.complete)


_THROTTLES = {
    ErrorClass.THROTTLE_PAIR,
    ErrorClass.THROTTLE_PHONE_NUMBER,
    ErrorClass.THROTTLE_WABA_OR_APP,
}


def _throttled(rule: Rule) -> Scope:
    if rule.error_class is ErrorClass.THROTTLE_PAIR:
        return Scope.RECIPIENT
    # A 429 without a known code is filed under throttle_waba_or_app, but the table bounds it to the number.
    if rule.error_class is ErrorClass.THROTTLE_PHONE_NUMBER or rule.scope == "phone_number":
        return Scope.SENDER
    return Scope.TENANT


def _least_delay(rule: Rule, fault: Fault) -> float:
    if rule.error_class is ErrorClass.THROTTLE_PAIR:
        return 0.0  # the pair's own steps begin at 6 s
    return SPAM_THROTTLE_DELAY if fault.code == SPAM_THROTTLE_CODE else THROTTLE_DELAY


def _fault(exchange: Exchange, rule: Rule) -> Fault:
    if not isinstance(exchange, Answer):
        return Fault(_one_line(exchange.cause), rule.error_class)
    error = exchange.error
    if error is None:
        broken = "" if exchange.complete else ", broken off"
        return Fault(f"HTTP {exchange.status}{broken}", rule.error_class, http_status=exchange.status)
    said = error.details or error.message or rule.title
    code = "no code" if error.code is None else f"{error.code}"
    return Fault(
        detail=_one_line(f"{code}: {said}"),
        error_class=rule.error_class,
        code=error.code,
        subcode=error.subcode,
        fbtrace_id=_one_line(error.fbtrace_id or "", _LONGEST_TRACE) or None,
        http_status=exchange.status,
        app_wide=rule.scope == "app",
    )


_LONGEST_DETAIL, _LONGEST_TRACE = 500, 100


def _one_line(text: str, length: int = _LONGEST_DETAIL) -> str:
    """Text from outside, fit for a header or a log field: one line of bounded length."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:length]
