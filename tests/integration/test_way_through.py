"""A message goes all the way: from the queue to Meta, and its outcome back."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pika

from tests.integration.world import World, message
from whatsapp_egress.sandbox import cards

EXAMPLES = json.loads(
    (Path(__file__).parents[1] / "data" / "openapi_send_requests.json").read_text(encoding="utf-8")
)


class WayThrough(World):
    async def test_every_kind_of_message_arrives_as_the_json_value_that_was_published(self) -> None:
        tenant = self.sandbox.tenants.add("t1", messages_per_second=1000)
        await self.start_gateway()
        for number, example in enumerate(EXAMPLES):
            self.upstream.publish(message(tenant, internal_id=f"m-{number}", payload=example["body"]))
        await self.until(lambda: len(self.sandbox.record) == len(EXAMPLES), "all arrived")
        await self.until_settled()
        arrived = {json.dumps(json.loads(arrival.body)) for arrival in self.sandbox.record}
        # Compared as text with its order of keys: no key may be added, dropped, reordered or retyped.
        assert arrived == {json.dumps(example["body"]) for example in EXAMPLES}
        assert self.dead_letters() == []

    async def test_a_payload_is_not_even_reformatted(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway()
        payload = (
            b'{ "messaging_product":"whatsapp",\n "to":"15550001111", "text" : {"body":"\\u00e9 \xc3\xa9"},'
            b' "zz": 1.0, "a": 1e2, "n": null }'
        )
        body = message(tenant, payload="PAYLOAD").replace(b'"PAYLOAD"', payload)
        self.upstream.publish(body)
        await self.until(lambda: len(self.sandbox.record) == 1, "arrived")
        (arrival,) = self.sandbox.record
        assert arrival.body == payload

    async def test_a_request_says_who_we_are_and_not_for_whom(self) -> None:
        tenant = self.sandbox.tenants.add("tenant-seven", phone_number_id="100000007")
        await self.start_gateway(META_APP_SECRET="app-secret")
        self.upstream.publish(message(tenant))
        await self.until(lambda: len(self.sandbox.record) == 1, "arrived")
        (arrival,) = self.sandbox.record
        assert arrival.path == "/v25.0/100000007/messages"
        assert arrival.query.startswith("appsecret_proof=")
        assert arrival.header("User-Agent").startswith("whatsapp-egress/")
        assert arrival.header("Content-Type") == "application/json"
        # The record shows whose token it was, which is not what was sent.
        said = [header for header in arrival.headers if header[0] != "Authorization"]
        assert "tenant-seven" not in f"{arrival.path}{arrival.query}{said}"

    async def test_an_event_tells_the_wamid(self) -> None:
        tenant = self.sandbox.tenants.add("t1", phone_number_id="100000001")
        await self.start_gateway()
        events = self.upstream.listen_to_events()
        self.upstream.publish(message(tenant, internal_id="order-1"))
        await self.until_settled()
        ((key, told),) = await self.told_events(events, 1)
        (arrival,) = self.sent()
        assert key == "outbound.sent.t1"
        assert told.pop("timestamp").endswith("Z")
        assert told == {
            "event": "sent",
            "tenantId": "t1",
            "phoneNumberId": "100000001",
            "internalId": "order-1",
            "wamid": arrival.wamid,
            "waId": "15550001111",
            "messageStatus": "accepted",
            "attempts": 1,
        }

    async def test_a_mark_as_read_is_sent_without_a_wamid(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway()
        events = self.upstream.listen_to_events()
        receipt = {"messaging_product": "whatsapp", "status": "read", "message_id": "wamid.X"}
        self.upstream.publish(message(tenant, payload=receipt))
        await self.until_settled()
        ((_, told),) = await self.told_events(events, 1)
        assert told["wamid"] is None

    async def test_a_failed_message_is_dead_lettered_as_it_was_and_told(self) -> None:
        tenant = self.sandbox.tenants.add("t1", phone_number_id="100000001")
        await self.start_gateway()
        events = self.upstream.listen_to_events()
        body = message(tenant, to=cards.always(131047), internal_id="late", retryCount=2) + b"  \n"
        properties = pika.BasicProperties(
            content_type="application/json",
            correlation_id="c-1",
            message_id="m-1",
            priority=3,
            headers={"traceparent": "00-abc", "n": 7},
            expiration="3600000",
            user_id="guest",
        )
        self.upstream.publish(body, properties)
        await self.until_settled()
        (letter,) = self.dead_letters()
        assert letter.body == body
        headers = letter.headers
        assert headers.pop("x-egress-failed-at").endswith("Z")
        assert headers.pop("x-egress-fbtrace-id")
        assert headers.pop("x-egress-detail").startswith("131047: ")
        assert headers == {
            "traceparent": "00-abc",
            "n": 7,
            "x-egress-reason": "rejected",
            "x-egress-error-code": 131047,
            "x-egress-http-status": 400,
            "x-egress-attempts": 3,
            "x-egress-expiration": "3600000",
            "x-egress-user-id": "guest",
        }
        kept = letter.properties
        assert (kept.content_type, kept.correlation_id, kept.message_id, kept.priority) == (
            "application/json",
            "c-1",
            "m-1",
            3,
        )
        assert (kept.delivery_mode, kept.expiration) == (2, None)
        ((key, told),) = await self.told_events(events, 1)
        assert key == "outbound.failed.t1"
        assert (told["event"], told["reason"], told["errorCode"], told["internalId"]) == (
            "failed",
            "rejected",
            131047,
            "late",
        )

    async def test_without_events_nothing_is_announced(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway(EVENTS_ENABLED="false")
        events = self.upstream.listen_to_events()
        self.upstream.publish(message(tenant))
        await self.until_settled()
        await self.stop_gateway()  # which waits for events
        assert self.upstream.take(events) == []

    async def test_callback_data_carries_the_internal_id_when_wanted(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway(TRACK_CALLBACK_DATA="true")
        self.upstream.publish(message(tenant, internal_id="order-9"))
        await self.until(lambda: len(self.sandbox.record) == 1, "arrived")
        (arrival,) = self.sandbox.record
        assert json.loads(arrival.body)["biz_opaque_callback_data"] == "order-9"

    async def test_credentials_may_come_from_a_file_that_changes(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        self.sandbox.tenants.rotate("t1", "EAAtwo")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "tenants.json"

        def write(token: str) -> None:
            credentials = {"status": "active", "credentials": {"systemUserAccessToken": token}}
            path.write_text(json.dumps({"t1": credentials}))

        await self.start_gateway(TENANT_SERVICE_URL=path.as_uri())
        self.upstream.publish(message(tenant, internal_id="before there was a file"))
        await self.until(lambda: self.events("credential_fetch_failed"), "it waits for the file")
        write("EAAwrong")
        await self.until(lambda: len(self.sandbox.record) == 2, "refused twice")
        write("EAAtwo")
        self.upstream.publish(message(tenant, internal_id="after"))
        await self.until_settled()
        assert [letter.reason for letter in self.dead_letters()] == ["auth_failed"]
        assert len(self.sent()) == 1
        assert self.sandbox.fetches.count == 0


class Fates(World):
    """Each class of verdict ends as the contract says."""

    async def fate(self, to: str, **settings: object) -> list[tuple[str, str | int | None]]:
        """Publish one message to `to`: its dead letter's reason and code, or nothing if it was sent."""
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway(**settings)
        self.upstream.publish(message(tenant, to=to))
        await self.until(lambda: len(self.sandbox.record) > 0, "arrived")
        await self.until_settled()
        return [(dead.reason, dead.headers.get("x-egress-error-code")) for dead in self.dead_letters()]

    async def test_transient_errors_are_tried_again_and_then_sent(self) -> None:
        assert await self.fate(cards.times(2, 131000)) == []
        assert [arrival.status for arrival in self.sandbox.record] == [500, 500, 200]

    async def test_transient_errors_that_stay_exhaust_the_retries(self) -> None:
        assert await self.fate(cards.always(131016)) == [("retries_exhausted", 131016)]
        assert len(self.sandbox.record) == 4

    async def test_a_bad_recipient_is_rejected_at_once(self) -> None:
        assert await self.fate(cards.always(131026)) == [("rejected", 131026)]
        assert len(self.sandbox.record) == 1

    async def test_a_missing_template_is_rejected_at_once(self) -> None:
        assert await self.fate(cards.always(132001)) == [("rejected", 132001)]
        assert len(self.sandbox.record) == 1

    async def test_a_locked_account_is_rejected(self) -> None:
        assert await self.fate(cards.always(131031)) == [("rejected", 131031)]

    async def test_a_media_download_is_tried_once_more(self) -> None:
        assert await self.fate(cards.always(100, 2388005)) == [("rejected", 100)]
        assert len(self.sandbox.record) == 2

    async def test_a_permanent_error_that_comes_with_500_is_not_tried_again(self) -> None:
        assert await self.fate(cards.always(134102)) == [("rejected", 134102)]
        assert len(self.sandbox.record) == 1

    async def test_an_auth_error_is_tried_once_more_with_fresh_credentials(self) -> None:
        assert await self.fate(cards.always(190)) == [("auth_failed", 190)]
        assert len(self.sandbox.record) == 2
        assert self.sandbox.fetches.count == 2

    async def test_a_token_changed_meanwhile_is_fetched_and_the_message_sent(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway()
        self.upstream.publish(message(tenant, internal_id="before"))
        await self.until(lambda: len(self.sent()) == 1, "sent")
        self.sandbox.tenants.rotate("t1")
        self.upstream.publish(message(tenant, internal_id="after"))
        await self.until(lambda: len(self.sent()) == 2, "sent with the new token")
        assert [arrival.error_code for arrival in self.sandbox.record] == [None, 190, None]

    async def test_a_throttled_pair_waits_and_uses_up_no_attempt(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway(META_API_MAX_RETRIES="0")
        events = self.upstream.listen_to_events()
        self.upstream.publish(message(tenant, to=cards.times(1, 131056)))
        await self.until_settled()
        first, second = self.sandbox.record
        assert 6 <= second.time - first.time < 8
        ((_, told),) = await self.told_events(events, 1)
        assert told["attempts"] == 1

    async def test_a_throttled_number_waits_from_ten_seconds_up_and_others_do_not(self) -> None:
        slow = self.sandbox.tenants.add("slow")
        fine = self.sandbox.tenants.add("fine")
        await self.start_gateway(META_API_MAX_RETRIES="0")
        self.upstream.publish(message(slow, to=cards.times(1, 130429), internal_id="throttled"))
        await self.until(lambda: self.events("rate_limit_exceeded"), "throttled")
        self.upstream.publish(message(slow, internal_id="behind"))
        self.upstream.publish(message(fine, internal_id="beside"))
        await self.until(lambda: len(self.sent()) == 1, "the other tenant's is sent")
        assert self.sent()[0].tenant == "fine"
        await self.until(lambda: len(self.sent()) == 3, "all sent")
        times = [arrival.time for arrival in self.sandbox.record if arrival.tenant == "slow"]
        assert times[1] - times[0] >= 10
        assert self.dead_letters() == []

    async def test_an_accepted_message_without_an_id_is_in_doubt_and_never_sent_again(self) -> None:
        for to in (cards.without_id(), cards.not_json(), cards.truncated(), cards.gzip_bomb(), cards.large()):
            assert await self.fate(to) == [("in_doubt", None)]
            assert len(self.sandbox.record) == 1
            await self.stop_gateway()
            self.sandbox.record.clear()

    async def test_a_lost_answer_is_tried_again_at_least_once(self) -> None:
        assert await self.fate(cards.reset(first=1)) == []
        assert len(self.sandbox.record) == 2

    async def test_a_lost_answer_is_in_doubt_for_who_wants_no_duplicates(self) -> None:
        assert await self.fate(cards.reset(), META_API_RETRY_AMBIGUOUS="false") == [("in_doubt", None)]
        assert len(self.sandbox.record) == 1

    async def test_an_answer_that_never_comes_is_given_up_at_the_deadline(self) -> None:
        assert await self.fate(cards.hang(first=1), META_API_TIMEOUT="300") == []
        assert len(self.sandbox.record) == 2

    async def test_an_unknown_tenant_is_dead_lettered(self) -> None:
        tenant = self.sandbox.tenants.add("gone")
        self.sandbox.tenants.remove("gone")
        await self.start_gateway()
        self.upstream.publish(message(tenant))
        await self.until_settled()
        (letter,) = self.dead_letters()
        assert (letter.reason, letter.headers["x-egress-attempts"]) == ("tenant_not_found", 0)

    async def test_a_suspended_tenant_is_dead_lettered(self) -> None:
        tenant = self.sandbox.tenants.add("t1", status="suspended")
        await self.start_gateway()
        self.upstream.publish(message(tenant))
        await self.until_settled()
        assert [letter.reason for letter in self.dead_letters()] == ["credentials_suspended"]

    async def test_a_message_whose_time_is_over_is_not_sent(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway()
        self.upstream.publish(message(tenant, expiresAt="2026-01-01T00:00:00Z"))
        await self.until_settled()
        assert [letter.reason for letter in self.dead_letters()] == ["expired"]
        assert len(self.sandbox.record) == 0

    async def test_messages_wait_while_the_tenant_service_is_away(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        self.sandbox.tenants.outage("500", until=3)
        await self.start_gateway()
        self.upstream.publish(message(tenant))
        await self.until_settled()
        assert len(self.sent()) == 1
        assert self.sandbox.fetches.count == 4
        assert self.dead_letters() == []
