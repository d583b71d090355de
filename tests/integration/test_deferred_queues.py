"""Deferred queues at a real RabbitMQ: made, filled, consumed from, settled, deleted."""

from __future__ import annotations

from typing import Any

import pytest
from pika import BasicProperties
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.threads import deferToThread

from tests.integration.worker import BACK, FIRST, WithWorkers, Worker, numbers
from whatsapp_egress.clients.broker import lane_consumer
from whatsapp_egress.clients.broker.delivery import RabbitDelivery
from whatsapp_egress.deferred import Place
from whatsapp_egress.errors import QueueTrouble, Unpublished


class Declared(WithWorkers):
    async def test_both_are_declared_as_agreed(self) -> None:
        worker = await self.start(queue_type="quorum")
        await worker.client.deferred.declare("t1")
        # An equal declaration is accepted; any difference would close the channel with 406.
        for queue in ("outbound-deferred.t1", "outbound-deferred-first.t1"):
            self.upstream.channel.queue_declare(
                queue,
                durable=True,
                arguments={
                    "x-queue-type": "classic",
                    "x-single-active-consumer": True,
                    "x-dead-letter-exchange": "whatsapp-dlx",
                    "x-dead-letter-routing-key": "outbound.failed",
                },
            )
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}
        self.upstream.channel.queue_declare("outbound-lanes", durable=True, arguments=arguments)

    async def test_one_that_exists_is_used_as_it_is(self) -> None:
        self.upstream.channel.queue_declare("outbound-deferred.t1", arguments={"x-max-length": 77})
        worker = await self.start_with_deferred(1)
        await worker.client.deferred.consume(BACK, 10)
        await self.until(lambda: worker.bodies == [b"0"], "it came")

    async def test_without_the_right_to_declare_it_is_said_what_to_do(self) -> None:
        self.declare_all()
        await deferToThread(self.broker.add_user, "maker", "secret", "^$", ".*", ".*")
        worker = await self.start(user="maker", password="secret")
        with pytest.raises(QueueTrouble, match=r"queue outbound-deferred-first\.t1: 403 .* configure right"):
            await worker.client.deferred.declare("t1")
        assert worker.client.consuming

    async def test_the_depth_is_what_waits_and_nothing_where_there_is_no_queue(self) -> None:
        worker = await self.start_with_deferred(3)
        assert await worker.client.deferred.depth(BACK) == 3
        assert await worker.client.deferred.depth(FIRST) == 0
        assert await worker.client.deferred.depth(Place("t2")) == 0

    async def test_it_is_deleted_only_when_it_is_empty_and_nobody_consumes(self) -> None:
        worker = await self.start_with_deferred(1)
        deferred = worker.client.deferred
        assert not await deferred.delete(BACK)
        worker.settle = RabbitDelivery.ack
        await deferred.consume(BACK, 10)
        await self.until(lambda: worker.bodies == [b"0"], "it came")
        assert not await deferred.delete(BACK)
        await deferred.cancel(BACK)
        assert await deferred.delete(BACK)
        assert await deferred.delete(BACK)
        assert worker.cancelled == []

    async def test_what_is_in_hand_goes_with_a_queue_that_is_deleted(self) -> None:
        """For RabbitMQ a queue is empty when all its messages are in somebody's hands."""
        worker = await self.start_with_deferred(1)
        deferred = worker.client.deferred
        await deferred.consume(BACK, 10)
        await self.until(lambda: len(worker.deliveries) == 1, "it came")
        await deferred.cancel(BACK)
        assert await deferred.delete(BACK)
        worker.deliveries[0].give_back()
        await deferred.declare("t1")
        assert await deferred.depth(BACK) == 0

    async def test_without_a_connection_all_is_refused(self) -> None:
        worker = self.worker()
        deferred = worker.client.deferred
        delivery: Any = None
        for asked in (
            deferred.declare("t1"),
            deferred.depth(BACK),
            deferred.consume(BACK, 1),
            deferred.delete(BACK),
        ):
            with pytest.raises(QueueTrouble, match="no connection"):
                await asked
        await deferred.cancel(BACK)
        delivery = RabbitDelivery(delivery, 1, BasicProperties(), b"", False)
        for published in (deferred.publish(BACK, delivery, {}), deferred.write_lease(b"{}")):
            with pytest.raises(Unpublished):
                await published

    async def test_who_gives_up_waiting_leaves_nothing_behind(self) -> None:
        worker = await self.start_with_deferred(3)
        deferred = worker.client.deferred
        for _ in range(3):
            for asked in (
                deferred.declare("t2"),
                deferred.depth(BACK),
                deferred.consume(BACK, 2),
                deferred.delete(FIRST),
                deferred.write_lease(b"lease"),
                deferred.cancel(BACK),
            ):
                waiting: Deferred[Any] = asked
                waiting.cancel()
                with pytest.raises(CancelledError):
                    await waiting
        await self.until(lambda: len(worker.leases) == 3, "the leases came")
        await deferred.consume(BACK, 100)
        await self.until(lambda: worker.bodies[-3:] == numbers(0, 3), "they came")
        await worker.stop()
        assert not self.events("task_failed")


