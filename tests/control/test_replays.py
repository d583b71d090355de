"""Orders are counted before anything is done, run one at a time, and tell how far they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, field
from pika import BasicProperties
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.policy.meta import TABLE
from whatsapp_egress.clients.broker.letters import Letter
from whatsapp_egress.clients.broker.looking import Look
from whatsapp_egress.control import replays as module
from whatsapp_egress.control.jobs import CountChanged, Job, Order, State, What
from whatsapp_egress.control.replays import END_SECONDS, Replays
from whatsapp_egress.errors import QueueTrouble, ReplayUnderWay, Unpublished
from whatsapp_egress.policy.replay import DeadLetter, Filter

Visit = Callable[[Letter], None]


def letters(*ids: str, **facts: Any) -> list[Letter]:
    return [Letter(DeadLetter(each, "expired", **facts), b"", BasicProperties()) for each in ids]


@define(eq=False)
class FakeWork:
    """Does what it is told when `going` fires, message by message."""

    queue: FakeQueue
    calls: list[tuple[str, Counter[str], float | None]] = field(factory=list)
    moved: Callable[[str], None] = field(default=lambda _id: None)
    stopping: Callable[[], bool] = field(default=lambda: False)

    async def look(self, visit: Visit) -> Look:
        return await self.queue.browse(visit)

    async def replay(self, wanted: Counter[str], rate: float, moved: Any, stopping: Any) -> None:
        self.calls.append(("replay", wanted, rate))
        self.moved, self.stopping = moved, stopping
        self.queue.waited_for = True
        await self.queue.going

    async def drop(self, wanted: Counter[str], moved: Any, stopping: Any) -> None:
        self.calls.append(("drop", wanted, None))
        self.moved, self.stopping = moved, stopping
        self.queue.waited_for = True
        await self.queue.going


@define(eq=False)
class FakeQueue:
    letters: list[Letter]
    complete: bool = True
    beginning: Deferred[None] = field(factory=lambda: succeed(None))
    looking: Deferred[None] = field(factory=lambda: succeed(None))
    going: Deferred[None] = field(factory=Deferred)
    end_trouble: Exception | None = None
    cuts: int = 0
    waited_for: bool = False
    work: FakeWork = field(init=False)
    ended: list[FakeWork] = field(factory=list)

    async def browse(self, visit: Visit) -> Look:
        await self.looking
        for letter in self.letters:
            visit(letter)
        return Look(len(self.letters), len(self.letters), self.complete, frozenset())

    async def begin(self) -> FakeWork:
        await self.beginning
        self.work = FakeWork(self)
        return self.work

    async def end(self, work: FakeWork) -> None:
        self.ended.append(work)
        if self.end_trouble is not None:
            raise self.end_trouble

    def cut_short(self) -> None:
        self.cuts += 1
        if self.waited_for and not self.going.called:
            self.going.errback(QueueTrouble("cut short"))


class ReplaysTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.queue = FakeQueue(letters("a", "b", "b", "c"))
        queue: Any = self.queue
        self.replays = Replays(
            queue, TABLE, lambda _tenant: None, dict, self.clock, lambda: 1000 + self.clock.seconds()
        )
        self.log: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.log.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.log.append)

    def start(self, expected: int = 4, what: What = What.REPLAY, **more: Any) -> Deferred[Job]:
        return Deferred.fromCoroutine(self.replays.start(Order(what, Filter(), "ann", expected, **more)))

    def told(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.log if event.get("log_format") == name]

    def test_it_is_counted_and_then_begun(self) -> None:
        self.queue.looking = Deferred()
        starting = self.start(rate=7.0)
        (job,) = self.replays.jobs
        assert job.state is State.COUNTING
        self.queue.looking.callback(None)
        assert self.successResultOf(starting) is job
        assert (job.state, job.counted, job.left) == (State.RUNNING, 4, 4)
        assert self.queue.work.calls == [("replay", Counter(a=1, b=2, c=1), 7.0)]
        self.queue.work.moved("a")
        assert (job.moved, job.left, job.over) == (1, 3, False)
        for each in "bbc":
            self.queue.work.moved(each)
        self.clock.advance(2)
        self.queue.going.callback(None)
        assert (job.state, job.moved, job.left, job.detail) == (State.DONE, 4, 0, "")
        assert (job.began, job.ended) == (1000.0, 1002.0)
        assert self.queue.ended == [self.queue.work]
        (ended,) = self.told("dead_letters_ended")
        assert (ended["job"], ended["actor"], ended["state"], ended["duration"]) == (
            job.id,
            "ann",
            "done",
            2000,
        )

    def test_drops_are_of_all_that_is_meant(self) -> None:
        self.queue.letters = letters("a", replays=9, broken_off=True)
        job = self.successResultOf(self.start(1, What.DROP))
        assert self.queue.work.calls == [("drop", Counter(a=1), None)]
        assert job.skipped == {}

    def test_what_was_sent_of_late_is_skipped(self) -> None:
        self.replays._sent = lambda: {("t1", "m1"): 3.0}
        self.queue.letters = [
            *letters("a", tenant_id="t1", internal_id="m1", failed_at=996.9),
            *letters("b", tenant_id="t1", internal_id="m1", failed_at=997.1),
        ]
        job = self.successResultOf(self.start(2))
        assert (job.skipped, job.left) == ({"sent": 1}, 1)
        assert self.queue.work.calls[0][1] == Counter(b=1)

    def test_another_count_does_nothing(self) -> None:
        error = self.failureResultOf(self.start(3), CountChanged).value
        assert (error.expected, error.counted) == (3, 4)
        assert self.queue.work.calls == []
        assert self.queue.ended == [self.queue.work]
        assert self.replays.jobs[0].detail == str(error)

    def test_one_at_a_time(self) -> None:
        job = self.successResultOf(self.start())
        self.failureResultOf(self.start(), ReplayUnderWay)
        assert self.replays.jobs == [job]
        self.queue.going.callback(None)
        self.queue.going = Deferred()
        assert self.successResultOf(self.start()) is not job

    def test_one_at_a_time_also_while_it_is_counted(self) -> None:
        self.queue.looking = Deferred()
        self.start()
        self.failureResultOf(self.start(), ReplayUnderWay)

    def test_who_gives_up_waiting_does_not_end_it(self) -> None:
        self.queue.looking = looking = Deferred()
        starting = self.start()
        starting.cancel()
        self.failureResultOf(starting)
        looking.callback(None)
        assert self.replays.jobs[0].state is State.RUNNING

    def test_without_a_broker_it_fails(self) -> None:
        self.queue.beginning = fail(QueueTrouble("away"))
        self.failureResultOf(self.start(), QueueTrouble)
        assert (self.replays.jobs[0].state, self.replays.jobs[0].detail) == (State.FAILED, "away")
        assert self.queue.ended == []

    def test_trouble_on_the_way_fails_it(self) -> None:
        for trouble in (Unpublished("full"), QueueTrouble("lost")):
            self.queue.going = Deferred()
            job = self.successResultOf(self.start())
            self.queue.going.errback(trouble)
            assert (job.state, job.detail, job.left) == (State.FAILED, str(trouble), 4)

    def test_a_fault_of_ours_fails_it(self) -> None:
        job = self.successResultOf(self.start())
        self.queue.going.errback(ZeroDivisionError())
        assert (job.state, job.detail) == (State.FAILED, "a fault of the gateway's (ZeroDivisionError)")
        assert self.flushLoggedErrors(ZeroDivisionError)

    def test_notes_that_stay_are_told(self) -> None:
        self.queue.end_trouble = QueueTrouble("lost")
        job = self.successResultOf(self.start())
        self.queue.going.callback(None)
        assert job.over
        assert self.told("dead_letters_notes_left")

    def test_a_stop_is_heard(self) -> None:
        job = self.successResultOf(self.start())
        assert not self.queue.work.stopping()
        assert self.replays.stop(job.id) is job
        assert self.queue.work.stopping()
        self.queue.going.callback(None)
        assert (job.state, job.left) == (State.STOPPED, 4)

    def test_a_stop_after_the_last_one_stops_nothing(self) -> None:
        job = self.successResultOf(self.start())
        for each in "abbc":
            self.queue.work.moved(each)
        self.replays.stop(job.id)
        self.queue.going.callback(None)
        assert job.state is State.DONE

    def test_what_is_not_there_any_more_is_told(self) -> None:
        job = self.successResultOf(self.start())
        self.queue.work.moved("a")
        self.queue.going.callback(None)
        assert (job.state, job.detail) == (State.DONE, "3 were not in the queue any more")

    def test_that_not_all_were_looked_at_is_told(self) -> None:
        self.queue.complete = False
        assert self.successResultOf(self.start()).detail == "only the first 4 dead letters were looked at"

    def test_the_end_waits_for_the_message_in_hand(self) -> None:
        job = self.successResultOf(self.start())
        ending = Deferred.fromCoroutine(self.replays.end())
        assert self.queue.work.stopping()
        self.assertNoResult(ending)
        self.queue.going.callback(None)
        self.successResultOf(ending)
        assert job.state is State.STOPPED
        self.failureResultOf(self.start(), ReplayUnderWay)

    def test_the_end_does_not_wait_for_ever(self) -> None:
        job = self.successResultOf(self.start())
        ending = Deferred.fromCoroutine(self.replays.end())
        self.clock.advance(END_SECONDS)
        self.successResultOf(ending)
        assert (job.state, job.detail) == (State.FAILED, "cut short")

    def test_the_end_ends_looks_too(self) -> None:
        self.queue.going.callback(None)  # nobody waits for it
        self.successResultOf(Deferred.fromCoroutine(self.replays.end()))
        assert self.queue.cuts == 1

    def test_the_last_are_kept(self) -> None:
        self.patch(module, "KEPT_JOBS", 2)
        self.queue.going.callback(None)
        jobs = [self.successResultOf(self.start()) for _ in range(3)]
        assert self.replays.jobs == [jobs[2], jobs[1]]
        assert self.replays.job(jobs[0].id) is None
        assert self.replays.stop(jobs[0].id) is None
        assert self.replays.job(jobs[2].id) is jobs[2]

    def test_nobody_replays_at_no_speed(self) -> None:
        for rate in (0.0, -1.0):
            with pytest.raises(ValueError, match="rate"):
                Order(What.REPLAY, Filter(), "ann", 1, rate)
