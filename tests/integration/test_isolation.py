"""One tenant's trouble stays its own: every rule of lanes and deferral on a real broker."""

from __future__ import annotations

import time
from typing import Any

import pika
from twisted.internet.threads import deferToThread

from tests.integration.flood import Flooded, look_at_queues, numbered
from tests.integration.world import message
from whatsapp_egress import service
from whatsapp_egress.clients.broker import consumer
from whatsapp_egress.pipeline.road import Cause
from whatsapp_egress.policy import backoff
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.sandbox import cards

INCOMING, LANES = "outbound-processed", "outbound-lanes"


class Deferring(Flooded):
    async def test_what_exceeds_a_lane_is_deferred_and_comes_back_in_order(self) -> None:
        self.patch(service, "LINGER_SECONDS", 0.5)
        flooding = self.sandbox.tenants.add("flooding", messages_per_second=30)
        others = [self.sandbox.tenants.add(f"other{n}") for n in range(3)]
        gateway = await self.start_gateway(
            LANE_ACTIVE_LIMIT="20", DEFER_AFTER="2000", RABBITMQ_QUEUE_TYPE="classic"
        )
        self.flood(flooding, range(200))
        await self.until(
            lambda: self.deferred(flooding) > 100 and len(gateway.parts.recent) < 60, "the rest is deferred"
        )
        for other in others:
            self.flood(other, range(10))
        for other in others:
            await self.until_sent(other, 10)
        assert self.accepted(flooding) < 150
        queues = await look_at_queues(self)
        assert queues[INCOMING].ready == 0
        assert queues[INCOMING].unacked <= 20
        assert queues[LANES].unacked == 1
        await self.until_sent(flooding, 200)
        self.assert_all_sent_once_in_order(flooding, 200)
        for other in others:
            self.assert_all_sent_once_in_order(other, 10)
        times = [arrival.time for arrival in self.arrived(flooding)]
        # The first second's worth goes at once; the rest at the rate, deferred or not.
        assert times[-1] - times[0] < 2 * 200 / 30
        await self.until(lambda: gateway.parts.lanes.deferring == 0, "deferral is over")
        queues = await look_at_queues(self)
        assert [name for name in queues if "flooding" in name] == []
        assert (queues[LANES].ready, queues[LANES].unacked) == (0, 0)

    async def test_a_deferred_message_is_what_it_was(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        gateway = await self.start_gateway()
        gateway.parts.lanes.pause("t1", Pause("looked at", "a test", time.time()))
        (body,) = numbered(tenant, [0])
        body += b" \n"
        properties = pika.BasicProperties(
            content_type="application/json",
            correlation_id="c-1",
            message_id="m-1",
            priority=3,
            headers={"traceparent": "00-abc", "n": 7},
            expiration="3600000",
            delivery_mode=1,
        )
        self.upstream.publish(body, properties)
        await self.until(lambda: self.deferred(tenant) == 1, "deferred")
        method, kept, kept_body = self.upstream.channel.basic_get("outbound-deferred.t1")
        self.upstream.channel.basic_nack(method.delivery_tag)
        assert kept_body == body
        assert (kept.content_type, kept.correlation_id, kept.message_id, kept.priority) == (
            "application/json",
            "c-1",
            "m-1",
            3,
        )
        assert (kept.delivery_mode, kept.expiration) == (2, "3600000")
        assert (kept.headers["traceparent"], kept.headers["n"]) == ("00-abc", 7)
        gateway.parts.lanes.resume("t1")
        await self.until_sent(tenant, 1)
        assert self.arrived(tenant)[0].body in body

    async def test_nothing_is_held_longer_than_it_may_be(self) -> None:
        tenant = self.sandbox.tenants.add("t1", messages_per_second=8)
        gateway = await self.start_gateway(
            DEFER_AFTER="2000", LANE_ACTIVE_LIMIT="60", RABBITMQ_QUEUE_TYPE="classic"
        )
        self.flood(tenant, range(60))
        began, oldest = time.time(), 0.0

        def all_out_of_hand() -> bool:
            return (
                all(parcel.place is not None for parcel in self.in_hand(gateway))
                and self.deferred(tenant) > 0
            )

        await self.until(all_out_of_hand, "the queue in is left in peace", patience=8)
        assert time.time() - began < 2 + 4  # DEFER_AFTER, and what a busy machine needs to move them
        queues = await look_at_queues(self)
        assert queues[INCOMING].unacked == 0

        def done() -> bool:
            nonlocal oldest
            ages = [time.time() - parcel.received for parcel in self.in_hand(gateway)]
            oldest = max(oldest, *ages, 0.0)
            return self.accepted(tenant) >= 60

        await self.until(done, "all are sent")
        self.assert_all_sent_once_in_order(tenant, 60)
        assert oldest < 2 + 2

    def in_hand(self, gateway: Any) -> list[Any]:
        return [parcel for alike in gateway.parts.recent._in_hand.values() for parcel in alike]


class Breakers(Flooded):
    async def test_a_tenant_that_fails_is_left_alone_and_probed(self) -> None:
        failing = self.sandbox.tenants.add("failing")
        fine = self.sandbox.tenants.add("fine")
        await self.start_gateway(
            BREAKER_FAILURE_THRESHOLD="4",
            BREAKER_RESET_TIMEOUT="1500",
            META_API_MAX_RETRIES="20",
            META_API_MAX_CONNECTIONS_PER_TENANT="1",
        )
        self.flood(fine, range(1))
        await self.until_sent(fine, 1)
        self.sandbox.behaviours.put(failing.phone_number_id, mode="error", error_code=131016)
        self.flood(failing, range(15))
        await self.until(lambda: bool(self.events("circuit_breaker_opened")), "open")
        assert len(self.arrived(failing)) == 4
        self.flood(fine, range(1, 31))
        await self.until_sent(fine, 31, patience=1.2)
        assert len(self.arrived(failing)) == 4
        await self.until(lambda: len(self.events("circuit_breaker_opened")) == 3, "open again")
        assert len(self.events("circuit_breaker_half_open")) == 2
        assert len(self.arrived(failing)) == 6
        times = [arrival.time for arrival in self.arrived(failing)]
        assert times[4] - times[3] >= 1.4
        assert times[5] - times[4] >= 1.4
        self.sandbox.behaviours.clear(failing.phone_number_id)
        await self.until_sent(failing, 15)
        assert len(self.events("circuit_breaker_closed")) == 1
        assert {event["tenantId"] for event in self.events("circuit_breaker_opened")} == {"failing"}
        self.assert_all_sent_once_in_order(failing, 15)
        self.assert_all_sent_once_in_order(fine, 31)
        assert self.dead_letters() == []
        assert len(self.arrived(fine)) == 31

    async def test_what_a_broken_tenant_has_is_deferred_and_its_probe_comes_from_there(self) -> None:
        tenant = self.sandbox.tenants.add("failing")
        gateway = await self.start_gateway(
            BREAKER_FAILURE_THRESHOLD="4",
            BREAKER_RESET_TIMEOUT="3000",
            META_API_MAX_RETRIES="20",
            META_API_MAX_CONNECTIONS_PER_TENANT="1",
            DEFER_AFTER="2000",
        )
        self.sandbox.behaviours.put(tenant.phone_number_id, mode="error", error_code=131016)
        self.flood(tenant, range(40))
        await self.until(lambda: bool(self.events("circuit_breaker_opened")), "open")
        await self.until(
            lambda: self.deferred(tenant) >= 39 and len(gateway.parts.recent) <= 1, "all is deferred", 3
        )
        assert len(self.arrived(tenant)) == 4
        await self.until(lambda: len(self.events("circuit_breaker_opened")) == 2, "probed", patience=8)
        assert len(self.arrived(tenant)) == 5
        self.sandbox.behaviours.clear(tenant.phone_number_id)
        await self.until_sent(tenant, 40, patience=15)
        self.assert_all_sent_once_in_order(tenant, 40)
        assert self.dead_letters() == []

    async def test_bad_recipients_open_no_breaker(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway(BREAKER_FAILURE_THRESHOLD="2")
        for n in range(10):
            for code in (131026, 132001, 131047):
                to = cards.always(code, who=n + 1)
                self.upstream.publish(message(tenant, to=to, internal_id=f"{code}-{n}"))
        await self.until(lambda: self.upstream.depth("outbound-failed") == 30, "all are rejected")
        self.flood(tenant, range(5))
        await self.until_sent(tenant, 5)
        assert self.events("circuit_breaker_opened") == []
        assert len(self.dead_letters()) == 30


class Roads(Flooded):
    async def test_an_error_for_everybody_breaks_the_road(self) -> None:
        tenants = [self.sandbox.tenants.add(f"t{n}") for n in range(3)]
        await self.start_broken_road()
        self.sandbox.behaviours.put(mode="error", error_code=131016, latency_ms=50)
        self.flood_in_turns(tenants)
        await self.until_opened(4)
        # Ten at once, what they had begun when it opened, and three probes.
        assert len(self.sandbox.record) <= 30
        self.sandbox.behaviours.clear()
        await self.until_all_is_sent(tenants)

    async def test_refused_connections_break_the_road(self) -> None:
        tenants = [self.sandbox.tenants.add(f"t{n}") for n in range(3)]
        await self.start_broken_road()
        await self.sandbox.stop_graph()
        self.flood_in_turns(tenants)
        await self.until_opened(4)
        assert len(self.events("message_retry")) <= 30
        self.sandbox.start_graph()
        await self.until_all_is_sent(tenants)

    def flood_in_turns(self, tenants: list[Any]) -> None:
        for n in range(30):
            for tenant in tenants:
                self.flood(tenant, [n])

    async def start_broken_road(self) -> None:
        self.patch(backoff, "SHORTEST_ROAD", 0.5)
        await self.start_gateway(
            BREAKER_FAILURE_THRESHOLD="5",
            META_API_MAX_RETRIES="6",
            META_API_MAX_CONNECTIONS="10",
            DEFER_AFTER="2000",
        )

    async def until_opened(self, times: int) -> None:
        def opened() -> bool:
            events = self.events("circuit_breaker_opened")
            return len([event for event in events if event.get("scope") == "road"]) >= times

        await self.until(opened, "the road's breaker is open")
        assert next(event["reason"] for event in self.events("backpressure_on")) == "road"

    async def until_all_is_sent(self, tenants: list[Any]) -> None:
        for tenant in tenants:
            # A tenant's own breaker would hold it for a minute.
            await self.until_sent(tenant, 30, patience=15)
        for tenant in tenants:
            self.assert_all_sent_once_in_order(tenant, 30)
        assert self.dead_letters() == []
        assert self.events("circuit_breaker_closed")[-1]["scope"] == "road"
        on = [event["reason"] for event in self.events("backpressure_on")]
        off = [event["reason"] for event in self.events("backpressure_off")]
        assert on.count("road") == off.count("road")


class Throttles(Flooded):
    async def test_a_throttled_number_is_halved_and_a_pair_throttle_holds_one_recipient(self) -> None:
        number = self.sandbox.tenants.add("number", messages_per_second=40)
        pair = self.sandbox.tenants.add("pair")
        fine = self.sandbox.tenants.add("fine")
        gateway = await self.start_gateway()
        to_pair, to_number = cards.times(1, 131056), cards.times(1, 130429)
        self.upstream.publish(message(number, to=to_number, internal_id="throttled"))
        for n in range(3):
            self.upstream.publish(message(pair, to=to_pair, internal_id=f"held-{n}"))
        await self.until(lambda: len(self.events("rate_limit_exceeded")) == 2, "both are throttled")
        waits = gateway.parts.lanes.waits_for("number")
        assert waits is not None
        assert waits.cause is Cause.THROTTLE
        for tenant in (number, pair, fine):
            self.flood(tenant, range(90))
        await self.until_sent(fine, 90, patience=4)
        await self.until_sent(pair, 90, patience=4)
        assert len(self.arrived(number)) == 1
        assert [arrival.status for arrival in self.sandbox.record if arrival.to == to_pair] == [400]
        await self.until_sent(pair, 93, patience=10)
        pair_times = [arrival.time for arrival in self.sandbox.record if arrival.to == to_pair]
        assert 6 <= pair_times[1] - pair_times[0] < 8
        ids = [event["internalId"] for event in self.events("message_delivered")]
        assert [each for each in ids if each.startswith("held")] == ["held-0", "held-1", "held-2"]
        await self.until_sent(number, 91, patience=20)
        times = [arrival.time for arrival in self.arrived(number)]
        assert times[1] - times[0] >= 10
        # Half of 40: no second sees more than the bucket's burst lets through, and the whole takes its time.
        span = times[-1] - times[1]
        assert span >= (90 - 20) / 20 * 0.9, span
        assert max(sum(at <= other < at + 1 for other in times) for at in times[1:]) <= 20 * 2
        assert self.dead_letters() == []


class Pauses(Flooded):
    async def test_a_pause_defers_what_waits_survives_a_restart_and_ends_with_resume(self) -> None:
        self.patch(service, "LINGER_SECONDS", 0.5)
        tenant, fine = self.sandbox.tenants.add("paused"), self.sandbox.tenants.add("fine")
        gateway = await self.start_gateway(DEFER_AFTER="2000")
        gateway.parts.lanes.pause(tenant.id, Pause("maintenance", "an operator", time.time()))
        self.flood(tenant, range(30))
        await self.until(lambda: self.deferred(tenant) == 30, "all is deferred")
        await self.stop_gateway()
        self.flood(tenant, range(30, 60))
        self.log.clear()
        gateway = await self.start_gateway(DEFER_AFTER="2000")
        self.flood(tenant, range(60, 70))
        self.flood(fine, range(10))
        await self.until(lambda: self.deferred(tenant) == 70, "all is deferred")
        await self.until_sent(fine, 10)
        waits = gateway.parts.lanes.waits_for(tenant.id)
        assert waits is not None
        assert waits.cause is Cause.PAUSE
        assert self.arrived(tenant) == []
        assert gateway.parts.lanes.resume(tenant.id)
        await self.until_sent(tenant, 70)
        self.assert_all_sent_once_in_order(tenant, 70)
        await self.until(lambda: gateway.parts.lanes.deferring == 0, "deferral is over")
        await self.stop_gateway()
        assert self.depth_of(LANES) == 0

    async def test_a_pause_in_the_middle_and_what_comes_meanwhile_keep_their_order(self) -> None:
        tenant = self.sandbox.tenants.add("paused", messages_per_second=20)
        gateway = await self.start_gateway(DEFER_AFTER="2000", LANE_ACTIVE_LIMIT="30")
        self.flood(tenant, range(80))
        await self.until_sent(tenant, 30)
        gateway.parts.lanes.pause(tenant.id, Pause("maintenance", "an operator", time.time()))
        await self.until(lambda: len(gateway.parts.recent) == 0, "nothing is in hand")
        sent = self.accepted(tenant)
        self.flood(tenant, range(80, 100))
        await self.until(lambda: self.deferred(tenant) == 100 - sent, "the rest is deferred")
        assert self.accepted(tenant) == sent
        gateway.parts.lanes.resume(tenant.id)
        await self.until_sent(tenant, 100)
        self.assert_all_sent_once_in_order(tenant, 100)

    async def test_a_pause_alone_survives_a_restart_and_an_end_that_it_names(self) -> None:
        tenant = self.sandbox.tenants.add("paused")
        gateway = await self.start_gateway(DEFER_AFTER="2000")
        until = time.time() + 5
        gateway.parts.lanes.pause(tenant.id, Pause("a while", "an operator", time.time(), until))
        await self.until(lambda: gateway.parts.lanes._deferrals[tenant.id].lease.ours, "its lease is there")
        await self.stop_gateway()
        await self.start_gateway(DEFER_AFTER="2000")
        self.flood(tenant, range(20))
        await self.until_sent(tenant, 20)
        assert min(arrival.time for arrival in self.arrived(tenant)) >= until
        self.assert_all_sent_once_in_order(tenant, 20)


class Credentials(Flooded):
    async def test_credentials_that_hang_keep_one_tenants_messages_and_nobody_elses(self) -> None:
        hanging = self.sandbox.tenants.add("hanging", mode="hang")
        others = [self.sandbox.tenants.add(f"other{n}") for n in range(5)]
        gateway = await self.start_gateway(
            DEFER_AFTER="2000", TENANT_SERVICE_TIMEOUT="500", RABBITMQ_QUEUE_TYPE="classic"
        )
        self.flood(hanging, range(100))
        for other in others:
            self.flood(other, range(20))
        for other in others:
            await self.until_sent(other, 20, patience=3)
        await self.until(
            lambda: self.deferred(hanging) == 100 and not len(gateway.parts.recent), "deferred", 15
        )
        for other in others:
            self.flood(other, range(20, 40))
        for other in others:
            await self.until_sent(other, 40, patience=2)
        queues = await look_at_queues(self)
        assert queues[INCOMING].unacked == 0
        assert self.arrived(hanging) == []
        self.sandbox.tenants.change("hanging", mode="ok")
        await self.until_sent(hanging, 100)
        self.assert_all_sent_once_in_order(hanging, 100)
        assert self.dead_letters() == []


class Workers(Flooded):
    async def test_two_on_one_queue_keep_the_rate_and_the_days_quota_together(self) -> None:
        self.patch(consumer, "LOOK_SECONDS", 0.3)
        rated = self.sandbox.tenants.add("rated", messages_per_second=40)
        daily = self.sandbox.tenants.add("daily", messages_per_day=40)
        gateways = [await self.start_gateway()]
        gateways.append(await self.start_gateway())
        self.addCleanup(gateways[0].stopService)
        await self.until(lambda: all(each.parts.lanes._workers == 2 for each in gateways), "they know")
        self.flood(rated, range(200))
        self.flood(daily, range(120))
        await self.until(lambda: self.accepted(daily) >= 38, "the day's share is sent")
        await self.until_sent(rated, 200)
        assert sorted(self.numbers_sent(rated)) == list(range(200))
        times = sorted(arrival.time for arrival in self.arrived(rated))
        # A full bucket at the beginning, then the rate.
        window = 2.0
        busiest = max(sum(at <= other < at + window for other in times) for at in times if at > times[0] + 1)
        assert busiest <= window * 40 * 1.1 + 1
        assert self.accepted(daily) <= 40
        # What is deferred is sent by one of them, which has half of the rate.
        assert 200 / (times[-1] - times[0]) > 18


class Alarms(Flooded):
    async def test_a_memory_alarm_during_deferral_loses_nothing(self) -> None:
        tenant = self.sandbox.tenants.add("t1", messages_per_second=20)
        gateway = await self.start_gateway(
            RABBITMQ_PREFETCH="100", CREDENTIAL_CACHE_TTL="500", DEFER_AFTER="2000"
        )
        self.flood(tenant, range(3000))
        await self.until(lambda: self.deferred(tenant) > 50, "deferral has begun")
        await deferToThread(self.broker.set_memory_alarm, True)
        try:
            sent = self.accepted(tenant)
            before = self.deferred(tenant)
            await self.until(lambda: self.accepted(tenant) > sent + 5, "sending goes on")
            assert before < 3000
        finally:
            await deferToThread(self.broker.set_memory_alarm, False)
        await self.until(
            lambda: self.depth_of(INCOMING) == 0 and self.deferred(tenant) > 2000, "all is deferred"
        )
        self.sandbox.tenants.change("t1", messages_per_second=2000)
        await self.until_sent(tenant, 3000)
        await self.until(lambda: len(gateway.parts.recent) == 0, "nothing in hand")
        self.assert_all_sent_once_in_order(tenant, 3000)
        assert self.dead_letters() == []
