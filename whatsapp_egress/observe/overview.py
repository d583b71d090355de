"""How everything is now: what the page, the control API and the gauges show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from attrs import frozen

from whatsapp_egress import __version__
from whatsapp_egress.observe.chronicle import Chronicle, DeadLetter
from whatsapp_egress.observe.health import Checks, Health
from whatsapp_egress.observe.lane_view import LaneReader, LaneView
from whatsapp_egress.observe.pulse import Pulse
from whatsapp_egress.observe.times import Times, iso
from whatsapp_egress.observe.words import Words
from whatsapp_egress.pipeline.backpressure import Backpressure
from whatsapp_egress.pipeline.lanes import Lanes
from whatsapp_egress.pipeline.recent import Recent
from whatsapp_egress.pipeline.turns import Turns

MOST_LANES = 200
"""Lanes shown at once, those in most trouble first: a page with more is read by nobody."""


@frozen
class Totals:
    """Sums over all lanes; ages and lag in seconds."""

    sentLastMinute: int
    failedLastMinute: int
    errorRate: float
    inFlight: int
    window: int
    active: int
    deferred: int
    lanes: int
    queueDepth: int | None
    deadLetterDepth: int | None
    oldestSeconds: float | None
    heldBytes: int
    fairness: float
    loopLag: float


@frozen
class RoadBreaker:
    """The breaker of the road that all tenants share."""

    state: str
    until: str | None


@frozen
class DeadLetterView:
    """A message that was dead-lettered, with what to do about it."""

    at: str | None
    tenantId: str | None
    internalId: str | None
    phoneNumberId: str | None
    reason: str
    code: int | None
    title: str
    detail: str
    advice: str
    attempts: int


@frozen
class Snapshot:
    """Everything at one moment."""

    version: str
    startedAt: str | None
    uptime: float
    status: str
    checks: Checks
    totals: Totals
    backpressure: list[str]
    roadBreaker: RoadBreaker
    lanes: list[LaneView]
    lanesLeftOut: int
    deadLetters: list[DeadLetterView]


@frozen
class Overview:
    """Reads the parts and changes none. `started` is by the reactor's clock; `redact` takes known secrets out
    of a text."""

    times: Times
    started: float
    lanes: Lanes
    turns: Turns
    recent: Recent
    backpressure: Backpressure
    chronicle: Chronicle
    health: Health
    pulse: Pulse
    words: Words
    reader: LaneReader
    redact: Callable[[str], str]

    def json(self, document: object) -> bytes:
        """JSON of any record here. What is known as a secret is taken out, wherever it may have got in."""
        return self.redact(msgspec.json.encode(document).decode()).encode()

    def view(self) -> list[LaneView]:
        """All lanes, and tenants that were served in the last minute; those in most trouble first.

        A lane ends with its last message: of a tenant that sends a few a second it is mostly not there, and a
        tenant whose messages all fail at once has hardly ever one.
        """
        views = [self.reader.view(lane) for lane in self.lanes]
        quiet = [tenant for tenant, _ in self.chronicle.busy() if self.lanes.find(tenant) is None]
        return sorted((*views, *map(self.lane_or_idle, quiet)), key=lambda view: -view.trouble)

    def lane(self, tenant_id: str) -> LaneView | None:
        """The lane of one tenant; None where nothing of it is in hand, and nothing is known."""
        lane = self.lanes.find(tenant_id)
        if lane is not None:
            return self.reader.view(lane)
        standing = self.lanes.standing(tenant_id)
        return None if standing is None else self.reader.view_idle(tenant_id, standing)

    def lane_or_idle(self, tenant_id: str) -> LaneView:
        """The lane of one tenant, or what it would begin with."""
        view = self.lane(tenant_id)
        return view or self.reader.view_idle(tenant_id, self.lanes.new_standing(tenant_id))

    def now(self) -> Snapshot:
        """Everything as it is now."""
        views, checks = self.view(), self.health.checks()
        breaker = self.turns.breaker
        return Snapshot(
            version=__version__,
            startedAt=self.times.at(self.started),
            uptime=round(self.times.since(self.started), 1),
            status=checks.status,
            checks=checks,
            totals=self.totals(views),
            backpressure=self.backpressure.reasons,
            roadBreaker=RoadBreaker(breaker.state.value, self.times.at(breaker.until)),
            lanes=views[:MOST_LANES],
            lanesLeftOut=max(0, len(views) - MOST_LANES),
            deadLetters=[self._dead_letter(each) for each in self.chronicle.dead_letters],
        )

    def health_document(self) -> dict[str, Any]:
        """What `GET /health` answers (contract)."""
        checks = self.health.checks()
        sent, failed = self.chronicle.last_minute()
        return {
            "status": checks.status,
            "version": __version__,
            "uptime": round(self.times.since(self.started), 1),
            "checks": checks,
            "metrics": {
                "messagesProcessedLast1Min": sent + failed,
                "errorRateLast1Min": _share(failed, sent + failed),
                "queueDepth": self.health.queue_depth,
            },
        }

    def totals(self, views: list[LaneView]) -> Totals:
        """Sums over the `views` of all lanes."""
        sent, failed = self.chronicle.last_minute()
        return Totals(
            sentLastMinute=sent,
            failedLastMinute=failed,
            errorRate=_share(failed, sent + failed),
            inFlight=self.turns.taken,
            window=self.turns.window.limit,
            active=len(self.recent),
            deferred=sum(view.deferred for view in views),
            lanes=len(views),
            queueDepth=self.health.queue_depth,
            deadLetterDepth=self.health.dead_letter_depth,
            oldestSeconds=oldest(views),
            heldBytes=self.recent.bytes,
            fairness=round(self.pulse.fairness, 3),
            loopLag=round(self.pulse.lag, 4),
        )

    def _dead_letter(self, letter: DeadLetter) -> DeadLetterView:
        fault, identity = letter.dead.fault, letter.identity
        title, advice = self.words.of(fault, letter.dead.reason)
        return DeadLetterView(
            at=iso(letter.at),
            tenantId=identity.tenant_id,
            internalId=identity.internal_id,
            phoneNumberId=identity.phone_number_id,
            reason=letter.dead.reason.value,
            code=fault.code if fault else None,
            title=title,
            detail=self.reader.show(letter.dead.detail),
            advice=advice,
            attempts=letter.attempts,
        )


def oldest(views: Iterable[LaneView]) -> float | None:
    """Age in seconds of the oldest message that waits; None where none does."""
    return max((view.oldestSeconds for view in views if view.oldestSeconds is not None), default=None)


def _share(part: int, whole: int) -> float:
    return round(part / whole, 4) if whole else 0.0
