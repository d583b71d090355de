"""What the broker can do to us: close, stop, cancel, refuse, block, fall silent."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pika import BasicProperties
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

from tests.integration.rabbit import Publisher
from tests.integration.world import World, message
from whatsapp_egress.clients.broker import Topology, consumer, link
from whatsapp_egress.clients.broker.declaring import QueueState
from whatsapp_egress.clients.broker.delivery import RabbitDelivery
from whatsapp_egress.clients.broker.link import Connection
from whatsapp_egress.clients.broker.tables import Timestamp
from whatsapp_egress.pipeline import outcome
from whatsapp_egress.pipeline.intake import Intake
from whatsapp_egress.sandbox import cards
from whatsapp_egress.sandbox.rabbitmq import PrivateBroker, TlsFiles
from whatsapp_egress.sandbox.tls import Authority


class Relay(Protocol):
    """A cable between the gateway and RabbitMQ that can be cut without either end being told."""

    def __init__(self, cable: Cable) -> None:
        self.cable = cable
        self.other: Relay | None = None
        self.waiting: list[bytes] = []

    def connectionMade(self) -> None:
        self.cable.ends.append(self)
        if self.other is None:  # the gateway's end: connect the broker's
            far = Relay(self.cable)
            far.other = self
            factory = Factory.forProtocol(lambda: far)
            factory.noisy = False
            TCP4ClientEndpoint(reactor, "127.0.0.1", self.cable.port).connect(factory)
        else:
            self.other.other = self
            for data in self.other.waiting:
                self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        if self.cable.cut:
            return
        if self.other is None or self.other.transport is None:
            self.waiting.append(data)
        else:
            self.other.transport.write(data)

    def connectionLost(self, reason: object = None) -> None:
        if self in self.cable.ends:
            self.cable.ends.remove(self)
        if self.other is not None and self.other.transport is not None and not self.cable.cut:
            self.other.transport.loseConnection()


class Cable(Factory):
    noisy = False

    def __init__(self, port: int) -> None:
        self.port = port
        self.cut = False
        self.ends: list[Relay] = []

    def buildProtocol(self, addr: object) -> Relay:
        return Relay(self)


class Broken(World):
    async def test_connections_closed_by_force_lose_nothing_and_send_nothing_twice(self) -> None:
        tenant = self.sandbox.tenants.add("t1", messages_per_second=1000)
        self.sandbox.behaviours.put(latency_ms=(5, 50))
        gateway = await self.start_gateway()
        for n in range(400):
            self.upstream.publish(message(tenant, to=f"1555{n:07}", internal_id=f"m{n}"))
        await self.until(lambda: len(self.sandbox.record) > 50, "some are on their way")
        await deferToThread(self.broker.close_connections)
        self.upstream = Publisher(self.broker)
        await self.until(lambda: not gateway.ready() or len(self.events("rabbitmq_connected")) > 2, "closed")
        for n in range(400, 450):
            self.upstream.publish(message(tenant, to=f"1555{n:07}", internal_id=f"m{n}"))
        everybody = {f"1555{n:07}" for n in range(450)}
        await self.until(lambda: {arrival.to for arrival in self.sent()} == everybody, "all are sent")
        await self.until(lambda: len(gateway.parts.recent) == 0, "nothing in hand")
        sent = Counter(arrival.to for arrival in self.sent())
        assert [to for to, times in sent.items() if times > 1] == []
        assert self.dead_letters() == []

    async def test_a_broker_that_stops_and_starts_again_is_waited_for(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        gateway = await self.start_gateway()
        self.upstream.publish(message(tenant, internal_id="before"))
        await self.until_settled()
        self.upstream.close()
        await deferToThread(self.broker.stop)
        await self.until(lambda: not gateway.ready(), "not ready")
        await self.until(lambda: self.events("rabbitmq_unreachable"), "it tried")
        # Who reads the log is not to look for a queue or a right that is missing.
        assert not self.events("rabbitmq_not_consuming")
        assert not self.events("rabbitmq_lanes_not_consuming")
        await deferToThread(self.broker.start_again)
        await self.until(gateway.ready, "ready again")
        self.upstream = Publisher(self.broker)
        self.upstream.publish(message(tenant, internal_id="after"))
        await self.until(lambda: len(self.sent()) == 2, "sent")

    async def test_a_start_without_a_broker_waits_for_it(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        self.upstream.close()
        await deferToThread(self.broker.stop)
        gateway = await self.start_gateway(until_ready=False)
        await self.until(lambda: len(self.events("rabbitmq_unreachable")) >= 2, "it tried")
        assert not gateway.ready()
        await deferToThread(self.broker.start_again)
        await self.until(gateway.ready, "ready")
        self.upstream = Publisher(self.broker)
        self.upstream.publish(message(tenant))
        await self.until(lambda: len(self.sent()) == 1, "sent")

    async def test_a_gateway_can_stop_while_the_broker_is_away(self) -> None:
        self.upstream.close()
        await deferToThread(self.broker.stop)
        await self.start_gateway(until_ready=False)
        await self.until(lambda: len(self.events("rabbitmq_unreachable")) >= 1, "it tried")
        await self.stop_gateway()
        assert self.events("service_stopped")
        await deferToThread(self.broker.start_again)

    async def test_a_deleted_queue_is_declared_and_consumed_again(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        gateway = await self.start_gateway()
        await self.until(lambda: len(self.events("rabbitmq_publishing")) == 3, "all is declared")
        self.upstream.channel.queue_delete("outbound-processed")
        await self.until(lambda: len(self.events("rabbitmq_consuming")) == 2 and gateway.ready(), "again")
        self.upstream.publish(message(tenant))
        await self.until_settled()
        assert len(self.sent()) == 1

    async def test_a_consumer_that_the_broker_forgot_without_a_word_begins_anew(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        self.patch(consumer, "LOOK_SECONDS", 0.5)
        gateway = await self.start_gateway()
        await self.until(lambda: len(self.events("rabbitmq_publishing")) == 3, "all is declared")
        # Deaf to the broker's word, as when RabbitMQ doesn't send it.
        channel, _ = gateway.parts.broker._consumer._subscription
        self.patch(channel, "_on_consumer_cancelled", lambda frame: frame)
        self.upstream.channel.queue_delete("outbound-processed")
        await self.until(lambda: len(self.events("rabbitmq_consuming")) == 2 and gateway.ready(), "again")
        assert self.events("rabbitmq_consumer_forgotten")
        self.upstream.publish(message(tenant))
        await self.until_settled()

    async def test_a_consumer_that_the_broker_knows_is_left_alone_also_when_a_look_fails(self) -> None:
        looks, look = [], Topology.look

        async def fail_at_first(topology: Topology, connection: Connection) -> QueueState | None:
            looks.append(0)
            if len(looks) == 1:
                raise KeyError("look")
            state = await look(topology, connection)
            looks[-1] = state.consumers
            return state

        self.patch(Topology, "look", fail_at_first)
        self.patch(consumer, "LOOK_SECONDS", 0.1)
        await self.start_gateway()
        await self.until(lambda: looks[1:3] == [1, 1], "it has looked")
        assert len(self.events("rabbitmq_look_failed")) == 1
        assert not self.events("rabbitmq_consumer_forgotten")

    async def test_a_broker_that_does_not_answer_is_told_of(self) -> None:
        answer: Deferred[None] = Deferred()
        ensure = Topology.ensure

        async def ensure_late(topology: Topology, connection: Connection) -> None:
            await answer
            await ensure(topology, connection)

        self.patch(Topology, "ensure", ensure_late)
        self.patch(consumer, "LOOK_SECONDS", 0.1)
        gateway = await self.start_gateway(until_ready=False)
        await self.until(lambda: self.events("rabbitmq_not_consuming"), "it is told")
        assert "not answered" in self.events("rabbitmq_not_consuming")[0]["detail"]
        answer.callback(None)
        await self.until(gateway.ready, "ready")

    async def test_a_dead_letter_that_no_queue_takes_stays_with_the_broker_until_one_does(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway()
        await self.until(lambda: len(self.events("rabbitmq_publishing")) == 3, "all is declared")
        self.upstream.channel.queue_delete("outbound-failed")
        # With events in between, the broker confirms several publishes at once.
        for n in range(40):
            to = cards.always(131026, who=n) if n % 4 == 0 else f"1555{n:07}"
            self.upstream.publish(message(tenant, to=to, internal_id=f"m{n}"))
        await self.until_settled()
        assert len(self.dead_letters()) == 10
        assert len(self.sent()) == 30

    async def test_a_dead_letter_queue_that_nobody_bound_is_bound_when_it_is_needed(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        self.upstream.channel.exchange_declare("whatsapp-dlx", "topic", durable=True)
        self.upstream.channel.queue_declare("outbound-failed", durable=True)
        await self.start_gateway()
        self.upstream.publish(message(tenant, to=cards.always(131026)))
        await self.until_settled()
        assert len(self.dead_letters()) == 1

    async def test_a_queue_that_exists_is_used_as_it_is(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        channel = self.upstream.channel
        channel.exchange_declare("whatsapp-exchange", "topic", durable=True)
        channel.queue_declare("outbound-processed", durable=True, arguments={"x-max-length": 77})
        channel.queue_bind("outbound-processed", "whatsapp-exchange", "outbound.processed.#")
        await self.start_gateway()
        self.upstream.publish(message(tenant))
        await self.until_settled()
        assert len(self.sent()) == 1

    async def test_a_missing_queue_is_declared_with_the_agreed_arguments(self) -> None:
        await self.start_gateway(RABBITMQ_QUEUE_TYPE="quorum")
        # An equal declaration is accepted; any difference would close the channel with 406.
        self.upstream.channel.queue_declare(
            "outbound-processed",
            durable=True,
            arguments={
                "x-queue-type": "quorum",
                "x-dead-letter-exchange": "whatsapp-dlx",
                "x-dead-letter-routing-key": "outbound.failed",
                "x-message-ttl": 86400000,
            },
        )

    async def test_it_can_stop_at_every_step_of_its_start(self) -> None:
        for step in range(1, 20):
            await self.start_and_stop_when_it_opens_a_channel(step)
        assert not self.events("task_failed")
        assert not self.events("rabbitmq_not_consuming")

    async def start_and_stop_when_it_opens_a_channel(self, number: int) -> None:
        opens, opened, reached = Connection.channel, 0, Deferred[None]()

        def count(connection: Connection) -> Any:
            nonlocal opened
            opened += 1
            if opened == number:
                reactor.callLater(0, reached.callback, None)
            return opens(connection)

        counting = self.patch(Connection, "channel", count)
        await self.start_gateway(until_ready=False)
        await reached
        counting.restore()
        await self.stop_gateway()

    async def test_a_silent_link_is_aborted_and_replaced(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        cable = Cable(self.broker.port)
        port = reactor.listenTCP(0, cable, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        gateway = await self.start_gateway(RABBITMQ_PORT=port.getHost().port, RABBITMQ_HEARTBEAT="1")
        cable.cut = True
        await self.until(lambda: len(self.events("rabbitmq_silent")) >= 2, "silence was heard")
        for end in list(cable.ends):
            end.transport.abortConnection()
        cable.cut = False
        await self.until(gateway.ready, "ready again")
        self.upstream.publish(message(tenant))
        await self.until_settled()
        assert len(self.sent()) == 1
        await self.stop_gateway()
        for end in list(cable.ends):
            end.transport.abortConnection()
        await self.until(lambda: not cable.ends, "the cable is free")

    async def test_a_peer_that_says_nothing_is_left_in_time(self) -> None:
        mute = Factory.forProtocol(Protocol)
        mute.noisy = False
        port = reactor.listenTCP(0, mute, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.patch(link, "HANDSHAKE_SECONDS", 0.2)
        for tls in ("false", "true"):
            self.log.clear()
            await self.start_gateway(until_ready=False, RABBITMQ_PORT=port.getHost().port, RABBITMQ_TLS=tls)
            await self.until(lambda: len(self.events("rabbitmq_unreachable")) >= 4, "it tries again")
            assert "no answer in time" in self.events("rabbitmq_unreachable")[0]["detail"]
            await self.stop_gateway()

    async def test_a_fault_of_ours_ends_in_a_new_connection(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        ensure, failed = Topology.ensure, set()

        async def fail_at_first(topology: Topology, connection: Connection) -> None:
            link = connection._link
            if link not in failed:
                failed.add(link)
                raise KeyError(link._name)
            await ensure(topology, connection)

        self.patch(Topology, "ensure", fail_at_first)
        await self.start_gateway()
        await self.until(lambda: len(self.events("rabbitmq_connection_given_up")) == 2, "each was given up")
        self.upstream.publish(message(tenant))
        await self.until_settled()
        assert len(self.flushLoggedErrors(KeyError)) == 2

    async def test_headers_that_pika_can_not_read_do_no_harm_and_are_kept(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway()
        headers = {"in-ms": Timestamp(1_790_000_000_000), "before-1970": Timestamp(2**64 - 1), "ratio": 0.75}
        for to in ("15550001111", cards.always(131026)):
            properties = BasicProperties(delivery_mode=2, headers=headers)
            self.upstream.publish(message(tenant, to=to, internal_id=to), properties)
        await self.until_settled()
        assert len(self.sent()) == 1
        (letter,) = self.dead_letters()
        assert {name: letter.headers[name] for name in headers} == headers

    async def test_headers_that_leave_no_room_for_ours_are_dropped(self) -> None:
        await self.start_gateway()
        properties = BasicProperties(delivery_mode=2, headers={"large": "x" * 130_900, "small": "y"})
        self.upstream.publish(b"not json", properties)
        await self.until_settled()
        (letter,) = self.dead_letters()
        assert letter.headers["small"] == "y"
        assert letter.headers["x-egress-headers-dropped"] == 1
        assert not self.events("rabbitmq_disconnected")

    async def test_a_fault_of_ours_with_one_delivery_leaves_it_queued_and_the_others_go_on(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        receive = Intake.receive

        def fail_with_one(intake: Intake, delivery: RabbitDelivery) -> None:
            if b"poison" in delivery.body:
                raise KeyError("poison")
            receive(intake, delivery)

        self.patch(Intake, "receive", fail_with_one)
        await self.start_gateway()
        self.upstream.publish(message(tenant, internal_id="poison"))
        self.upstream.publish(message(tenant, internal_id="good"))
        await self.until(lambda: self.acked == 1, "the good one is settled")
        await self.stop_gateway()
        await self.until(lambda: self.upstream.depth("outbound-processed") == 1, "the other is queued")
        assert len(self.flushLoggedErrors(KeyError)) == 1

    async def test_acks_go_on_while_an_alarm_blocks_publishing(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway()
        # RabbitMQ blocks only connections that have published.
        self.upstream.publish(message(tenant, to=cards.always(131026), internal_id="bad0"))
        await self.until_settled()
        self.sandbox.behaviours.put(latency_ms=3000)
        for n in range(20):
            self.upstream.publish(message(tenant, to=f"1555{n:07}", internal_id=f"m{n}"))
        self.upstream.publish(message(tenant, to=cards.always(131026), internal_id="bad1"))
        await self.until(lambda: len(self.sandbox.record) == 22, "on their way")
        async with self.alarm():
            await self.until(lambda: self.acked == 21, "the sent ones are acked", patience=10)
        await self.until_settled()
        assert len(self.dead_letters()) == 2

    async def test_a_stop_while_an_alarm_blocks_publishing_has_acked_what_was_sent(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway(SHUTDOWN_TIMEOUT="500")
        await self.until(lambda: len(self.events("rabbitmq_publishing")) == 3, "all is ready")
        self.upstream.publish(message(tenant, to=cards.always(131026), internal_id="bad"))
        await self.until_settled()
        self.sandbox.behaviours.put(latency_ms=3000)
        for n in range(10):
            self.upstream.publish(message(tenant, to=f"1555{n:07}", internal_id=f"m{n}"))
        await self.until(lambda: len(self.sandbox.record) == 11, "on their way")
        async with self.alarm():
            await self.until(lambda: len(self.events("message_delivered")) == 10, "sent")
            await self.stop_gateway()
        lost = [event["internalId"] for event in self.events("message_unpublished")]
        assert sorted(lost) == [f"m{n}" for n in range(10)]
        assert self.upstream.depth("outbound-processed") == 0

    @asynccontextmanager
    async def alarm(self) -> AsyncIterator[None]:
        await deferToThread(self.broker.set_memory_alarm, True)
        try:
            yield
        finally:
            await deferToThread(self.broker.set_memory_alarm, False)

    async def test_events_that_may_not_be_published_do_not_touch_dead_letters(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.declare_all()
        dead_letters_only = "whatsapp-dlx|outbound-failed"
        await deferToThread(self.broker.add_user, "quiet", "secret", "^$", dead_letters_only, ".*")
        self.patch(outcome, "EVENT_PATIENCE", 2.0)
        await self.start_gateway(RABBITMQ_USER="quiet", RABBITMQ_PASSWORD="secret")
        for n in range(10):
            to = cards.always(131026, who=n)
            self.upstream.publish(message(tenant, to=to, internal_id=f"bad{n}"))
        self.upstream.publish(message(tenant, internal_id="good"))
        await self.until_settled()
        assert len(self.dead_letters()) == 10
        await self.until(lambda: len(self.events("message_unpublished")) == 11, "each lost event is told")

    async def test_a_channel_closed_by_the_broker_is_replaced_and_nothing_is_sent_twice(self) -> None:
        tenant = self.sandbox.tenants.add("t1", messages_per_second=20)
        self.patch(consumer, "AGAIN_SECONDS", 0.2)
        gateway = await self.start_gateway()
        for n in range(60):
            self.upstream.publish(message(tenant, to=f"1555{n:07}", internal_id=f"m{n}"))
        await self.until(lambda: len(self.sandbox.record) > 10, "some are on their way")
        channel, _ = gateway.parts.broker._consumer._subscription
        channel.basic_ack(10_000)  # a tag that was never given out: 406 PRECONDITION_FAILED
        await self.until(lambda: self.events("rabbitmq_not_consuming"), "the channel is closed")
        assert len(gateway.parts.recent) < 60  # what waited was left to the broker at once
        await self.until(lambda: len({arrival.to for arrival in self.sent()}) == 60, "all are sent")
        await self.until(lambda: len(gateway.parts.recent) == 0, "nothing in hand")
        assert len(self.sent()) == 60
        assert len(self.events("rabbitmq_connected")) == 2

    async def test_no_more_than_the_prefetch_is_held(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        self.sandbox.behaviours.put(mode="hang")
        await self.start_gateway(RABBITMQ_PREFETCH="7")
        for n in range(20):
            self.upstream.publish(message(tenant, to=f"1555{n:07}", internal_id=f"m{n}"))
        await self.until(lambda: len(self.sandbox.record) == 7, "as many are in flight")
        assert self.upstream.depth("outbound-processed") == 13

    async def test_a_wrong_password_is_said_in_words(self) -> None:
        await self.start_gateway(until_ready=False, RABBITMQ_PASSWORD="wrong")
        await self.until(lambda: len(self.events("rabbitmq_unreachable")) >= 1, "it was refused")
        detail = self.events("rabbitmq_unreachable")[0]["detail"]
        assert "RABBITMQ_PASSWORD" in detail

    async def test_a_user_who_may_not_declare_gets_a_clear_error_and_is_served_later(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await deferToThread(self.broker.add_user, "reader", "secret", "^$", ".*", ".*")
        gateway = await self.start_gateway(
            until_ready=False, RABBITMQ_USER="reader", RABBITMQ_PASSWORD="secret"
        )
        await self.until(lambda: len(self.events("rabbitmq_not_consuming")) >= 1, "refused")
        detail = self.events("rabbitmq_not_consuming")[0]["detail"]
        assert "whatsapp-exchange" in detail
        assert "configure" in detail
        await self.declare_all()
        await self.until(gateway.ready, "ready")
        self.upstream.publish(message(tenant))
        await self.until(lambda: len(self.sent()) == 1, "sent")

    async def declare_all(self) -> None:
        other = Publisher(self.broker)
        for exchange in ("whatsapp-exchange", "whatsapp-dlx", "whatsapp-events"):
            other.channel.exchange_declare(exchange, "topic", durable=True)
        for queue, exchange, key in (
            ("outbound-processed", "whatsapp-exchange", "outbound.processed.#"),
            ("outbound-failed", "whatsapp-dlx", "outbound.failed"),
        ):
            other.channel.queue_declare(queue, durable=True)
            other.channel.queue_bind(queue, exchange, key)
        other.close()

    async def test_a_redelivery_of_a_sent_message_is_acked_without_a_second_send(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        gateway = await self.start_gateway()
        self.patch(RabbitDelivery, "ack", self.lose_connection_first(gateway, RabbitDelivery.ack))
        self.upstream.publish(message(tenant))
        await self.until(lambda: len(self.events("message_recalled")) == 1, "redelivered")
        await self.until(lambda: self.acked == 1, "acked")
        assert len(self.sent()) == 1

    async def test_a_message_published_again_is_sent_though_another_worker_let_it_go(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        self.sandbox.tenants.remove("t1")
        await self.start_gateway(CREDENTIAL_NEGATIVE_TTL="0")
        self.upstream.publish(message(tenant))
        await self.until_settled()
        assert [letter.reason for letter in self.dead_letters()] == ["tenant_not_found"]

        self.sandbox.tenants.add("t1", token=tenant.token, phone_number_id=tenant.phone_number_id)
        other = Publisher(self.broker)
        taken: list[bool] = []
        other.channel.basic_consume(
            "outbound-processed", lambda *_: taken.append(True), arguments={"x-priority": 10}
        )
        self.upstream.publish(message(tenant))
        await self.until(lambda: other.connection.process_data_events(0) or bool(taken), "it got it first")
        other.close()
        await self.until_settled()
        assert len(self.sent()) == 1

    def lose_connection_first(self, gateway: Any, ack: Any) -> Any:
        """An ack that is decided, but finds the connection gone the first time."""
        lost = []

        def acks(delivery: RabbitDelivery) -> bool:
            if not lost:
                lost.append(delivery)
                gateway.parts.broker._link._connection._amqp.transport.transport.connectionLost(
                    Failure(ConnectionLost())
                )
            return bool(ack(delivery))

        return acks


class Secure(World):
    async def test_amqps_is_verified(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        folder = Path(temporary.name)
        good = Authority.create().issue()
        stranger = Authority.create("stranger").issue()
        for name, content in (
            ("ca.pem", good.ca_pem),
            ("cert.pem", good.certificate_pem),
            ("key.pem", good.key_pem),
            ("other.pem", stranger.ca_pem),
        ):
            (folder / name).write_bytes(content if isinstance(content, bytes) else content())
        files = TlsFiles(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
        broker = await deferToThread(PrivateBroker.start, None, files)
        self.addCleanup(deferToThread, broker.close)
        settings = {"RABBITMQ_TLS": "true", "RABBITMQ_PORT": broker.tls_port, "RABBITMQ_HOST": "localhost"}
        await self.start_gateway(until_ready=False, **settings, RABBITMQ_CA_FILE=folder / "other.pem")
        await self.until(lambda: len(self.events("rabbitmq_unreachable")) >= 1, "refused")
        assert "certificate" in self.events("rabbitmq_unreachable")[0]["detail"]
        await self.stop_gateway()
        gateway = await self.start_gateway(**settings, RABBITMQ_CA_FILE=folder / "ca.pem")
        assert gateway.ready()
