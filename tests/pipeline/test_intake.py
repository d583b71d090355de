"""Where deliveries come in: what is a message, what is none, and what was here before."""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import EPOCH, FakeBroker, FakeDelivery, Witness, confirmed, refused
from whatsapp_egress.deferred import Place
from whatsapp_egress.message import decode
from whatsapp_egress.pipeline.intake import Intake
from whatsapp_egress.pipeline.job import Job
from whatsapp_egress.pipeline.outcome import PUBLISH_AGAIN, Outcome
from whatsapp_egress.pipeline.recent import KEEP_SECONDS, Recent, digest
from whatsapp_egress.policy.verdict import Dead, History, Reason, Sent

BODY = (
    b'{"metadata": {"tenantId": "t1", "phoneNumberId": "100000001", "internalId": "m-1", "retryCount": 1},'
    b' "wabaPayload": {"messaging_product": "whatsapp", "to": "15550001111"}}'
)
DEAD = Dead(Reason.REJECTED, "131026: Message undeliverable")


class Receiving(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(7)
        self.broker, self.witness = FakeBroker(), Witness()
        self.recent = Recent(self.clock)
        self.outcome = Outcome(self.broker, self.recent, self.witness, self.clock, lambda: EPOCH)
        self.offered: list[Job] = []
        self.intake = Intake(
            partial(decode, max_bytes=10_000),
            self.offered.append,
            self.outcome,
            self.recent,
            self.witness,
            self.clock,
        )

    def receive(self, body: bytes = BODY, *, redelivered: bool = False) -> FakeDelivery:
        delivery = FakeDelivery(body, redelivered=redelivered)
        self.intake.receive(delivery)
        return delivery

    def end(self, verdict: Sent | Dead) -> None:
        """The message that was offered last ends."""
        self.outcome.settle(self.offered[-1], verdict)


class NewTests(Receiving):
    def test_a_message_becomes_a_job_and_is_offered(self) -> None:
        delivery = self.receive()

        (job,) = self.offered
        assert job.delivery is delivery
        assert job.digest == digest(BODY)
        assert (job.message.internal_id, job.attempts, job.received) == ("m-1", 1, 7)
        assert self.witness.names == ["consumed"]

    def test_it_is_neither_acked_nor_published(self) -> None:
        delivery = self.receive()

        assert delivery.acks == 0
        assert (self.broker.events, self.broker.dead_letters) == ([], [])

    def test_it_is_in_hand(self) -> None:
        self.receive()

        assert self.recent.recall(digest(BODY)) is self.offered[0]

    def test_what_is_no_message_is_dead_lettered_with_the_reason(self) -> None:
        delivery = self.receive(b"not json")

        (letter,) = self.broker.dead_letters
        assert letter.body == b"not json"
        assert letter.headers["x-egress-reason"] == "invalid_message"
        assert str(letter.headers["x-egress-detail"]).startswith("body: ")
        assert letter.headers["x-egress-attempts"] == 0
        assert delivery.acks == 1
        assert self.offered == []
        assert self.witness.names == ["consumed", "dead_lettered"]

    def test_what_can_not_be_read_for_a_fault_of_ours_is_dead_lettered_too(self) -> None:
        self.patch(self.intake, "_decode", lambda body: 1 // 0)
        delivery = self.receive()

        (letter,) = self.broker.dead_letters
        assert letter.headers["x-egress-reason"] == "invalid_message"
        assert "ZeroDivisionError" in str(letter.headers["x-egress-detail"])
        assert delivery.acks == 1
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1

    def test_what_is_no_message_is_told_with_the_ids_that_could_be_read(self) -> None:
        self.receive(BODY.replace(b'"retryCount": 1', b'"retryCount": -1'))

        (key, told), *_ = self.broker.events
        assert key == "outbound.failed.t1"
        assert told["internalId"] == "m-1"


class RedeliveryTests(Receiving):
    def test_one_that_was_never_seen_is_a_new_message(self) -> None:
        self.receive(redelivered=True)

        assert len(self.offered) == 1
        assert self.witness.names == ["consumed"]

    def test_one_of_a_message_on_its_way_is_acked_in_the_place_of_the_lost_one(self) -> None:
        lost = self.receive()
        lost.alive = False
        delivery = self.receive(redelivered=True)

        assert len(self.offered) == 1
        assert self.witness.names == ["consumed", "recalled"]
        self.end(Sent("wamid.1"))
        assert (lost.acks, delivery.acks) == (0, 1)

    def test_one_of_a_sent_message_is_acked_and_not_sent_or_told_again(self) -> None:
        lost = self.receive()
        lost.alive = False
        self.end(Sent("wamid.1"))
        delivery = self.receive(redelivered=True)

        assert delivery.acks == 1
        assert len(self.offered) == 1
        assert len(self.broker.events) == 1
        assert self.witness.names == ["consumed", "delivered", "unsettled", "recalled"]

    def test_one_of_a_dead_letter_that_was_confirmed_is_acked_and_not_published_again(self) -> None:
        self.receive().alive = False
        self.end(DEAD)
        delivery = self.receive(redelivered=True)

        assert delivery.acks == 1
        assert (len(self.broker.dead_letters), len(self.broker.events)) == (1, 1)

    def test_one_of_a_dead_letter_that_was_not_confirmed_is_published_again(self) -> None:
        self.broker.on_dead_letter = refused
        self.receive().alive = False
        self.end(DEAD)
        self.broker.on_dead_letter = confirmed
        delivery = self.receive(redelivered=True)

        assert delivery.acks == 1
        assert [letter.headers["x-egress-reason"] for letter in self.broker.dead_letters] == ["rejected"] * 2
        assert len(self.broker.events) == 1
        assert len(self.offered) == 1

    def test_it_counts_the_attempts_that_were_made(self) -> None:
        self.broker.on_dead_letter = refused
        self.receive().alive = False
        self.offered[0].attempts = 4
        self.end(DEAD)
        self.broker.on_dead_letter = confirmed
        self.receive(redelivered=True)

        assert self.broker.dead_letters[-1].headers["x-egress-attempts"] == 4

    def test_one_lost_again_before_its_ack_is_acked_the_third_time(self) -> None:
        self.receive().alive = False
        self.end(Sent("wamid.1"))
        confirm: Deferred[None] = Deferred()
        self.broker.on_announce = lambda: confirm
        for _ in range(2):
            delivery = self.receive(redelivered=True)
            self.recent.lost()

        assert delivery.acks == 1
        assert len(self.broker.events) == 1
        assert len(self.offered) == 1

    def test_one_lost_again_while_its_dead_letter_is_published_is_acked_the_third_time(self) -> None:
        self.broker.on_dead_letter = refused
        self.receive().alive = False
        self.end(DEAD)
        confirm: Deferred[None] = Deferred()
        self.broker.on_dead_letter = lambda: confirm
        self.receive(redelivered=True).alive = False
        delivery = self.receive(redelivered=True)
        confirm.callback(None)

        assert delivery.acks == 1
        assert len(self.broker.dead_letters) == 2

    def test_one_of_what_is_no_message_takes_the_place_of_the_lost_one(self) -> None:
        self.broker.on_dead_letter = refused
        self.receive(b"not json").alive = False
        delivery = self.receive(b"not json", redelivered=True)
        self.broker.on_dead_letter = confirmed
        self.clock.advance(PUBLISH_AGAIN)

        assert delivery.acks == 1
        assert len(self.broker.dead_letters) == 2

    def test_one_whose_message_went_back_to_the_broker_is_sent(self) -> None:
        self.receive().alive = False
        self.recent.forget(self.offered[0], History(4, repeated=True))
        self.receive(redelivered=True)

        assert [job.history for job in self.offered] == [History(1), History(4, repeated=True)]


class TwinTests(Receiving):
    def test_the_same_body_delivered_for_the_first_time_is_a_new_message(self) -> None:
        self.receive()
        self.end(Sent("wamid.1"))
        self.receive()

        assert len(self.offered) == 2

    def test_the_same_body_is_a_new_message_while_the_first_is_on_its_way(self) -> None:
        self.receive()
        self.receive()

        assert len(self.offered) == 2

    def test_a_redelivery_while_the_first_is_alive_is_the_same_message_and_both_are_acked(self) -> None:
        first = self.receive()
        second = self.receive(redelivered=True)
        assert len(self.offered) == 1

        self.end(Sent("wamid.1"))
        assert (first.acks, second.acks) == (1, 1)

    def test_a_redelivery_of_another_workers_is_sent_though_its_like_ended_here(self) -> None:
        self.receive()
        self.end(DEAD)
        self.receive(redelivered=True)

        assert len(self.offered) == 2

    def test_a_body_published_again_after_it_ended_is_sent_also_when_its_connection_is_lost(self) -> None:
        self.receive()
        self.end(DEAD)
        self.receive().alive = False
        self.recent.forget(self.offered[-1], self.offered[-1].history)
        self.receive(redelivered=True)

        assert len(self.offered) == 3


class CopyTests(Receiving):
    """A message was deferred that perhaps had been deferred before: there may be two copies in the queue."""

    place = Place("t1")

    def setUp(self) -> None:
        super().setUp()
        self.recent.doubt(digest(BODY, self.place))
        self.copy()

    def copy(self, *, redelivered: bool = False) -> FakeDelivery:
        delivery = FakeDelivery(BODY, redelivered=redelivered, place=self.place)
        self.intake.receive(delivery)
        return delivery

    def test_the_second_is_dropped(self) -> None:
        assert self.copy().acks == 1
        assert len(self.offered) == 1

    def test_one_that_is_put_back_is_none_too_many_however_late_it_comes_again(self) -> None:
        self.outcome.give_back(self.offered[0])
        self.receive(b"not json")
        self.clock.advance(2 * KEEP_SECONDS)

        assert self.copy(redelivered=True).acks == 0
        assert len(self.offered) == 2

    def test_the_second_is_dropped_also_after_the_first_was_put_back_and_came_again(self) -> None:
        self.outcome.give_back(self.offered[0])
        self.copy(redelivered=True)

        assert self.copy().acks == 1
        assert len(self.offered) == 2

    def test_what_was_dead_lettered_may_be_published_again(self) -> None:
        self.end(DEAD)
        self.clock.advance(3600)

        assert self.copy().acks == 0
        assert len(self.offered) == 2

    def test_but_not_more_often_than_it_was_dead_lettered(self) -> None:
        self.end(DEAD)
        self.copy()
        self.end(Sent("wamid.1"))

        assert self.copy().acks == 1
        assert len(self.offered) == 2

    def test_a_dead_letter_whose_ack_was_lost_counts_once(self) -> None:
        first = self.offered[0].delivery
        assert isinstance(first, FakeDelivery)
        first.alive = False
        self.end(DEAD)
        self.copy()
        assert self.copy(redelivered=True).acks == 1

        assert self.copy().acks == 1
        assert len(self.offered) == 2
