"""What one tenant has in its deferred queues: when messages go there, when they come back, who looks after
it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredLock, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from whatsapp_egress.deferred import Lease, Place, write_lease
from whatsapp_egress.errors import QueueTrouble, Unpublished
from whatsapp_egress.pipeline.depths import Depths
from whatsapp_egress.pipeline.job import DeferredQueues, Delivery, Job
from whatsapp_egress.pipeline.lane import Lane
from whatsapp_egress.pipeline.leasehold import Leasehold
from whatsapp_egress.pipeline.observer import Observer
from whatsapp_egress.pipeline.outcome import Outcome
from whatsapp_egress.pipeline.recent import Recent
from whatsapp_egress.pipeline.store import Store
from whatsapp_egress.tasks import Tasks

log = Logger()

LINGER_SECONDS = 60.0
"""How long empty queues are kept, beyond DEFER_AFTER. A tenant that exceeded its lane once soon does again;
and a queue is deleted with what another worker may still hold of it, which it settles in that time."""

EMPTY_LOOKS = 2
"""Looks in a row that must find a queue empty: what one finds empty may have its last message on the way to
us."""

CHANGE = 0.25
"""Part of the prefetch by which it must be off before it is changed, for that takes two round trips."""


@frozen
class Backyard:
    """What all deferrals share. `writer` names this process in leases; `most_taken` says how many messages
    one tenant may have taken from its deferred queue at once, `linger` for how many seconds empty queues are
    kept."""

    queues: DeferredQueues
    outcome: Outcome
    recent: Recent
    tasks: Tasks
    observer: Observer
    clock: IReactorTime
    writer: str
    give_up: Callable[[Job], None]
    linger: float
    most_taken: Callable[[], int]


class Deferral:
    """The deferred queues of one tenant.

    While there is something in them the tenant is `behind`: its new messages queue up there, so that nothing
    is overtaken. `look` is called about once a second and does what is to be done: takes messages as the lane
    has room, puts aside what waits too long, and finds out when all is over.

    Only who holds a lease takes messages. Without one (another worker has it) the tenant is behind until its
    queues are empty. `first_over` says that there can be nothing in the first queue.
    """

    def __init__(
        self, lane: Lane, yard: Backyard, on_over: Callable[[Deferral], None], *, first_over: bool
    ) -> None:
        self.behind = True
        # When that began, by the clock.
        self.since = yard.clock.seconds()
        # Whose lease the tenant's pause came with; None where an operator paused it here.
        self.paused_by: str | None = None
        self.lease = Leasehold(self._write_lease, yard.clock)
        self._lane = lane
        self._yard = yard
        self._on_over = on_over
        # Whether nothing is left in the first queue, and the other's turn has come.
        self._first_over = first_over
        self._first_place, self._back_place = Place(self.tenant_id, first=True), Place(self.tenant_id)
        self._depths = Depths(yard.queues, yard.clock)
        self._first, self._back = self._store(self._first_place), self._store(self._back_place)
        self._declared = False
        self._preparing = DeferredLock()
        self._taking: dict[Place, int] = {}
        self._empty_looks: Counter[Place] = Counter()
        self._empty_since = 0.0
        self._looking = False
        self._stopped = False
        lane.kept = True
        yard.observer.deferring(self.tenant_id)

    @property
    def tenant_id(self) -> str:
        """Whose it is."""
        return self._lane.tenant_id

    @property
    def waiting(self) -> int:
        """How many messages wait in its queues, as was seen last, and on the way there."""
        return self._depths.total + len(self._first) + len(self._back)

    def put(self, job: Job) -> None:
        """Defer a message that came in."""
        self.fall_behind()
        self._back.put(job)

    def fall_behind(self) -> None:
        """There is something in its queues, or about to be."""
        if not self.behind:
            self.behind = True
            self.since = self._yard.clock.seconds()
            self._empty_looks.clear()
            self._yard.observer.deferring(self.tenant_id)

    def take_lease(self, delivery: Delivery) -> None:
        """A lease came."""
        self.lease.take(delivery)
        self.look()

    def rewrite_lease(self) -> None:
        """What the lease says has changed."""
        self.lease.changed()
        self._yard.tasks.own(self._rewrite())

    def cancelled(self, place: Place) -> None:
        """The broker delivers no more from there: its queue is gone."""
        self._taking.pop(place, None)
        self._declared = False

    def look(self) -> None:
        """Do what is to be done."""
        if not self._looking and not self._stopped:
            self._looking = True
            self._yard.tasks.own(self._look())

    def lost(self) -> None:
        """The channel that leases and deferred messages came on is gone; the broker delivers them again."""
        self.lease.lost()
        self._taking.clear()
        self._empty_looks.clear()

    def abandon(self) -> None:
        """Leave to the broker what can't be settled any more; it is delivered again."""
        self._first.abandon()
        self._back.abandon()

    def stop(self) -> Deferred[None]:
        """Defer nothing more; fires when what was being published is settled."""
        self._stopped = True
        return gatherResults([self._first.stop(), self._back.stop()]).addCallback(lambda _: None)

    # -- what is to be done ------------------------------------------------------------------------

    async def _look(self) -> None:
        try:
            await self._prepare()
            await self.lease.renew()
            if self._lane.outlook.has_overdue:
                await self._put_aside()
            await self._take()
            await self._find_out()
            if self.behind:
                await self._depths.count(self._first_place, self._back_place)
        except (QueueTrouble, Unpublished) as error:
            # The next look tries again; that there is no connection is told by the broker's client.
            log.debug("deferral_look_failed", tenantId=self.tenant_id, detail=str(error))
        finally:
            self._looking = False

    async def _prepare(self) -> None:
        """See to it that somebody holds a lease and the queues are there, before anything is deferred."""
        await self._preparing.run(lambda: Deferred.fromCoroutine(self._prepare_once()))

    async def _prepare_once(self) -> None:
        await self.lease.see_to()
        if not self._declared:
            await self._yard.queues.declare(self.tenant_id)
            self._declared = True

    async def _rewrite(self) -> None:
        try:
            await self._prepare()
        except (QueueTrouble, Unpublished) as error:
            # The next look tries again.
            log.error("lease_not_written", tenantId=self.tenant_id, detail=str(error))

    def _write_lease(self) -> Deferred[None]:
        lease = Lease(self.tenant_id, self._lane.standing.pause, self._yard.writer)
        return self._yard.queues.write_lease(write_lease(lease))

    async def _prepare_to_store(self, again: bool) -> None:
        if again:
            # A publish failed: the queues may be gone, and with them the lease that another worker held.
            self._declared = False
            self.lease.doubt()
        await self._prepare()

    async def _put_aside(self) -> None:
        """What waits too long goes back, whole conversations.

        Those that came directly go to the first queue, and only then is the rest put back to where it came
        from: in the meantime nothing is taken, or a message could overtake the ones before it.
        """
        self.fall_behind()
        await self._take_nothing()
        gone = self._lane.put_aside()
        for job in gone:
            if job.place is None:
                self._first.put(job)
        await self._first.emptied()
        for job in gone:
            if job.place is not None:
                self._yard.outcome.give_back(job)
        if any(job.place != self._back_place for job in gone):
            self._first_over = False
            self._empty_looks.clear()

    async def _take(self) -> None:
        """Have as many messages delivered as the lane wants: first from the first queue, then from the
        other."""
        wanted = self._wanted()
        if wanted == 0:
            await self._take_nothing()
            return
        if not self._first_over:
            await self._take_from(self._first_place, wanted)
            if await self._empty(self._first_place):
                self._first_over = True
                await self._stop_taking(self._first_place)
        if self._first_over:
            await self._take_from(self._back_place, wanted)

    def _wanted(self) -> int:
        if not self.lease.ours or self._stopped:
            return 0
        return min(self._lane.outlook.appetite, self._yard.most_taken())

    async def _take_from(self, place: Place, wanted: int) -> None:
        taking = self._taking.get(place, 0)
        if taking == wanted or (taking > 1 < wanted and abs(taking - wanted) <= CHANGE * taking):
            return
        self._taking[place] = wanted
        try:
            await self._yard.queues.consume(place, wanted)
        except QueueTrouble:
            self._taking.pop(place, None)
            raise

    async def _stop_taking(self, place: Place) -> None:
        if self._taking.pop(place, None) is not None:
            await self._yard.queues.cancel(place)

    async def _take_nothing(self) -> None:
        for place in (self._first_place, self._back_place):
            await self._stop_taking(place)

    # -- when it is over ---------------------------------------------------------------------------

    async def _find_out(self) -> None:
        if not self.behind:
            if self._yard.clock.seconds() - self._empty_since >= self._yard.linger:
                await self._remove()
        elif not self._over_here:
            self._empty_looks[self._back_place] = 0
        elif await self._all_empty() and self._over_here:
            self.behind = False
            self._empty_since = self._yard.clock.seconds()
            self._yard.observer.deferred_over(self.tenant_id)
            if not self.lease.ours and self._lane.standing.pause is None:
                self._on_over(self)  # the queues are another worker's to remove

    @property
    def _over_here(self) -> bool:
        """Whether nothing of it is in our hands, and nothing stands against taking messages directly."""
        lane = self._lane
        moving = len(self._first) or len(self._back)
        return not moving and not self._in_hand and not lane.outlook.must_defer

    @property
    def _in_hand(self) -> int:
        """Messages of its queues that are not acknowledged."""
        recent = self._yard.recent
        return recent.held(self._first_place) + recent.held(self._back_place)

    async def _all_empty(self) -> bool:
        if await self._depths.look(self._first_place):
            self._first_over = False
            return False
        return await self._empty(self._back_place)

    async def _empty(self, place: Place) -> bool:
        if await self._depths.look(place):
            self._empty_looks[place] = 0
            return False
        self._empty_looks[place] += 1
        return self._empty_looks[place] >= EMPTY_LOOKS

    async def _remove(self) -> None:
        """Delete the queues, and the lease after them. A queue that got a message meanwhile stays.

        What is in hand would go with the queue: RabbitMQ takes one for empty that has delivered all it has.
        """
        if self._lane.standing.pause is not None:
            return
        await self._take_nothing()
        if self.behind or self._in_hand:
            return
        self._declared = False
        for place in (self._first_place, self._back_place):
            if not await self._yard.queues.delete(place):
                self.fall_behind()
                return
        if not self.behind and self._lane.standing.pause is None:
            self.lease.let_go()
            self._on_over(self)

    def _store(self, place: Place) -> Store:
        yard = self._yard
        return Store(
            place,
            self._depths.publish,
            self._prepare_to_store,
            yard.outcome,
            yard.recent,
            yard.give_up,
            yard.clock,
        )
