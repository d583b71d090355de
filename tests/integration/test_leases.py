"""Leases at a real RabbitMQ: they come before the messages of those whose lanes they are."""

from __future__ import annotations

import gc

import pytest
from pika.adapters.twisted_connection import TwistedChannel
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.integration.worker import BACK, WithWorkers, Worker, numbers
from whatsapp_egress.clients.broker import lane_consumer
from whatsapp_egress.clients.broker.declaring import QueueState
from whatsapp_egress.clients.broker.link import Connection
from whatsapp_egress.errors import QueueTrouble, Unpublished


class Leases(WithWorkers):
    async def setUp(self) -> None:
        await super().setUp()
        self.stopped: list[Deferred[None]] = []

    async def test_all_have_come_before_the_first_message(self) -> None:
        for queue_type in ("classic", "quorum"):
            self.upstream.clean()
            await self.come_before_messages(queue_type)

    async def come_before_messages(self, queue_type: str) -> None:
        self.declare_all(lanes={"x-queue-type": queue_type})
        self.put(2500, "outbound-lanes")
        self.put(10, "outbound-processed")
        worker = await self.start()
        await self.until(lambda: len(worker.deliveries) == 10, "the messages came")
        assert worker.came == worker.leases + worker.deliveries, queue_type
        assert {lease.body for lease in worker.leases} == set(numbers(0, 2500))
        assert len(worker.leases) == 2500
        await worker.stop()

    async def test_one_is_its_holders_until_that_leaves(self) -> None:
        worker = await self.start()
        await worker.client.deferred.write_lease(b'{"tenantId": "t1"}')
        await self.until(lambda: len(worker.leases) == 1, "the lease came")
        other = await self.start()
        assert other.leases == []
        lease = worker.leases[0]
        assert (lease.properties.content_type, lease.properties.delivery_mode) == ("application/json", 2)
        await worker.stop()
        await self.until(lambda: len(other.leases) == 1, "the other has it")
        assert other.leases[0].body == b'{"tenantId": "t1"}'
        assert other.leases[0].ack()
        await other.stop()
        assert self.upstream.depth("outbound-lanes") == 0

    async def test_messages_do_not_wait_for_ever(self) -> None:
        async def never(_connection: Connection, _queue: str) -> QueueState:
            await Deferred()
            raise AssertionError

        async def always(_connection: Connection, _queue: str) -> QueueState:
            return QueueState(1, 1)

        self.patch(lane_consumer, "LEASES_SECONDS", 0.2)
        for count, look_at in enumerate((never, always), 1):
            self.patch(lane_consumer, "look_at", look_at)
            worker = await self.start()
            assert len(self.events("rabbitmq_leases_late")) == count
            await worker.stop()

    async def test_messages_come_though_leases_may_not_be_read(self) -> None:
        self.declare_all()
        self.patch(lane_consumer, "AGAIN_SECONDS", 0.1)
        await deferToThread(self.broker.add_user, "leaseless", "secret", ".*", ".*", "outbound-processed")
        worker = await self.start(user="leaseless", password="secret")
        assert "403" in self.events("rabbitmq_lanes_not_consuming")[0]["detail"]
        self.upstream.publish(b"of all")
        await self.until(lambda: worker.bodies == [b"of all"], "it came")
        assert worker.deliveries[0].ack()
        await deferToThread(self.broker.set_permissions, "leaseless", ".*", ".*", ".*")
        await worker.client.deferred.write_lease(b"lease")
        await self.until(lambda: len(worker.leases) == 1, "the lease came")
        assert (worker.lost, worker.deferred_lost) == (0, 0)

    async def test_messages_come_though_the_queue_of_leases_may_not_be_declared(self) -> None:
        self.declare_all()
        self.upstream.channel.queue_delete("outbound-lanes")
        await deferToThread(self.broker.add_user, "undeclaring", "secret", "^$", ".*", ".*")
        worker = self.worker(user="undeclaring", password="secret")
        worker.client.start()
        await self.until(lambda: worker.client.consuming, "it consumes")
        detail = self.events("rabbitmq_lanes_not_consuming")[0]["detail"]
        assert "outbound-lanes" in detail
        assert "configure" in detail
        await self.until(
            lambda: any(event["exchange"] == "(default)" for event in self.events("rabbitmq_not_publishing")),
            "it is told",
        )
        with pytest.raises(Unpublished, match=r"queue outbound-lanes: 403"):
            await worker.client.deferred.write_lease(b"lease")

    async def test_it_can_stop_at_every_step_of_its_start(self) -> None:
        for stop_consuming in (False, True):
            for step in range(1, 20):
                await self.stop_when_it_opens_a_channel(step, stop_consuming)
        assert not self.events("task_failed")
        assert not self.events("rabbitmq_not_consuming")
        assert not self.events("rabbitmq_lanes_not_consuming")

    async def stop_when_it_opens_a_channel(self, number: int, stop_consuming: bool) -> None:
        opens, opened = Connection.channel, 0

        def count(connection: Connection) -> object:
            nonlocal opened
            opened += 1
            return opens(connection)

        counting = self.patch(Connection, "channel", count)
        worker = self.worker()
        worker.client.start()
        await self.until(lambda: opened >= number, "so far")
        counting.restore()
        if stop_consuming:
            await worker.client.stop_consuming()
        await worker.stop()

    async def test_a_stop_between_two_calls_leaves_nothing_behind(self) -> None:
        for nth in (1, 2, 3, 4):
            worker = await self.start_with_deferred(0) if nth > 3 else self.worker()
            self.stop_after_prefetch(worker, nth if nth <= 3 else 1)
            if nth > 3:
                with pytest.raises(QueueTrouble):
                    await worker.client.deferred.consume(BACK, 10)
            else:
                worker.client.start()
            await self.until(lambda: len(self.stopped) == 1, "it stops")
            await self.stopped.pop()
            gc.collect()
            assert self.flushLoggedErrors() == [], nth

    def stop_after_prefetch(self, worker: Worker, number: int) -> None:
        """Stop the worker in the moment when the prefetch was set for the number-th time."""
        prefetch, answers = TwistedChannel.basic_qos, 0

        def then_stop(answer: object) -> object:
            nonlocal answers
            answers += 1
            if answers == number:
                patch.restore()
                self.stopped.append(Deferred.fromCoroutine(worker.stop()))
            return answer

        patch = self.patch(
            TwistedChannel, "basic_qos", lambda *args, **how: prefetch(*args, **how).addCallback(then_stop)
        )

    async def test_a_pending_question_ends_when_it_stops(self) -> None:
        worker = await self.start_with_deferred(1)
        asked = [worker.client.deferred.depth(BACK) for _ in range(40)]
        await worker.stop()
        outcomes: list[object] = []
        for one in asked:
            one.addBoth(outcomes.append)
        assert len(outcomes) == 40
