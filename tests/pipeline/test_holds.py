"""Messages held for another try, and their conversations when they are put aside meanwhile."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import a_job
from whatsapp_egress.pipeline.holds import Holds, key_of
from whatsapp_egress.pipeline.job import Job


class _Holding(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.released: list[str] = []
        self.holds = Holds(self.clock, self.release)

    def release(self, job: Job) -> None:
        self.released.append(job.message.internal_id)

    def held(self, name: str, delay: float, to: str | None = "alice", throttles: int = 0) -> Job:
        job = a_job(name, to)
        job.pair_throttles = throttles
        self.holds.hold(job, delay)
        return job


class HoldTests(_Holding):
    def test_each_is_released_when_its_time_has_come(self) -> None:
        self.held("late", 10)
        self.held("early", 5)
        self.clock.advance(4.9)
        assert self.released == []

        self.clock.advance(0.1)
        assert self.released == ["early"]
        self.clock.advance(5)
        assert self.released == ["early", "late"]

    def test_until_then_it_can_be_asked_when_that_is(self) -> None:
        self.clock.advance(1)
        job = self.held("1", 5)
        assert self.holds.until(job) == 6

        self.clock.advance(5)
        assert self.holds.until(job) is None

    def test_who_is_not_held_has_no_time(self) -> None:
        assert self.holds.until(a_job()) is None

    def test_the_first_is_the_one_whose_time_comes_next(self) -> None:
        assert self.holds.first is None
        self.held("late", 10)
        self.held("early", 5)
        assert self.holds.first == 5

        self.clock.advance(5)
        assert self.holds.first == 10

    def test_it_may_be_held_again_as_soon_as_it_is_released(self) -> None:
        holds = Holds(self.clock, lambda job: holds.hold(job, 3))
        job = a_job()
        holds.hold(job, 5)
        self.clock.advance(5)

        assert holds.until(job) == 8

    def test_while_one_is_held_it_is_not_empty(self) -> None:
        assert self.holds.empty
        self.held("1", 5)
        assert not self.holds.empty

        self.clock.advance(5)
        assert self.holds.empty

    def test_stopped_nothing_is_released(self) -> None:
        self.held("1", 5)
        self.held("2", 10)
        self.holds.stop()

        assert self.clock.getDelayedCalls() == []
        assert self.holds.empty


class AsideTests(_Holding):
    def test_what_was_put_aside_is_not_released(self) -> None:
        self.holds.put_aside(self.held("1", 5))

        assert self.clock.getDelayedCalls() == []

    def test_its_conversation_has_the_rest_of_the_time_to_wait(self) -> None:
        self.holds.put_aside(self.held("1", 100))
        self.clock.advance(30)

        assert self.holds.rest(a_job("back", "alice")) == 70

    def test_none_when_the_time_is_over(self) -> None:
        self.holds.put_aside(self.held("1", 100))
        self.clock.advance(130)

        assert self.holds.rest(a_job("back", "alice")) == 0

    def test_it_is_told_once(self) -> None:
        self.holds.put_aside(self.held("1", 100))
        self.holds.rest(a_job("back", "alice"))

        assert self.holds.rest(a_job("next", "alice")) == 0
        assert self.holds.empty

    def test_it_is_not_forgotten_how_often_it_was_throttled(self) -> None:
        self.holds.put_aside(self.held("1", 100, throttles=3))
        back = a_job("back", "alice")
        self.holds.rest(back)

        assert back.pair_throttles == 3

    def test_who_was_not_put_aside_keeps_what_it_has(self) -> None:
        job = a_job("1", "alice")
        job.pair_throttles = 2

        assert self.holds.rest(job) == 0
        assert job.pair_throttles == 2

    def test_other_conversations_do_not_wait(self) -> None:
        self.holds.put_aside(self.held("1", 100))

        assert self.holds.rest(a_job("2", "bob")) == 0
        assert self.holds.rest(a_job("3", "alice", phone_number_id="2")) == 0
        assert self.holds.rest(a_job("4", None)) == 0

    def test_a_message_to_nobody_is_not_remembered(self) -> None:
        job = self.held("1", 100, to=None)
        self.holds.put_aside(job)

        assert key_of(job) is None
        assert self.holds.empty

    def test_one_that_is_not_held_leaves_no_trace(self) -> None:
        self.holds.put_aside(a_job("1", "alice"))

        assert self.holds.empty

    def test_while_one_is_aside_it_is_not_empty(self) -> None:
        self.holds.put_aside(self.held("1", 100))

        assert not self.holds.empty

    def test_those_whose_time_is_over_are_forgotten(self) -> None:
        self.holds.put_aside(self.held("1", 100, "alice"))
        self.holds.put_aside(self.held("2", 101, "bob"))
        self.clock.advance(100)
        self.holds.forget_over()

        assert self.holds.rest(a_job("back", "bob")) == 1
        assert self.holds.empty
