"""How many messages wait in deferred queues, as was seen last."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import FakeDelivery
from tests.pipeline.queues import FakeQueues
from whatsapp_egress.deferred import Place
from whatsapp_egress.errors import Unpublished
from whatsapp_egress.pipeline.depths import COUNT_SECONDS, Depths

FIRST, BACK = Place("t1", first=True), Place("t1")


class DepthTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.queues = FakeQueues(lambda delivery: None, lambda lease: None)
        self.queues.declare("t1")
        self.depths = Depths(self.queues, self.clock)

    def publish(self, place: Place, count: int) -> None:
        for _ in range(count):
            self.queues.publish(place, FakeDelivery(), {})

    def count(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.depths.count(FIRST, BACK)))

    def test_nothing_is_known_before_anybody_looked(self) -> None:
        self.publish(BACK, 2)
        assert self.depths.total == 0

    def test_each_look_is_remembered(self) -> None:
        self.publish(BACK, 2)
        assert self.successResultOf(Deferred.fromCoroutine(self.depths.look(BACK))) == 2
        assert self.depths.total == 2

    def test_all_are_counted_once_in_a_while(self) -> None:
        self.publish(FIRST, 1)
        self.publish(BACK, 2)
        self.count()
        assert self.depths.total == 3

        self.publish(BACK, 2)
        self.clock.advance(COUNT_SECONDS - 1)
        self.count()
        assert self.depths.total == 3

        self.clock.advance(1)
        self.count()
        assert self.depths.total == 5

    def test_what_is_put_there_counts_when_it_is_safe(self) -> None:
        self.successResultOf(self.depths.publish(BACK, FakeDelivery(), {}))
        assert self.depths.total == 1

        self.queues.away = True
        self.failureResultOf(self.depths.publish(BACK, FakeDelivery(), {}), Unpublished)
        assert self.depths.total == 1
