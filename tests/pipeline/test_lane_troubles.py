"""What a lane makes of trouble: its breaker, the road's, quotas, throttled rates, the way back to speed."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import NUMBER_THROTTLE, PAIR_THROTTLE, RETRY, Stage
from whatsapp_egress.policy.breaker import State
from whatsapp_egress.policy.table import ErrorClass
from whatsapp_egress.policy.verdict import Dead, Fault, Reason, Scope, Sent, Verdict, Wait

SENT = Sent("wamid.1")
AUTH_FAILED = Dead(Reason.AUTH_FAILED, "", Fault("190", ErrorClass.AUTH, 190))
LOCKED = Dead(Reason.REJECTED, "", Fault("131031", ErrorClass.TENANT_ACCOUNT, 131031))
BAD_RECIPIENT = Dead(Reason.REJECTED, "", Fault("131026", ErrorClass.PERMANENT_RECIPIENT, 131026))
EXHAUSTED = Dead(Reason.RETRIES_EXHAUSTED, "", Fault("131000", ErrorClass.TRANSIENT, 131000))
ACCOUNT_THROTTLE = Wait(Fault("80007", ErrorClass.THROTTLE_WABA_OR_APP, 80007), Scope.TENANT, 10.0)
APP_THROTTLE = evolve(ACCOUNT_THROTTLE, fault=Fault("4", ErrorClass.THROTTLE_WABA_OR_APP, 4, app_wide=True))


class Troubled(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = Stage(threshold=3)

    def offer(self, *names: str, tenant: str = "t1") -> None:
        for name in names:
            self.stage.offer(name, name, tenant_id=tenant)

    def end(self, verdict: Verdict, *names: str) -> None:
        for name in names:
            self.stage.end(name, verdict)

    def state(self, tenant: str = "t1") -> State:
        standing = self.stage.standings.find(tenant)
        assert standing is not None
        return standing.breaker.state

    def rate(self, tenant: str = "t1") -> float:
        standing = self.stage.standings.find(tenant)
        assert standing is not None
        return standing.rate("100000001").current


class BreakerTests(Troubled):
    def open(self) -> None:
        self.offer("a", "b", "c")
        self.end(EXHAUSTED, "a", "b", "c")

    def test_failures_in_a_row_open_it(self) -> None:
        for verdict in (EXHAUSTED, AUTH_FAILED, LOCKED, RETRY):
            self.stage = Stage(threshold=3)
            self.offer("a", "b", "c", "d")
            self.end(verdict, "a", "b")
            assert self.state() is State.CLOSED, verdict

            self.end(verdict, "c")
            assert self.state() is State.OPEN, verdict

    def test_an_operator_can_close_it(self) -> None:
        self.open()
        self.offer("d", "e")
        assert self.stage.lanes.reset_breaker("t1")

        assert self.state() is State.CLOSED
        assert self.stage.in_flight == ["d"]  # one finds out
        self.end(SENT, "d")
        assert self.stage.in_flight == ["e"]

    def test_and_make_it_forget_what_was_counted(self) -> None:
        self.offer("a", "b", "c", "d")
        self.end(EXHAUSTED, "a", "b")
        assert self.stage.lanes.reset_breaker("t1")

        self.end(EXHAUSTED, "c", "d")
        assert self.state() is State.CLOSED

    def test_also_of_a_tenant_that_has_no_lane(self) -> None:
        self.open()
        self.stage.pass_time(5, step=0.5)
        assert len(self.stage.lanes) == 0

        assert self.stage.lanes.reset_breaker("t1")
        assert self.state() is State.CLOSED

    def test_one_that_is_closed_needs_no_closing(self) -> None:
        self.offer("a")

        assert not self.stage.lanes.reset_breaker("t1")
        assert not self.stage.lanes.reset_breaker("nobody")

    def test_a_success_in_between_keeps_it_closed(self) -> None:
        self.offer("a", "b", "c", "d")
        self.end(EXHAUSTED, "a", "b")
        self.end(SENT, "c")
        self.end(EXHAUSTED, "d")

        assert self.state() is State.CLOSED

    def test_what_says_nothing_of_the_tenant_does_not_open_it(self) -> None:
        self.offer("a", "b", "c", "d", "e")
        self.end(BAD_RECIPIENT, "a", "b", "c", "d", "e")

        assert self.state() is State.CLOSED

    def test_while_it_is_open_nothing_is_begun_nor_used_up(self) -> None:
        self.open()
        self.offer("d", "e")
        self.stage.pass_time(59, step=0.5)

        assert self.stage.in_flight == []
        assert [job.attempts for job in self.stage.jobs[-2:]] == [0, 0]

    def test_then_one_message_finds_out(self) -> None:
        self.open()
        self.offer("d", "e", "f")
        self.stage.pass_time(61, step=0.5)
        assert self.state() is State.HALF_OPEN
        assert self.stage.in_flight == ["d"]

        self.end(SENT, "d")
        self.stage.pass_time(3)
        assert self.state() is State.CLOSED

    def test_it_goes_on_from_one_message_up(self) -> None:
        self.open()
        self.stage.pass_time(60, step=0.5)
        self.offer("d", "e", "f", "g")
        self.end(SENT, "d")
        assert self.stage.in_flight == ["e"]

        self.end(SENT, "e")
        assert self.stage.in_flight == ["f", "g"]

    def test_a_probe_that_fails_opens_it_again(self) -> None:
        self.open()
        self.stage.pass_time(60, step=0.5)
        self.offer("d", "e")
        self.end(EXHAUSTED, "d")

        assert (self.state(), self.stage.in_flight) == (State.OPEN, [])

    def test_a_probe_to_a_bad_recipient_leaves_it_to_the_next(self) -> None:
        self.open()
        self.stage.pass_time(60, step=0.5)
        self.offer("d", "e")
        self.end(BAD_RECIPIENT, "d")

        assert (self.state(), self.stage.in_flight) == (State.HALF_OPEN, ["e"])

    def test_each_change_is_told(self) -> None:
        self.open()
        self.stage.pass_time(60, step=0.5)
        self.offer("d")
        self.end(SENT, "d")
        states = [call[2] for call in self.stage.witness.calls if call[:2] == ("breaker", "t1")]

        assert states == [State.OPEN, State.HALF_OPEN, State.CLOSED]

    def test_other_tenants_go_on(self) -> None:
        self.open()
        self.offer("x", tenant="t2")

        assert self.stage.in_flight == ["x"]

    def test_the_failure_that_opens_it_starts_no_more(self) -> None:
        self.stage = Stage(threshold=3, most_per_tenant=1)
        self.offer("a", "b", "c", "d")
        self.end(EXHAUSTED, "a")
        self.end(EXHAUSTED, "b")
        self.end(EXHAUSTED, "c")

        assert self.stage.begun == ["a", "b", "c"]

    def test_it_is_remembered_when_the_tenant_has_nothing_to_send(self) -> None:
        self.open()
        self.stage.pass_time(2)
        assert len(self.stage.lanes) == 0

        self.offer("d")
        assert self.stage.in_flight == []


class RoadTests(Troubled):
    def fail_everywhere(self) -> None:
        for number in range(3):
            for tenant in ("t1", "t2"):
                self.offer(f"{tenant} {number}", tenant=tenant)
        for number in range(2):
            for tenant in ("t1", "t2"):
                self.end(EXHAUSTED, f"{tenant} {number}")

    def test_when_all_fail_alike_it_is_nobodys_breaker(self) -> None:
        self.fail_everywhere()

        assert self.stage.turns.breaker.state is State.OPEN
        self.end(EXHAUSTED, "t1 2", "t2 2")
        assert (self.state("t1"), self.state("t2")) == (State.CLOSED, State.CLOSED)

    def test_one_message_finds_out_for_all(self) -> None:
        self.fail_everywhere()
        self.end(SENT, "t1 2", "t2 2")
        self.offer("a", "b", tenant="t1")
        self.offer("c", tenant="t2")
        assert self.stage.in_flight == []

        self.stage.pass_time(5.5)
        assert self.stage.in_flight == ["a"]
        self.end(SENT, "a")
        assert sorted(self.stage.in_flight) == ["b", "c"]

    def test_its_changes_are_told(self) -> None:
        self.fail_everywhere()

        assert ("breaker", None, State.OPEN) in self.stage.witness.calls


class ThrottleTests(Troubled):
    def setUp(self) -> None:
        self.stage = Stage(rate=100.0)

    def test_a_number_is_halved_once_for_each_throttle(self) -> None:
        self.offer("a", "b", "c")
        self.end(NUMBER_THROTTLE, "a", "b", "c")

        assert self.rate() == 50

    def test_a_pair_is_not_the_numbers_fault(self) -> None:
        self.offer("a")
        self.end(PAIR_THROTTLE, "a")

        assert self.rate() == 100

    def test_an_account_slows_all_its_numbers(self) -> None:
        self.stage.offer("a", "a", phone_number_id="1")
        self.stage.offer("b", "b", phone_number_id="2")
        self.end(ACCOUNT_THROTTLE, "a")
        standing = self.stage.standings.find("t1")
        assert standing is not None

        assert [standing.rate(number).current for number in ("1", "2")] == [50, 50]

    def test_after_it_one_message_goes_first(self) -> None:
        self.offer("a", "b")
        self.end(ACCOUNT_THROTTLE, "a")
        self.end(SENT, "b")
        self.offer("c")
        self.stage.pass_time(10.5)
        assert self.stage.in_flight == ["a"]

        self.end(SENT, "a")
        assert self.stage.in_flight == ["c"]

    def test_credentials_that_fail_meanwhile_do_not_make_it_forgotten(self) -> None:
        self.offer("a", "b", "c")
        self.end(ACCOUNT_THROTTLE, "a")
        self.end(Wait(Fault("no credentials"), Scope.TENANT, 5.0), "b")
        self.stage.pass_time(10.5)

        assert self.stage.in_flight == ["c"]
        self.end(SENT, "c")
        assert self.stage.in_flight == ["a", "b"]

    def test_one_of_the_app_slows_the_others_down_too(self) -> None:
        for tenant in ("t1", "t2", "t3"):
            self.offer(tenant, tenant=tenant)
        self.end(APP_THROTTLE, "t1", "t2")

        assert [self.rate(tenant) for tenant in ("t1", "t2", "t3")] == [50, 50, 50]

    def test_the_rate_is_remembered_when_the_tenant_has_nothing_to_send(self) -> None:
        self.offer("a")
        self.end(NUMBER_THROTTLE, "a")
        self.stage.pass_time(10.5)
        self.end(SENT, "a")
        self.stage.pass_time(3)
        assert len(self.stage.lanes) == 0

        assert self.rate() == 50


class QuotaTests(Troubled):
    def setUp(self) -> None:
        self.stage = Stage()
        self.stage.attempts.per_day = 2

    def test_no_more_go_in_a_day(self) -> None:
        self.offer("a", "b", "c")

        assert self.stage.in_flight == ["a", "b"]

    def test_what_was_throttled_is_given_back(self) -> None:
        self.offer("a", "b", "c")
        self.end(PAIR_THROTTLE, "a")
        self.stage.pass_time(2)

        assert self.stage.in_flight == ["b", "c"]

    def test_one_that_is_used_up_grows_when_another_worker_leaves(self) -> None:
        self.stage.lanes.share(2)
        self.offer("a", "b", "c")
        assert self.stage.in_flight == ["a"]

        self.stage.lanes.share(1)
        self.stage.pass_time(5)
        assert self.stage.in_flight == ["a", "b"]

    def test_it_does_also_while_its_tenant_has_nothing_to_send(self) -> None:
        self.stage.lanes.share(2)
        self.offer("a")
        self.end(SENT, "a")
        self.stage.pass_time(5)
        assert len(self.stage.lanes) == 0

        self.stage.lanes.share(1)
        self.offer("b", "c")
        self.stage.pass_time(5)
        assert self.stage.in_flight == ["b"]

    def test_one_that_is_used_up_grows_when_the_limit_is_raised(self) -> None:
        self.offer("a", "b", "c")
        self.stage.attempts.per_day = 3
        self.stage.pass_time(5)

        assert self.stage.in_flight == ["a", "b", "c"]

    def test_or_not_while_the_credentials_are_not_at_hand(self) -> None:
        self.offer("a", "b", "c")
        self.stage.attempts.rate = None
        self.stage.pass_time(2)

        assert self.stage.in_flight == ["a", "b"]

    def test_after_a_day_they_go_on(self) -> None:
        self.offer("a", "b")
        self.end(SENT, "a", "b")
        self.offer("c")
        self.stage.pass_time(86_000, step=60)
        assert self.stage.in_flight == []

        self.stage.pass_time(900, step=5)
        assert self.stage.in_flight == ["c"]


class SharingTests(Troubled):
    def test_workers_share_the_rate(self) -> None:
        self.stage = Stage(rate=20.0)
        self.stage.attempts.verdict = SENT
        self.offer("warm")
        self.stage.lanes.share(2)
        self.stage.lanes.share(2)
        self.offer(*[str(number) for number in range(200)])
        before = len(self.stage.settled)
        self.stage.pass_time(5)

        assert 48 <= len(self.stage.settled) - before <= 52

    def test_what_a_tenants_message_waits_for_is_asked_by_its_name(self) -> None:
        self.offer("a")
        self.end(PAIR_THROTTLE, "a")

        assert self.stage.lanes.waits_for("t1") is not None
        assert self.stage.lanes.waits_for("t2") is None
