"""What a phone number is found to bear: cut by a throttle, and won back step by step."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.policy.rate import CLIMB_SECONDS, Rate

limits = st.floats(0.1, 1000)


class RateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.rate = Rate(80.0, self.clock)

    def goes_well_for(self, seconds: float) -> None:
        """One send well each second, the first one now."""
        for _ in range(int(seconds)):
            self.rate.passed()
            self.clock.advance(1)
        self.rate.passed()

    def test_it_begins_with_all_that_is_allowed(self) -> None:
        assert self.rate.current == self.rate.limit == 80
        assert not self.rate.cut

    def test_a_throttle_cuts_it_to_a_half(self) -> None:
        self.rate.throttled()

        assert self.rate.current == 40
        assert self.rate.cut

    def test_no_throttle_cuts_it_below_one_a_second(self) -> None:
        for _ in range(20):
            self.rate.throttled()

        assert self.rate.current == 1

    def test_what_is_allowed_less_than_one_a_second_keeps_that(self) -> None:
        rate = Rate(0.5, self.clock)
        rate.throttled()

        assert rate.current == 0.5
        assert not rate.cut

    def test_after_ten_seconds_that_go_well_it_climbs_a_step(self) -> None:
        self.rate.throttled()
        self.rate.passed()
        self.clock.advance(CLIMB_SECONDS - 0.1)

        assert not self.rate.passed()
        assert self.rate.current == 40
        self.clock.advance(0.1)
        assert self.rate.passed()
        assert self.rate.current == 44

    def test_waiting_is_not_going_well(self) -> None:
        self.rate.throttled()
        self.clock.advance(3600)

        assert not self.rate.passed()
        assert self.rate.current == 40

    def test_many_that_go_well_at_once_are_one_step(self) -> None:
        self.rate.throttled()
        self.rate.passed()
        self.clock.advance(CLIMB_SECONDS)
        for _ in range(100):
            self.rate.passed()

        assert self.rate.current == 44

    def test_a_throttle_begins_the_ten_seconds_anew(self) -> None:
        self.rate.throttled()
        self.goes_well_for(CLIMB_SECONDS - 1)
        self.rate.throttled()
        self.goes_well_for(CLIMB_SECONDS - 1)

        assert self.rate.current == 20

    def test_half_is_won_back_in_a_hundred_seconds(self) -> None:
        self.rate.throttled()
        self.goes_well_for(99)
        assert self.rate.cut

        self.goes_well_for(1)
        assert self.rate.current == 80
        assert not self.rate.cut

    def test_no_step_is_smaller_than_one_a_second(self) -> None:
        rate = Rate(4.0, self.clock)
        rate.throttled()
        rate.passed()
        self.clock.advance(CLIMB_SECONDS)
        rate.passed()

        assert rate.current == 3

    def test_what_is_not_cut_does_not_change(self) -> None:
        self.clock.advance(CLIMB_SECONDS)

        assert not self.rate.passed()
        assert self.rate.current == 80

    def test_a_clock_that_was_set_back_keeps_it_down_ten_seconds_at_most(self) -> None:
        self.clock.advance(5000)
        self.rate.throttled()
        self.rate.passed()
        self.clock.rightNow = 0
        self.rate.passed()
        self.clock.advance(CLIMB_SECONDS)

        assert self.rate.passed()


class LimitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.rate = Rate(80.0, self.clock)

    def test_what_is_not_cut_follows_the_limit(self) -> None:
        for limit in (20.0, 100.0):
            self.rate.change_limit(limit)

            assert self.rate.current == self.rate.limit == limit

    def test_what_was_cut_stays_when_more_is_allowed(self) -> None:
        self.rate.throttled()
        self.rate.change_limit(200.0)

        assert self.rate.current == 40
        assert self.rate.cut

    def test_what_was_cut_is_never_above_what_is_allowed(self) -> None:
        self.rate.throttled()
        self.rate.change_limit(30.0)

        assert self.rate.current == 30
        assert not self.rate.cut

    def test_a_limit_that_goes_down_and_up_again_does_not_win_back_what_was_cut(self) -> None:
        self.rate.throttled()
        self.rate.change_limit(30.0)
        self.rate.change_limit(80.0)

        assert self.rate.current == 40

    @settings(derandomize=True, deadline=None)
    @given(limits, st.lists(st.none() | limits | st.floats(0, 30).map(lambda seconds: (seconds,))))
    def test_it_is_never_above_the_limit_nor_without_need_below_one(
        self, limit: float, steps: list[float | tuple[float] | None]
    ) -> None:
        rate = Rate(limit, self.clock)
        for step in steps:
            if step is None:
                rate.throttled()
            elif isinstance(step, tuple):
                self.clock.advance(step[0])
                before = rate.current
                assert rate.passed() == (rate.current > before)
            else:
                rate.change_limit(step)

            assert min(1.0, rate.limit) <= rate.current <= rate.limit