class Published(WithWorkers):
    async def take_one(self, worker: Worker, properties: BasicProperties) -> RabbitDelivery:
        self.upstream.publish(b"body", properties)
        await self.until(lambda: len(worker.deliveries) > 0, "it came")
        return worker.deliveries.pop()

    async def test_it_comes_back_as_it_was_with_what_was_tried_beside_it(self) -> None:
        worker = await self.start_with_deferred(0)
        self.upstream.channel.queue_declare("copies", exclusive=True)
        properties = BasicProperties(
            content_type="application/json",
            message_id="m-1",
            expiration="600000",
            user_id="guest",
            headers={"CC": ["copies"], "n": 1},
        )
        delivery = await self.take_one(worker, properties)
        assert (delivery.place, delivery.headers) == (None, {"CC": ["copies"], "n": 1})
        await worker.client.deferred.publish(BACK, delivery, {"x-egress-attempts": 2})
        delivery.ack()
        await worker.client.deferred.consume(BACK, 10)
        await self.until(lambda: len(worker.deliveries) == 1, "it came back")
        (back,) = worker.deliveries
        assert (back.place, back.body, back.redelivered) == (BACK, b"body", False)
        assert back.headers == {
            "n": 1,
            "x-egress-user-id": "guest",
            "x-egress-cc": ["copies"],
            "x-egress-attempts": 2,
        }
        assert (back.properties.message_id, back.properties.expiration) == ("m-1", "600000")
        assert back.properties.delivery_mode == 2
        assert self.upstream.depth("copies") == 0

    async def test_one_without_headers_has_none(self) -> None:
        worker = await self.start()
        delivery = await self.take_one(worker, BasicProperties())
        assert delivery.headers == {}

    async def test_where_there_is_no_queue_it_is_unpublished_and_the_dead_letter_queue_left_alone(
        self,
    ) -> None:
        worker = await self.start()
        self.upstream.channel.queue_delete("outbound-failed")
        delivery = await self.take_one(worker, BasicProperties())
        with pytest.raises(Unpublished, match=r"no queue takes outbound-deferred\.t1"):
            await worker.client.deferred.publish(BACK, delivery, {})
        await worker.client.deferred.declare("t1")
        await worker.client.deferred.publish(BACK, delivery, {})
        assert [event["what"] for event in self.events("rabbitmq_declared")].count(
            "queue outbound-failed"
        ) == 1

    async def test_a_queue_of_leases_that_was_deleted_is_there_again(self) -> None:
        worker = await self.start()
        self.upstream.channel.queue_delete("outbound-lanes")
        await self.until(lambda: len(self.events("rabbitmq_lanes_consuming")) == 2, "it consumes again")
        await worker.client.deferred.write_lease(b"lease")
        await self.until(lambda: len(worker.leases) == 1, "the lease came")
        assert (worker.lost, worker.deferred_lost) == (0, 0)

    async def test_without_the_right_to_write_it_is_said_which(self) -> None:
        self.declare_all()
        await deferToThread(self.broker.add_user, "reads", "secret", ".*", "whatsapp-.*|outbound-.*", ".*")
        worker = await self.start(user="reads", password="secret")
        with pytest.raises(Unpublished, match=r"403 .*amq\.default"):
            await worker.client.deferred.write_lease(b"lease")


