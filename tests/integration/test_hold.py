"""Consuming held and released: nothing lost, nothing twice, at a real RabbitMQ."""

from __future__ import annotations

from collections import Counter

from twisted.internet import reactor

from tests.integration.worker import WithWorkers, Worker, numbers
from whatsapp_egress.clients.broker import consumer
from whatsapp_egress.clients.broker.delivery import RabbitDelivery


class Held(WithWorkers):
    def publish(self, count: int, start: int = 0) -> None:
        for n in range(start, start + count):
            self.upstream.publish(b"%d" % n)

    def waiting(self) -> int:
        return self.upstream.depth("outbound-processed")

    async def test_nothing_comes_until_it_is_released_and_what_came_is_settled_meanwhile(self) -> None:
        worker = await self.start()
        self.publish(2)
        await self.until(lambda: len(worker.deliveries) == 2, "they came")
        worker.client.hold()
        worker.client.hold()
        assert worker.client.consuming
        self.publish(3, start=2)
        await self.until(lambda: self.waiting() == 3, "they wait")
        assert all(delivery.ack() for delivery in worker.deliveries)
        worker.client.release()
        worker.client.release()
        assert worker.client.consuming
        await self.until(lambda: worker.bodies == numbers(0, 5), "they came")
        assert worker.lost == 0

    async def test_what_arrives_after_all_is_given_back(self) -> None:
        worker = await self.start(prefetch=500)
        worker.settle = lambda _: worker.client.hold()
        self.publish(1000)
        await self.until(lambda: len(worker.deliveries) > 0 and self.waiting() == 999, "they wait")
        assert worker.bodies == [b"0"]
        worker.settle = lambda _: None
        worker.client.release()
        await self.until(lambda: len(worker.deliveries) == 501, "they came")
        assert worker.bodies == numbers(0, 501)

    async def test_held_and_released_under_load_each_is_settled_once(self) -> None:
        for queue_type in ("classic", "quorum"):
            self.upstream.clean()
            worker = await self.start(prefetch=50, queue_type=queue_type)
            await self.settle_under_load(worker)
            await worker.stop()

    async def settle_under_load(self, worker: Worker) -> None:
        acked: Counter[bytes] = Counter()

        def settle(delivery: RabbitDelivery) -> None:
            n = len(worker.deliveries)
            if n % 7 == 0:
                worker.client.hold()
                reactor.callLater(0.001 * (n % 5), worker.client.release)
            if n % 11 == 0:
                worker.client.hold()
                worker.client.release()
            reactor.callLater(0.002 * (n % 3), lambda: acked.update([delivery.body] * delivery.ack()))

        worker.settle = settle
        self.publish(2000)
        await self.until(lambda: sum(acked.values()) >= 2000, "all are settled")
        assert acked == Counter(numbers(0, 2000))
        assert (worker.lost, self.waiting()) == (0, 0)

    async def test_it_can_be_held_from_the_start_and_over_a_lost_connection(self) -> None:
        worker = self.worker()
        worker.client.hold()
        worker.client.start()
        await self.until(lambda: worker.client.consuming, "it would consume")
        self.publish(3)
        await self.close_connections()
        await self.until(lambda: worker.lost == 1 and worker.client.consuming, "it would again")
        assert (self.waiting(), worker.came) == (3, [])
        worker.client.release()
        await self.until(lambda: len(worker.deliveries) == 3, "they came")

    async def test_a_channel_that_is_closed_while_it_is_held_is_replaced(self) -> None:
        self.patch(consumer, "AGAIN_SECONDS", 0.1)
        worker = await self.start()
        self.publish(2)
        await self.until(lambda: len(worker.deliveries) == 2, "they came")
        worker.client.hold()
        delivery = worker.deliveries[0]
        assert delivery.ack()
        assert delivery.ack()  # once more: 406 PRECONDITION_FAILED
        await self.until(lambda: worker.lost == 1 and worker.client.consuming, "it would consume again")
        assert (worker.deferred_lost, self.waiting()) == (0, 1)
        worker.client.release()
        await self.until(lambda: worker.bodies == [b"0", b"1", b"1"], "what was not settled came")

    async def test_a_queue_that_is_deleted_while_it_is_held_is_there_again(self) -> None:
        self.patch(consumer, "AGAIN_SECONDS", 0.1)
        worker = await self.start()
        worker.client.hold()
        state = worker.client._consumer
        await self.until(lambda: state._resting is not None, "it rests")
        self.upstream.channel.queue_delete("outbound-processed")
        worker.client.release()
        await self.until(lambda: len(self.events("rabbitmq_consuming")) == 2, "it consumes again")
        self.publish(1)
        await self.until(lambda: len(worker.deliveries) == 1, "it came")

    async def test_it_is_told_at_once_how_the_queue_stands_and_then_now_and_then(self) -> None:
        self.patch(consumer, "LOOK_SECONDS", 0.1)
        self.declare_all()
        self.publish(8)
        worker = await self.start(prefetch=5)
        await self.until(lambda: worker.looks[:1] == [(1, 3)], "at once")
        other = await self.start(prefetch=1)
        await self.until(lambda: worker.looks[-1] == (2, 2), "and then")
        worker.client.hold()
        self.publish(1)
        await self.until(lambda: worker.looks[-1] == (2, 3), "a held one counts itself")
        other.client.hold()
        await self.until(lambda: other.looks[-1] == (2, 3), "and others that hold, for they consume leases")
        looks = len(worker.looks)
        await self.until(lambda: len(worker.looks) > looks + 2, "they go on")
        assert not self.events("rabbitmq_consumer_forgotten")

    async def test_a_held_one_can_stop(self) -> None:
        worker = await self.start()
        worker.client.hold()
        self.publish(1)
        await worker.client.stop_consuming()
        assert not worker.client.consuming
        worker.client.release()
        await worker.stop()
        assert (self.waiting(), worker.deliveries) == (1, [])
        assert not self.events("task_failed")
