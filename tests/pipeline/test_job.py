"""A message in our hands."""

from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import FakeDelivery, a_message
from whatsapp_egress.message import Identity
from whatsapp_egress.pipeline.job import Job


class JobTests(SynchronousTestCase):
    def test_the_attempts_made_before_it_came_count(self) -> None:
        assert Job.of(FakeDelivery(), b"digest", a_message(retry_count=2), 7.0).attempts == 2

    def test_it_knows_whose_it_is_and_when_it_came(self) -> None:
        job = Job.of(FakeDelivery(), b"digest", a_message("m-7"), 7.0)

        assert job.identity == Identity("t1", "100000001", "m-7")
        assert job.received == 7

    def test_two_jobs_are_two_however_alike(self) -> None:
        delivery, message = FakeDelivery(), a_message()

        assert Job.of(delivery, b"d", message, 0.0) != Job.of(delivery, b"d", message, 0.0)
