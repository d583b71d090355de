"""What a lane's next message waits for, and what follows: how many are taken back, which are put aside."""

from __future__ import annotations

import pytest
from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import (
    EPOCH,
    NUMBER_THROTTLE,
    PAIR_THROTTLE,
    RETRY,
    TENANT_WAIT,
    FakeDelivery,
    Stage,
)
from whatsapp_egress.deferred import Lease, write_lease
from whatsapp_egress.pipeline.outlook import Outlook
from whatsapp_egress.pipeline.road import Cause, WaitsFor
from whatsapp_egress.pipeline.standing import Standing
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.policy.quota import DAY, SLOT
from whatsapp_egress.policy.table import ErrorClass
from whatsapp_egress.policy.verdict import Fault, Retry, Scope, Sent, Wait

SENT = Sent("wamid.1")
ACCOUNT_THROTTLE = Wait(Fault("4: Too many calls", ErrorClass.THROTTLE_WABA_OR_APP), Scope.TENANT, 10.0)
PAUSE = Pause("they asked for it", "ops", EPOCH)


class _Looking(SynchronousTestCase):
    def setUp(self) -> None:
        self.set_stage(Stage())

    def set_stage(self, stage: Stage) -> None:
        self.stage = stage
        self.stage.warm_up()

    @property
    def waits_for(self) -> WaitsFor | None:
        return self.stage.lanes.waits_for("t1")

    @property
    def outlook(self) -> Outlook:
        return self.stage.lanes._lanes["t1"].outlook

    @property
    def standing(self) -> Standing:
        return self.stage.lanes._lanes["t1"].standing

    def offer(self, *names: str) -> None:
        for name in names:
            self.stage.offer(name, name)

    def break_tenant(self) -> None:
        self.standing.breaker.trip()

    def probe(self, *names: str) -> None:
        """Break it, and half a minute later the first of the messages that came meanwhile finds out."""
        self.break_tenant()
        self.stage.clock.advance(30)
        self.offer(*names)
        self.stage.clock.advance(30)
        assert self.stage.in_flight == [names[0]]


