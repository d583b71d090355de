"""A tenant's lane as people see it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.observe.events import REJECTED, TRANSIENT, job_of
from tests.observe.seen import Seen
from tests.pipeline.doubles import EPOCH, NUMBER_THROTTLE, PAIR_THROTTLE, Stage
from whatsapp_egress.observe.lane_view import TROUBLE
from whatsapp_egress.observe.words import CAUSES
from whatsapp_egress.pipeline.road import Cause
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.policy.table import ErrorClass
from whatsapp_egress.policy.verdict import Dead, Fault, Reason, Scope, Sent, Wait

AT_ZERO = "2026-05-28T20:26:40Z"
IN_TEN_SECONDS = "2026-05-28T20:26:50Z"
IN_A_MINUTE = "2026-05-28T20:27:40Z"


class Viewing(SynchronousTestCase):
    def setUp(self) -> None:
        self.set_stage(Stage())

    def set_stage(self, stage: Stage) -> None:
        self.seen = Seen(stage)
        self.stage = stage
        self.stage.warm_up()

    def trip(self) -> None:
        standing = self.stage.lanes.standing("t1")
        assert standing is not None
        standing.breaker.trip()

    def assert_state(self, state: str, cause: str | None, until: str | None = None) -> None:
        view = self.seen.lane()
        assert view.state == state
        if cause is None:
            assert view.waitsFor is None
        else:
            assert view.waitsFor is not None
            assert (view.waitsFor.cause, view.waitsFor.until) == (cause, until)
            assert view.waitsFor.inWords == f"waits {CAUSES[Cause(cause)]}"
        assert view.trouble // 1_000_000 == TROUBLE[state]


class StateTests(Viewing):
    def test_nothing_to_do(self) -> None:
        self.assert_state("idle", None)

    def test_a_message_is_on_its_way(self) -> None:
        self.stage.offer("m1")
        self.assert_state("sending", None)

    def test_a_throttled_number(self) -> None:
        self.stage.offer("m1")
        self.stage.end("m1", NUMBER_THROTTLE)
        self.assert_state("throttled", "throttle", IN_TEN_SECONDS)
        (number,) = self.seen.lane().numbers
        assert number.throttledUntil == IN_TEN_SECONDS

    def test_an_open_breaker_and_one_that_finds_out(self) -> None:
        self.trip()
        self.stage.offer("m1")
        self.assert_state("breaker_open", "breaker", IN_A_MINUTE)

        self.stage.clock.advance(60)
        assert self.stage.in_flight == ["m1"]
        self.assert_state("half_open", None)

    def test_a_pause(self) -> None:
        self.stage.lanes.pause("t1", Pause("too many complaints", "ops", EPOCH, EPOCH + 60))
        self.assert_state("paused", "pause", IN_A_MINUTE)
        pause = self.seen.lane().pause
        assert pause is not None
        assert (pause.reason, pause.actor, pause.since, pause.until) == (
            "too many complaints",
            "ops",
            AT_ZERO,
            IN_A_MINUTE,
        )

    def test_what_an_operator_writes_shows_no_phone_number(self) -> None:
        self.stage.lanes.pause("t1", Pause("919876543210 complained", "919876543210", EPOCH))
        assert "919876543210" not in str(self.seen.lane())

    def test_a_pause_without_an_end(self) -> None:
        self.stage.lanes.pause("t1", Pause("r", "ops", EPOCH))
        self.assert_state("paused", "pause", None)

    def test_a_days_quota_that_is_used_up(self) -> None:
        self.stage.attempts.per_day = 1
        self.stage.offer("m1")
        self.stage.offer("m2", "15550002")
        assert self.seen.lane().state == "day_limit"

    def test_credentials_that_are_asked_for(self) -> None:
        self.stage.attempts.rate = None
        self.stage.offer("m1", tenant_id="t2")
        view = self.seen.lane("t2")
        assert view.state == "credentials"

    def test_messages_that_were_put_aside(self) -> None:
        self.set_stage(Stage(most_active=1))
        for number in range(3):
            self.stage.offer(f"m{number}", f"1555000{number}")
        view = self.seen.lane()
        assert (view.state, view.active, view.deferred) == ("deferring", 1, 2)
        assert view.trouble % 1_000_000 == 3

    def test_a_message_that_waits_for_its_recipient(self) -> None:
        self.stage.offer("m1")
        self.stage.end("m1", PAIR_THROTTLE)
        view = self.seen.lane()
        assert view.state == "waiting"
        assert view.waitsFor is not None
        assert view.waitsFor.cause == "recipient"


class FigureTests(Viewing):
    def test_rates_and_what_is_under_way(self) -> None:
        self.stage.offer("m1")
        self.stage.offer("m2", "15550002", phone_number_id="100000002")
        view = self.seen.lane()

        assert (view.inFlight, view.active, view.limit, view.rate) == (2, 2, 1000.0, 2000.0)
        assert {number.phoneNumberId: number.inFlight for number in view.numbers} == {
            "100000001": 1,
            "100000002": 1,
        }
        assert [number.burst for number in view.numbers] == [200.0] * 2
        assert view.numbers[1].tokens == 199.0

    def test_the_oldest_counts_from_when_upstream_made_it(self) -> None:
        assert self.seen.lane().oldestSeconds is None
        self.stage.offer("m1")
        self.stage.offer("m2", "15550002", created=EPOCH - 30)
        self.stage.clock.advance(5)
        assert self.seen.lane().oldestSeconds == 35

    def test_without_a_time_of_upstreams_from_when_it_came(self) -> None:
        self.stage.offer("m1")
        self.stage.clock.advance(5)
        assert self.seen.lane().oldestSeconds == 5

    def test_a_time_in_the_future_makes_nobody_younger_than_new(self) -> None:
        self.stage.offer("m1", created=EPOCH + 1000)
        assert self.seen.lane().oldestSeconds == 0

    def test_what_is_deferred_is_as_old_as_the_backlog(self) -> None:
        self.stage.lanes.pause("t1", Pause("r", "a", EPOCH))
        self.stage.offer("m1")
        self.stage.clock.advance(100)
        view = self.seen.lane()
        assert (view.active, view.deferred, view.oldestSeconds) == (0, 1, 100)

    def test_what_was_done_in_the_last_minute(self) -> None:
        self.seen.chronicle.delivered(job_of(), Sent("wamid"))
        self.seen.chronicle.dead_lettered(job_of(), REJECTED)
        view = self.seen.lane()
        assert (view.sentLastMinute, view.failedLastMinute) == (1, 1)


class LastErrorTests(Viewing):
    def test_it_comes_with_metas_advice(self) -> None:
        self.seen.chronicle.dead_lettered(job_of(), REJECTED)
        error = self.seen.lane().lastError

        assert error is not None
        assert (error.code, error.reason, error.at) == (131047, "rejected", AT_ZERO)
        assert "engagement" in error.title.lower()
        assert error.advice

    def test_one_that_is_tried_again_has_no_reason(self) -> None:
        self.seen.chronicle.retrying(job_of(), TRANSIENT, 1.0)
        error = self.seen.lane().lastError
        assert error is not None
        assert error.reason is None

    def test_without_a_code_the_reason_has_advice_of_its_own(self) -> None:
        for reason in Reason:
            self.seen.chronicle.dead_lettered(job_of(), Dead(reason, "detail"))
            error = self.seen.lane().lastError
            assert error is not None
            assert error.title, reason
            assert error.advice, reason

    def test_nothing_is_said_of_what_nobody_knows(self) -> None:
        fault = Fault("999: ?", ErrorClass.TRANSIENT, code=999_999)
        self.seen.chronicle.waiting(job_of(), Wait(fault, Scope.TENANT), 1.0)
        error = self.seen.lane().lastError
        assert error is not None
        assert (error.title, error.advice) == ("", "")

    def test_what_nobody_is_to_see_is_not_in_its_detail(self) -> None:
        self.seen.chronicle.dead_lettered(job_of(), Dead(Reason.EXPIRED, "to 9198765"))
        error = self.seen.lane().lastError
        assert error is not None
        assert error.detail == "to ****765"


class IdleTests(SynchronousTestCase):
    def test_a_tenant_without_a_lane_shows_what_is_known_of_it(self) -> None:
        seen = Seen(Stage(threshold=1))
        seen.stage.warm_up()
        standing = seen.stage.lanes.standing("t1")
        assert standing is not None
        standing.breaker.trip()
        seen.stage.pass_time(5)
        assert seen.stage.lanes.find("t1") is None

        view = seen.lane()
        assert (view.state, view.active, view.breaker.state) == ("breaker_open", 0, "open")
        assert view.limit == 1000.0

    def test_one_that_nothing_is_known_of_has_no_view(self) -> None:
        assert Seen().overview.lane("nobody") is None
