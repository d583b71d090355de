"""How a message ends: safe, told, acked, in that order, and the ack waits for nothing else."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import EPOCH, FakeBroker, FakeDelivery, Witness, confirmed, refused
from whatsapp_egress.message import Identity, iso_utc
from whatsapp_egress.pipeline import outcome as module
from whatsapp_egress.pipeline.job import Parcel
from whatsapp_egress.pipeline.outcome import EVENT_PATIENCE, PUBLISH_AGAIN, Outcome
from whatsapp_egress.pipeline.recent import Ending, Recent, digest
from whatsapp_egress.policy.verdict import Dead, Reason, Sent

SENT = Sent("wamid.1", "15550001111", "accepted")
DEAD = Dead(Reason.EXPIRED, "expiresAt has passed")


class Settling(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.broker, self.witness = FakeBroker(), Witness()
        self.recent = Recent(self.clock)
        self.outcome = self.an_outcome()
        self.delivery = FakeDelivery(b"the body", properties="the properties")
        self.parcel = Parcel(self.delivery, digest(b"the body"), Identity("t1", "100000001", "m-1"), 0.0, 2)
        self.recent.begin(self.parcel)

    def an_outcome(self, events: bool = True) -> Outcome:
        def now() -> float:
            return EPOCH + self.clock.seconds()

        return Outcome(self.broker, self.recent, self.witness, self.clock, now, events)

    @property
    def acked(self) -> bool:
        assert self.delivery.acks <= 1
        return self.delivery.acks == 1

    @property
    def ending(self) -> object:
        return self.recent.recall(self.parcel.digest)

    @property
    def ending_after_a_loss(self) -> object:
        self.recent.lost()
        return self.ending

    def ended(self, verdict: Sent | Dead, *, published: bool = True, acked: bool = True) -> Ending:
        return Ending(self.parcel.identity, 2, verdict, published, acked)

    def held_up(self) -> Deferred[None]:
        """What the next publish waits for."""
        confirm: Deferred[None] = Deferred()
        self.broker.on_dead_letter = self.broker.on_announce = lambda: confirm
        return confirm


class SentTests(Settling):
    def test_a_sent_message_is_told_acked_and_remembered(self) -> None:
        self.outcome.settle(self.parcel, SENT)

        assert [key for key, _ in self.broker.events] == ["outbound.sent.t1"]
        assert self.acked
        assert self.ending_after_a_loss == self.ended(SENT)
        assert self.witness.calls == [("delivered", SENT)]

    def test_nothing_of_it_goes_to_the_dead_letter_queue(self) -> None:
        self.outcome.settle(self.parcel, SENT)

        assert self.broker.dead_letters == []

    def test_the_event_goes_out_before_the_ack(self) -> None:
        self.broker.on_announce = lambda: self.fail("acked before") if self.acked else confirmed()
        self.outcome.settle(self.parcel, SENT)

        assert self.acked

    def test_the_ack_does_not_wait_for_the_event_to_be_confirmed(self) -> None:
        confirm = self.held_up()
        self.outcome.settle(self.parcel, SENT)

        assert self.acked
        confirm.callback(None)

    def test_an_event_that_is_refused_is_published_again(self) -> None:
        self.broker.on_announce = refused
        self.outcome.settle(self.parcel, SENT)
        self.clock.advance(PUBLISH_AGAIN)
        assert len(self.broker.events) == 2

        self.broker.on_announce = confirmed
        self.clock.advance(PUBLISH_AGAIN)
        assert len(self.broker.events) == 3
        assert self.clock.getDelayedCalls() == []

    def test_an_event_that_is_never_confirmed_is_lost_after_a_while(self) -> None:
        self.held_up()
        self.outcome.settle(self.parcel, SENT)
        self.clock.advance(EVENT_PATIENCE - 1)
        assert self.witness.names == ["delivered"]

        self.clock.advance(1)
        assert self.witness.calls[-1] == ("unpublished", "event", "not confirmed in time")
        assert self.clock.getDelayedCalls() == []

    def test_an_event_that_is_always_refused_is_too(self) -> None:
        self.broker.on_announce = refused
        self.outcome.settle(self.parcel, SENT)
        self.clock.pump([PUBLISH_AGAIN] * int(EVENT_PATIENCE))

        assert self.witness.names == ["delivered", "unpublished"]
        assert self.clock.getDelayedCalls() == []

    def test_only_so_many_events_wait(self) -> None:
        self.patch(module, "MOST_EVENTS", 2)
        self.held_up()
        for _ in range(3):
            parcel = Parcel(FakeDelivery(), b"", self.parcel.identity, 0.0)
            self.recent.begin(parcel)
            self.outcome.settle(parcel, SENT)

        assert len(self.broker.events) == 2
        assert self.witness.calls[-2:] == [
            ("delivered", SENT),
            ("unpublished", "event", "too many wait already"),
        ]

    def test_without_events_it_is_just_acked(self) -> None:
        self.an_outcome(events=False).settle(self.parcel, SENT)

        assert self.broker.events == []
        assert self.acked

    def test_where_the_channel_is_gone_the_end_is_remembered_for_the_redelivery(self) -> None:
        self.delivery.alive = False
        self.outcome.settle(self.parcel, SENT)

        assert self.witness.names == ["delivered", "unsettled"]
        assert self.ending == self.ended(SENT, acked=False)


class DeadTests(Settling):
    def test_a_dead_letter_is_the_original_with_our_headers(self) -> None:
        self.outcome.settle(self.parcel, DEAD)

        (letter,) = self.broker.dead_letters
        assert (letter.body, letter.properties) == (b"the body", "the properties")
        assert letter.headers == {
            "x-egress-reason": "expired",
            "x-egress-detail": "expiresAt has passed",
            "x-egress-attempts": 2,
            "x-egress-failed-at": iso_utc(EPOCH),
        }

    def test_it_is_told_acked_and_remembered(self) -> None:
        self.outcome.settle(self.parcel, DEAD)

        assert [key for key, _ in self.broker.events] == ["outbound.failed.t1"]
        assert self.acked
        assert self.ending_after_a_loss == self.ended(DEAD)
        assert self.witness.calls == [("dead_lettered", DEAD)]

    def test_neither_event_nor_ack_comes_before_the_confirm(self) -> None:
        confirm = self.held_up()
        self.outcome.settle(self.parcel, DEAD)
        self.clock.advance(3600)
        assert (self.broker.events, self.acked, self.witness.names) == ([], False, [])

        confirm.callback(None)
        assert len(self.broker.events) == 1
        assert self.acked

    def test_it_is_published_until_it_is_confirmed(self) -> None:
        self.broker.on_dead_letter = refused
        self.outcome.settle(self.parcel, DEAD)
        self.clock.pump([PUBLISH_AGAIN] * 99)
        assert len(self.broker.dead_letters) == 100
        assert not self.acked

        self.broker.on_dead_letter = confirmed
        self.clock.advance(PUBLISH_AGAIN)
        assert self.acked

    def test_a_refusal_is_told_once(self) -> None:
        self.broker.on_dead_letter = refused
        self.outcome.settle(self.parcel, DEAD)
        self.clock.pump([PUBLISH_AGAIN] * 99)

        assert self.witness.calls == [("unpublished", "dead letter", "no connection")]

    def test_the_time_of_failure_is_that_of_the_failure_and_not_of_the_confirm(self) -> None:
        self.broker.on_dead_letter = refused
        self.outcome.settle(self.parcel, DEAD)
        self.clock.advance(PUBLISH_AGAIN)

        times = {letter.headers["x-egress-failed-at"] for letter in self.broker.dead_letters}
        assert times == {iso_utc(EPOCH)}

    def test_where_the_channel_is_gone_it_is_not_published_for_ever(self) -> None:
        self.broker.on_dead_letter = refused
        self.outcome.settle(self.parcel, DEAD)
        self.delivery.alive = False
        self.clock.advance(PUBLISH_AGAIN)

        assert self.clock.getDelayedCalls() == []
        assert self.witness.names == ["unpublished", "unsettled"]
        assert self.ending == self.ended(DEAD, published=False, acked=False)

    def test_a_redelivery_that_was_adopted_meanwhile_is_acked_in_its_stead(self) -> None:
        confirm = self.held_up()
        self.outcome.settle(self.parcel, DEAD)
        self.delivery.alive = False
        self.delivery = FakeDelivery(b"the body", redelivered=True)
        self.parcel.adopt(self.delivery)
        confirm.callback(None)

        assert self.acked


class AgainTests(Settling):
    def test_what_was_published_is_only_acked(self) -> None:
        for verdict in (SENT, DEAD):
            delivery = FakeDelivery(b"the body", redelivered=True)
            parcel = Parcel(delivery, self.parcel.digest, self.parcel.identity, 0.0, 1)
            self.recent.begin(parcel)
            self.outcome.settle_again(parcel, self.ended(verdict, acked=False))

            assert delivery.acks == 1
        assert (self.broker.events, self.broker.dead_letters, self.witness.calls) == ([], [], [])

    def test_a_dead_letter_that_was_not_confirmed_is_published_and_told(self) -> None:
        self.outcome.settle_again(self.parcel, self.ended(DEAD, published=False, acked=False))

        assert len(self.broker.dead_letters) == 1
        assert len(self.broker.events) == 1
        assert self.acked

    def test_it_stays_remembered_for_the_next_redelivery(self) -> None:
        self.delivery.alive = False
        ending = self.ended(SENT, acked=False)
        self.outcome.settle_again(self.parcel, ending)

        assert self.ending == ending


class EndTests(Settling):
    def test_settled_fires_when_nothing_is_being_settled(self) -> None:
        confirm = self.held_up()
        self.outcome.settle(self.parcel, DEAD)
        settled = self.outcome.settled()

        self.assertNoResult(settled)
        confirm.callback(None)
        self.successResultOf(settled)

    def test_announced_fires_when_no_event_waits(self) -> None:
        confirm = self.held_up()
        self.outcome.settle(self.parcel, SENT)
        self.successResultOf(self.outcome.settled())
        announced = self.outcome.announced()

        self.assertNoResult(announced)
        confirm.callback(None)
        self.successResultOf(announced)

    def test_events_can_be_given_up(self) -> None:
        for publish in (Deferred[None], refused):
            self.broker.on_announce = publish
            parcel = Parcel(FakeDelivery(), b"", self.parcel.identity, 0.0)
            self.recent.begin(parcel)
            self.outcome.settle(parcel, SENT)
            self.outcome.give_events_up()

            self.successResultOf(self.outcome.announced())
            assert self.witness.names[-1] == "unpublished"
            assert self.clock.getDelayedCalls() == []

    def test_cut_short_leaves_what_is_not_in_the_dead_letter_queue_with_the_broker(self) -> None:
        self.held_up()
        self.outcome.settle(self.parcel, DEAD)
        self.outcome.cut_short()

        assert not self.acked
        assert self.ending == self.ended(DEAD, published=False, acked=False)
        self.successResultOf(self.outcome.settled())

    def test_cut_short_leaves_what_waits_to_be_published_again_with_the_broker(self) -> None:
        self.broker.on_dead_letter = refused
        self.outcome.settle(self.parcel, DEAD)
        self.outcome.cut_short()

        assert not self.acked
        assert self.clock.getDelayedCalls() == []