class WaitsForTests(_Looking):
    def assert_token_in(self, seconds: float) -> None:
        """It waits for a token that comes in so many seconds."""
        waits_for = self.waits_for
        assert waits_for is not None
        assert waits_for.cause is Cause.TOKEN
        assert waits_for.until == pytest.approx(self.stage.clock.seconds() + seconds)

    def test_a_tenant_without_messages_waits_for_nothing(self) -> None:
        assert self.waits_for is None
        assert self.stage.lanes.waits_for("nobody") is None

    def test_one_whose_messages_are_on_their_way_waits_for_nothing(self) -> None:
        self.offer("1", "2")

        assert self.stage.in_flight == ["1", "2"]
        assert self.waits_for is None

    def test_a_token(self) -> None:
        self.set_stage(Stage(rate=2.0))
        self.stage.pass_time(1)
        self.stage.offer("1", None)
        self.stage.offer("2", None)

        assert self.stage.in_flight == ["1"]
        # Of the 1.2 tokens that there were 0.2 are left, and 0.8 take 0.4 s.
        self.assert_token_in(0.4)

    def test_of_two_numbers_the_token_that_comes_first(self) -> None:
        self.set_stage(Stage(rate=2.0))
        self.stage.pass_time(1)
        for number in ("1", "2"):
            self.stage.offer(f"{number}a", None, phone_number_id=number)
            self.stage.offer(f"{number}b", None, phone_number_id=number)
            self.stage.pass_time(0.1)

        self.assert_token_in(0.2)

    def test_a_recipient_that_is_throttled(self) -> None:
        self.offer("1")
        self.stage.end("1", PAIR_THROTTLE)

        assert self.waits_for == WaitsFor(Cause.RECIPIENT, 6.0)

    def test_a_recipient_whose_message_is_to_be_tried_again(self) -> None:
        self.offer("1", "2")
        self.stage.end("1", PAIR_THROTTLE)
        self.stage.end("2", RETRY)

        assert self.waits_for == WaitsFor(Cause.RECIPIENT, 1.5)

    def test_the_tenants_breaker(self) -> None:
        self.break_tenant()
        self.offer("1")

        assert self.waits_for == WaitsFor(Cause.BREAKER, 60.0)

    def test_its_probe(self) -> None:
        self.probe("1", "2")

        assert self.waits_for == WaitsFor(Cause.BREAKER)

    def test_a_probe_alone_is_on_its_way(self) -> None:
        self.probe("1")

        assert self.waits_for is None

    def test_the_roads_breaker(self) -> None:
        self.stage.turns.breaker.trip()
        self.offer("1")

        assert self.waits_for == WaitsFor(Cause.ROAD, 5.0)

    def test_the_roads_probe(self) -> None:
        self.stage.turns.breaker.trip()
        self.stage.offer("other", tenant_id="t2")
        self.offer("1")
        self.stage.clock.advance(5)

        assert self.stage.in_flight == ["other"]
        assert self.waits_for == WaitsFor(Cause.ROAD)

    def test_a_throttled_number(self) -> None:
        self.offer("1")
        self.stage.end("1", NUMBER_THROTTLE)

        assert self.waits_for == WaitsFor(Cause.THROTTLE, 10.0)

    def test_of_throttled_numbers_the_one_that_opens_first(self) -> None:
        for number in ("1", "2"):
            self.stage.offer(number, phone_number_id=number)
        self.stage.end("1", evolve(NUMBER_THROTTLE, floor=30.0))
        self.stage.end("2", evolve(NUMBER_THROTTLE, floor=20.0))

        assert self.waits_for == WaitsFor(Cause.THROTTLE, 20.0)

    def test_a_throttled_number_though_another_has_messages_on_their_way(self) -> None:
        for number in ("1", "2", "3"):
            self.stage.offer(number, phone_number_id=number)
        self.stage.end("1", NUMBER_THROTTLE)
        self.stage.end("2", evolve(NUMBER_THROTTLE, floor=20.0))

        assert self.stage.in_flight == ["3"]
        assert self.waits_for == WaitsFor(Cause.THROTTLE, 10.0)

    def test_the_token_of_one_number_though_another_is_throttled(self) -> None:
        self.set_stage(Stage(rate=2.0))
        self.stage.pass_time(1)
        self.stage.offer("1", phone_number_id="1")
        self.stage.offer("2", phone_number_id="2")
        self.stage.offer("3", phone_number_id="2", to="bob")
        self.stage.end("1", NUMBER_THROTTLE)
        self.stage.pass_time(0.1)

        self.assert_token_in(0.3)

    def test_a_throttled_account(self) -> None:
        self.offer("1")
        self.stage.end("1", ACCOUNT_THROTTLE)

        assert self.waits_for == WaitsFor(Cause.THROTTLE, 10.0)

    def test_credentials_that_can_not_be_had(self) -> None:
        self.offer("1")
        self.stage.end("1", TENANT_WAIT)

        assert self.waits_for == WaitsFor(Cause.CREDENTIALS, 5.0)

    def test_credentials_that_are_asked_for(self) -> None:
        stage = self.stage = Stage(rate=None)
        stage.offer("1")
        stage.offer("2", "bob")

        assert self.waits_for == WaitsFor(Cause.CREDENTIALS)

    def test_a_pause(self) -> None:
        self.offer("1")
        self.stage.end("1", RETRY)
        self.stage.lanes.pause("t1", PAUSE)

        assert self.waits_for == WaitsFor(Cause.PAUSE)

    def test_a_pause_with_an_end(self) -> None:
        self.stage.clock.advance(10)
        self.stage.offer("1")
        self.stage.end("1", RETRY)
        self.stage.lanes.pause("t1", evolve(PAUSE, until=EPOCH + 300))

        assert self.waits_for == WaitsFor(Cause.PAUSE, 300.0)

    def test_a_turn(self) -> None:
        self.set_stage(Stage(most=1))
        self.stage.offer("other", tenant_id="t2")
        self.offer("1")

        assert self.waits_for == WaitsFor(Cause.TURN)

    def test_a_turn_where_one_of_its_numbers_has_a_token(self) -> None:
        self.set_stage(Stage(rate=2.0, most=1))
        self.stage.offer("1", "alice")  # the warm-up took the token
        self.stage.offer("other", tenant_id="t2")
        self.stage.offer("2", phone_number_id="2")

        assert self.stage.in_flight == ["other"]
        assert self.waits_for == WaitsFor(Cause.TURN)

    def test_a_turn_among_its_own(self) -> None:
        self.set_stage(Stage(most_per_tenant=1))
        self.offer("1", "2")

        assert self.waits_for == WaitsFor(Cause.TURN)

    def test_another_day(self) -> None:
        self.stage.attempts.per_day = 1
        self.offer("1", "2")

        assert self.stage.in_flight == ["1"]
        assert self.waits_for == WaitsFor(Cause.DAY, DAY + SLOT)

    def test_of_several_what_lasts_longest(self) -> None:
        self.offer("1")
        self.stage.end("1", evolve(ACCOUNT_THROTTLE, floor=40.0))
        self.standing.pause = evolve(PAUSE, until=EPOCH + 50)
        assert self.waits_for == WaitsFor(Cause.PAUSE, 50.0)

        self.break_tenant()
        assert self.waits_for == WaitsFor(Cause.BREAKER, 60.0)


