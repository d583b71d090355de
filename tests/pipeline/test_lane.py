"""A lane that has nothing against it: order, priority, rate, and how many at once."""

from __future__ import annotations

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import EPOCH, RETRY, Stage
from whatsapp_egress.policy.verdict import Dead, Reason, Sent

SENT = Sent("wamid.1")


class OrderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = Stage()
        self.stage.warm_up()

    def test_a_message_is_begun_at_once_and_settled_when_it_ends(self) -> None:
        self.stage.offer("1")
        assert self.stage.begun == ["1"]

        self.stage.end("1", SENT)
        assert self.stage.settled == [("1", SENT)]

    def test_a_dead_one_is_settled_too(self) -> None:
        dead = Dead(Reason.REJECTED, "131026: Message undeliverable")
        self.stage.offer("1")
        self.stage.end("1", dead)

        assert self.stage.settled == [("1", dead)]

    def test_the_next_to_a_recipient_waits_for_the_one_before_it(self) -> None:
        self.stage.offer("1", "alice")
        self.stage.offer("2", "alice")
        assert self.stage.begun == ["1"]

        self.stage.end("1", SENT)
        assert self.stage.begun == ["1", "2"]

    def test_other_recipients_do_not_wait(self) -> None:
        self.stage.offer("1", "alice")
        self.stage.offer("2", "bob")

        assert self.stage.begun == ["1", "2"]

    def test_messages_without_a_recipient_do_not_wait_for_each_other(self) -> None:
        self.stage.offer("1", None)
        self.stage.offer("2", None)

        assert self.stage.begun == ["1", "2"]

    def test_one_recipient_of_two_numbers_has_two_conversations(self) -> None:
        self.stage.offer("1", "alice", phone_number_id="1")
        self.stage.offer("2", "alice", phone_number_id="2")

        assert self.stage.begun == ["1", "2"]

    def test_a_higher_priority_goes_first(self) -> None:
        self.stage.offer("first", "alice")
        for name, priority in (("low", 0), ("high", 10), ("usual", 5)):
            self.stage.offer(name, "alice", priority=priority)
        for name in ("first", "high", "usual", "low"):
            self.stage.end(name, SENT)

        assert self.stage.begun == ["first", "high", "usual", "low"]

    def test_a_higher_priority_goes_first_over_all_numbers_of_the_tenant(self) -> None:
        stage = Stage(most_per_tenant=1)
        stage.warm_up()
        stage.offer("first", phone_number_id="1")
        stage.offer("low", phone_number_id="1", priority=1)
        stage.offer("high", phone_number_id="2", priority=9)
        stage.end("first", SENT)

        assert stage.begun == ["first", "high"]

    def test_first_come_goes_first_over_all_numbers_of_the_tenant(self) -> None:
        stage = Stage(most_per_tenant=1)
        stage.warm_up()
        for number in range(3):
            stage.offer(f"a{number}", None, phone_number_id="100000001")
        for number in range(3):
            stage.offer(f"b{number}", None, phone_number_id="2")
        while stage.in_flight:
            stage.end(stage.in_flight[0], SENT)

        assert stage.begun == ["a0", "a1", "a2", "b0", "b1", "b2"]

    def test_an_expired_message_is_not_sent(self) -> None:
        self.stage.offer("1", expires_at=EPOCH)

        assert self.stage.begun == []
        assert self.stage.settled == [("1", Dead(Reason.EXPIRED, "expiresAt has passed"))]

    def test_a_message_that_expires_while_it_waits_is_not_sent(self) -> None:
        self.stage.offer("1", "alice")
        self.stage.offer("2", "alice", expires_at=EPOCH + 60)
        self.stage.clock.advance(60)
        self.stage.end("1", SENT)

        assert self.stage.begun == ["1"]
        assert [name for name, _ in self.stage.settled] == ["1", "2"]

    def test_a_message_that_expires_between_its_tries_is_not_tried_again(self) -> None:
        self.stage.offer("1", expires_at=EPOCH + 1)
        self.stage.end("1", RETRY)
        self.stage.clock.advance(60)

        assert self.stage.begun == ["1"]
        assert self.stage.settled == [("1", Dead(Reason.EXPIRED, "expiresAt has passed"))]

    def test_expired_messages_use_no_tokens_up(self) -> None:
        stage = Stage(rate=10.0)
        stage.warm_up()
        stage.pass_time(1)
        for number in range(100):
            stage.offer(f"expired {number}", None, expires_at=EPOCH)
        stage.offer("good", None)

        assert stage.begun == ["good"]
        assert len(stage.settled) == 100


