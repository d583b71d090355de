"""All lanes: made when there is something to send, gone when there is nothing, and how they end."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import (
    NUMBER_THROTTLE,
    PAIR_THROTTLE,
    RETRY,
    TENANT_WAIT,
    TRANSIENT,
    FakeDelivery,
    Stage,
)
from whatsapp_egress.pipeline.job import Job
from whatsapp_egress.policy.verdict import Dead, Reason, Retry, Sent, Verdict

SENT = Sent("wamid.1")
TROUBLE: list[Verdict] = [RETRY, PAIR_THROTTLE, NUMBER_THROTTLE, TENANT_WAIT]


def lost(job: Job) -> None:
    assert isinstance(job.delivery, FakeDelivery)
    job.delivery.alive = False


class IdleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = Stage()

    def test_each_tenant_has_a_lane_of_its_own(self) -> None:
        for name, tenant_id in (("1", "t1"), ("2", "t2"), ("3", "t1")):
            self.stage.offer(name, None, tenant_id=tenant_id)

        assert len(self.stage.lanes) == 2

    def test_it_is_gone_with_its_timers_when_its_bucket_is_full_again(self) -> None:
        self.stage.offer("1")
        self.stage.end("1", SENT)
        assert len(self.stage.lanes) == 1

        self.stage.pass_time(1)
        assert self.stage.quiet

    def test_it_is_gone_after_any_trouble(self) -> None:
        for trouble in TROUBLE:
            self.stage.offer("1")
            self.stage.end("1", trouble)
            self.stage.pass_time(30, step=0.5)
            self.stage.end("1", SENT)
            self.stage.pass_time(1)

            assert self.stage.quiet, trouble

    def test_it_is_gone_at_once_where_all_that_came_had_expired(self) -> None:
        self.stage.offer("1", expires_at=0.0)

        assert self.stage.quiet

    def test_it_stays_while_a_message_is_in_flight(self) -> None:
        self.stage.offer("1")
        self.stage.pass_time(10)

        assert len(self.stage.lanes) == 1

    def test_it_stays_while_a_number_is_throttled(self) -> None:
        self.stage.offer("1", "alice")
        self.stage.offer("2", "bob")
        self.stage.end("1", NUMBER_THROTTLE)
        self.stage.end("2", SENT)
        lost(self.stage.jobs[0])
        self.stage.lanes.abandon()
        self.stage.pass_time(9)
        assert len(self.stage.lanes) == 1

        self.stage.clock.advance(1.1)
        assert self.stage.quiet

    def test_it_stays_while_its_tenant_waits(self) -> None:
        self.stage.offer("1", "alice")
        self.stage.offer("2", "bob")
        self.stage.end("1", TENANT_WAIT)
        self.stage.end("2", SENT)
        lost(self.stage.jobs[0])
        self.stage.lanes.abandon()
        self.stage.pass_time(4)
        assert len(self.stage.lanes) == 1

        self.stage.clock.advance(1.1)
        assert self.stage.quiet

    def test_it_is_gone_where_another_worker_got_what_it_had_put_aside(self) -> None:
        self.stage.queues.hands_leases_on = False
        self.stage.offer("1", "alice")
        self.stage.end("1", evolve(PAIR_THROTTLE, floor=100.0))
        self.stage.pass_time(70, step=0.5)
        for queue in self.stage.queues.queues.values():
            queue.ready.clear()
        self.stage.pass_time(29, step=0.5)
        assert len(self.stage.lanes) == 1

        self.stage.pass_time(3)
        assert self.stage.quiet

    def test_numbers_that_have_nothing_to_send_are_forgotten_while_others_go_on(self) -> None:
        self.stage.offer("in flight", phone_number_id="0")
        for number in range(1, 100):
            self.stage.offer(f"{number}", phone_number_id=f"{number}")
            self.stage.end(f"{number}", SENT)
        self.stage.pass_time(1)

        assert list(self.stage.lanes._lanes["t1"]._senders) == ["0"]

    def test_a_tenant_that_comes_back_gets_a_new_one(self) -> None:
        self.stage.offer("1")
        self.stage.end("1", SENT)
        self.stage.pass_time(1)
        self.stage.offer("2")

        assert self.stage.in_flight == ["2"]

    def test_the_old_lane_of_a_tenant_has_no_say_in_the_new_one(self) -> None:
        stage = Stage(most=2)
        stage.warm_up("t2")
        for name in ("busy", "busy too"):
            stage.offer(name, None, tenant_id="t1")
        lost(stage.offer("lost", tenant_id="t2"))
        stage.lanes.abandon()
        stage.pass_time(1)
        assert len(stage.lanes) == 1

        stage.offer("1", "alice", tenant_id="t2")
        stage.end("busy", SENT)
        stage.offer("2", "alice", tenant_id="t2")
        stage.end("busy too", SENT)
        assert stage.in_flight == ["1"]

    def test_not_even_when_it_is_pumped_once_more(self) -> None:
        self.stage.offer("1")
        old = self.stage.lanes._lanes["t1"]
        self.stage.end("1", SENT)
        self.stage.pass_time(1)
        self.stage.offer("2")
        old.pump()

        assert len(self.stage.lanes) == 1

    def test_not_even_when_a_token_was_refused_in_its_last_moments(self) -> None:
        for phase in range(1, 100, 7):
            for gap in (0.02, 0.05, 0.09):
                self.assert_one_lane(phase / 1000, gap)

    def assert_one_lane(self, phase: float, gap: float) -> None:
        """Two numbers, a 190 while their buckets fill, and a new message as soon as the lane is gone."""
        stage = Stage(rate=80.0)
        stage.offer("w", None, phone_number_id="2")
        stage.clock.advance(phase)
        stage.offer("x", None, phone_number_id="1")
        stage.end("x", SENT)
        stage.clock.advance(gap)
        stage.end("w", Retry(TRANSIENT, reauthorize=True))
        stage.clock.advance(0.001)
        stage.end("w", SENT)
        while len(stage.lanes):
            stage.clock.advance(0.001)
        stage.offer("1", "alice", phone_number_id="2")
        stage.pass_time(0.2, step=0.001)
        stage.offer("2", "alice", phone_number_id="2")

        assert stage.in_flight == ["1"], (phase, gap)


class LostConnectionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = Stage()
        self.stage.warm_up()

    def test_what_waits_is_left_to_the_broker(self) -> None:
        for name in ("1", "2", "3"):
            self.stage.offer(name, "alice")
        self.stage.lose_connection()

        assert self.stage.given_up == ["2", "3"]

    def test_what_is_in_flight_is_settled_when_it_ends(self) -> None:
        self.stage.offer("1")
        self.stage.lose_connection()
        self.stage.end("1", SENT)

        assert self.stage.settled == [("1", SENT)]
        assert self.stage.given_up == []

    def test_what_would_have_to_be_tried_again_is_left_to_the_broker(self) -> None:
        for number, trouble in enumerate(TROUBLE):
            self.stage.offer(f"{number}", f"{number}")
            self.stage.lose_connection()
            self.stage.end(f"{number}", trouble)

        assert self.stage.given_up == ["0", "1", "2", "3"]
        self.stage.pass_time(100)
        assert self.stage.quiet

    def test_what_is_held_for_another_try_is_left_to_the_broker_when_its_time_comes(self) -> None:
        self.stage.offer("1", "alice")
        self.stage.end("1", RETRY)
        self.stage.lose_connection()
        self.stage.pass_time(60)

        assert self.stage.begun == ["1"]
        assert self.stage.given_up == ["1"]
        assert self.stage.quiet

    def test_what_is_held_is_tried_again_where_its_redelivery_came_meanwhile(self) -> None:
        job = self.stage.offer("1", "alice")
        self.stage.end("1", RETRY)
        self.stage.lose_connection()
        job.delivery = FakeDelivery(b"1", redelivered=True)
        self.stage.pass_time(60)

        assert self.stage.begun == ["1", "1"]
        assert self.stage.given_up == []

    def test_what_waits_for_a_throttle_is_left_to_the_broker(self) -> None:
        for trouble in (NUMBER_THROTTLE, TENANT_WAIT):
            stage = Stage()
            stage.offer("1", "alice")
            stage.end("1", trouble)
            stage.offer("2", "alice")
            stage.lose_connection()

            assert stage.given_up == ["1", "2"]
            stage.pass_time(11)
            assert stage.quiet

    def test_what_came_on_another_channel_stays(self) -> None:
        self.stage.offer("1", "alice")
        lost(self.stage.offer("2", "alice"))
        self.stage.offer("3", "alice")
        self.stage.lanes.abandon()
        self.stage.end("1", SENT)

        assert self.stage.given_up == ["2"]
        assert self.stage.in_flight == ["3"]


class CrashTests(SynchronousTestCase):
    def test_a_message_whose_attempt_crashed_stays_with_the_broker_and_the_lane_goes_on(self) -> None:
        stage = Stage()
        stage.offer("1", "alice")
        stage.offer("2", "alice")
        stage.attempts.crash("1", ZeroDivisionError())

        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1
        assert stage.given_up == ["1"]
        assert stage.in_flight == ["2"]

    def test_its_turn_is_free_again(self) -> None:
        stage = Stage(most=1)
        stage.offer("1", tenant_id="t1")
        stage.offer("2", tenant_id="t2")
        stage.attempts.crash("1", ZeroDivisionError())

        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1
        assert stage.in_flight == ["2"]

    def test_a_fault_of_ours_after_a_wait_is_logged(self) -> None:
        class BrokenDelivery(FakeDelivery):
            @property
            def alive(self) -> bool:
                raise ZeroDivisionError

            @alive.setter
            def alive(self, alive: bool) -> None: ...

        stage = Stage()
        job = stage.offer("1")
        stage.end("1", RETRY)
        job.delivery = BrokenDelivery()
        stage.clock.advance(60)

        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1


class StopTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = Stage()
        self.stage.warm_up()

    def test_nothing_in_flight_is_stopped_at_once(self) -> None:
        self.successResultOf(self.stage.lanes.stop())

        assert self.stage.clock.getDelayedCalls() == []

    def test_what_is_in_flight_may_end(self) -> None:
        self.stage.offer("1")
        stopped = self.stage.lanes.stop()
        self.assertNoResult(stopped)
        self.stage.end("1", SENT)

        self.successResultOf(stopped)
        assert self.stage.settled == [("1", SENT)]

    def test_what_is_not_in_flight_is_left_to_the_broker(self) -> None:
        for name in ("1", "2", "3"):
            self.stage.offer(name, "alice")
        self.stage.lanes.stop()
        self.stage.end("1", SENT)

        assert self.stage.given_up == ["2", "3"]
        assert self.stage.begun == ["1"]

    def test_what_would_have_to_be_tried_again_is_left_to_the_broker(self) -> None:
        for number, _ in enumerate(TROUBLE):
            self.stage.offer(f"{number}", f"{number}")
        stopped = self.stage.lanes.stop()
        for number, trouble in enumerate(TROUBLE):
            self.stage.end(f"{number}", trouble)

        self.successResultOf(stopped)
        assert self.stage.given_up == ["0", "1", "2", "3"]
        assert self.stage.clock.getDelayedCalls() == []

    def test_what_is_held_and_all_that_waits_behind_it_is_left_to_the_broker(self) -> None:
        for trouble in TROUBLE:
            stage = Stage()
            stage.offer("1", "alice")
            stage.end("1", trouble)
            stage.offer("2", "alice")
            self.successResultOf(stage.lanes.stop())

            assert stage.given_up == ["1", "2"], trouble
            assert stage.clock.getDelayedCalls() == []

    def test_what_waits_for_a_turn_is_left_to_the_broker(self) -> None:
        stage = Stage(most=1)
        stage.offer("1", tenant_id="t1")
        stage.offer("2", tenant_id="t2")
        stage.lanes.stop()
        stage.end("1", SENT)

        assert stage.given_up == ["2"]
        assert stage.begun == ["1"]

    def test_what_comes_after_it_is_left_to_the_broker(self) -> None:
        self.stage.lanes.stop()
        self.stage.offer("late")

        assert self.stage.given_up == ["late"]
        assert self.stage.begun == []

    def test_a_rate_that_is_learned_after_it_starts_nothing(self) -> None:
        stage = Stage(rate=None)
        stage.offer("1", None)
        stage.lanes.stop()
        stage.learn("t1", 50.0)

        assert (stage.begun, stage.given_up) == ([], ["1"])

    def test_cut_short_leaves_what_is_in_flight_to_the_broker(self) -> None:
        self.stage.offer("1")
        stopped = self.stage.lanes.stop()
        self.stage.lanes.cut_short()

        self.successResultOf(stopped)
        assert self.stage.given_up == ["1"]
        assert self.stage.settled == []
        assert self.flushLoggedErrors(CancelledError) == []

    def test_a_message_that_dies_meanwhile_is_settled(self) -> None:
        dead = Dead(Reason.REJECTED, "")
        self.stage.offer("1")
        self.stage.lanes.stop()
        self.stage.end("1", dead)

        assert self.stage.settled == [("1", dead)]
