"""The window: a full one that goes well grows by one, trouble of everybody's makes it a third smaller."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.policy.window import DECREASE, FLOOR, Window

LATENCY = 0.2


class _Opening(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.window = Window(100, self.clock)

    def pass_all(self, *, times: int = 1, seconds: float = LATENCY, in_flight: int | None = None) -> None:
        """So many times a full window goes well, or `in_flight` of it."""
        for _ in range(times):
            self.clock.advance(seconds)
            for _ in range(in_flight or self.window.limit):
                self.window.passed(seconds, in_flight or self.window.limit)

    def cut(self, *, times: int = 1) -> None:
        for _ in range(times):
            self.clock.advance(60)
            self.window.troubled()


class LimitTests(_Opening):
    def test_it_begins_as_large_as_it_can_be(self) -> None:
        assert self.window.limit == 100
        assert self.window.full

    def test_trouble_makes_it_a_third_smaller(self) -> None:
        self.window.troubled()

        assert self.window.limit == 70
        assert not self.window.full

    def test_it_never_becomes_smaller_than_its_floor(self) -> None:
        self.cut(times=20)

        assert self.window.limit == FLOOR

    def test_one_that_is_smaller_than_the_floor_stays_as_it_is(self) -> None:
        self.window = Window(3, self.clock)
        self.cut()

        assert self.window.limit == 3
        assert self.window.full

    def test_a_full_window_that_goes_well_makes_it_one_larger(self) -> None:
        self.window.troubled()
        self.pass_all(times=3)

        assert self.window.limit == pytest.approx(73, abs=1)

    def test_room_that_nobody_uses_proves_nothing(self) -> None:
        self.window.troubled()
        self.pass_all(times=100, in_flight=55)

        assert self.window.limit == 70

    def test_a_window_that_is_nearly_used_up_grows(self) -> None:
        self.window.troubled()
        self.pass_all(times=2, in_flight=56)

        assert self.window.limit == 71

    def test_it_becomes_no_larger_than_it_can_be(self) -> None:
        self.cut()
        self.pass_all(times=60)

        assert self.window.limit == 100
        assert self.window.full

    @settings(derandomize=True, deadline=None)
    @given(
        st.integers(1, 50),
        st.lists(st.none() | st.tuples(st.floats(0, 30), st.integers(1, 50)), max_size=200),
    )
    def test_it_stays_between_its_bounds(self, most: int, steps: list[tuple[float, int] | None]) -> None:
        clock = Clock()
        window = Window(most, clock)
        for step in steps:
            if step is None:
                window.troubled()
            else:
                seconds, in_flight = step
                clock.advance(seconds)
                window.passed(seconds, in_flight)

            assert min(FLOOR, most) <= window.limit <= most
            assert window.full == (window.limit == most)


class RoundTripTests(_Opening):
    def test_troubles_at_the_same_instant_are_one(self) -> None:
        self.window.troubled()
        self.window.troubled()

        assert self.window.limit == 70

    def test_troubles_within_a_round_trip_are_one(self) -> None:
        self.pass_all()
        self.window.troubled()
        self.clock.advance(LATENCY * 0.9)
        self.window.troubled()

        assert self.window.limit == 70

    def test_trouble_after_a_round_trip_is_another(self) -> None:
        self.pass_all()
        self.window.troubled()
        self.clock.advance(LATENCY * 1.1)
        self.window.troubled()

        assert self.window.limit == int(100 * DECREASE * DECREASE)

    def test_while_no_latency_is_known_troubles_of_a_tenth_of_a_second_are_one(self) -> None:
        self.window.troubled()
        self.clock.advance(0.09)
        self.window.troubled()
        assert self.window.limit == 70

        self.clock.advance(0.02)
        self.window.troubled()
        assert self.window.limit == 49

    def test_a_clock_that_was_set_back_ends_the_round_trip(self) -> None:
        self.clock.advance(1000)
        self.window.troubled()
        self.clock.rightNow = 0
        self.window.troubled()

        assert self.window.limit == 49


class SlowTests(_Opening):
    def test_before_anything_is_known_nothing_is_slow(self) -> None:
        assert not self.window.slow(1000)

    def test_many_times_as_long_and_a_second_longer_is_slow(self) -> None:
        self.pass_all(seconds=1.0)

        assert not self.window.slow(2.9)
        assert self.window.slow(3.1)

    def test_less_than_a_second_longer_is_not(self) -> None:
        self.pass_all(seconds=0.1)

        assert not self.window.slow(1.0)
        assert self.window.slow(1.2)

    def test_a_minute_of_slowness_does_not_become_the_norm(self) -> None:
        self.pass_all(times=100, seconds=0.5)
        self.pass_all(times=6, seconds=10)

        assert self.window.slow(9)

    def test_an_hour_of_it_does(self) -> None:
        self.pass_all(times=100, seconds=0.5)
        self.pass_all(times=360, seconds=10)

        assert not self.window.slow(10)

    def test_recovery_becomes_the_norm_within_two_minutes(self) -> None:
        self.pass_all(seconds=5)
        assert not self.window.slow(4)

        self.pass_all(times=240, seconds=0.5)
        assert self.window.slow(4)

    def test_a_flood_becomes_the_norm_no_sooner(self) -> None:
        self.pass_all(times=100, seconds=0.5, in_flight=1)
        self.pass_all(times=6, seconds=10, in_flight=1000)

        assert self.window.slow(9)

    def test_one_exchange_after_a_silence_does_not_set_the_norm(self) -> None:
        self.pass_all(seconds=0.5)
        self.clock.advance(3600)
        self.window.passed(20, 1)

        assert self.window.slow(5)

    def test_a_clock_that_was_set_back_leaves_the_norm(self) -> None:
        self.clock.advance(1000)
        self.window.passed(1.0, 1)
        self.clock.rightNow = 0
        self.window.passed(50.0, 1)

        assert self.window.slow(3.1)
        assert not self.window.slow(2.9)
