"""What is remembered of the messages of the last minutes."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import FakeDelivery
from whatsapp_egress.message import Identity
from whatsapp_egress.pipeline import recent
from whatsapp_egress.pipeline.job import Parcel
from whatsapp_egress.pipeline.recent import KEEP_SECONDS, Ending, Recent, digest
from whatsapp_egress.policy.verdict import History, Sent


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

    def ended(self, body: bytes = b"body", *, acked: bool = True) -> None:
        self.recent.end(self.begun(body), ending(acked=acked))

    def knows(self, body: bytes = b"body") -> bool:
        return self.recent.recall(digest(body)) is not None


class RecallTests(Remembering):
    def test_a_message_is_named_by_its_whole_body(self) -> None:
        assert digest(b"body") == digest(b"body")
        assert digest(b"body") != digest(b"body ")

    def test_it_begins_with_nothing(self) -> None:
        assert len(self.recent) == 0
        assert not self.knows()

    def test_what_began_is_in_hand(self) -> None:
        one = self.begun()

        assert self.recent.recall(one.digest) is one
        assert len(self.recent) == 1

    def test_what_ended_is_not_in_hand_but_remembered(self) -> None:
        for acked in (True, False):
            self.ended(acked=acked)

            assert self.recent.recall(digest(b"body")) == ending(acked=acked)
            assert len(self.recent) == 0

    def test_what_was_left_with_the_broker_comes_again_with_its_history(self) -> None:
        one = self.begun()
        self.recent.forget(one, History(3, reauthorized=True))

        assert self.recent.recall(one.digest) == History(3, reauthorized=True)
        assert not self.knows()

    def test_what_began_anew_is_not_what_ended_before(self) -> None:
        self.ended()
        again = self.begun()
        self.recent.forget(again, History(1))

        assert self.recent.recall(again.digest) == History(1)
        assert not self.knows()


class AlikeTests(Remembering):
    """Messages that are alike to the last byte."""

    def test_the_end_of_the_first_leaves_the_second_in_hand(self) -> None:
        first, second = self.begun(), self.begun()
        self.recent.end(first, ending())

        assert self.recent.recall(second.digest) is second

    def test_the_end_of_the_second_leaves_the_first_in_hand(self) -> None:
        first, second = self.begun(), self.begun()
        self.recent.end(second, ending())

        assert self.recent.recall(first.digest) is first

    def test_the_one_that_was_lost_is_the_one_that_comes_again(self) -> None:
        _, second = self.begun(), lost(self.begun())

        assert self.recent.recall(second.digest) is second

    def test_one_in_flight_and_one_left_come_again_as_what_they_are(self) -> None:
        first, second = lost(self.begun()), lost(self.begun())
        self.recent.forget(second, History(0))
        assert self.recent.recall(first.digest) is first

        first.adopt(FakeDelivery())
        assert self.recent.recall(first.digest) == History(0)

    def test_one_sent_and_not_acked_and_one_left_come_again_as_what_they_are(self) -> None:
        first, second = self.begun(), self.begun()
        self.recent.end(first, ending(acked=False))
        self.recent.forget(second, History(2))
        assert self.recent.recall(first.digest) == ending(acked=False)

        again = self.begun()
        self.recent.end(again, ending())
        assert self.recent.recall(first.digest) == History(2)

    def test_two_left_come_again_with_both_histories(self) -> None:
        for attempts in (1, 2):
            self.recent.forget(self.begun(), History(attempts))

        recalled = [self.recent.recall(digest(b"body")) for _ in range(3)]
        assert recalled == [History(2), History(1), None]

    def test_the_last_ending_counts(self) -> None:
        for wamid in ("wamid.1", "wamid.2"):
            self.recent.end(self.begun(), ending(wamid))

        assert self.recent.recall(digest(b"body")) == ending("wamid.2")


class ForgettingTests(Remembering):
    def test_an_ending_is_forgotten_after_a_quarter_of_an_hour(self) -> None:
        self.ended(b"old")
        self.clock.advance(KEEP_SECONDS - 1)
        self.ended(b"new")
        assert self.knows(b"old")

        self.clock.advance(1)
        self.ended(b"newest")
        assert not self.knows(b"old")
        assert self.knows(b"new")

    def test_one_that_was_not_acked_is_kept_until_it_comes_again(self) -> None:
        for body in (b"1", b"2"):
            self.ended(body, acked=False)
        self.clock.advance(10 * KEEP_SECONDS)
        self.ended(b"1")

        assert self.knows(b"2")

    def test_what_was_left_is_forgotten_like_an_ending(self) -> None:
        self.recent.forget(self.begun(b"old"), History())
        self.clock.advance(KEEP_SECONDS)
        self.recent.forget(self.begun(b"new"), History())

        assert not self.knows(b"old")

    def test_an_ending_that_was_renewed_is_kept_from_then_on(self) -> None:
        self.ended(b"renewed")
        self.ended(b"old")
        self.clock.advance(KEEP_SECONDS - 1)
        self.ended(b"renewed")
        self.clock.advance(KEEP_SECONDS - 1)
        self.ended(b"new")

        assert self.knows(b"renewed")
        assert not self.knows(b"old")

    def test_no_more_than_so_many_are_kept_and_the_oldest_goes_first(self) -> None:
        self.patch(recent, "KEEP_MOST", 2)
        for body in (b"1", b"2", b"3"):
            self.ended(body)

        assert [self.knows(body) for body in (b"1", b"2", b"3")] == [False, True, True]
