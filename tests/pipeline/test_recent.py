"""What is remembered of the messages of the last minutes."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import FakeDelivery
from whatsapp_egress.message import Identity
from whatsapp_egress.pipeline import recent
from whatsapp_egress.pipeline.job import Parcel
from whatsapp_egress.pipeline.recent import KEEP_SECONDS, Ending, Recent, digest
from whatsapp_egress.policy.verdict import Sent


def parcel(body: bytes = b"body") -> Parcel:
    return Parcel(FakeDelivery(body), digest(body), Identity(), 0.0)


def ending(wamid: str = "wamid.1") -> Ending:
    return Ending(Identity(), 1, Sent(wamid), published=True)


class RecentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.recent = Recent.empty(self.clock)

    def test_a_message_is_named_by_its_whole_body(self) -> None:
        assert digest(b"body") == digest(b"body")
        assert digest(b"body") != digest(b"body ")

    def test_it_begins_with_nothing(self) -> None:
        assert len(self.recent) == 0
        assert self.recent.in_hand(digest(b"body")) is None
        assert self.recent.ending(digest(b"body")) is None

    def test_what_began_is_in_hand(self) -> None:
        one = parcel()
        self.recent.begin(one)

        assert self.recent.in_hand(one.digest) is one
        assert len(self.recent) == 1

    def test_what_ended_is_not_in_hand_but_remembered(self) -> None:
        one = parcel()
        self.recent.begin(one)
        self.recent.end(one, ending())

        assert self.recent.in_hand(one.digest) is None
        assert self.recent.ending(one.digest) == ending()

    def test_what_went_back_to_the_broker_is_forgotten(self) -> None:
        one = parcel()
        self.recent.begin(one)
        self.recent.forget(one)

        assert self.recent.in_hand(one.digest) is None
        assert self.recent.ending(one.digest) is None

    def test_of_two_alike_the_end_of_the_first_leaves_the_second_in_hand(self) -> None:
        first, second = parcel(), parcel()
        self.recent.begin(first)
        self.recent.begin(second)
        self.recent.end(first, ending())

        assert self.recent.in_hand(second.digest) is second

    def test_the_last_ending_counts(self) -> None:
        self.recent.end(parcel(), ending("wamid.1"))
        self.recent.end(parcel(), ending("wamid.2"))

        assert self.recent.ending(digest(b"body")) == ending("wamid.2")

    def test_an_ending_is_forgotten_after_a_quarter_of_an_hour(self) -> None:
        self.recent.end(parcel(b"old"), ending())
        self.clock.advance(KEEP_SECONDS - 1)
        self.recent.end(parcel(b"new"), ending())
        assert self.recent.ending(digest(b"old")) is not None

        self.clock.advance(1)
        self.recent.end(parcel(b"newest"), ending())
        assert self.recent.ending(digest(b"old")) is None
        assert self.recent.ending(digest(b"new")) is not None

    def test_an_ending_that_was_renewed_is_kept_from_then_on(self) -> None:
        self.recent.end(parcel(b"renewed"), ending())
        self.recent.end(parcel(b"old"), ending())
        self.clock.advance(KEEP_SECONDS - 1)
        self.recent.end(parcel(b"renewed"), ending())
        self.clock.advance(KEEP_SECONDS - 1)
        self.recent.end(parcel(b"new"), ending())

        assert self.recent.ending(digest(b"renewed")) is not None
        assert self.recent.ending(digest(b"old")) is None

    def test_no_more_than_so_many_are_kept_and_the_oldest_goes_first(self) -> None:
        self.patch(recent, "KEEP_MOST", 2)
        for body in (b"1", b"2", b"3"):
            self.recent.end(parcel(body), ending())

        assert [self.recent.ending(digest(body)) is not None for body in (b"1", b"2", b"3")] == [
            False,
            True,
            True,
        ]
