"""What is remembered of a tenant, with a lane and without, and for how long."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.pipeline import standing
from whatsapp_egress.pipeline.standing import KEEP, KEEP_RATES, Standing, Standings
from whatsapp_egress.policy.breaker import Breaker, State
from whatsapp_egress.policy.credentials import Credentials
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.policy.quota import DailyQuota

DEFAULT = 80.0
RESET = 60.0
NUMBER = "100000001"
PAUSE = Pause("they asked for it", "ops", 0.0)


def credentials(rate: float | None = None, per_day: int | None = None) -> Credentials:
    return Credentials("token", rate, None, per_day)


class _Standing(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[str, State]] = []
        self.standings = Standings(self.clock, DEFAULT, 2, RESET, self.observe)

    def observe(self, tenant_id: str, breaker: Breaker) -> None:
        self.told.append((tenant_id, breaker.state))

    def after(self, seconds: float, tenant_id: str = "t") -> Standing:
        """The standing of a tenant that had no lane for so long."""
        self.standings.leave(tenant_id)
        self.clock.advance(seconds)
        return self.standings.take(tenant_id)


class RateTests(_Standing):
    def setUp(self) -> None:
        super().setUp()
        self.standing = self.standings.take("t")

    def test_a_number_begins_with_the_default_rate(self) -> None:
        assert self.standing.rate(NUMBER).current == DEFAULT

    def test_it_keeps_its_rate(self) -> None:
        self.standing.rate(NUMBER).throttled()

        assert self.standing.rate(NUMBER).current == DEFAULT / 2
        assert self.standing.rate("another").current == DEFAULT

    def test_the_credentials_say_what_it_may_send(self) -> None:
        known = self.standing.rate(NUMBER)

        assert self.standing.learn(credentials(20.0), 1)
        assert known.current == self.standing.rate("another").current == 20

    def test_a_rate_that_was_cut_stays_so(self) -> None:
        self.standing.rate(NUMBER).throttled()
        self.standing.learn(credentials(60.0), 1)

        assert self.standing.rate(NUMBER).current == DEFAULT / 2

    def test_the_same_limit_is_no_news(self) -> None:
        self.standing.learn(credentials(20.0), 1)

        assert not self.standing.learn(credentials(20.0), 1)

    def test_without_one_the_default_holds_again(self) -> None:
        self.standing.learn(credentials(20.0), 1)

        assert self.standing.learn(credentials(None), 1)
        assert self.standing.rate(NUMBER).current == DEFAULT

    def test_the_rate_is_not_divided_here(self) -> None:
        self.standing.learn(credentials(20.0), 4)

        assert self.standing.rate(NUMBER).current == 20


class QuotaTests(_Standing):
    def setUp(self) -> None:
        super().setUp()
        self.standing = self.standings.take("t")

    def quota(self) -> DailyQuota:
        assert self.standing.quota is not None
        return self.standing.quota

    def test_where_none_is_given_there_is_none(self) -> None:
        self.standing.learn(credentials(), 1)

        assert self.standing.quota is None

    def test_it_is_what_the_credentials_say(self) -> None:
        self.standing.learn(credentials(per_day=1000), 1)

        assert self.quota().per_day == 1000

    def test_workers_share_it(self) -> None:
        self.standing.learn(credentials(per_day=1000), 3)

        assert self.quota().per_day == 333

    def test_each_may_send_one_at_least(self) -> None:
        self.standing.learn(credentials(per_day=2), 3)

        assert self.quota().per_day == 1

    def test_when_it_changes_what_was_sent_still_counts(self) -> None:
        self.standing.learn(credentials(per_day=1000), 1)
        self.quota().take()
        self.standing.learn(credentials(per_day=2), 2)

        assert not self.quota().allows()

    def test_learned_again_it_is_the_same(self) -> None:
        self.standing.learn(credentials(per_day=1), 1)
        self.quota().take()
        self.standing.learn(credentials(per_day=1), 1)

        assert not self.quota().allows()

    def test_what_was_sent_still_counts_when_it_was_not_given_for_a_while(self) -> None:
        self.standing.learn(credentials(per_day=1), 1)
        self.quota().take()
        self.standing.learn(credentials(), 1)
        assert self.quota().allows()

        self.standing.learn(credentials(per_day=1), 1)
        assert not self.quota().allows()

    def test_it_is_told_whether_anything_changed(self) -> None:
        learned = [self.standing.learn(credentials(per_day=per_day), 1) for per_day in (None, 9, 9, 8)]

        assert learned == [False, True, False, True]


class BreakerTests(_Standing):
    def setUp(self) -> None:
        super().setUp()
        self.standing = self.standings.take("t")
        self.changes = 0
        self.standing.on_change = self.changed

    def changed(self) -> None:
        self.changes += 1

    def break_once(self) -> None:
        breaker = self.standing.breaker
        breaker.failed(breaker.begin())

    def test_it_opens_after_as_many_failures_as_the_threshold(self) -> None:
        self.break_once()
        assert self.standing.breaker.state is State.CLOSED

        self.break_once()
        assert self.standing.breaker.until == RESET

    def test_it_rests_as_long_each_time(self) -> None:
        self.standing.breaker.trip()
        self.clock.advance(RESET)
        self.break_once()

        assert self.standing.breaker.until == RESET * 2

    def test_whoever_watches_and_the_lane_are_told(self) -> None:
        self.standing.breaker.trip()
        self.clock.advance(RESET)

        assert self.told == [("t", State.OPEN), ("t", State.HALF_OPEN)]
        assert self.changes == 2

    def test_a_lane_that_is_gone_is_not_told_any_more(self) -> None:
        self.standing.breaker.trip()
        self.standings.leave("t")
        self.clock.advance(RESET)

        assert self.told == [("t", State.OPEN), ("t", State.HALF_OPEN)]
        assert self.changes == 1

    def test_each_tenant_has_its_own(self) -> None:
        self.standing.breaker.trip()

        assert self.standings.take("another").breaker.state is State.CLOSED

    def test_stopped_no_timer_is_left(self) -> None:
        self.standings.take("another").breaker.trip()
        self.standing.breaker.trip()
        self.standings.leave("another")
        self.standings.stop()

        assert self.clock.getDelayedCalls() == []
        assert self.standing.breaker.state is State.OPEN


class MemoryTests(_Standing):
    def setUp(self) -> None:
        super().setUp()
        self.standing = self.standings.take("t")

    def test_what_is_known_can_be_found(self) -> None:
        assert self.standings.find("t") is self.standing
        assert self.standings.find("nobody") is None

    def test_of_whom_nothing_is_worth_remembering_nothing_is(self) -> None:
        self.standing.rate(NUMBER)
        self.standing.learn(credentials(20.0, per_day=1000), 1)
        self.standings.leave("t")

        assert self.standings.find("t") is None

    def test_an_open_breaker_is_remembered_and_goes_on(self) -> None:
        self.standing.breaker.trip()

        assert self.after(RESET).breaker.state is State.HALF_OPEN

    def test_failures_are_remembered(self) -> None:
        self.standing.breaker.failed(self.standing.breaker.begin())

        assert self.after(RESET).breaker.failures == 1

    def test_a_pause_is_remembered(self) -> None:
        self.standing.pause = PAUSE

        assert self.after(RESET).pause == PAUSE

    def test_what_was_sent_today_is_remembered(self) -> None:
        self.standing.learn(credentials(per_day=1), 1)
        assert self.standing.quota is not None
        self.standing.quota.take()
        quota = self.after(RESET).quota

        assert quota is not None
        assert not quota.allows()

    def test_what_a_number_was_found_to_bear_is_remembered_for_an_hour(self) -> None:
        self.standing.rate(NUMBER).throttled()
        assert self.after(KEEP_RATES).rate(NUMBER).current == DEFAULT / 2

        assert self.after(KEEP_RATES + 1).rate(NUMBER).current == DEFAULT

    def test_the_rest_is_remembered_longer(self) -> None:
        self.standing.rate(NUMBER).throttled()
        self.standing.pause = PAUSE

        assert self.after(KEEP - 1).pause == PAUSE

    def test_while_it_has_a_lane_nothing_is_forgotten(self) -> None:
        self.standing.rate(NUMBER).throttled()
        self.clock.advance(KEEP * 2)
        self.another_leaves()

        assert self.standings.find("t") is self.standing
        assert self.standing.rate(NUMBER).current == DEFAULT / 2

    def test_nor_the_timers_of_one_that_came_back(self) -> None:
        self.standing.pause = PAUSE
        self.after(1)
        self.clock.advance(KEEP)
        self.another_leaves()
        self.standing.breaker.trip()

        assert self.standing.breaker.until is not None

    def test_of_its_numbers_those_are_forgotten_that_bear_what_they_may(self) -> None:
        self.standing.rate("cut").throttled()
        self.standing.rate("whole")
        self.standings.leave("t")

        assert list(self.standing.rates) == ["cut"]

    def test_a_day_after_it_had_a_lane_nothing_is_known_any_more(self) -> None:
        self.standing.pause = PAUSE
        self.standing.breaker.trip()
        self.standings.leave("t")
        self.clock.advance(KEEP - 1)
        self.another_leaves()
        assert self.standings.find("t") is self.standing

        self.clock.advance(1)
        self.another_leaves()
        assert self.standings.find("t") is None

    def test_who_came_back_in_between_is_remembered_from_then_on(self) -> None:
        self.standing.pause = PAUSE
        self.after(KEEP - 1)
        self.standings.leave("t")
        self.clock.advance(1)
        self.another_leaves()

        assert self.standings.find("t") is self.standing

    def test_of_too_many_the_one_gone_longest_is_forgotten_with_its_timer(self) -> None:
        self.patch(standing, "KEEP_MOST", 2)  # type: ignore[no-untyped-call]
        for tenant_id in ("1", "2", "3"):
            self.standings.take(tenant_id).breaker.trip()
        for tenant_id in ("2", "1", "3"):
            self.standings.leave(tenant_id)

        assert [tenant_id for tenant_id in "123" if self.standings.find(tenant_id)] == ["1", "3"]
        assert len(self.clock.getDelayedCalls()) == 2

    def another_leaves(self) -> None:
        """Somebody's lane is gone, and what is too old with it."""
        self.standings.take("another")
        self.standings.leave("another")