class ShutTests(_Looking):
    def test_nothing_is_shut_to_begin_with(self) -> None:
        assert not self.outlook.shut
        assert self.outlook.shut_until is None

    def test_the_whole_tenant_is_by_what_concerns_it(self) -> None:
        self.offer("1")
        self.stage.end("1", TENANT_WAIT)
        assert (self.outlook.shut, self.outlook.shut_until) == (True, 5.0)

        self.standing.pause = PAUSE
        assert self.outlook.shut_until == float("inf")

    def test_a_pause_does(self) -> None:
        self.standing.pause = PAUSE

        assert (self.outlook.shut, self.outlook.shut_until) == (True, float("inf"))

    def test_a_breaker_that_is_half_open_shuts_nothing(self) -> None:
        self.break_tenant()
        assert (self.outlook.shut, self.outlook.shut_until) == (True, 60.0)

        self.probe("1")
        assert (self.outlook.shut, self.outlook.shut_until) == (False, None)

    def test_a_days_quota_does_when_it_is_used_up(self) -> None:
        self.stage.attempts.per_day = 2
        self.offer("1")
        assert not self.outlook.shut

        self.offer("2")
        assert self.outlook.shut

    def test_one_number_that_may_send_is_enough(self) -> None:
        for number in ("1", "2"):
            self.stage.offer(number, phone_number_id=number)
        self.stage.end("1", NUMBER_THROTTLE)
        assert self.outlook.shut_until is None

        self.stage.end("2", NUMBER_THROTTLE)
        assert self.outlook.shut_until == 10

    def test_a_throttled_number_counts_though_its_messages_are_gone(self) -> None:
        self.offer("1")
        self.stage.end("1", evolve(NUMBER_THROTTLE, floor=600.0))
        self.stage.lose_connection()

        assert self.outlook.shut_until == 600


class MustDeferTests(_Looking):
    def throttle(self, seconds: float) -> None:
        self.offer("1")
        self.stage.end("1", evolve(NUMBER_THROTTLE, floor=seconds))

    def test_what_goes_at_once_is_not_deferred(self) -> None:
        assert not self.outlook.must_defer

    def test_a_short_wait_is_no_reason(self) -> None:
        self.throttle(60.0)

        assert not self.outlook.must_defer

    def test_a_longer_one_is(self) -> None:
        self.throttle(60.1)
        assert self.outlook.must_defer

        self.stage.clock.advance(0.2)
        assert not self.outlook.must_defer

    def test_so_is_a_pause_without_an_end(self) -> None:
        self.standing.pause = PAUSE

        assert self.outlook.must_defer


