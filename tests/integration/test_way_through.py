"""A message goes all the way: from the queue to Meta, and its outcome back."""

from __future__ import annotations

import json

from tests.integration.world import World, message


class WayThrough(World):
    async def test_a_text_message_is_sent_as_it_came_and_acked(self) -> None:
        tenant = self.sandbox.tenants.add("t1", phone_number_id="100000001", token="EAAone")
        await self.start_gateway()
        body = message(tenant)
        self.upstream.publish(body)
        await self.until(lambda: len(self.sent()) == 1, "sent")
        (arrival,) = self.sent()
        assert json.loads(arrival.body) == json.loads(body)["wabaPayload"]
        await self.until_drained()
        await self.stop_gateway()
        assert self.upstream.depth("outbound-processed") == 0
