"""One phone number: when a message of it may go, and what a throttle does to it."""

from __future__ import annotations

from itertools import count

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import NUMBER_THROTTLE, a_job
from whatsapp_egress.pipeline.job import Job
from whatsapp_egress.pipeline.sender import Sender
from whatsapp_egress.policy.rate import CLIMB_SECONDS, Rate

LIMIT = 80.0
INTERVAL = 0.1
MOST = 8


class _Sending(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.pumped = 0
        self.rate = Rate(LIMIT, self.clock)
        self.sender = self.with_workers(1)

    def with_workers(self, workers: int) -> Sender:
        return Sender(self.rate, workers, INTERVAL, MOST, self.clock, count(), self.pump)

    def pump(self) -> None:
        self.pumped += 1

    def add(self, name: str = "1") -> Job:
        job = a_job(name, name)
        self.sender.order.add(job, name, 5)
        return job

    def throttle(self) -> float:
        return self.sender.throttle(NUMBER_THROTTLE)

    def spend(self) -> None:
        """Take all tokens."""
        while self.sender.bucket.take():
            pass


class OpenTests(_Sending):
    def test_it_begins_open(self) -> None:
        assert self.sender.open

    def test_it_is_shut_while_it_is_throttled(self) -> None:
        self.throttle()

        assert not self.sender.open

    def test_it_is_shut_until_a_whole_token_is_there(self) -> None:
        self.rate.change_limit(1.0)
        self.sender.adjust()
        self.spend()
        self.clock.advance(INTERVAL * 8)
        assert not self.sender.open

        self.clock.advance(INTERVAL)
        assert self.sender.open

    def test_it_is_shut_with_as_many_in_flight_as_it_may_have(self) -> None:
        self.sender.in_flight = MOST
        assert not self.sender.open

        self.sender.in_flight = MOST - 1
        assert self.sender.open

    def test_it_asks_to_be_looked_at_when_tokens_come(self) -> None:
        self.spend()
        self.clock.advance(INTERVAL)

        assert self.pumped == 1

    def test_it_is_ready_with_a_message_while_it_is_open(self) -> None:
        assert not self.sender.ready

        self.add()
        assert self.sender.ready
        self.throttle()
        assert not self.sender.ready

    def test_a_message_that_is_out_makes_nothing_ready(self) -> None:
        self.add()
        self.sender.order.next()

        assert not self.sender.ready


class ShareTests(_Sending):
    def test_each_worker_has_an_equal_part_of_the_rate(self) -> None:
        assert self.with_workers(4).bucket.rate == LIMIT / 4

    def test_it_changes_with_their_number(self) -> None:
        self.sender.share(2)
        assert self.sender.bucket.rate == LIMIT / 2

        self.sender.share(1)
        assert self.sender.bucket.rate == LIMIT

    def test_a_rate_that_has_changed_is_shared_too(self) -> None:
        self.sender.share(2)
        self.rate.change_limit(20.0)
        self.sender.adjust()

        assert self.sender.bucket.rate == 10


class ThrottleTests(_Sending):
    def test_it_waits_and_sends_at_half_its_rate_after(self) -> None:
        assert self.throttle() == 10
        assert self.sender.bucket.rate == LIMIT / 2

        self.clock.advance(9.9)
        assert not self.sender.open
        self.clock.advance(0.1)
        assert self.sender.open

    def test_what_was_in_flight_cuts_nothing_more(self) -> None:
        self.throttle()
        self.clock.advance(4)

        assert self.throttle() == 10
        assert self.rate.current == LIMIT / 2

    def test_the_next_one_cuts_it_again_and_lasts_longer(self) -> None:
        self.throttle()
        self.clock.advance(10)

        assert self.throttle() == 20
        assert self.rate.current == LIMIT / 4

    def test_after_one_that_passed_it_lasts_no_longer(self) -> None:
        self.throttle()
        self.clock.advance(10)
        self.sender.passed()

        assert self.throttle() == 10

    def test_it_begins_again_with_one_message_and_asks_to_be_looked_at(self) -> None:
        self.throttle()
        self.clock.advance(10)
        assert (self.sender.ramp.limit, self.pumped) == (1, 1)

        self.sender.in_flight = 1
        assert not self.sender.open

    def test_the_rate_climbs_back_while_sends_go_well(self) -> None:
        self.throttle()
        self.clock.advance(10)
        self.sender.passed()
        self.clock.advance(CLIMB_SECONDS)
        self.sender.passed()

        assert self.rate.current > LIMIT / 2
        assert self.sender.bucket.rate == self.rate.current

    def test_what_was_in_flight_when_it_was_throttled_wins_no_rate_back(self) -> None:
        self.throttle()
        self.sender.passed()
        self.clock.advance(CLIMB_SECONDS)
        self.sender.passed()

        assert self.rate.current == LIMIT / 2

    def test_slowed_down_it_does_not_wait(self) -> None:
        self.sender.share(2)
        self.sender.slow_down()

        assert self.sender.bucket.rate == LIMIT / 4
        assert self.sender.open


class QuietTests(_Sending):
    def test_with_nothing_to_remember_it_is(self) -> None:
        assert self.sender.quiet

    def test_with_a_message_it_is_not(self) -> None:
        job = self.add()
        assert not self.sender.quiet

        self.sender.order.next()
        assert not self.sender.quiet
        self.sender.order.done(job)
        assert self.sender.quiet

    def test_until_its_tokens_are_back_it_is_not(self) -> None:
        self.sender.bucket.take()
        assert not self.sender.quiet

        self.clock.advance(INTERVAL)
        assert self.sender.quiet

    def test_while_it_is_throttled_it_is_not(self) -> None:
        self.throttle()
        assert not self.sender.quiet

        self.clock.advance(10)
        assert self.sender.quiet

    def test_stopped_it_has_no_timers(self) -> None:
        self.spend()
        self.throttle()
        self.sender.stop()

        assert self.clock.getDelayedCalls() == []
