"""Where a certain message is, and what it waits for."""

from __future__ import annotations

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import (
    EPOCH,
    NUMBER_THROTTLE,
    PAIR_THROTTLE,
    RETRY,
    TENANT_WAIT,
    FakeBroker,
    FakeDelivery,
    Stage,
)
from whatsapp_egress.message import Identity
from whatsapp_egress.pipeline.job import Parcel
from whatsapp_egress.pipeline.recent import digest
from whatsapp_egress.pipeline.road import Cause, WaitsFor
from whatsapp_egress.pipeline.whereabouts import Tracker, Where, Whereabouts
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.policy.quota import DAY, SLOT
from whatsapp_egress.policy.table import ErrorClass
from whatsapp_egress.policy.verdict import Dead, Fault, Reason, Scope, Sent, Wait

SENT = Sent("wamid.1")
REJECTED = Dead(Reason.REJECTED, "131026: undeliverable")
ACCOUNT_THROTTLE = Wait(Fault("4: Too many calls", ErrorClass.THROTTLE_WABA_OR_APP), Scope.TENANT, 10.0)
PAUSE = Pause("they asked for it", "ops", EPOCH)


class Tracking(SynchronousTestCase):
    def setUp(self) -> None:
        self.set_stage(Stage())
        self.stage.warm_up()

    def set_stage(self, stage: Stage) -> None:
        self.stage = stage
        self.tracker = Tracker(stage.lanes, stage.recent)

    def find(self, name: str) -> Whereabouts:
        (found,) = self.tracker.find(name)
        return found

    def waits_for(self, name: str) -> WaitsFor | None:
        return self.find(name).waits_for

    def offer(self, *names: str, to: str | None = None) -> None:
        for name in names:
            self.stage.offer(name, to or name)


class GateTests(Tracking):
    def test_one_in_flight_waits_for_nothing(self) -> None:
        self.offer("1")

        assert self.find("1") == Whereabouts(Identity("t1", "100000001", "1"), Where.IN_FLIGHT, 1)

    def test_one_behind_it_waits_for_its_conversation(self) -> None:
        self.offer("1", "2", "3", to="alice")

        assert self.find("3") == Whereabouts(
            Identity("t1", "100000001", "3"), Where.IN_HAND, 0, WaitsFor(Cause.CONVERSATION), ahead=2
        )

    def test_its_recipient_that_is_throttled_stops_all_of_its_conversation(self) -> None:
        self.offer("1", "2", to="alice")
        self.stage.end("1", PAIR_THROTTLE)

        assert self.find("1").ahead == 0
        assert self.find("2").ahead == 1
        assert self.waits_for("1") == self.waits_for("2") == WaitsFor(Cause.RECIPIENT, 6.0)

    def test_another_attempt_is_waited_for(self) -> None:
        self.offer("1", "2", to="alice")
        self.stage.end("1", RETRY)

        assert self.waits_for("1") == self.waits_for("2") == WaitsFor(Cause.RETRY, 1.5)
        assert self.find("1").attempts == 1

    def test_a_throttled_number_stops_its_own_alone(self) -> None:
        self.stage.offer("1", phone_number_id="1")
        self.stage.offer("2", "bob", phone_number_id="1")
        self.stage.offer("3", phone_number_id="2")
        self.stage.end("1", NUMBER_THROTTLE)
        self.stage.end("2", evolve(NUMBER_THROTTLE, floor=20.0))

        assert self.waits_for("1") == self.waits_for("2") == WaitsFor(Cause.THROTTLE, 20.0)
        assert self.find("3").where is Where.IN_FLIGHT

    def test_what_stops_the_whole_tenant(self) -> None:
        self.offer("1")
        self.stage.end("1", TENANT_WAIT)
        assert self.waits_for("1") == WaitsFor(Cause.CREDENTIALS, 5.0)

        self.stage.clock.advance(5)
        self.stage.end("1", ACCOUNT_THROTTLE)
        assert self.waits_for("1") == WaitsFor(Cause.THROTTLE, 25.0)

        self.stage.lanes._lanes["t1"].standing.breaker.trip()
        assert self.waits_for("1") == WaitsFor(Cause.BREAKER, 65.0)

        self.stage.lanes._lanes["t1"].standing.pause = PAUSE
        assert self.waits_for("1") == WaitsFor(Cause.PAUSE)

    def test_a_probe_that_finds_out(self) -> None:
        self.stage.lanes._lanes["t1"].standing.breaker.trip()
        self.stage.clock.advance(30)
        self.offer("1", "2")
        self.stage.clock.advance(30)

        assert self.find("1").where is Where.IN_FLIGHT
        assert self.waits_for("2") == WaitsFor(Cause.BREAKER)

    def test_another_day(self) -> None:
        self.stage.attempts.per_day = 2
        self.offer("1", "2", to="alice")
        self.offer("3")
        self.stage.end("1", SENT)

        assert self.waits_for("2") == WaitsFor(Cause.DAY, DAY + SLOT)

    def test_credentials_that_are_asked_for(self) -> None:
        self.set_stage(Stage(rate=None))
        self.offer("1", "2")

        assert self.waits_for("1") == self.waits_for("2") == WaitsFor(Cause.CREDENTIALS)
        assert self.find("1").where is Where.IN_HAND

    def test_one_in_flight_is_so_while_others_wait_for_credentials(self) -> None:
        self.offer("1")
        self.stage.attempts.rates["t1"] = None
        self.stage.attempts.at_hand = lambda _tenant_id: None  # type: ignore[method-assign,assignment]
        self.offer("2")

        assert self.find("1").where is Where.IN_FLIGHT
        assert self.waits_for("2") == WaitsFor(Cause.CREDENTIALS)

    def test_a_token(self) -> None:
        self.set_stage(Stage(rate=2.0))
        self.stage.warm_up()
        self.stage.pass_time(1)
        self.offer("1", "2")

        waits_for = self.waits_for("2")
        assert waits_for is not None
        assert waits_for.cause is Cause.TOKEN
        assert waits_for.until is not None
        assert waits_for.until == pytest.approx(self.stage.clock.seconds() + 0.4)

    def test_a_turn(self) -> None:
        self.set_stage(Stage(most=1))
        self.stage.offer("other", tenant_id="t2")
        self.offer("1")

        assert self.waits_for("1") == WaitsFor(Cause.TURN)

    def test_the_road_and_who_finds_out_about_it(self) -> None:
        self.stage.turns.breaker.trip()
        self.stage.offer("other", tenant_id="t2")
        self.offer("1")
        assert self.waits_for("1") == WaitsFor(Cause.ROAD, 5.0)

        self.stage.clock.advance(5)
        assert self.find("other").where is Where.IN_FLIGHT
        assert self.waits_for("1") == WaitsFor(Cause.ROAD)