class Consumed(WithWorkers):
    async def test_no_more_is_held_than_the_prefetch_and_another_prefetch_holds_from_then_on(self) -> None:
        worker = await self.start_with_deferred(20)
        deferred = worker.client.deferred
        await deferred.consume(BACK, 3)
        await self.until(lambda: len(worker.deliveries) == 3, "three came")
        await deferred.consume(BACK, 3)
        await deferred.consume(BACK, 5)
        await self.until(lambda: len(worker.deliveries) == 8, "five more came")
        assert await deferred.depth(BACK) == 12
        for delivery in worker.deliveries[3:]:
            delivery.ack()
        await self.until(lambda: len(worker.deliveries) == 13, "and as many as were settled")
        assert worker.bodies == numbers(0, 13)
        tags = [delivery.tag for delivery in worker.deliveries]
        assert tags == sorted(tags)

    async def test_each_place_has_its_prefetch(self) -> None:
        worker = await self.start_with_deferred(10)
        self.put(10, "outbound-deferred-first.t1")
        deferred = worker.client.deferred
        for asked in (deferred.consume(BACK, 2), deferred.consume(FIRST, 5)):
            await asked
        await self.until(lambda: len(worker.deliveries) == 7, "they came")
        assert [delivery.place for delivery in worker.deliveries].count(FIRST) == 5
        assert await deferred.depth(BACK) == 8

    async def test_cancels_at_once_are_each_answered(self) -> None:
        worker = await self.start_with_deferred(0)
        deferred = worker.client.deferred
        for place in (BACK, FIRST):
            await deferred.consume(place, 5)
        for asked in [deferred.cancel(BACK), deferred.cancel(FIRST), deferred.cancel(BACK)]:
            await asked
        assert await deferred.delete(BACK)
        assert await deferred.delete(FIRST)

    async def test_when_it_is_cancelled_all_that_comes_has_come_and_the_rest_is_there(self) -> None:
        worker = await self.start_with_deferred(3000)
        worker.settle = RabbitDelivery.ack
        deferred = worker.client.deferred
        await deferred.consume(BACK, 50)
        await self.until(lambda: len(worker.deliveries) > 100, "many came")
        await deferred.cancel(BACK)
        came = len(worker.deliveries)
        await self.until(lambda: self.upstream.depth("outbound-deferred.t1") == 3000 - came, "the rest")
        assert worker.bodies == numbers(0, came)
        await deferred.consume(BACK, 50)
        await self.until(lambda: len(worker.deliveries) == 3000, "the rest came")
        assert worker.bodies == numbers(0, 3000)

    async def test_what_is_given_back_is_where_it_was(self) -> None:
        worker = await self.start_with_deferred(20)
        deferred = worker.client.deferred
        await deferred.consume(BACK, 8)
        await self.until(lambda: len(worker.deliveries) == 8, "some came")
        await deferred.cancel(BACK)
        for n in (1, 4):
            assert worker.deliveries[n].ack()
        for n in (7, 0, 5, 2, 6, 3):
            worker.deliveries[n].give_back()
        worker.deliveries.clear()
        await deferred.consume(BACK, 100)
        await self.until(lambda: len(worker.deliveries) == 18, "all that were not settled came")
        assert worker.bodies == [n for n in numbers(0, 20) if n not in (b"1", b"4")]
        assert worker.deliveries[0].redelivered

    async def test_one_that_is_not_there_is_refused_and_the_others_go_on(self) -> None:
        worker = await self.start_with_deferred(2)
        deferred = worker.client.deferred
        await deferred.consume(BACK, 1)
        with pytest.raises(QueueTrouble, match=r"no queue outbound-deferred\.t2"):
            await deferred.consume(Place("t2"), 1)
        await self.until(lambda: len(worker.deliveries) == 1, "it came")
        assert worker.deliveries[0].ack()
        await self.until(lambda: len(worker.deliveries) == 2, "and the next")
        assert worker.deferred_lost == 0

    async def test_of_one_that_is_deleted_it_is_told_and_it_can_be_consumed_from_again(self) -> None:
        worker = await self.start_with_deferred(0)
        deferred = worker.client.deferred
        await deferred.consume(FIRST, 10)
        await deferred.consume(BACK, 10)
        self.upstream.channel.queue_delete("outbound-deferred.t1")
        await self.until(lambda: worker.cancelled == [BACK], "it is told")
        await deferred.cancel(BACK)
        await deferred.declare("t1")
        await deferred.consume(BACK, 10)
        self.put(1)
        self.put(1, "outbound-deferred-first.t1")
        await self.until(lambda: len(worker.deliveries) == 2, "both come")
        assert worker.deferred_lost == 0

    async def test_of_two_workers_one_consumes_until_it_leaves(self) -> None:
        worker, other = await self.start_with_deferred(10), await self.start()
        worker.settle = other.settle = RabbitDelivery.ack
        for one in (worker, other):
            await one.client.deferred.consume(BACK, 10)
        await self.until(lambda: len(worker.deliveries) == 10, "one has them all")
        worker.settle = lambda _: None
        self.put(5, start=10)
        await self.until(lambda: len(worker.deliveries) == 15, "still")
        assert other.deliveries == []
        await worker.stop()
        await self.until(lambda: len(other.deliveries) == 5, "what was not settled comes to the other")
        assert other.bodies == numbers(10, 15)

    async def test_who_changes_the_prefetch_lets_another_worker_go_first(self) -> None:
        """On a cancel RabbitMQ makes the next consumer the active one, whatever is in hand."""
        worker, other = await self.start_with_deferred(6), await self.start()
        await worker.client.deferred.consume(BACK, 2)
        await other.client.deferred.consume(BACK, 2)
        await self.until(lambda: len(worker.deliveries) == 2, "two came")
        await worker.client.deferred.consume(BACK, 3)
        await self.until(lambda: len(other.deliveries) == 2, "the other has the next")
        assert other.bodies == numbers(2, 4)

    async def test_after_its_channel_was_closed_deliveries_and_leases_come_again(self) -> None:
        self.patch(lane_consumer, "AGAIN_SECONDS", 0.1)
        worker = await self.start_with_deferred(3)
        deferred = worker.client.deferred
        await deferred.write_lease(b"lease")
        await deferred.consume(BACK, 10)
        self.upstream.publish(b"of all")
        await self.until(lambda: len(worker.came) == 5, "all came")
        (common,) = (delivery for delivery in worker.deliveries if delivery.place is None)
        mine = next(delivery for delivery in worker.deliveries if delivery.place is BACK)
        assert mine.ack()
        assert mine.ack()  # once more: 406 PRECONDITION_FAILED
        await self.until(lambda: (worker.deferred_lost, worker.lost) == (1, 1), "the loss is told")
        assert not mine.alive
        mine.give_back()
        assert not mine.ack()
        await self.until(lambda: len(worker.leases) == 2, "the lease came again")
        await deferred.consume(BACK, 10)
        await self.until(lambda: len(worker.deliveries) >= 6, "what was not settled came again")
        assert worker.bodies[-2:] == numbers(1, 3)
        assert common.ack()
        assert worker.client.consuming

    async def test_while_its_channel_is_closed_it_is_refused(self) -> None:
        worker = await self.start_with_deferred(0)
        await worker.client.deferred.consume(BACK, 10)
        worker.client._lanes._channel.basic_ack(99)
        await self.until(lambda: worker.deferred_lost == 1, "the channel is closed")
        with pytest.raises(QueueTrouble, match="not consumed now"):
            await worker.client.deferred.consume(BACK, 10)
        await worker.client.deferred.cancel(BACK)
        assert await worker.client.deferred.depth(BACK) == 0

    async def test_after_the_connection_was_lost_both_are_told(self) -> None:
        worker = await self.start_with_deferred(2)
        await worker.client.deferred.consume(BACK, 10)
        await self.until(lambda: len(worker.deliveries) == 2, "they came")
        await self.close_connections()
        await self.until(lambda: (worker.deferred_lost, worker.lost) == (1, 1), "the loss is told")
        await self.until(lambda: worker.client.consuming, "it is there again")
        await worker.client.deferred.consume(BACK, 10)
        await self.until(lambda: worker.bodies == numbers(0, 2) * 2, "they came again")

    async def test_when_it_stops_consuming_nothing_comes_and_what_came_is_its_own_until_it_stops(
        self,
    ) -> None:
        worker = await self.start_with_deferred(5)
        deferred = worker.client.deferred
        await deferred.write_lease(b"mine")
        await deferred.consume(BACK, 2)
        await self.until(lambda: len(worker.came) == 3, "some came")
        await worker.client.stop_consuming()
        assert not worker.client.consuming
        await deferred.write_lease(b"of another")
        self.upstream.publish(b"of all")
        assert worker.deliveries[0].ack()
        with pytest.raises(QueueTrouble):
            await deferred.consume(FIRST, 2)
        other = await self.start()
        await self.until(lambda: [lease.body for lease in other.leases] == [b"of another"], "to another")
        assert await deferred.depth(BACK) == 3
        await worker.stop()
        await self.until(lambda: len(other.leases) == 2, "its lease is the other's")
        assert await other.client.deferred.depth(BACK) == 4
        assert len(worker.came) == 3
