"""What is no message ends in the dead-letter queue with the field that is wrong, and the service goes on."""

from __future__ import annotations

import json
from typing import Any

from tests.integration.world import World, message

METADATA: dict[str, Any] = {"tenantId": "t1", "phoneNumberId": "100000001", "internalId": "m-1"}
PAYLOAD = {"messaging_product": "whatsapp", "to": "15550001111", "type": "text", "text": {"body": "x"}}


def body(metadata: Any = None, payload: Any = PAYLOAD, **changes: Any) -> bytes:
    return json.dumps(
        {"metadata": {**METADATA, **changes} if metadata is None else metadata, "wabaPayload": payload}
    ).encode()


def without(name: str) -> bytes:
    return body({key: value for key, value in METADATA.items() if key != name})


BAD: list[tuple[bytes, str]] = [
    (b"not json", "body"),
    (b"", "body"),
    (body(internalId="caf\xe9").decode().encode().replace(b"\\u00e9", b"\xe9"), "body"),
    (b"\xef\xbb\xbf" + body(), "body"),
    (body().replace(b'"x"', b"NaN"), "body"),
    (body().replace(b'"x"', b"1e999"), "wabaPayload"),
    (b"[" * 100_000, "body"),
    (body().replace(b'{"body": "x"}', b"[" * 100_000 + b"]" * 100_000), "body"),
    (body(internalId="x" * (2 << 20)), "body"),
    (b"[]", "body"),
    (b'"text"', "body"),
    (b"{}", "metadata"),
    (body(["t1"]), "metadata"),
    (without("tenantId"), "metadata.tenantId"),
    (without("phoneNumberId"), "metadata.phoneNumberId"),
    (without("internalId"), "metadata.internalId"),
    (body(tenantId=7), "metadata.tenantId"),
    (body(tenantId="../admin"), "metadata.tenantId"),
    (body(tenantId="a" * 65), "metadata.tenantId"),
    *(
        (body(phoneNumberId=bad), "metadata.phoneNumberId")
        for bad in (
            "../../x",
            "1?x=1",
            "1#f",
            "..",
            "",
            "1\r\nX: y",
            "1\n",
            "1\x00",
            "1" * 33,
            100000001,
            "١٢٣",
        )
    ),
    (body(internalId=""), "metadata.internalId"),
    (body(internalId="a\nb"), "metadata.internalId"),
    (body(internalId="a" * 129), "metadata.internalId"),
    (body(priority=11), "metadata.priority"),
    (body(priority="5"), "metadata.priority"),
    (body(priority=True), "metadata.priority"),
    (body(priority=7).replace(b": 7", b": " + b"1" * 5000), "metadata.priority"),
    (body(retryCount=-1), "metadata.retryCount"),
    (body(expiresAt="tomorrow"), "metadata.expiresAt"),
    (body(timestamp=1), "metadata.timestamp"),
    (body().replace(b'"x"', b"1" * 5000), "wabaPayload"),
    (body().replace(b'"x"', b'"\\ud800"'), "body"),
    (body(payload=[]), "wabaPayload"),
    (body(payload={}), "wabaPayload.messaging_product"),
    (body(payload={"messaging_product": "whatsapp"}), "wabaPayload.to"),
    (body(payload={"messaging_product": "whatsapp", "to": 15550001111}), "wabaPayload.to"),
    (body(payload={"messaging_product": "whatsapp", "status": "read"}), "wabaPayload.message_id"),
    (json.dumps({"metadata": METADATA}).encode(), "wabaPayload"),
]


class BadMessages(World):
    async def test_each_is_dead_lettered_with_its_field_and_a_good_one_is_still_sent(self) -> None:
        tenant = self.sandbox.tenants.add("t1", phone_number_id="100000001")
        await self.start_gateway()
        for bad, _ in BAD:
            self.upstream.publish(bad)
        self.upstream.publish(message(tenant, internal_id="good"))
        await self.until(lambda: len(self.sent()) == 1, "the good one is sent")
        await self.until_settled()
        letters = {letter.body: letter for letter in self.dead_letters()}
        assert len(letters) == len(BAD)
        for bad, field in BAD:
            letter = letters[bad]
            detail = letter.headers["x-egress-detail"]
            assert letter.reason == "invalid_message"
            assert detail.startswith(field), (bad[:120], field, detail)
            assert "\n" not in detail
        assert len(self.sandbox.record) == 1

    async def test_the_failure_is_told_with_the_ids_that_could_be_read(self) -> None:
        await self.start_gateway()
        events = self.upstream.listen_to_events()
        self.upstream.publish(body(priority=99))
        self.upstream.publish(b"nothing to be read")
        await self.until_settled()
        told = dict(await self.told_events(events, 2))
        assert told["outbound.failed.t1"]["internalId"] == "m-1"
        assert told["outbound.failed.unknown"]["tenantId"] is None
