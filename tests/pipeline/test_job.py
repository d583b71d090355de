"""A message in our hands."""

from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import FakeDelivery, a_message
from whatsapp_egress.message import Identity
from whatsapp_egress.pipeline.job import Job, Parcel
from whatsapp_egress.policy.verdict import History


class DeliveriesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.first, self.second = FakeDelivery(), FakeDelivery()
        self.parcel = Parcel(self.first, b"digest", Identity(), 0.0)
        self.parcel.adopt(self.second)

    def test_the_newest_is_its_own(self) -> None:
        assert self.parcel.delivery is self.second

    def test_each_that_is_alive_is_acked(self) -> None:
        assert self.parcel.ack()
        assert (self.first.acks, self.second.acks) == (1, 1)

    def test_one_that_is_alive_is_enough(self) -> None:
        self.second.alive = False

        assert self.parcel.alive
        assert self.parcel.ack()

    def test_without_one_that_is_alive_it_can_not_be_acked(self) -> None:
        self.first.alive = self.second.alive = False

        assert not self.parcel.alive
        assert not self.parcel.ack()

    def test_one_that_is_dead_when_another_comes_is_forgotten(self) -> None:
        self.second.alive = False
        self.parcel.adopt(FakeDelivery())
        self.second.alive = True
        self.parcel.ack()

        assert (self.first.acks, self.second.acks) == (1, 0)


class JobTests(SynchronousTestCase):
    def test_the_attempts_made_before_it_came_count(self) -> None:
        assert Job.of(FakeDelivery(), b"digest", a_message(retry_count=2), 7.0).attempts == 2

    def test_it_knows_whose_it_is_and_when_it_came(self) -> None:
        job = Job.of(FakeDelivery(), b"digest", a_message("m-7"), 7.0)

        assert job.identity == Identity("t1", "100000001", "m-7")
        assert job.received == 7

    def test_what_was_tried_of_it_before_counts_for_more(self) -> None:
        history = History(5, reauthorized=True, repeated=True)

        assert Job.of(FakeDelivery(), b"d", a_message(retry_count=2), 0.0, history).history == history

    def test_two_jobs_are_two_however_alike(self) -> None:
        delivery, message = FakeDelivery(), a_message()

        assert Job.of(delivery, b"d", message, 0.0) != Job.of(delivery, b"d", message, 0.0)
