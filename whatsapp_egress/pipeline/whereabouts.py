"""Where a message is, and what it waits for: for those who ask about a certain one."""

from __future__ import annotations

from enum import Enum

from attrs import frozen

from whatsapp_egress.message import Identity
from whatsapp_egress.pipeline.job import Job, Parcel
from whatsapp_egress.pipeline.lanes import Lanes
from whatsapp_egress.pipeline.recent import Ending, Recent
from whatsapp_egress.pipeline.road import Cause, WaitsFor
from whatsapp_egress.policy.verdict import Dead, Moved, Reason, Sent


class Where(str, Enum):
    """How far a message has come."""

    IN_FLIGHT = "in_flight"
    IN_HAND = "in_hand"
    SENT = "sent"
    DEAD_LETTERED = "dead_lettered"
    DEFERRED = "deferred"


@frozen
class Whereabouts:
    """What is known of one message.

    In hand it waits for something, behind `ahead` others of its conversation. One that was deferred waits for
    what its tenant's next message waits for. One that ended did so `at`, by
    the reactor's clock; it was sent (with a wamid, but for a mark as read), or dead-lettered for a reason.
    """

    identity: Identity
    where: Where
    attempts: int
    waits_for: WaitsFor | None = None
    ahead: int = 0
    at: float | None = None
    wamid: str | None = None
    reason: Reason | None = None


@frozen
class Tracker:
    """Looks through all that is in hand, and the endings that are remembered. It changes nothing."""

    _lanes: Lanes
    _recent: Recent

    def find(self, internal_id: str, tenant_id: str | None = None) -> list[Whereabouts]:
        """The messages of that name, of one tenant or of all: those in hand, then how they or others
        ended, the latest first. One that was deferred is told of only where nothing else is known of it."""

        def asked_for(identity: Identity) -> bool:
            return identity.internal_id == internal_id and tenant_id in (None, identity.tenant_id)

        found = [self._in_hand(parcel) for parcel in self._recent.in_hand() if asked_for(parcel.identity)]
        ended = sorted(
            (each for each in self._recent.endings() if asked_for(each[1].identity)),
            key=lambda each: each[0],
            reverse=True,
        )
        found += [self._ended(*each) for each in ended if not isinstance(each[1].verdict, Moved)]
        moved = {each[1].identity: each for each in reversed(ended) if isinstance(each[1].verdict, Moved)}
        known = {each.identity for each in found}
        found += [self._ended(*each) for identity, each in moved.items() if identity not in known]
        return found

    def _in_hand(self, parcel: Parcel) -> Whereabouts:
        position = self._lanes.position(parcel) if isinstance(parcel, Job) else None
        if position is None:
            # On its way out: to the dead-letter queue, or to a deferred one.
            return Whereabouts(parcel.identity, Where.IN_HAND, parcel.attempts, WaitsFor(Cause.BROKER))
        where = Where.IN_FLIGHT if position.waits_for is None else Where.IN_HAND
        return Whereabouts(parcel.identity, where, parcel.attempts, position.waits_for, position.ahead)

    def _ended(self, when: float, ending: Ending) -> Whereabouts:
        verdict, identity, attempts = ending.verdict, ending.identity, ending.attempts
        if isinstance(verdict, Sent):
            return Whereabouts(identity, Where.SENT, attempts, at=when, wamid=verdict.wamid)
        if isinstance(verdict, Dead):
            return Whereabouts(identity, Where.DEAD_LETTERED, attempts, at=when, reason=verdict.reason)
        waits_for = None if identity.tenant_id is None else self._lanes.waits_for(identity.tenant_id)
        return Whereabouts(identity, Where.DEFERRED, attempts, waits_for, at=when)
