"""Behaviours: whose holds, when it ends, and the limits it counts."""

from random import Random

import msgspec
import pytest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.sandbox.behaviour import Behaviour, Behaviours, SettingError

NUMBER = "100000001"


class BehaviourTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.behaviours = Behaviours(self.clock, Random(1))

    def test_nothing_set_means_everything_is_well(self):
        assert self.behaviours.next(NUMBER) == Behaviour()

    def test_a_numbers_own_behaviour_goes_before_that_of_all(self):
        self.behaviours.put(mode="hang")
        self.behaviours.put(NUMBER, mode="reset")

        assert self.behaviours.next(NUMBER).mode == "reset"
        assert self.behaviours.next("2").mode == "hang"

    def test_put_forgets_what_was_set_before(self):
        self.behaviours.put(NUMBER, latency_ms=50)
        self.behaviours.put(NUMBER, mode="error")

        assert self.behaviours.peek(NUMBER).latency_ms == 0

    def test_patch_keeps_what_was_set_before(self):
        self.behaviours.put(NUMBER, latency_ms=50)
        self.behaviours.patch(NUMBER, mode="error")

        assert self.behaviours.peek(NUMBER) == Behaviour(mode="error", latency_ms=50)

    def test_a_behaviour_ends_after_its_count(self):
        self.behaviours.put(NUMBER, mode="error", until=2)

        assert [self.behaviours.next(NUMBER).mode for _ in range(3)] == ["error", "error", "ok"]

    def test_a_behaviour_can_be_cleared(self):
        self.behaviours.put(NUMBER, mode="error")
        self.behaviours.clear(NUMBER)

        assert self.behaviours.all() == {}

    def test_clearing_all_forgets_the_limits_too(self):
        limited = self.behaviours.put(NUMBER, messages_per_second=1, pair_interval_s=6)
        self.behaviours.too_fast(NUMBER, limited)
        self.behaviours.too_soon(NUMBER, "49", limited)
        self.behaviours.clear()

        assert not self.behaviours.too_fast(NUMBER, limited)
        assert not self.behaviours.too_soon(NUMBER, "49", limited)

    def test_a_value_out_of_range_is_refused(self):
        for wrong in [
            {"mode": "odd"},
            {"failure_rate": 2},
            {"latency_ms": -1},
            {"messages_per_second": 0},
            {"until": 0},
            {"latency_ms": [2, 1]},
        ]:
            with pytest.raises((msgspec.ValidationError, SettingError)):
                self.behaviours.put(NUMBER, **wrong)

    def test_an_unknown_name_is_refused_with_the_known_ones(self):
        with pytest.raises(SettingError, match=r"unknown: latncy; known: .*latency_ms"):
            self.behaviours.put(NUMBER, latncy=1)

    def test_latency_is_in_milliseconds(self):
        assert self.behaviours.latency(self.behaviours.put(latency_ms=250)) == 0.25

    def test_latency_of_a_range_lies_within_it(self):
        ranged = self.behaviours.put(latency_ms=[100, 200])

        assert all(0.1 <= self.behaviours.latency(ranged) <= 0.2 for _ in range(100))

    def test_the_failure_rate_is_the_share_that_fails(self):
        failing = self.behaviours.put(failure_rate=0.25)

        assert 200 < sum(self.behaviours.fails(failing) for _ in range(1000)) < 300

    def test_throughput_counts_the_messages_of_the_last_second(self):
        limited = self.behaviours.put(NUMBER, messages_per_second=3)
        first = [self.behaviours.too_fast(NUMBER, limited) for _ in range(4)]
        self.clock.advance(0.999)
        still = self.behaviours.too_fast(NUMBER, limited)
        self.clock.advance(0.001)

        assert (first, still, self.behaviours.too_fast(NUMBER, limited)) == (
            [False, False, False, True],
            True,
            False,
        )

    def test_throughput_is_counted_for_each_number(self):
        limited = self.behaviours.put(messages_per_second=1)
        self.behaviours.too_fast(NUMBER, limited)

        assert not self.behaviours.too_fast("2", limited)

    def test_throughput_may_be_less_than_one_a_second(self):
        limited = self.behaviours.put(messages_per_second=0.5)
        self.behaviours.too_fast(NUMBER, limited)
        self.clock.advance(1.5)

        assert self.behaviours.too_fast(NUMBER, limited)

    def test_a_pair_that_meets_again_too_soon_is_noticed(self):
        limited = self.behaviours.put(pair_interval_s=6)
        self.behaviours.too_soon(NUMBER, "49", limited)
        self.clock.advance(5.9)
        soon = self.behaviours.too_soon(NUMBER, "49", limited)
        self.clock.advance(0.2)

        assert (soon, self.behaviours.too_soon(NUMBER, "49", limited)) == (True, False)

    def test_other_recipients_are_other_pairs(self):
        limited = self.behaviours.put(pair_interval_s=6)
        self.behaviours.too_soon(NUMBER, "49", limited)

        assert not self.behaviours.too_soon(NUMBER, "50", limited)
