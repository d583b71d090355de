"""All lanes: one per tenant that has something to send, and what each of them has deferred."""

from __future__ import annotations

from collections.abc import Iterator

from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from whatsapp_egress.deferred import InvalidLease, Place, read_lease
from whatsapp_egress.pipeline.deferral import Backyard, Deferral
from whatsapp_egress.pipeline.job import Delivery, Job
from whatsapp_egress.pipeline.lane import Lane
from whatsapp_egress.pipeline.outlook import Position
from whatsapp_egress.pipeline.road import Road, WaitsFor
from whatsapp_egress.pipeline.rounds import Rounds
from whatsapp_egress.pipeline.standing import Standing, Standings
from whatsapp_egress.policy.breaker import State
from whatsapp_egress.policy.pause import Pause

log = Logger()

APP_MEMORY = 10.0
"""Seconds within which two tenants must be throttled for the app's sake, for it to be the same app."""


@define
class Lanes:
    """Finds the lane of a job, makes it when there is none, and lets go of it when it is idle.

    What exceeds a lane, or must wait too long, is deferred.
    """

    _road: Road
    _yard: Backyard
    _standings: Standings
    _rounds: Rounds
    _lanes: dict[str, Lane] = field(factory=dict, init=False)
    _deferrals: dict[str, Deferral] = field(factory=dict, init=False)
    _app_throttled: dict[str, float] = field(factory=dict, init=False)
    _workers: int = field(default=1, init=False)
    _stopped: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._rounds.looks.append(self._look)

    def __len__(self) -> int:
        """How many tenants have a lane now."""
        return len(self._lanes)

    def __iter__(self) -> Iterator[Lane]:
        """The lanes that there are now."""
        return iter(self._lanes.values())

    def find(self, tenant_id: str) -> Lane | None:
        """The lane of a tenant, if it has one."""
        return self._lanes.get(tenant_id)

    def deferral(self, tenant_id: str) -> Deferral | None:
        """What the tenant has deferred, if anything."""
        return self._deferrals.get(tenant_id)

    def standing(self, tenant_id: str) -> Standing | None:
        """What is known of a tenant, if anything is."""
        return self._standings.find(tenant_id)

    def new_standing(self, tenant_id: str) -> Standing:
        """What a tenant begins with of which nothing is known."""
        return self._standings.new(tenant_id)

    @property
    def deferring(self) -> int:
        """How many tenants have deferred queues that we know of."""
        return len(self._deferrals)

    # -- messages ----------------------------------------------------------------------------------

    def offer(self, job: Job) -> None:
        """Hand `job` to its tenant's lane, or defer it; once stopped, leave it with the broker."""
        if self._stopped:
            self._road.give_up(job)
            return
        tenant_id = job.message.tenant_id
        deferral = self._deferrals.get(tenant_id)
        if job.place is not None:
            self._defer(tenant_id).fall_behind()
            self._lane(tenant_id).offer(job)
        elif deferral is not None and deferral.behind:
            deferral.put(job)
        elif (lane := self._lane(tenant_id)).full or lane.outlook.must_defer:
            self._defer(tenant_id).put(job)
        else:
            lane.offer(job)

    def abandon(self) -> None:
        """Deliveries can't be settled any more: forget what waits, for the broker delivers it again."""
        for deferral in list(self._deferrals.values()):
            deferral.abandon()
        for lane in list(self._lanes.values()):
            lane.abandon()

    # -- leases and deferred queues ----------------------------------------------------------------

    def lease(self, delivery: Delivery) -> None:
        """A lease came: its tenant's deferred queues are ours to look after."""
        if self._stopped:
            return
        try:
            lease = read_lease(delivery.body)
        except InvalidLease as error:
            log.error("lease_unreadable", detail=str(error), bytes=len(delivery.body))
            delivery.ack()  # it would come again for ever
            return
        tenant_id, known = lease.tenant_id, lease.tenant_id in self._deferrals
        deferral = self._defer(tenant_id, new=False)
        # Of what this process wrote itself it knows more than the lease, which may be an older one.
        news = not known or lease.writer != self._yard.writer
        standing = self._lane(tenant_id).standing
        if news and lease.pause is not None and not lease.pause.over(self._road.now()):
            standing.pause, deferral.paused_by = lease.pause, lease.writer
        elif news and lease.pause is None and deferral.paused_by == lease.writer:
            standing.pause = None  # a crash has left the lease before this one, too
        deferral.take_lease(delivery)

    def cancelled(self, place: Place) -> None:
        """The broker delivers no more from a deferred queue, for it is gone."""
        if deferral := self._deferrals.get(place.tenant_id):
            deferral.cancelled(place)

    def deferred_lost(self) -> None:
        """The channel of leases and deferred messages is gone; the broker delivers them again."""
        for deferral in list(self._deferrals.values()):
            deferral.lost()

    # -- changes from outside ----------------------------------------------------------------------

    def share(self, workers: int) -> None:
        """So many workers take from the queue: each has an equal part of every tenant's rate."""
        if workers == self._workers:
            return
        self._workers = workers
        for lane in list(self._lanes.values()):
            lane.share(workers)

    def app_throttled(self, tenant_id: str) -> None:
        """A throttle of the whole app hit the tenant. Two tenants in a row have the same app: all slow
        down."""
        now = self._road.clock.seconds()
        self._app_throttled[tenant_id] = now
        hit = {each: at for each, at in self._app_throttled.items() if now - at <= APP_MEMORY}
        self._app_throttled = hit
        if len(hit) == 1:
            return
        for lane in list(self._lanes.values()):
            if lane.tenant_id not in hit:
                lane.slow_down()
        # Those that were slowed down are not again when the next tenant tells of the same.
        self._app_throttled = dict.fromkeys(self._lanes, now)

    def road_changed(self, state: State) -> None:
        """The road's breaker changed: open, no tenant is to blame; half-open, one message finds out; closed,
        all begin with one."""
        if state is State.OPEN:
            self._standings.acquit()
        if state is State.CLOSED:
            for lane in list(self._lanes.values()):
                lane.resumed()
        self._road.turns.serve()

    # -- what operators do -------------------------------------------------------------------------

    def pause(self, tenant_id: str, pause: Pause) -> None:
        """Let the tenant's messages wait, over restarts too; what is in flight ends."""
        self._lane(tenant_id).standing.pause = pause
        self._road.observer.paused(tenant_id, pause)
        if deferral := self._deferrals.get(tenant_id):
            deferral.paused_by = None
            deferral.rewrite_lease()
        self._defer(tenant_id).look()

    def resume(self, tenant_id: str) -> bool:
        """Let the tenant go on, from one message up; False where it was not paused."""
        standing = self._standings.find(tenant_id)
        if standing is None or standing.pause is None:
            return False
        standing.pause = None
        self._road.observer.paused(tenant_id, None)
        self._lane(tenant_id).resumed()
        deferral = self._defer(tenant_id)
        deferral.rewrite_lease()
        deferral.look()
        return True

    def reset_breaker(self, tenant_id: str) -> bool:
        """Close the tenant's breaker and forget what was counted; it goes on, from one message up. False
        where it was closed and nothing was counted."""
        standing = self._standings.find(tenant_id)
        if standing is None or standing.breaker.pristine:
            return False
        standing.breaker.close()
        if deferral := self._deferrals.get(tenant_id):
            deferral.look()
        return True

    def position(self, job: Job) -> Position | None:
        """Where a message stands in its lane; None where it has left it."""
        lane = self._lanes.get(job.message.tenant_id)
        return None if lane is None else lane.outlook.position(job)

    def waits_for(self, tenant_id: str) -> WaitsFor | None:
        """What the tenant's next message waits for; None where none waits."""
        lane = self._lanes.get(tenant_id)
        return None if lane is None else lane.outlook.waits_for()

    # -- the end -----------------------------------------------------------------------------------

    def stop(self) -> Deferred[None]:
        """Start nothing more; fires when what was in flight, to Meta or to deferred queues, has ended."""
        self._stopped = True
        self._rounds.stop()
        self._standings.stop()
        for lane in list(self._lanes.values()):
            lane.stop()
        stored = [deferral.stop() for deferral in self._deferrals.values()]
        return gatherResults([self._road.tasks.done(), *stored]).addCallback(lambda _: None)

    def cut_short(self) -> None:
        """Break off what is in flight; its messages stay with the broker."""
        self._road.tasks.cancel()

    # -- housekeeping ------------------------------------------------------------------------------

    def _lane(self, tenant_id: str) -> Lane:
        lane = self._lanes.get(tenant_id)
        if lane is None:
            standing = self._standings.take(tenant_id)
            lane = self._lanes[tenant_id] = Lane(tenant_id, self._road, standing, self._workers, self._let_go)
            self._rounds.wake()
        return lane

    def _defer(self, tenant_id: str, *, new: bool = True) -> Deferral:
        """The deferral of a tenant. `new` says that nothing can be in its queues if we did not know of it."""
        deferral = self._deferrals.get(tenant_id)
        if deferral is None:
            deferral = Deferral(self._lane(tenant_id), self._yard, self._over, first_over=new)
            self._deferrals[tenant_id] = deferral
        return deferral

    def _over(self, deferral: Deferral) -> None:
        del self._deferrals[deferral.tenant_id]
        lane = self._lanes[deferral.tenant_id]
        lane.kept = False
        lane.pump()

    def _let_go(self, lane: Lane) -> None:
        if self._lanes.get(lane.tenant_id) is lane:
            del self._lanes[lane.tenant_id]
            self._standings.leave(lane.tenant_id)

    def _look(self) -> bool:
        now = self._road.now()
        for tenant_id, lane in list(self._lanes.items()):
            pause = lane.standing.pause
            if pause is not None and pause.over(now):
                self.resume(tenant_id)
            if tenant_id not in self._deferrals and lane.outlook.has_overdue:
                self._defer(tenant_id)
            lane.look_at_quota()
            lane.forget_over()
        for deferral in list(self._deferrals.values()):
            deferral.look()
        return bool(self._lanes)