class AppetiteTests(_Looking):
    def setUp(self) -> None:
        self.set_stage(Stage(rate=20.0))

    def test_it_is_what_the_rate_is_worth_in_a_quarter_of_the_time(self) -> None:
        assert self.outlook.appetite == 300

    def test_the_numbers_in_use_count_together(self) -> None:
        for number in ("1", "2"):
            self.stage.offer(number, phone_number_id=number)

        # With the one that has been warmed up there are three.
        assert self.outlook.appetite == 900

    def test_where_no_number_is_in_use_one_is_counted_on(self) -> None:
        self.stage = Stage(most_active=5000)
        self.stage.lanes.lease(FakeDelivery(write_lease(Lease("t1", None, "another"))))
        assert self.outlook.appetite == 80 * 15  # at the default rate

        self.stage.lanes.share(4)
        assert self.outlook.appetite == 20 * 15

    def test_workers_share_it(self) -> None:
        self.stage.lanes.share(3)

        assert self.outlook.appetite == 100

    def test_there_is_no_more_than_the_room_that_is_left(self) -> None:
        self.set_stage(Stage(rate=1000.0, most_active=5))
        assert self.outlook.appetite == 5

        self.offer("1", "2")
        assert self.outlook.appetite == 3
        self.offer("3", "4", "5")
        assert self.outlook.appetite == 0

    def test_a_slow_tenant_wants_one_at_least(self) -> None:
        self.set_stage(Stage(rate=0.01))

        assert self.outlook.appetite == 1

    def test_with_a_long_wait_before_it_there_is_none(self) -> None:
        self.break_tenant()
        self.offer("1")
        assert self.outlook.appetite == 0

        self.stage.clock.advance(49.5)
        assert self.outlook.appetite == 0
        self.stage.clock.advance(0.5)
        assert self.outlook.appetite == 1

    def test_a_short_wait_is_worth_it(self) -> None:
        self.offer("1")
        self.stage.end("1", NUMBER_THROTTLE)

        assert self.outlook.appetite == 150  # at half the rate

    def test_nor_is_one_worth_it_for_which_messages_are_deferred(self) -> None:
        road = self.outlook._road
        self.outlook._road = evolve(road, pace=evolve(road.pace, defer_after=5.0))
        self.offer("1")
        self.stage.end("1", NUMBER_THROTTLE)

        assert self.outlook.appetite == 0

    def test_while_one_message_finds_out_it_is_one(self) -> None:
        self.probe("1")

        assert self.outlook.appetite == 1

    def test_so_it_is_while_one_finds_out_about_the_road(self) -> None:
        self.stage.turns.breaker.trip()

        assert self.outlook.appetite == 1

    def test_so_it_is_at_the_beginning_after_a_wait(self) -> None:
        self.standing.pause = PAUSE
        self.stage.lanes.resume("t1")
        assert self.outlook.appetite == 1

        self.stage.offer("1")
        self.stage.end("1", SENT)
        assert self.outlook.appetite == 300

    def test_a_tenant_that_never_has_more_than_one_in_flight_is_not_at_its_beginning(self) -> None:
        self.set_stage(Stage(rate=20.0, most_per_tenant=1))

        assert self.outlook.appetite == 300


class OverdueTests(_Looking):
    def overdue(self) -> list[str]:
        """The messages that must be put aside, conversation by conversation."""
        is_overdue = self.outlook.overdue()
        senders = self.stage.lanes._lanes["t1"]._senders.values()
        conversations = [jobs for sender in senders for jobs in sender.order.conversations()]
        return [job.message.internal_id for jobs in conversations if is_overdue(jobs) for job in jobs]

    def hold(self, name: str, seconds: float) -> None:
        self.offer(name)
        self.stage.end(name, evolve(PAIR_THROTTLE, floor=seconds))

    def test_what_waits_nearly_as_long_as_it_may_is(self) -> None:
        self.stage.clock.advance(0.5)  # between two rounds
        self.hold("1", 100.0)
        self.stage.clock.advance(0.1)
        self.hold("2", 100.0)
        self.stage.clock.advance(58.8)
        assert (self.overdue(), self.outlook.has_overdue) == ([], False)

        self.stage.clock.advance(0.1)
        assert (self.overdue(), self.outlook.has_overdue) == (["1"], True)

    def test_what_is_in_flight_is_not(self) -> None:
        self.offer("1")
        self.stage.clock.advance(100)

        assert (self.overdue(), self.outlook.has_overdue) == ([], False)

    def test_everything_is_that_waits_when_the_whole_tenant_waits_longer(self) -> None:
        self.offer("in flight")
        self.hold("1", 10.0)
        assert (self.overdue(), self.outlook.has_overdue) == ([], False)

        self.standing.pause = PAUSE
        assert (self.overdue(), self.outlook.has_overdue) == (["1"], True)

    def test_a_lane_without_messages_has_none(self) -> None:
        self.standing.pause = PAUSE

        assert not self.outlook.has_overdue

    def test_one_that_waits_behind_another_in_flight_is_not(self) -> None:
        self.stage.offer("1", "alice")
        self.stage.offer("2", "alice")
        self.stage.clock.advance(59)

        assert (self.overdue(), self.outlook.has_overdue) == ([], False)

    def test_one_that_others_go_before_takes_them_along(self) -> None:
        self.stage.clock.advance(0.5)  # between two rounds
        self.hold("1", 100.0)
        self.stage.clock.advance(58.4)
        self.stage.offer("2", "1", priority=9)
        self.stage.clock.advance(0.1)
        self.stage.clock.advance(0.55)

        assert (self.overdue(), self.outlook.has_overdue) == (["1", "2"], True)

    def test_a_second_retry_says_nothing_about_when_it_came(self) -> None:
        self.offer("1")
        self.stage.clock.advance(59)
        self.stage.end("1", Retry(RETRY.fault, floor=30.0))

        assert self.overdue() == ["1"]
