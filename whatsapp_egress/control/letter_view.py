"""Dead letters, and errands about them, as people see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from attrs import asdict, frozen

from whatsapp_egress.clients.broker.letters import Letter
from whatsapp_egress.control.jobs import Foretold, Job, What
from whatsapp_egress.observe.times import iso
from whatsapp_egress.observe.values import Presenter
from whatsapp_egress.observe.words import Words
from whatsapp_egress.policy.replay import Forecast
from whatsapp_egress.policy.verdict import Fault, Reason

_BROKERS = {
    "broker_expired": ("Expired in the queue", "No gateway took it before its time there was over."),
    "broker_rejected": ("Rejected by a consumer", "Another program took it from the queue and refused it."),
    "broker_maxlen": ("Crowded out", "The queue in has a limit of its length, and was full."),
    "broker_delivery_limit": (
        "Delivered too often",
        "The queue in has a limit of deliveries; see docs/operations.md.",
    ),
}
"""What RabbitMQ dead-letters by itself."""

_MOVED = {What.REPLAY: "replayed", What.DROP: "dropped"}


@frozen
class ForecastView:
    """What would happen if it were replayed now."""

    would: str
    why: str


@frozen
class LetterView:
    """A dead letter; its age in seconds."""

    id: str
    tenantId: str | None
    phoneNumberId: str | None
    internalId: str | None
    reason: str
    detail: str
    errorCode: int | None
    errorSubcode: int | None
    httpStatus: int | None
    fbtraceId: str | None
    attempts: int
    failedAt: str | None
    ageSeconds: float | None
    replays: int
    title: str
    advice: str
    forecast: ForecastView


@frozen
class LetterReader:
    """Reads dead letters. `presenter` takes out what nobody is to see; `now` gives seconds since the
    epoch."""

    now: Callable[[], float]
    _words: Words
    _presenter: Presenter

    def view(self, letter: Letter, forecast: Forecast) -> LetterView:
        """All but its message."""
        facts = letter.facts
        title, advice = self._title(letter)
        age = facts.age(self.now())
        return LetterView(
            id=facts.id,
            tenantId=facts.tenant_id,
            phoneNumberId=facts.phone_number_id,
            internalId=facts.internal_id,
            reason=self._presenter.text(facts.reason),
            detail=self._presenter.text(facts.detail),
            errorCode=facts.error_code,
            errorSubcode=facts.error_subcode,
            httpStatus=facts.http_status,
            fbtraceId=facts.fbtrace_id,
            attempts=facts.attempts,
            failedAt=_moment(facts.failed_at),
            ageSeconds=None if age is None else round(max(0.0, age), 1),
            replays=facts.replays,
            title=title,
            advice=advice,
            forecast=ForecastView(forecast.would.value, forecast.why),
        )

    def whole(self, letter: Letter, forecast: Forecast) -> dict[str, Any]:
        """With its message and its headers, without secrets and, as in logs, phone numbers."""
        return {
            **asdict(self.view(letter, forecast)),
            "headers": self._presenter.field("headers", letter.properties.headers or {}),
            "body": self._body(letter.body),
        }

    def plan(self, what: What, actor: str, plan: Foretold) -> dict[str, Any]:
        """What an errand would come to."""
        look = plan.look
        return {
            "id": None,
            "state": "done",
            "actor": actor,
            "counted": plan.matching,
            _MOVED[what]: 0,
            "skipped": plan.skipped,
            "left": plan.matching - sum(plan.skipped.values()),
            "detail": "" if look.complete else f"only the first {look.looked} dead letters were looked at",
            "would": plan.would if what is What.REPLAY else {},
        }

    def job(self, job: Job) -> dict[str, Any]:
        """How far one is."""
        return {
            "id": job.id,
            "state": job.state.value,
            "actor": job.order.actor,
            "counted": job.counted,
            _MOVED[job.order.what]: job.moved,
            "skipped": job.skipped,
            "left": job.left,
            "detail": job.detail,
            "would": {},
        }

    def _title(self, letter: Letter) -> tuple[str, str]:
        facts = letter.facts
        if facts.reason in _BROKERS:
            return _BROKERS[facts.reason]
        reason = Reason(facts.reason) if facts.reason in _REASONS else None
        return self._words.of(Fault(facts.detail, None, facts.error_code, facts.error_subcode), reason)

    def _body(self, body: bytes) -> object:
        try:
            document = msgspec.json.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._presenter.field("body", body)
        if not isinstance(document, dict):
            return self._presenter.field("body", document)
        return {str(name): self._presenter.field(str(name), value) for name, value in document.items()}


_REASONS = frozenset(reason.value for reason in Reason)


def _moment(seconds: float | None) -> str | None:
    """What a header says may be no moment that a calendar has."""
    try:
        return iso(seconds)
    except (ValueError, OverflowError, OSError):
        return None
