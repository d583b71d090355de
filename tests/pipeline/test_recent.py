"""What is remembered of the messages of the last minutes."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import FakeDelivery
from whatsapp_egress.message import Identity
from whatsapp_egress.pipeline import recent
from whatsapp_egress.pipeline.job import Parcel
from whatsapp_egress.pipeline.recent import KEEP_SECONDS, Ending, Recent, digest
from whatsapp_egress.policy.verdict import Dead, History, Outcome, Reason, Sent


def parcel(body: bytes = b"body") -> Parcel:
    return Parcel(FakeDelivery(body), digest(body), Identity(), 0.0)


def ending(wamid: str = "wamid.1", *, acked: bool = True) -> Ending:
    return Ending(Identity(), 1, Sent(wamid), published=True, acked=acked)


def lost(parcel: Parcel) -> Parcel:
    assert isinstance(parcel.delivery, FakeDelivery)
    parcel.delivery.alive = False
    return parcel


class Remembering(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.recent = Recent(self.clock)

    def begun(self, body: bytes = b"body") -> Parcel:
        one = parcel(body)
        self.recent.begin(one)
        return one

    def ended(self, body: bytes = b"body", *, acked: bool = True, wamid: str = "wamid.1") -> None:
        self.recent.end(self.begun(body), ending(wamid, acked=acked))

    def left(self, history: History, body: bytes = b"body") -> None:
        self.recent.forget(self.begun(body), history)

    def recall(self, body: bytes = b"body") -> object:
        return self.recent.recall(digest(body))


class RecallTests(Remembering):
    def test_a_message_is_named_by_its_whole_body(self) -> None:
        assert digest(b"body") == digest(b"body")
        assert digest(b"body") != digest(b"body ")

    def test_it_begins_with_nothing(self) -> None:
        assert len(self.recent) == 0
        assert self.recall() is None

    def test_what_began_is_in_hand(self) -> None:
        one = self.begun()

        assert self.recall() is one
        assert len(self.recent) == 1

    def test_what_ended_unacked_comes_again_once(self) -> None:
        self.ended(acked=False)
        assert len(self.recent) == 0

        assert [self.recall(), self.recall()] == [ending(acked=False), None]

    def test_what_was_acked_does_not_come_again(self) -> None:
        self.ended()

        assert self.recall() is None

    def test_but_when_the_connection_is_lost_it_may(self) -> None:
        self.ended()
        self.recent.lost()

        assert [self.recall(), self.recall()] == [ending(), None]

    def test_what_was_left_with_the_broker_comes_again_with_its_history(self) -> None:
        self.left(History(3, reauthorized=True))

        assert [self.recall(), self.recall()] == [History(3, reauthorized=True), None]

    def test_what_began_anew_is_not_what_ended_before(self) -> None:
        self.ended()
        self.left(History(1))

        assert [self.recall(), self.recall()] == [History(1), None]


class AlikeTests(Remembering):
    """Messages that are alike to the last byte."""

    def test_the_end_of_the_first_leaves_the_second_in_hand(self) -> None:
        first, second = self.begun(), self.begun()
        self.recent.end(first, ending())

        assert self.recall() is second

    def test_the_end_of_the_second_leaves_the_first_in_hand(self) -> None:
        first, second = self.begun(), self.begun()
        self.recent.end(second, ending())

        assert self.recall() is first

    def test_the_one_that_was_lost_is_the_one_that_comes_again(self) -> None:
        _, second = self.begun(), lost(self.begun())

        assert self.recall() is second

    def test_one_in_flight_and_one_left_come_again_as_what_they_are(self) -> None:
        first = lost(self.begun())
        self.left(History(0))
        assert self.recall() is first

        first.adopt(FakeDelivery())
        assert self.recall() == History(0)

    def test_those_that_come_for_sure_are_taken_before_one_that_comes_perhaps(self) -> None:
        self.ended(wamid="acked")
        self.recent.lost()
        self.ended(wamid="not acked", acked=False)
        self.left(History(2))

        recalled = [self.recall() for _ in range(4)]
        assert recalled == [ending("not acked", acked=False), History(2), ending("acked"), None]

    def test_each_that_was_acked_comes_again_when_the_connection_is_lost(self) -> None:
        self.ended()
        self.ended()
        self.recent.lost()

        assert [self.recall() for _ in range(3)] == [ending(), ending(), None]

    def test_but_not_one_that_was_acked_long_before(self) -> None:
        self.ended()
        self.clock.advance(KEEP_SECONDS)
        self.ended()
        self.recent.lost()

        assert [self.recall(), self.recall()] == [ending(), None]

    def test_two_that_ended_differently_come_again_as_both(self) -> None:
        for wamid in ("wamid.1", "wamid.2"):
            self.ended(wamid=wamid, acked=False)

        recalled = [self.recall() for _ in range(3)]
        assert recalled == [ending("wamid.1", acked=False), ending("wamid.2", acked=False), None]


class ForgettingTests(Remembering):
    def test_only_what_was_acked_shortly_before_the_loss_may_come_again(self) -> None:
        self.ended(b"old")
        self.clock.advance(1)
        self.ended(b"new")
        self.clock.advance(KEEP_SECONDS - 1)
        self.recent.lost()

        assert [self.recall(b"old"), self.recall(b"new")] == [None, ending()]

    def test_it_is_expected_however_long_the_broker_is_away(self) -> None:
        self.ended(b"acked")
        self.ended(b"not acked", acked=False)
        self.left(History(1), b"left")
        self.recent.lost()
        self.clock.advance(100 * KEEP_SECONDS)

        recalled = [self.recall(body) for body in (b"acked", b"not acked", b"left")]
        assert recalled == [ending(), ending(acked=False), History(1)]

    def test_but_not_long_once_messages_come_again(self) -> None:
        self.ended(b"acked")
        self.ended(b"not acked", acked=False)
        self.left(History(1), b"left")
        self.recent.lost()
        self.clock.advance(100 * KEEP_SECONDS)
        self.begun(b"the first to come")
        self.clock.advance(KEEP_SECONDS - 1)
        assert self.recall(b"acked") == ending()

        self.clock.advance(1)
        assert [self.recall(body) for body in (b"not acked", b"left")] == [None, None]

    def test_what_was_left_just_now_is_kept_then(self) -> None:
        self.begun(b"the first to come")
        self.clock.advance(KEEP_SECONDS)
        self.ended(b"just now", acked=False)

        assert self.recall(b"just now") == ending(acked=False)

    def test_what_was_acked_is_forgotten_after_a_while(self) -> None:
        self.ended(b"old")
        self.clock.advance(KEEP_SECONDS)
        self.ended(b"new")

        assert len(self.recent._acked) == 1

    def test_no_more_than_so_many_are_kept_and_the_oldest_goes_first(self) -> None:
        self.patch(recent, "KEEP_MOST", 2)
        for body in (b"1", b"2", b"3"):
            self.ended(body, acked=False)

        assert [self.recall(body) is not None for body in (b"1", b"2", b"3")] == [False, True, True]


class SentTests(Remembering):
    def sent(self, body: bytes, *, verdict: Outcome, acked: bool = True, tenant: str | None = "t1") -> None:
        identity = Identity(tenant, "1", body.decode())
        self.recent.end(self.begun(body), Ending(identity, 1, verdict, published=True, acked=acked))

    def test_what_was_sent_and_how_long_ago(self) -> None:
        self.sent(b"m1", verdict=Sent("wamid.1"))
        self.clock.advance(10)
        self.sent(b"m2", verdict=Sent("wamid.2"), acked=False)
        self.sent(b"m3", verdict=Dead(Reason.REJECTED, "no"))
        self.sent(b"m4", verdict=Sent("wamid.4"), tenant=None)
        self.left(History(), b"m5")
        self.clock.advance(5)
        assert self.recent.sent() == {("t1", "m1"): 15.0, ("t1", "m2"): 5.0}

    def test_of_two_with_the_same_ids_the_later_counts(self) -> None:
        for body, acked in ((b"m1", False), (b"m1 ", True)):
            self.recent.end(
                self.begun(body), Ending(Identity("t1", "1", "m1"), 1, Sent(), published=True, acked=acked)
            )
            self.clock.advance(10)
        assert self.recent.sent() == {("t1", "m1"): 10.0}
