"""What the messages of a lane wait for, and what follows from it for those that are deferred."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from attrs import define, frozen

from whatsapp_egress.pipeline.holds import Holds
from whatsapp_egress.pipeline.job import Job
from whatsapp_egress.pipeline.road import Cause, Road, WaitsFor
from whatsapp_egress.pipeline.rounds import LOOK_SECONDS
from whatsapp_egress.pipeline.sender import Sender
from whatsapp_egress.pipeline.standing import Standing
from whatsapp_egress.policy.breaker import State
from whatsapp_egress.policy.gate import Gate
from whatsapp_egress.policy.ramp import Ramp

FOR_EVER = float("inf")

AHEAD = 0.25
"""Share of DEFER_AFTER that the messages taken from a deferred queue at once are worth at the tenant's
rate."""

NOT_WORTH = 10.0
"""Seconds of waiting for which messages that were taken from a deferred queue are not put back into it."""


@frozen
class Position:
    """Where a message stands: so many of its conversation go before it, and this it waits for; None while it
    is in flight."""

    ahead: int
    waits_for: WaitsFor | None


@define(eq=False)
class Outlook:
    """Reads the parts of a lane and changes none. The lane tells it why its gate is shut, which message asks
    for credentials, and how many workers share the tenant's rate."""

    _road: Road
    _standing: Standing
    _senders: dict[str, Sender]
    _holds: Holds
    _gate: Gate
    _ramp: Ramp
    workers: int
    gate_cause: Cause = Cause.THROTTLE
    asker: Job | None = None

    @property
    def looking_up(self) -> bool:
        """Whether it asks for credentials."""
        return self.asker is not None

    @property
    def shut(self) -> bool:
        """Whether nothing of the tenant goes now, but for what a throttled number alone holds back."""
        standing = self._standing
        quota = standing.quota
        return (
            self._gate.shut
            or standing.pause is not None
            or standing.breaker.until is not None
            or (quota is not None and not quota.allows())
        )

    @property
    def shut_until(self) -> float | None:
        """Until when nothing of the tenant goes, by the reactor's clock; None when something may."""
        shut = self._shut()
        return None if shut is None else shut[0]

    def waits_for(self) -> WaitsFor | None:
        """What the next message waits for, and until when; None when there is none, or it is on its way."""
        if shut := self._shut():
            until, cause = shut
            return WaitsFor(cause, None if until == FOR_EVER else until)
        if self.looking_up:
            return WaitsFor(Cause.CREDENTIALS)
        waiting = [sender for sender in self._senders.values() if sender.order.peek() is not None]
        if not waiting:
            held = self._holds.first
            return None if held is None else WaitsFor(Cause.RECIPIENT, held)
        if not self._standing.breaker.allows():
            return WaitsFor(Cause.BREAKER)  # one finds out
        going = [sender for sender in waiting if not sender.gate.shut]
        if not going:
            opens = (sender.gate.opens_at for sender in waiting)
            return WaitsFor(Cause.THROTTLE, min(each for each in opens if each is not None))
        if all(sender.bucket.available < 1 for sender in going):
            soonest = min(sender.bucket.next_in for sender in going)
            return WaitsFor(Cause.TOKEN, self._road.clock.seconds() + soonest)
        if self._road.turns.breaker.state is not State.CLOSED:
            return WaitsFor(Cause.ROAD, self._road.turns.breaker.until)
        return WaitsFor(Cause.TURN)

    def position(self, job: Job) -> Position | None:
        """Where one message stands; None where it has left the lane."""
        sender = self._senders.get(job.message.phone_number_id)
        before = None if sender is None else sender.order.before(job)
        if sender is None or before is None:
            return None
        first = before[0] if before else job
        if first.busy and first is not self.asker:
            return Position(len(before), WaitsFor(Cause.CONVERSATION) if before else None)
        return Position(len(before), self._stopped_by(sender, first))

    def _stopped_by(self, sender: Sender, job: Job) -> WaitsFor:
        """What the first message of a conversation waits for, where it is not in flight."""
        if shut := self._shut_for(sender, job):
            until, cause = shut
            return WaitsFor(cause, None if until == FOR_EVER else until)
        if self.looking_up:
            return WaitsFor(Cause.CREDENTIALS)
        if not self._standing.breaker.allows():
            return WaitsFor(Cause.BREAKER)  # one finds out
        if sender.bucket.available < 1:
            return WaitsFor(Cause.TOKEN, self._road.clock.seconds() + sender.bucket.next_in)
        if self._road.turns.breaker.state is not State.CLOSED:
            return WaitsFor(Cause.ROAD)  # one finds out
        return WaitsFor(Cause.TURN)

    def _shut_for(self, sender: Sender, job: Job) -> tuple[float, Cause] | None:
        """What has an end and stops this message: the one of them that ends last."""
        shut = self._whole_shut()
        if sender.gate.opens_at is not None:
            shut.append((sender.gate.opens_at, Cause.THROTTLE))
        if (road := self._road.turns.breaker.until) is not None:
            shut.append((road, Cause.ROAD))
        if (held := self._holds.until(job)) is not None:
            shut.append((held, Cause.RECIPIENT if job.pair_throttles else Cause.RETRY))
        return max(shut, key=lambda each: each[0], default=None)

    def _shut(self) -> tuple[float, Cause] | None:
        """Until when nothing goes, and why; None where something may."""
        shut = self._whole_shut()
        # A number that holds nothing now counts too: what it held may have been deferred for its throttle.
        opens = [
            sender.gate.opens_at for sender in self._senders.values() if sender.order or sender.gate.shut
        ]
        if opens and all(each is not None for each in opens):
            shut.append((min(each for each in opens if each is not None), Cause.THROTTLE))
        return max(shut, key=lambda each: each[0], default=None)

    def _whole_shut(self) -> list[tuple[float, Cause]]:
        """What concerns the whole tenant, and until when."""
        clock, standing = self._road.clock, self._standing
        shut: list[tuple[float, Cause]] = []
        if standing.pause is not None:
            until = standing.pause.until
            rest = FOR_EVER if until is None else until - self._road.now()
            shut.append((clock.seconds() + rest, Cause.PAUSE))
        if standing.breaker.until is not None:
            shut.append((standing.breaker.until, Cause.BREAKER))
        if self._gate.opens_at is not None:
            shut.append((self._gate.opens_at, self.gate_cause))
        if standing.quota is not None and (opens_at := standing.quota.opens_at()) is not None:
            shut.append((opens_at, Cause.DAY))
        return shut

    @property
    def must_defer(self) -> bool:
        """Whether what comes now has to wait longer than DEFER_AFTER."""
        until = self.shut_until
        return until is not None and until - self._road.clock.seconds() > self._road.pace.defer_after

    @property
    def appetite(self) -> int:
        """How many messages of its deferred queues it wants in hand."""
        direct = sum(job.place is None for sender in self._senders.values() for job in sender.order)
        return max(0, min(self._worth, self._road.pace.most_active - direct))

    @property
    def _worth(self) -> int:
        """How many it can make use of."""
        pace, now = self._road.pace, self._road.clock.seconds()
        until = self.shut_until
        if until is not None and until - now > min(NOT_WORTH, pace.defer_after):
            return 0
        cautious = not self._ramp.full and self._ramp.limit == 1
        if cautious or self._standing.breaker.state is not State.CLOSED:
            return 1
        if self._road.turns.breaker.state is not State.CLOSED:
            return 1
        rates = [sender.bucket.rate for sender in self._senders.values()] or [
            self._standing.limit / self.workers
        ]
        return max(1, ceil(sum(rates) * pace.defer_after * AHEAD))

    def too_old(self, job: Job) -> bool:
        """Whether it is in hand for longer than DEFER_AFTER already."""
        return self._road.clock.seconds() - job.received > self._road.pace.defer_after

    def overdue(self) -> Callable[[list[Job]], bool]:
        """Tells which conversations must be put aside, as things are now: no delivery is held longer than
        DEFER_AFTER and one exchange. The next round may be a second away."""
        oldest = self._road.clock.seconds() - max(0.0, self._road.pace.defer_after - LOOK_SECONDS)
        whole = self.must_defer

        def overdue(jobs: list[Job]) -> bool:
            # What is under way ends first, and its conversation waits for it.
            return not jobs[0].busy and (whole or any(job.received <= oldest for job in jobs))

        return overdue

    @property
    def has_overdue(self) -> bool:
        """Whether some must be put aside."""
        overdue = self.overdue()
        return any(
            overdue(jobs) for sender in self._senders.values() for jobs in sender.order.conversations()
        )