class RateTests(SynchronousTestCase):
    def sent_in_five_seconds(self, rate: float) -> int:
        stage = Stage(rate=rate)
        stage.attempts.verdict = SENT
        for number in range(int(rate * 6) + 10):
            stage.offer(f"{number}", None)
        stage.pass_time(5)
        return len(stage.settled)

    def test_it_is_the_tenants_within_five_percent(self) -> None:
        for rate in (6, 7, 10, 20, 33, 80, 250):
            assert self.sent_in_five_seconds(rate) == pytest.approx(rate * 5, rel=0.05), f"{rate} a second"

    def test_it_is_within_one_message_where_that_is_more(self) -> None:
        for rate in (1, 2, 3, 5):
            assert self.sent_in_five_seconds(rate) == pytest.approx(rate * 5, abs=1), f"{rate} a second"

    def test_it_is_the_default_where_the_tenant_has_none(self) -> None:
        stage = Stage(rate=None)
        stage.attempts.verdict = SENT
        for number in range(1000):
            stage.offer(f"{number}", None)
        stage.learn("t1", None)
        stage.pass_time(5)

        assert len(stage.settled) == pytest.approx(80 * 5, rel=0.05)

    def test_each_number_has_its_own(self) -> None:
        stage = Stage(rate=20.0)
        stage.attempts.verdict = SENT
        for number in range(400):
            stage.offer(f"{number}", None, phone_number_id=str(number % 2))
        stage.pass_time(5)

        assert len(stage.settled) == pytest.approx(2 * 20 * 5, rel=0.05)

    def test_another_tenant_is_not_slowed(self) -> None:
        stage = Stage(rate=20.0)
        stage.attempts.verdict = SENT
        for number in range(1000):
            stage.offer(f"slow {number}", None, tenant_id="slow")
            stage.offer(f"fast {number}", None, tenant_id="fast")
        stage.attempts.rates["fast"] = 100.0
        stage.pass_time(5)
        fast = [name for name, _ in stage.settled if name.startswith("fast")]

        assert len(fast) == pytest.approx(100 * 5, rel=0.05)
        assert len(stage.settled) - len(fast) == pytest.approx(20 * 5, rel=0.05)

    def test_a_new_rate_counts_at_once(self) -> None:
        stage = Stage(rate=10.0)
        stage.attempts.verdict = SENT
        for number in range(1000):
            stage.offer(f"{number}", None)
        stage.pass_time(1)
        stage.attempts.rate = 100.0
        before = len(stage.settled)
        stage.pass_time(5)

        assert len(stage.settled) - before == pytest.approx(100 * 5, rel=0.05)

    def test_a_try_that_was_throttled_away_had_its_token(self) -> None:
        stage = Stage(rate=10.0, threshold=1000)
        stage.attempts.verdict = RETRY
        for number in range(100):
            stage.offer(f"{number}", None)
        stage.pass_time(5)

        assert len(stage.begun) == pytest.approx(50, rel=0.05)


class UnknownRateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = Stage(rate=None)
        for number in range(5):
            self.stage.offer(f"{number}", None)

    def test_one_message_asks_for_the_credentials(self) -> None:
        assert (self.stage.attempts.asked, self.stage.in_flight) == (["0"], [])

    def test_the_next_asks_when_it_has_ended_without_finding_out(self) -> None:
        not_found = Dead(Reason.TENANT_NOT_FOUND, "")
        self.stage.attempts.found("t1", not_found)

        assert self.stage.attempts.asked == ["0", "1"]
        assert self.stage.settled == [("0", not_found)]

    def test_the_others_follow_as_soon_as_the_rate_is_known(self) -> None:
        self.stage.learn("t1", 50.0)

        assert self.stage.in_flight == ["0", "1", "2", "3", "4"]

    def test_credentials_that_are_not_kept_are_good_for_the_one_that_asked(self) -> None:
        self.stage.attempts.keeps = False
        self.stage.learn("t1", 50.0)

        assert (self.stage.in_flight, self.stage.attempts.asked) == (["0"], ["0", "1"])

    def test_what_is_known_at_once_is_known_for_all(self) -> None:
        stage = Stage(rate=None)
        not_found = stage.attempts.refusal = Dead(Reason.TENANT_NOT_FOUND, "")
        for number in range(3):
            stage.offer(f"{number}", None)

        assert stage.settled == [(name, not_found) for name in "012"]

    def test_those_that_wait_hear_what_is_known_at_once(self) -> None:
        not_found = self.stage.attempts.refusal = Dead(Reason.TENANT_NOT_FOUND, "")
        self.stage.attempts.found("t1", not_found)

        assert [name for name, _ in self.stage.settled] == ["0", "1", "2", "3", "4"]

    def test_a_wait_for_them_takes_no_turn(self) -> None:
        assert self.stage.turns.taken == 0

    def test_a_fault_of_ours_leaves_the_message_with_the_broker(self) -> None:
        self.stage.attempts.broken("t1", ValueError("ours"))

        assert self.stage.given_up == ["0"]
        assert self.stage.attempts.asked == ["0", "1"]
        assert len(self.flushLoggedErrors(ValueError)) == 1


class InFlightTests(SynchronousTestCase):
    def test_a_tenant_has_only_so_many_in_flight(self) -> None:
        stage = Stage(most_per_tenant=2)
        stage.warm_up()
        for number in range(4):
            stage.offer(f"{number}", None)
        assert stage.in_flight == ["0", "1"]

        stage.end("0", SENT)
        assert stage.in_flight == ["1", "2"]

    def test_all_tenants_together_have_only_so_many_in_flight(self) -> None:
        stage = Stage(most=2)
        for number in range(4):
            stage.offer(f"{number}", None, tenant_id=f"t{number}")
        assert stage.in_flight == ["0", "1"]

        stage.end("1", SENT)
        assert stage.in_flight == ["0", "2"]

    def test_who_has_fewest_in_flight_goes_next(self) -> None:
        stage = Stage(most=3)
        stage.warm_up("greedy")
        for number in range(6):
            stage.offer(f"greedy {number}", None, tenant_id="greedy")
        stage.offer("modest", None, tenant_id="modest")
        stage.end("greedy 0", SENT)

        assert stage.in_flight == ["greedy 1", "greedy 2", "modest"]

    def test_many_tenants_whose_messages_end_at_once_follow_each_other(self) -> None:
        stage = Stage(most=1)
        stage.offer("first", tenant_id="t")
        for number in range(2000):
            stage.offer(f"{number}", tenant_id=f"t{number}", expires_at=EPOCH + 1)
        stage.clock.advance(1)
        stage.end("first", SENT)

        assert len(stage.settled) == 2001

    def test_many_tenants_come_to_an_end(self) -> None:
        stage = Stage(most=3, most_per_tenant=2)
        for number in range(200):
            stage.offer(f"{number}", f"{number % 7}", tenant_id=f"t{number % 11}")
        while stage.in_flight:
            assert len(stage.in_flight) <= 3
            stage.end(stage.in_flight[0], SENT)
            stage.pass_time(0.1)
        stage.pass_time(1)

        assert len(stage.settled) == 200
        assert stage.quiet
