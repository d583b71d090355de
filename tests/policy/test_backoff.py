"""The waits of the contract."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.policy import backoff

tries = st.integers(min_value=0, max_value=100_000)
determined = settings(derandomize=True, deadline=None)


class RetryTests(SynchronousTestCase):
    def test_it_doubles_from_the_base_to_a_minute(self) -> None:
        waits = [backoff.retry(n, 1.0, lambda: 0.0) for n in range(8)]

        assert waits == [1, 2, 4, 8, 16, 32, 60, 60]

    def test_the_jitter_comes_on_top_of_the_cap(self) -> None:
        assert backoff.retry(9, 1.0, lambda: 0.75) == 60.75

    @determined
    @given(tries, st.floats(0.001, 1000), st.floats(0, 1))
    def test_it_never_exceeds_a_minute_and_the_jitter(self, n: int, base: float, jitter: float) -> None:
        assert 0 < backoff.retry(n, base, lambda: jitter) <= 61


class ThrottleTests(SynchronousTestCase):
    def test_it_doubles_from_ten_seconds_to_ten_minutes(self) -> None:
        waits = [backoff.throttle(n, 10.0) for n in range(8)]

        assert waits == [10, 20, 40, 80, 160, 320, 600, 600]

    def test_a_long_first_wait_grows_too(self) -> None:
        assert [backoff.throttle(n, 900.0) for n in range(4)] == [900, 1800, 3600, 5400]

    def test_the_longest_can_be_named(self) -> None:
        assert [backoff.throttle(n, 5.0, 30.0) for n in range(4)] == [5, 10, 20, 30]

    @determined
    @given(tries, st.floats(0.001, 10_000))
    def test_it_is_never_shorter_than_the_first(self, n: int, first: float) -> None:
        assert backoff.throttle(n, first) >= first


class RoadTests(SynchronousTestCase):
    def test_it_doubles_from_five_seconds_to_the_longest(self) -> None:
        assert [backoff.road(n, 60.0) for n in range(6)] == [5, 10, 20, 40, 60, 60]

    def test_it_is_never_longer_than_the_longest(self) -> None:
        assert [backoff.road(n, 2.0) for n in (0, 1, 100_000)] == [2, 2, 2]


class PairTests(SynchronousTestCase):
    def test_it_is_a_power_of_four_between_six_seconds_and_a_quarter_of_an_hour(self) -> None:
        assert [backoff.pair(n) for n in range(7)] == [6, 6, 16, 64, 256, 900, 900]

    def test_a_very_long_row_of_them_does_no_harm(self) -> None:
        assert backoff.pair(10**9) == 900


class ReconnectingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.reconnecting = backoff.Reconnecting(5.0, self.clock, lambda: 0.0)

    def lose_after(self, seconds: float) -> float:
        """How long it waits when a connection is made now and lost so much later."""
        self.reconnecting.made()
        self.clock.advance(seconds)
        self.reconnecting.lost()
        return self.reconnecting.wait()

    def failures(self, count: int) -> list[float]:
        return [self.reconnecting.wait() for _ in range(count)]

    def test_the_waits_after_failures_double_to_a_minute(self) -> None:
        assert self.failures(7) == [5, 10, 20, 40, 60, 60, 60]

    def test_the_first_try_after_a_loss_comes_at_once(self) -> None:
        assert self.lose_after(3600) == 0

    def test_after_it_the_waits_begin_anew(self) -> None:
        self.failures(4)
        self.lose_after(3600)

        assert self.failures(3) == [5, 10, 20]

    def test_it_comes_at_once_also_when_the_connection_did_not_last(self) -> None:
        self.failures(4)

        assert self.lose_after(1) == 0

    def test_connections_that_do_not_last_one_after_the_other_are_failures(self) -> None:
        assert [self.lose_after(1) for _ in range(7)] == [0, 5, 10, 20, 40, 60, 60]

    def test_one_that_lasts_puts_an_end_to_that(self) -> None:
        for _ in range(4):
            self.lose_after(1)

        assert [self.lose_after(5), self.lose_after(1)] == [0, 5]

    def test_the_jitter_takes_away_a_tenth_at_most(self) -> None:
        reconnecting = backoff.Reconnecting(5.0, self.clock, lambda: 1.0)

        assert [reconnecting.wait(), reconnecting.wait()] == [4.5, 9]