class EndingTests(Tracking):
    def test_one_that_nobody_knows_is_not_found(self) -> None:
        self.offer("1")

        assert self.tracker.find("2") == []

    def test_one_that_was_sent(self) -> None:
        self.offer("1")
        self.stage.clock.advance(3)
        self.stage.end("1", SENT)

        assert self.find("1") == Whereabouts(
            Identity("t1", "100000001", "1"), Where.SENT, 1, at=3.0, wamid="wamid.1"
        )

    def test_one_that_was_dead_lettered(self) -> None:
        self.offer("1")
        self.stage.end("1", REJECTED)

        assert self.find("1") == Whereabouts(
            Identity("t1", "100000001", "1"), Where.DEAD_LETTERED, 1, at=0.0, reason=Reason.REJECTED
        )

    def test_one_whose_dead_letter_is_not_confirmed_waits_for_the_broker(self) -> None:
        broker = self.stage.outcome._broker
        assert isinstance(broker, FakeBroker)
        broker.on_dead_letter = Deferred
        self.offer("1")
        self.stage.end("1", REJECTED)

        assert self.find("1").where is Where.IN_HAND
        assert self.waits_for("1") == WaitsFor(Cause.BROKER)

    def test_so_does_one_that_is_no_message(self) -> None:
        self.stage.recent.begin(
            Parcel(FakeDelivery(b"x"), digest(b"x"), Identity("t9", None, "1"), received=0.0)
        )

        assert self.waits_for("1") == WaitsFor(Cause.BROKER)

    def test_and_one_on_its_way_to_a_deferred_queue(self) -> None:
        self.stage.queues.on_publish = Deferred
        self.stage.lanes.pause("t1", PAUSE)
        self.offer("1")

        assert self.waits_for("1") == WaitsFor(Cause.BROKER)
        assert self.find("1").where is Where.IN_HAND

    def test_one_that_was_deferred(self) -> None:
        self.stage.lanes.pause("t1", PAUSE)
        self.offer("1")

        assert self.find("1") == Whereabouts(
            Identity("t1", "100000001", "1"), Where.DEFERRED, 0, WaitsFor(Cause.PAUSE), at=0.0
        )

    def test_a_copy_of_which_nobody_knows_whose_it_is_waits_for_nothing_we_know(self) -> None:
        parcel = Parcel(FakeDelivery(b"x"), digest(b"x"), Identity(None, None, "1"), received=0.0)
        self.stage.recent.begin(parcel)
        self.stage.outcome.moved(parcel)

        assert self.find("1").where is Where.DEFERRED
        assert self.waits_for("1") is None

    def test_one_that_came_back_from_there_is_told_of_once(self) -> None:
        self.stage.lanes.pause("t1", PAUSE)
        self.offer("1")
        self.stage.lanes.resume("t1")
        self.stage.pass_time(2)
        assert self.find("1").where is Where.IN_FLIGHT

        self.stage.end("1", SENT)
        assert self.find("1").where is Where.SENT

    def test_one_whose_ack_the_broker_has_not_seen_has_ended_all_the_same(self) -> None:
        self.offer("1")
        self.stage.lose_connection()
        self.stage.end("1", SENT)
        self.offer("2")
        self.stage.end("2", RETRY)
        self.stage.lose_connection()
        self.stage.pass_time(2)

        assert self.find("1").where is Where.SENT
        assert self.tracker.find("2") == []

    def test_those_of_one_name_are_told_of_together_and_can_be_told_apart(self) -> None:
        for tenant in ("t2", "t3"):
            self.stage.offer("1", tenant_id=tenant)
        self.stage.end("1", SENT)

        assert {each.identity.tenant_id: each.where for each in self.tracker.find("1")} == {
            "t2": Where.IN_FLIGHT,
            "t3": Where.SENT,
        }
        assert [each.identity.tenant_id for each in self.tracker.find("1", "t3")] == ["t3"]
