"""A lane that meets with trouble: retries, throttles, outages, and whom they hold up."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import (
    NUMBER_THROTTLE,
    PAIR_THROTTLE,
    RETRY,
    TENANT_WAIT,
    TRANSIENT,
    Stage,
)
from whatsapp_egress.policy.verdict import Dead, Reason, Retry, Sent, Verdict, Wait

SENT = Sent("wamid.1")


class Waiting(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = Stage(threshold=1000)
        self.stage.warm_up()

    def try_again_and_again(self, name: str, verdict: Retry | Wait, times: int) -> list[float]:
        """The waits, in seconds, between so many tries that all end alike."""
        waits = []
        for _ in range(times):
            self.stage.end(name, verdict)
            ended = self.stage.clock.seconds()
            while name not in self.stage.in_flight:
                self.stage.clock.advance(0.5)
            waits.append(self.stage.clock.seconds() - ended)
        return waits


class RetryTests(Waiting):
    def test_it_is_tried_again_after_growing_waits_with_jitter(self) -> None:
        self.stage.offer("1")

        assert self.try_again_and_again("1", RETRY, 8) == [1.5, 2.5, 4.5, 8.5, 16.5, 32.5, 60.5, 60.5]

    def test_the_attempts_made_before_lengthen_the_first_wait(self) -> None:
        self.stage.offer("1", retry_count=2)

        assert self.try_again_and_again("1", RETRY, 1) == [4.5]

    def test_each_wait_is_told(self) -> None:
        self.stage.offer("1")
        self.stage.end("1", RETRY)

        assert self.stage.witness.calls == [("retrying", TRANSIENT, 1.5)]

    def test_the_verdict_can_lengthen_the_wait(self) -> None:
        self.stage.offer("1")

        assert self.try_again_and_again("1", evolve(RETRY, floor=60.0), 2) == [60, 60]

    def test_the_verdict_never_shortens_the_wait(self) -> None:
        self.stage.offer("1")

        assert self.try_again_and_again("1", evolve(RETRY, floor=0.5), 1) == [1.5]

    def test_fresh_credentials_need_no_backoff(self) -> None:
        self.stage.offer("1")
        self.stage.end("1", evolve(RETRY, reauthorize=True))
        self.stage.clock.advance(0)

        assert self.stage.begun == ["1", "1"]

    def test_the_same_conversation_waits_for_it(self) -> None:
        self.stage.offer("1", "alice")
        self.stage.offer("2", "alice")
        self.stage.end("1", RETRY)
        self.stage.clock.advance(1.4)
        assert self.stage.begun == ["1"]

        self.stage.clock.advance(0.1)
        self.stage.end("1", SENT)
        assert self.stage.begun == ["1", "1", "2"]

    def test_not_even_an_urgent_message_overtakes_it_in_its_conversation(self) -> None:
        self.stage.offer("1", "alice")
        self.stage.end("1", RETRY)
        self.stage.offer("urgent", "alice", priority=10)
        self.stage.clock.advance(60)

        assert self.stage.in_flight == ["1"]

    def test_others_go_on(self) -> None:
        self.stage.offer("1", "alice")
        self.stage.end("1", RETRY)
        self.stage.offer("2", "bob")

        assert self.stage.in_flight == ["2"]


class PairThrottleTests(Waiting):
    def test_the_waits_are_those_of_the_contract(self) -> None:
        self.stage.offer("1")

        waits = self.try_again_and_again("1", PAIR_THROTTLE, 7)
        assert waits == [6, 6, 16, 64, 256, 900, 900]

    def test_the_verdict_can_lengthen_the_wait(self) -> None:
        self.stage.offer("1")

        assert self.try_again_and_again("1", evolve(PAIR_THROTTLE, floor=30.0), 2) == [30, 30]

    def test_each_wait_is_told(self) -> None:
        self.stage.offer("1")
        self.stage.end("1", PAIR_THROTTLE)

        assert self.stage.witness.calls == [("waiting", PAIR_THROTTLE, 6.0)]

    def test_the_messages_after_it_wait_behind_it_and_are_sent(self) -> None:
        for name in ("1", "2", "3"):
            self.stage.offer(name, "alice")
        self.try_again_and_again("1", PAIR_THROTTLE, 3)
        assert set(self.stage.begun) == {"1"}

        for name in ("1", "2", "3"):
            self.stage.end(name, SENT)
        assert [name for name, _ in self.stage.settled] == ["1", "2", "3"]

    def test_other_recipients_go_on(self) -> None:
        self.stage.offer("1", "alice")
        self.stage.end("1", PAIR_THROTTLE)
        self.stage.offer("2", "bob")

        assert self.stage.in_flight == ["2"]

    def test_only_those_in_a_row_count(self) -> None:
        self.stage.offer("1")
        self.try_again_and_again("1", PAIR_THROTTLE, 3)
        self.try_again_and_again("1", RETRY, 1)

        assert self.try_again_and_again("1", PAIR_THROTTLE, 3) == [6, 6, 16]


class NumberThrottleTests(Waiting):
    def test_only_that_number_stops(self) -> None:
        self.stage.offer("1", phone_number_id="1")
        self.stage.end("1", NUMBER_THROTTLE)
        self.stage.offer("2", "bob", phone_number_id="1")
        self.stage.offer("3", "bob", phone_number_id="2")

        assert self.stage.in_flight == ["3"]

    def test_it_goes_on_where_it_stopped(self) -> None:
        self.stage.offer("1", "alice")
        self.stage.end("1", NUMBER_THROTTLE)
        self.stage.offer("2", "bob")
        self.stage.clock.advance(9.9)
        assert self.stage.in_flight == []

        self.stage.clock.advance(0.1)
        assert self.stage.in_flight == ["1"]
        self.stage.end("1", SENT)
        assert self.stage.in_flight == ["2"]

    def test_the_waits_grow_while_nothing_passes(self) -> None:
        self.stage.offer("1")

        waits = self.try_again_and_again("1", NUMBER_THROTTLE, 8)
        assert waits == [10, 20, 40, 80, 160, 320, 600, 600]

    def test_the_spam_throttle_grows_from_where_it_begins(self) -> None:
        self.stage.offer("1")

        assert self.try_again_and_again("1", evolve(NUMBER_THROTTLE, floor=900.0), 2) == [900, 1800]

    def test_they_begin_anew_when_something_has_passed(self) -> None:
        self.stage.offer("1")
        self.try_again_and_again("1", NUMBER_THROTTLE, 3)
        self.stage.end("1", SENT)
        self.stage.offer("2")

        assert self.try_again_and_again("2", NUMBER_THROTTLE, 1) == [10]

    def test_they_do_not_grow_because_several_were_in_flight(self) -> None:
        for name in ("1", "2", "3"):
            self.stage.offer(name, name)
        for name in ("1", "2", "3"):
            self.stage.end(name, NUMBER_THROTTLE)

        assert self.stage.witness.delays() == [10, 10, 10]

    def test_another_tenant_notices_nothing(self) -> None:
        self.stage.offer("1")
        self.stage.end("1", NUMBER_THROTTLE)
        self.stage.offer("2", tenant_id="t2")

        assert self.stage.in_flight == ["2"]

    def test_the_lane_is_not_forgotten_while_its_number_is_throttled(self) -> None:
        self.stage.offer("1")
        self.stage.end("1", NUMBER_THROTTLE)
        self.stage.jobs[-1].delivery.alive = False  # type: ignore[misc]
        self.stage.lanes.abandon()
        self.stage.pass_time(5)
        self.stage.offer("2")

        assert self.stage.in_flight == []


class TenantWaitTests(Waiting):
    def test_the_whole_lane_stops(self) -> None:
        self.stage.offer("1", phone_number_id="1")
        self.stage.end("1", TENANT_WAIT)
        self.stage.offer("2", "bob", phone_number_id="2")

        assert self.stage.in_flight == []

    def test_another_tenant_goes_on(self) -> None:
        self.stage.offer("1")
        self.stage.end("1", TENANT_WAIT)
        self.stage.offer("2", tenant_id="t2")

        assert self.stage.in_flight == ["2"]

    def test_it_goes_on_after_the_wait(self) -> None:
        self.stage.offer("1", "alice")
        self.stage.offer("2", "bob")
        self.stage.end("1", TENANT_WAIT)
        self.stage.end("2", TENANT_WAIT)
        self.stage.clock.advance(5)

        assert self.stage.in_flight == ["1", "2"]

    def test_then_one_message_asks_for_the_credentials(self) -> None:
        self.several_end(TENANT_WAIT)
        self.stage.clock.advance(5)
        assert (self.stage.attempts.asked, self.stage.in_flight) == (["1"], [])

        self.stage.learn("t1", 50.0)
        assert self.stage.in_flight == ["1", "2", "3"]

    def test_one_message_asks_too_when_the_token_was_refused(self) -> None:
        self.several_end(evolve(RETRY, reauthorize=True))
        self.stage.clock.advance(0)

        assert (self.stage.attempts.asked, self.stage.in_flight) == (["1"], [])

    def test_it_asks_though_others_are_still_in_flight(self) -> None:
        self.stage.offer("slow", "slow")
        self.stage.offer("refused", "refused")
        self.stage.attempts.rate = None
        self.stage.end("refused", evolve(RETRY, reauthorize=True))
        self.stage.offer("next", "next")
        assert (self.stage.attempts.asked, self.stage.in_flight) == (["next"], ["slow"])

        self.stage.clock.advance(0)
        assert self.stage.in_flight == ["slow"]
        self.stage.learn("t1", 50.0)
        assert sorted(self.stage.in_flight) == ["next", "refused", "slow"]

    def several_end(self, verdict: Verdict) -> None:
        names = ("1", "2", "3")
        for name in names:
            self.stage.offer(name, name)
        self.stage.attempts.rate = None
        for name in names:
            self.stage.end(name, verdict)

    def test_the_waits_grow_up_to_what_the_verdict_says(self) -> None:
        self.stage.offer("1")

        assert self.try_again_and_again("1", TENANT_WAIT, 5) == [5, 10, 20, 30, 30]

    def test_they_begin_anew_when_something_was_sent(self) -> None:
        self.stage.offer("1")
        self.try_again_and_again("1", TENANT_WAIT, 3)
        self.stage.end("1", SENT)
        self.stage.offer("2")

        assert self.try_again_and_again("2", TENANT_WAIT, 1) == [5]

    def test_they_do_not_begin_anew_because_a_message_died(self) -> None:
        self.stage.offer("1")
        self.try_again_and_again("1", TENANT_WAIT, 2)
        self.stage.end("1", Dead(Reason.REJECTED, ""))
        self.stage.offer("2")

        assert self.try_again_and_again("2", TENANT_WAIT, 1) == [20]

    def test_each_wait_is_told(self) -> None:
        self.stage.offer("1")
        self.stage.end("1", TENANT_WAIT)

        assert self.stage.witness.calls == [("waiting", TENANT_WAIT, 5.0)]
