"""Replays and drops of dead letters as jobs: one at a time, counted before anything is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from uuid import uuid4

from attrs import asdict, define, field
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from whatsapp_egress.clients.broker.dead_letters import DeadLetterQueue
from whatsapp_egress.clients.broker.delivery import shielded
from whatsapp_egress.clients.broker.letters import Letter
from whatsapp_egress.clients.broker.looking import Look
from whatsapp_egress.clients.broker.replaying import Work
from whatsapp_egress.control.jobs import CountChanged, Foretold, Job, Order, State, What
from whatsapp_egress.errors import QueueTrouble, ReplayUnderWay, Unpublished
from whatsapp_egress.policy.replay import Circumstances, Filter, Forecast, Hold, forecast, held_back
from whatsapp_egress.policy.table import ErrorTable
from whatsapp_egress.tasks import Tasks

log = Logger()

KEPT_JOBS = 20
"""Jobs that are remembered."""

END_SECONDS = 5.0
"""How long the end of the service waits for a job to stop between two messages."""


@define(eq=False)
class Replays:
    """Runs orders and remembers the last ones.

    `hold` tells whether a tenant waits; `sent` what was sent of late: tenant id and internal id, and how many
    seconds ago.
    `now` gives seconds since the epoch.
    """

    _queue: DeadLetterQueue
    _table: ErrorTable
    _hold: Callable[[str], Hold | None]
    _sent: Callable[[], Mapping[tuple[str, str], float]]
    _clock: IReactorTime
    _now: Callable[[], float]
    _jobs: dict[str, Job] = field(factory=dict, init=False)
    _running: Tasks = field(factory=Tasks, init=False)
    _ending: bool = field(default=False, init=False)

    @property
    def jobs(self) -> list[Job]:
        """The last ones, the newest first."""
        return list(reversed(self._jobs.values()))

    def job(self, job_id: str) -> Job | None:
        """One of the last."""
        return self._jobs.get(job_id)

    async def browse(self, visit: Callable[[Letter, Forecast], None]) -> Look:
        """Hand each dead letter to `visit`, the oldest first, with what would happen if it were replayed now.

        Raises `QueueTrouble`.
        """
        known = self._circumstances()
        return await self._queue.browse(lambda letter: visit(letter, forecast(letter.facts, known)))

    async def foretell(self, wanted: Filter, *, force: bool = False) -> Foretold:
        """Count what a replay of these would come to, and do nothing. Raises `QueueTrouble`."""
        count = _Count(wanted, self._circumstances(), force)
        look = await self._queue.browse(count.visit)
        return Foretold(look, count.matching, dict(count.would), dict(count.skipped))

    async def start(self, order: Order) -> Job:
        """Count, and begin if there are as many as expected; the job that is returned runs.

        Raises `CountChanged`, `ReplayUnderWay` or `QueueTrouble`, and nothing was done. Who gives up waiting
        does not end it.
        """
        return await shielded(Deferred.fromCoroutine(self._start(order)))

    async def _start(self, order: Order) -> Job:
        if self._ending:
            raise ReplayUnderWay("the service is ending")
        if any(not job.over for job in self._jobs.values()):
            raise ReplayUnderWay("dead letters are being replayed or dropped: wait for its end, or stop it")
        job = self._remember(Job(uuid4().hex, order, self._now()))
        try:
            work = await self._queue.begin()
        except BaseException as error:
            self._over(job, State.FAILED, str(error))
            raise
        try:
            wanted = await self._count(job, work)
        except BaseException as error:
            await self._end(work)
            self._over(job, State.FAILED, str(error))
            raise
        job.state = State.RUNNING
        self._running.own(self._run(job, work, wanted))
        return job

    def stop(self, job_id: str) -> Job | None:
        """Have a job stop before its next message; None where nobody knows it."""
        job = self._jobs.get(job_id)
        if job is not None:
            job.stopping = True
        return job

    async def end(self) -> None:
        """The service ends: so does what is under way."""
        self._ending = True
        for job in self._jobs.values():
            job.stopping = True
        try:
            await self._running.done().addTimeout(END_SECONDS, self._clock)
        except TimeoutError:
            self._queue.cut_short()
            await self._running.done()
        self._queue.cut_short()  # somebody may look, or count

    def _circumstances(self) -> Circumstances:
        now = self._now()
        sent = {ids: now - ago for ids, ago in self._sent().items()}
        return Circumstances(now, self._table, self._hold, sent)

    async def _count(self, job: Job, work: Work) -> Counter[str]:
        order = job.order
        count = _Count(order.filter, self._circumstances(), order.force or order.what is What.DROP)
        look = await work.look(count.visit)
        job.counted, job.skipped, job.left = count.matching, dict(count.skipped), count.wanted.total()
        if job.counted != order.expected:
            raise CountChanged(order.expected, job.counted)
        if not look.complete:
            job.detail = f"only the first {look.looked} dead letters were looked at"
        return count.wanted

    async def _run(self, job: Job, work: Work, wanted: Counter[str]) -> None:
        def moved(_letter_id: str) -> None:
            job.moved += 1
            job.left -= 1

        state, detail = State.DONE, job.detail
        try:
            if job.order.what is What.REPLAY:
                await work.replay(wanted, job.order.rate, moved, lambda: job.stopping)
            else:
                await work.drop(wanted, moved, lambda: job.stopping)
        except (Unpublished, QueueTrouble) as error:
            state, detail = State.FAILED, str(error)
        except Exception as error:  # noqa: BLE001 - a fault of ours; the job is over all the same
            log.failure("dead_letters_failed", job=job.id)
            state, detail = State.FAILED, f"a fault of the gateway's ({type(error).__name__})"
        if state is State.DONE and job.left:
            if job.stopping:
                state = State.STOPPED
            else:
                detail = f"{job.left} were not in the queue any more"
        await self._end(work)
        self._over(job, state, detail)

    async def _end(self, work: Work) -> None:
        try:
            await self._queue.end(work)
        except QueueTrouble as error:
            log.warn("dead_letters_notes_left", detail=str(error))

    def _remember(self, job: Job) -> Job:
        self._jobs[job.id] = job
        if len(self._jobs) > KEPT_JOBS:
            del self._jobs[next(iter(self._jobs))]
        order = job.order
        log.info(
            "dead_letters_began",
            job=job.id,
            what=order.what.value,
            actor=order.actor,
            filter=asdict(order.filter, filter=lambda _, value: value is not None),
            expected=order.expected,
            rate=order.rate,
            force=order.force,
        )
        return job

    def _over(self, job: Job, state: State, detail: str) -> None:
        job.state, job.detail, job.ended = state, detail, self._now()
        log.info(
            "dead_letters_ended",
            job=job.id,
            what=job.order.what.value,
            actor=job.order.actor,
            state=state.value,
            counted=job.counted,
            moved=job.moved,
            skipped=job.skipped,
            left=job.left,
            detail=detail,
            duration=round(1000 * (job.ended - job.began)),
        )


@define(eq=False)
class _Count:
    """Which of the letters that are seen are meant, and which of those are to be moved."""

    _filter: Filter
    _known: Circumstances
    _force: bool
    matching: int = 0
    wanted: Counter[str] = field(factory=Counter, init=False)
    would: Counter[str] = field(factory=Counter, init=False)
    skipped: Counter[str] = field(factory=Counter, init=False)

    def visit(self, letter: Letter) -> None:
        """One that is in the queue."""
        facts = letter.facts
        if not self._filter.takes(facts, self._known.now):
            return
        self.matching += 1
        foretold = forecast(facts, self._known)
        self.would[foretold.would.value] += 1
        why = held_back(facts, foretold, force=self._force)
        if why is None:
            self.wanted[facts.id] += 1
        else:
            self.skipped[why] += 1
