"""Order, rate and credentials, as seen by Meta and the Tenant Service."""

from __future__ import annotations

import json

from tests.integration.world import World, message
from whatsapp_egress.sandbox import cards


class Flow(World):
    async def test_a_hundred_messages_of_a_tenant_ask_for_its_credentials_once(self) -> None:
        tenants = [self.sandbox.tenants.add(f"t{n}", messages_per_second=1000) for n in range(20)]
        await self.start_gateway()
        for n in range(100):
            for tenant in tenants:
                self.upstream.publish(
                    message(tenant, to=f"1555{n:07}", internal_id=f"{tenant.id}-{n}"), tenant=tenant.id
                )
        await self.until(lambda: len(self.sent()) == 2000, "all sent", patience=60)
        assert dict(self.sandbox.fetches.by_tenant) == {tenant.id: 1 for tenant in tenants}
        connections = self.sandbox.connections()["graph"].opened
        assert connections <= 500

    async def test_a_conversation_stays_in_order_while_its_first_message_is_retried(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway(META_API_RETRY_DELAY="500")
        retried, other = cards.times(2, 131000), "15550002222"
        for n in range(3):
            body = {"messaging_product": "whatsapp", "to": retried, "type": "text", "text": {"body": str(n)}}
            self.upstream.publish(message(tenant, internal_id=f"a{n}", payload=body))
        self.upstream.publish(message(tenant, to=other, internal_id="b"))
        await self.until_settled()
        arrived = [(arrival.to, json.loads(arrival.body)["text"]["body"]) for arrival in self.sandbox.record]
        assert [text for to, text in arrived if to == retried] == ["0", "0", "0", "1", "2"]
        # The other recipient didn't wait for the retries.
        assert arrived.index((other, "hello")) < 3

    async def test_higher_priority_goes_first_within_a_tenant(self) -> None:
        tenant = self.sandbox.tenants.add("t1", messages_per_second=5)
        await self.start_gateway()
        for n in range(10):
            self.upstream.publish(message(tenant, to=f"1555000{n:04}", internal_id=f"low{n}", priority=1))
        self.upstream.publish(message(tenant, to="15559999999", internal_id="high", priority=9))
        await self.until(lambda: len(self.sandbox.record) == 11, "all arrived")
        order = [arrival.to for arrival in self.sandbox.record]
        assert order.index("15559999999") <= 4

    async def test_a_tenant_is_held_at_its_rate_while_another_is_not_slowed(self) -> None:
        slow = self.sandbox.tenants.add("slow", messages_per_second=20)
        fast = self.sandbox.tenants.add("fast", messages_per_second=50)
        await self.start_gateway(RABBITMQ_PREFETCH="2000")
        for n in range(150):
            self.upstream.publish(message(slow, to=f"1555{n:07}", internal_id=f"s{n}"))
        for n in range(350):
            self.upstream.publish(message(fast, to=f"1555{n:07}", internal_id=f"f{n}"))
        await self.until(lambda: len(self.sandbox.record) == 500, "all arrived", patience=60)
        windows = 0
        for tenant, rate in ((slow, 20), (fast, 50)):
            times = sorted(arrival.time for arrival in self.sandbox.record if arrival.tenant == tenant.id)
            # Every window of 5 s that lies within the run. In its first second 500 messages come in, and
            # connections are made: what Meta sees then is when we had the time, and not the bucket.
            for start in range(rate, len(times), 5):
                if times[start] + 5 > times[-1]:
                    break
                windows += 1
                count = sum(times[start] <= time < times[start] + 5 for time in times)
                assert abs(count - rate * 5) <= 0.05 * rate * 5, (tenant.id, start, count)
        assert windows > 5

    async def test_a_number_that_is_held_does_not_hold_the_tenants_other_number(self) -> None:
        tenant = self.sandbox.tenants.add(
            "t1", phone_number_id="100000001", more_phone_number_ids=("100000002",)
        )
        await self.start_gateway()
        self.upstream.publish(message(tenant, to=cards.always(130429)))
        await self.until(lambda: len(self.sandbox.record) == 1, "throttled")
        self.upstream.publish(message(tenant, internal_id="m-2", phoneNumberId="100000002"))
        await self.until(lambda: len(self.sent()) == 1, "the other number sends")
        assert self.sent()[0].phone_number_id == "100000002"
