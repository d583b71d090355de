"""messagesPerDay: no more in any 24 hours, and not much less."""

from __future__ import annotations

from math import inf

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.policy.quota import DAY, SLOT, DailyQuota

determined = settings(derandomize=True, deadline=None)
pauses = st.sampled_from([0.0, 1.0, SLOT - 1, SLOT, SLOT + 1, DAY - SLOT, DAY, DAY + SLOT]) | st.floats(
    0, DAY
)


def most_in_a_day(sent: list[float]) -> int:
    """How many went in the worst 24 hours, of which the end is not part."""
    return max((sum(1 for other in sent if at <= other < at + DAY) for at in sent), default=0)


def pass_time(clock: Clock, seconds: float) -> None:
    """`Clock.advance` calls what is due at the end of it; here each is called at its time."""
    end = clock.seconds() + seconds
    while due := [call.getTime() for call in clock.getDelayedCalls() if call.getTime() < end]:
        clock.advance(min(due) - clock.seconds())
    clock.advance(end - clock.seconds())


class DailyQuotaTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.quota = DailyQuota(3, self.clock)

    def take(self, *, times: int = 1) -> None:
        for _ in range(times):
            self.quota.take()

    def test_it_begins_unused(self) -> None:
        assert self.quota.per_day == 3
        assert self.quota.unused
        assert self.quota.allows()
        assert self.quota.opens_at() is None

    def test_it_allows_as_many_as_a_day_may_have(self) -> None:
        self.take(times=2)
        assert self.quota.allows()

        self.take()
        assert not self.quota.allows()

    def test_a_message_counts_for_a_day_and_its_slot(self) -> None:
        self.take(times=3)
        self.clock.advance(24 * 3600 + 300 - 1)
        assert not self.quota.allows()

        self.clock.advance(1)
        assert self.quota.allows()

    def test_what_counts_no_longer_is_nothing_to_remember(self) -> None:
        self.take()
        self.clock.advance(DAY + SLOT - 1)
        assert not self.quota.unused

        self.clock.advance(1)
        assert self.quota.unused

    def test_what_went_at_the_end_of_a_slot_counts_for_a_day_too(self) -> None:
        self.take(times=2)
        self.clock.advance(SLOT - 1)
        self.take()
        self.clock.advance(DAY)

        assert not self.quota.allows()

    def test_it_says_when_one_more_may_go(self) -> None:
        self.take()
        self.clock.advance(1000)
        self.take(times=2)

        assert self.quota.opens_at() == DAY + SLOT

    def test_a_smaller_one_opens_when_enough_are_forgotten(self) -> None:
        self.take(times=2)
        self.clock.advance(1000)
        self.take()
        self.quota.change(1)

        assert self.quota.opens_at() == 1000 + DAY + SLOT

    def test_it_opens_when_it_said(self) -> None:
        self.take(times=3)
        self.clock.advance(self.quota.opens_at() or 0)

        assert self.quota.opens_at() is None

    def test_a_quota_of_nothing_never_opens(self) -> None:
        self.take()
        self.quota.change(0)

        assert self.quota.opens_at() == inf

    def test_changed_it_counts_what_was_sent(self) -> None:
        self.take(times=3)
        self.quota.change(4)
        assert self.quota.allows()

        self.take()
        assert not self.quota.allows()

    def test_what_was_throttled_does_not_count(self) -> None:
        self.take(times=3)
        self.quota.give_back()

        assert self.quota.allows()

    def test_the_only_one_can_be_given_back(self) -> None:
        self.take()
        self.quota.give_back()

        assert self.quota.unused

    def test_what_was_given_back_leaves_the_rest_to_be_forgotten_in_time(self) -> None:
        self.take(times=3)
        self.quota.give_back()
        self.clock.advance(DAY + SLOT)

        assert self.quota.unused

    def test_nothing_taken_gives_nothing_back(self) -> None:
        self.quota.give_back()
        self.take(times=3)

        assert not self.quota.allows()

    def test_no_more_is_given_back_than_was_taken_of_late(self) -> None:
        self.take()
        self.clock.advance(2 * SLOT)
        self.take()
        self.quota.give_back()
        self.quota.give_back()
        self.take(times=2)

        assert not self.quota.allows()

    def test_what_is_given_back_in_the_next_slot_does_not_shorten_what_went_there(self) -> None:
        self.take()
        self.clock.advance(SLOT - 1)
        self.take()  # throttled, as is known after the next one went
        self.clock.advance(10)
        self.take()
        self.quota.give_back()
        self.clock.advance(DAY - 1)

        assert not self.quota.unused

    def test_what_is_sent_all_day_is_289_numbers_to_remember(self) -> None:
        quota = DailyQuota(10**9, self.clock)
        for _ in range(2 * int(DAY / 10)):
            quota.allows()
            quota.take()
            self.clock.advance(10)
        quota.allows()

        assert len(quota._slots) <= 289

    def test_a_clock_that_was_set_back_forgets_nothing(self) -> None:
        self.clock.advance(1000)
        self.take()
        self.clock.rightNow = 0
        self.take(times=2)
        assert not self.quota.allows()

        self.clock.advance(DAY + SLOT)
        assert not self.quota.allows()
        self.clock.advance(1000)
        assert self.quota.allows()


class AnyDayTests(SynchronousTestCase):
    @determined
    @given(st.integers(1, 5), st.lists(st.tuples(pauses, st.integers(1, 6)), max_size=40))
    def test_in_no_24_hours_do_more_go(self, per_day: int, bursts: list[tuple[float, int]]) -> None:
        clock, sent = Clock(), list[float]()
        quota = DailyQuota(per_day, clock)
        for pause, wanted in bursts:
            clock.advance(pause)
            for _ in range(wanted):
                if quota.allows():
                    quota.take()
                    sent.append(clock.seconds())

        assert most_in_a_day(sent) <= per_day

    @determined
    @given(
        st.integers(1, 5),
        st.lists(st.tuples(pauses, st.floats(0, SLOT - 1), st.booleans()), max_size=40),
    )
    @example(
        3,
        [
            (0.0, 0.0, False),
            (SLOT - 1, 20.0, True),
            (10.0, 0.0, False),
            *((wait, 0.0, False) for wait in (DAY - 5, 0.0, 0.0)),
        ],
    )
    def test_nor_when_some_are_given_back(
        self, per_day: int, messages: list[tuple[float, float, bool]]
    ) -> None:
        clock, sent = Clock(), list[float]()
        quota = DailyQuota(per_day, clock)
        for pause, exchange, throttled in messages:
            pass_time(clock, pause)
            if not quota.allows():
                continue
            quota.take()
            if throttled:
                clock.callLater(exchange, quota.give_back)
            else:
                sent.append(clock.seconds())

        assert most_in_a_day(sent) <= per_day

    @determined
    @given(st.integers(1, 5), st.lists(pauses, max_size=40))
    def test_when_it_opens_it_allows_and_not_before(self, per_day: int, takes: list[float]) -> None:
        clock = Clock()
        quota = DailyQuota(per_day, clock)
        for pause in takes:
            clock.advance(pause)
            opens_at = quota.opens_at()
            assert (opens_at is None) == quota.allows()
            if opens_at is not None:
                clock.rightNow = opens_at - 1e-3
                assert not quota.allows()
                clock.rightNow = opens_at
                assert quota.allows()
            quota.take()
