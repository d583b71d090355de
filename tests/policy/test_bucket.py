"""The token bucket: never faster than its rate, and not slower either."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.policy.bucket import Bucket

INTERVAL = 0.1
rates = st.floats(0.2, 500) | st.integers(1, 200).map(float)
determined = settings(derandomize=True, deadline=None)


class Thirsty:
    """Takes every token as soon as there is one, and notes when."""

    def __init__(self, rate: float) -> None:
        self.clock = Clock()
        self.taken: list[float] = []
        self.bucket = Bucket(rate, INTERVAL, self.clock, self.take_all)

    def take_all(self) -> None:
        while self.bucket.take():
            self.taken.append(self.clock.seconds())


class BucketTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.refills = 0
        self.bucket = Bucket(20.0, INTERVAL, self.clock, self.refilled)

    def refilled(self) -> None:
        self.refills += 1

    def empty(self) -> None:
        while self.bucket.take():
            pass

    def test_it_begins_full_and_without_a_timer(self) -> None:
        assert self.bucket.full
        assert self.bucket.available == self.bucket.capacity
        assert self.clock.getDelayedCalls() == []

    def test_it_holds_two_intervals_worth(self) -> None:
        assert self.bucket.capacity == 4

    def test_at_a_low_rate_it_holds_a_token_and_what_a_tick_brings(self) -> None:
        assert Bucket(2.0, INTERVAL, self.clock, self.refilled).capacity == pytest.approx(1.2)

    def test_empty_it_gives_nothing(self) -> None:
        self.empty()

        assert not self.bucket.take()

    def test_each_tick_brings_what_the_time_is_worth_and_says_so(self) -> None:
        self.empty()
        self.clock.advance(INTERVAL)

        assert self.bucket.available == pytest.approx(2)
        assert self.refills == 1

    def test_a_late_tick_brings_what_the_time_that_passed_is_worth(self) -> None:
        self.empty()
        self.clock.advance(INTERVAL * 1.5)

        assert self.bucket.available == pytest.approx(3)

    def test_a_very_late_tick_brings_no_more_than_it_holds(self) -> None:
        self.empty()
        self.clock.advance(60)

        assert self.bucket.available == self.bucket.capacity

    def test_time_before_the_first_token_is_taken_is_worth_nothing(self) -> None:
        self.clock.advance(1000)
        self.empty()
        self.clock.advance(INTERVAL)

        assert self.bucket.available == pytest.approx(2)

    def test_nor_is_it_to_one_that_gave_a_single_token(self) -> None:
        bucket = Bucket(2.0, INTERVAL, self.clock, self.refilled)
        self.clock.advance(1000)
        bucket.take()
        self.clock.advance(INTERVAL)

        assert bucket.available == pytest.approx(0.4)

    def test_full_again_it_stops_its_timer(self) -> None:
        self.empty()
        self.clock.pump([INTERVAL] * 3)

        assert self.bucket.full
        assert self.clock.getDelayedCalls() == []

    def test_what_is_taken_in_the_refill_keeps_the_timer_going(self) -> None:
        thirsty = Thirsty(20.0)
        thirsty.take_all()
        thirsty.clock.advance(60)

        assert len(thirsty.clock.getDelayedCalls()) == 1

    def test_stopped_it_leaves_no_timer(self) -> None:
        self.empty()
        self.bucket.stop()

        assert self.clock.getDelayedCalls() == []

    def test_it_can_be_stopped_from_within_the_refill(self) -> None:
        def stop() -> None:
            bucket.stop()

        bucket = Bucket(20.0, INTERVAL, self.clock, stop)
        bucket.take()
        self.clock.advance(60)

        assert self.clock.getDelayedCalls() == []

    def test_stopped_while_full_it_stays_quiet(self) -> None:
        self.bucket.stop()

        assert self.clock.getDelayedCalls() == []

    def test_a_new_rate_counts_from_now_on(self) -> None:
        self.empty()
        self.bucket.change_rate(10.0)
        self.clock.advance(INTERVAL)

        assert self.bucket.rate == 10
        assert self.bucket.available == pytest.approx(1)

    def test_at_a_new_rate_it_is_full_as_soon_as_it_would_have_been(self) -> None:
        for rate in (80.0, 10.0):
            with self.subTest(rate=rate):
                bucket = Bucket(20.0, INTERVAL, self.clock, self.refilled)
                bucket.take()
                bucket.take()
                bucket.change_rate(rate)

                assert bucket.available == pytest.approx(bucket.capacity - rate * 0.1)

    def test_a_much_higher_rate_finds_it_empty_at_the_worst(self) -> None:
        bucket = Bucket(1.0, INTERVAL, self.clock, self.refilled)
        bucket.take()
        bucket.change_rate(100.0)

        assert bucket.available == 0

    def test_rates_that_change_up_and_down_give_nothing(self) -> None:
        self.empty()
        for rate in (0.5, 20.0, 500.0, 20.0):
            self.bucket.change_rate(rate)

        assert self.bucket.available == pytest.approx(0)

    def test_a_full_bucket_stays_full_at_a_new_rate(self) -> None:
        for rate in (80.0, 1.0):
            self.bucket.change_rate(rate)

            assert self.bucket.full

    def test_one_that_a_new_rate_finds_full_has_no_timer(self) -> None:
        self.bucket.take()
        self.clock.rightNow += 1  # the tick is late
        self.bucket.change_rate(20.0)

        assert self.bucket.full
        assert self.clock.getDelayedCalls() == []

    def test_the_time_before_a_new_rate_is_paid_at_the_old_one(self) -> None:
        self.empty()
        self.clock.advance(INTERVAL / 2)
        self.bucket.change_rate(40.0)

        assert self.bucket.available == pytest.approx(2)

    def test_the_same_rate_changes_nothing(self) -> None:
        self.bucket.take()
        self.bucket.change_rate(20.0)

        assert self.bucket.available == 3

    def test_with_a_token_there_the_next_is_there_now(self) -> None:
        self.bucket.take()

        assert self.bucket.next_in == 0

    def test_the_next_token_comes_when_time_has_paid_for_it(self) -> None:
        bucket = Bucket(2.0, INTERVAL, self.clock, self.refilled)  # holds 1.2
        bucket.take()

        assert bucket.next_in == pytest.approx(0.4)

    def test_time_since_the_last_tick_brings_the_next_token_nearer(self) -> None:
        self.clock.advance(1000)
        bucket = Bucket(2.0, INTERVAL, self.clock, self.refilled)
        bucket.take()
        self.clock.advance(INTERVAL / 4)

        assert bucket.next_in == pytest.approx(0.4 - INTERVAL / 4)

    def test_a_token_that_only_its_tick_has_to_bring_is_as_good_as_there(self) -> None:
        self.empty()
        self.clock.rightNow += 60  # the tick is late

        assert self.bucket.next_in == 0

    def test_a_clock_that_was_set_back_puts_the_next_token_no_further_off(self) -> None:
        self.empty()
        self.clock.rightNow -= 1000

        assert self.bucket.next_in == pytest.approx(1 / 20)

    def test_a_clock_that_was_set_back_takes_nothing_away(self) -> None:
        self.bucket.take()
        self.clock.rightNow -= 1000
        self.bucket.change_rate(20.0)

        assert self.bucket.available == pytest.approx(self.bucket.capacity - 1)

    def test_a_refill_that_fails_is_logged(self) -> None:
        def fail() -> None:
            raise ZeroDivisionError

        Bucket(20.0, INTERVAL, self.clock, fail).take()
        self.clock.advance(INTERVAL)

        flush: Callable[[type[Exception]], list[Failure]] = self.flushLoggedErrors
        assert len(flush(ZeroDivisionError)) == 1


def most_in_any_window(taken: list[float], rate: float) -> float:
    """What the worst of all windows gave beyond `rate` times its length."""
    least, most = float("inf"), 0.0
    for count, at in enumerate(taken):
        # Of all windows that end here, the one that begins at the lowest count - rate * time is worst.
        least = min(least, count - rate * at)
        most = max(most, count - rate * at - least + 1)
    return most


class RateTests(SynchronousTestCase):
    @determined
    @given(rates, st.lists(st.floats(0.001, 0.4), min_size=1, max_size=100))
    def test_over_no_window_does_it_give_more_than_rate_and_capacity_allow(
        self, rate: float, steps: list[float]
    ) -> None:
        thirsty = Thirsty(rate)
        thirsty.take_all()
        thirsty.clock.pump(steps)

        assert most_in_any_window(thirsty.taken, rate) <= thirsty.bucket.capacity + 1e-6

    @determined
    @given(st.lists(st.tuples(rates, st.lists(st.floats(0.001, 0.4), max_size=10)), min_size=1, max_size=30))
    def test_whatever_rates_come_between_it_gives_no_more_than_the_highest_allows(
        self, phases: list[tuple[float, list[float]]]
    ) -> None:
        thirsty = Thirsty(phases[0][0])
        thirsty.take_all()
        for rate, steps in phases:
            thirsty.bucket.change_rate(rate)
            thirsty.take_all()
            thirsty.clock.pump(steps)

        highest = max(rate for rate, _ in phases)
        capacity = Bucket(highest, INTERVAL, thirsty.clock, thirsty.take_all).capacity
        assert most_in_any_window(thirsty.taken, highest) <= capacity + 1e-6

    @determined
    @given(rates.filter(lambda rate: rate >= 1), rates)
    def test_an_empty_one_gives_its_next_token_as_soon_as_it_says(self, rate: float, before: float) -> None:
        thirsty = Thirsty(before)
        thirsty.take_all()
        thirsty.bucket.change_rate(rate)
        told = thirsty.bucket.next_in
        thirsty.taken.clear()
        thirsty.clock.pump([INTERVAL / 10] * int((told + 2 * INTERVAL) / (INTERVAL / 10)))

        assert thirsty.taken[0] >= told - 1e-6
        assert thirsty.taken[0] <= told + INTERVAL * 1.1 + 1e-6

    @determined
    @given(rates)
    def test_a_thirsty_sender_gets_its_rate(self, rate: float) -> None:
        thirsty = Thirsty(rate)
        thirsty.take_all()
        thirsty.clock.pump([INTERVAL / 2] * 200)

        assert len(thirsty.taken) >= rate * (10 - INTERVAL) - 1

    def test_over_five_seconds_it_is_within_five_percent(self) -> None:
        for rate in (5, 6, 7, 9, 10, 11, 13, 20, 33, 80, 250, 1000):
            thirsty = Thirsty(float(rate))
            thirsty.take_all()
            thirsty.clock.pump([INTERVAL / 4] * 200)

            assert len(thirsty.taken) == pytest.approx(rate * 5, rel=0.05), f"{rate} a second"
