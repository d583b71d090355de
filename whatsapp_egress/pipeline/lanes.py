"""All lanes: one per tenant that has something to send."""

from __future__ import annotations

from functools import partial

from attrs import define, field
from twisted.internet.defer import Deferred

from whatsapp_egress.pipeline.job import Job
from whatsapp_egress.pipeline.lane import Lane, Road


@define
class Lanes:
    """Finds the lane of a job, makes it when there is none, and lets go of it when it is idle."""

    _road: Road
    _lanes: dict[str, Lane] = field(factory=dict, init=False)
    _stopped: bool = field(default=False, init=False)

    def __len__(self) -> int:
        """How many tenants have a lane now."""
        return len(self._lanes)

    def offer(self, job: Job) -> None:
        """Hand `job` to its tenant's lane; once stopped, leave it with the broker."""
        if self._stopped:
            self._road.give_up(job)
            return
        tenant_id = job.message.tenant_id
        lane = self._lanes.get(tenant_id)
        if lane is None:
            lane = self._lanes[tenant_id] = Lane(self._road, partial(self._let_go, tenant_id))
        lane.offer(job)

    def _let_go(self, tenant_id: str, lane: Lane) -> None:
        if self._lanes.get(tenant_id) is lane:
            del self._lanes[tenant_id]

    def learn(self, tenant_id: str, messages_per_second: float | None) -> None:
        """What the tenant's credentials say of its rate."""
        if lane := self._lanes.get(tenant_id):
            lane.learn(messages_per_second)

    def abandon(self) -> None:
        """The consuming connection was lost: forget what waits, for the broker delivers it again."""
        for lane in list(self._lanes.values()):
            lane.abandon()

    def stop(self) -> Deferred[None]:
        """Start nothing more; fires when what was in flight has ended."""
        self._stopped = True
        for lane in list(self._lanes.values()):
            lane.stop()
        return self._road.tasks.done()

    def cut_short(self) -> None:
        """Break off what is in flight; its messages stay with the broker."""
        self._road.tasks.cancel()
