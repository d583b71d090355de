"""Moves a tenant's messages into one of its deferred queues, in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from whatsapp_egress import deferred
from whatsapp_egress.deferred import Place
from whatsapp_egress.errors import QueueTrouble, Unpublished
from whatsapp_egress.pipeline.job import Delivery, Job
from whatsapp_egress.pipeline.outcome import Outcome
from whatsapp_egress.pipeline.recent import Recent, digest
from whatsapp_egress.tasks import Tasks

log = Logger()

AGAIN_SECONDS = 1.0
"""Before the queue is prepared again, and what failed is published again."""


Publish = Callable[[Place, Delivery, dict[str, Any]], Deferred[None]]
"""Publishes a copy of a delivery into a deferred queue, as `DeferredQueues` does."""


class Store:
    """Publishes what it is given without waiting for the confirm of the one before, and settles each when its
    own has come.

    When a publish fails nothing more is begun until those under way have ended; then what failed goes again,
    in its old order and before the rest. `prepare` sees to it that the queue is there (the argument says
    whether a publish has failed since), and fails with `Unpublished` or `QueueTrouble`. `give_up` leaves a
    message with the broker.
    """

    def __init__(
        self,
        place: Place,
        publish: Publish,
        prepare: Callable[[bool], Coroutine[Deferred[Any], Any, None]],
        outcome: Outcome,
        recent: Recent,
        give_up: Callable[[Job], None],
        clock: IReactorTime,
    ) -> None:
        self._place = place
        self._publish_copy = publish
        self._prepare = prepare
        self._outcome = outcome
        self._recent = recent
        self._give_up = give_up
        self._clock = clock
        self._waiting: deque[Job] = deque()
        # In the order in which they were published: those under way, and those that failed meanwhile.
        self._begun: dict[int, Job] = {}
        self._under_way = 0
        self._ready = False
        self._again = False
        self._stopped = False
        self._preparing = Tasks()
        self._resting: Deferred[None] | None = None
        self._idle: list[Deferred[None]] = []

    def __len__(self) -> int:
        """How many messages are not in the queue for sure."""
        return len(self._waiting) + len(self._begun)

    def put(self, job: Job) -> None:
        """Move `job` to the end of the queue, and settle it; once stopped, leave it with the broker."""
        if self._stopped:
            self._give_up(job)
            return
        if not job.delivery.redelivered:
            self._recent.one_more(digest(job.delivery.body, self._place))
        self._waiting.append(job)
        self._go_on()

    def emptied(self) -> Deferred[None]:
        """Fires when all it was given is settled, or left with the broker."""
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        self._tell()
        return idle

    def abandon(self) -> None:
        """Leave to the broker what can't be settled any more; it is delivered again."""
        gone = [job for job in self._waiting if not job.alive]
        self._waiting = deque(job for job in self._waiting if job.alive)
        for job in gone:
            self._give_up(job)
        self._tell()

    def stop(self) -> Deferred[None]:
        """Publish nothing more; fires when what is under way has been settled."""
        self._stopped = True
        # Only a pause: what the broker was asked for is not cancelled, pika would answer it all the same.
        if self._resting is not None:
            self._resting.cancel()
        waiting, self._waiting = self._waiting, deque()
        for job in waiting:
            self._give_up(job)
        return self.emptied()

    def _go_on(self) -> None:
        if not self._ready:
            if not self._preparing and not self._under_way:
                self._preparing.own(self._get_ready())
            return
        while self._ready and self._waiting:
            self._publish(self._waiting.popleft())
        self._tell()

    async def _get_ready(self) -> None:
        told = False
        while not self._ready:
            again, self._again = self._again, False
            try:
                await self._prepare(again)
                self._ready = True
            except (QueueTrouble, Unpublished) as error:
                if self._stopped:
                    return
                if not told:
                    log.error("deferral_failed", tenantId=self._place.tenant_id, detail=str(error))
                told = True
                await self._rest()
        self._go_on()

    async def _rest(self) -> None:
        self._resting = deferLater(self._clock, AGAIN_SECONDS)
        await self._resting

    def _publish(self, job: Job) -> None:
        if not job.alive:
            self._give_up(job)
            return
        # What the broker delivered before may have been deferred before.
        doubtful = job.delivery.redelivered
        if doubtful and self._recent.doubt(digest(job.delivery.body, self._place)):
            self._outcome.moved(job)
            return
        self._begun[id(job)] = job
        self._under_way += 1
        publishing = self._publish_copy(self._place, job.delivery, deferred.headers(job.history, job.span))
        publishing.addCallbacks(self._confirmed, self._failed, callbackArgs=(job,))
        publishing.addErrback(_log_fault)

    def _confirmed(self, _: None, job: Job) -> None:
        del self._begun[id(job)]
        try:
            self._outcome.moved(job)
        finally:
            self._ended()

    def _failed(self, failure: Failure) -> None:
        if self._ready and not self._stopped:
            log.error("deferral_failed", tenantId=self._place.tenant_id, detail=failure.getErrorMessage())
        self._ready, self._again = False, True
        self._ended()

    def _ended(self) -> None:
        self._under_way -= 1
        if self._under_way == 0:
            self._take_back()
        self._tell()

    def _take_back(self) -> None:
        """Nothing is under way: what failed goes again before the rest, if it is still ours to settle."""
        failed = list(self._begun.values())
        self._begun.clear()
        for job in reversed(failed):
            if self._stopped or not job.alive:
                self._give_up(job)
            elif self._recent.doubt(digest(job.delivery.body, self._place)):
                self._outcome.moved(job)
            else:
                self._waiting.appendleft(job)
        if failed and not self._stopped:
            self._preparing.own(self._try_again())

    async def _try_again(self) -> None:
        await self._rest()
        await self._get_ready()

    def _tell(self) -> None:
        if self._waiting or self._begun:
            return
        idle, self._idle = self._idle, []
        for one in idle:
            one.callback(None)


def _log_fault(failure: Failure) -> None:
    log.failure("deferral_fault", failure)
