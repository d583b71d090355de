"""The wire format: what is a message, what is not and why, and what is told of how it ended."""

from __future__ import annotations

import contextlib
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.message import (
    Identity,
    InvalidMessage,
    Message,
    dead_letter_headers,
    decode,
    event,
    iso_utc,
    seconds_of,
)
from whatsapp_egress.policy.verdict import Dead, Fault, Reason, Sent

EXAMPLES = json.loads((Path(__file__).parent / "data" / "openapi_send_requests.json").read_bytes())
METADATA: dict[str, Any] = {"tenantId": "t1", "phoneNumberId": "100000001", "internalId": "m-1"}
PAYLOAD: dict[str, Any] = {
    "messaging_product": "whatsapp",
    "to": "15550001111",
    "type": "text",
    "text": {"body": "hello"},
}
MOST = 1 << 20
NOW = datetime(2026, 11, 23, 10, 30, 0, 125_000, tzinfo=timezone.utc).timestamp()

determined = settings(derandomize=True, deadline=None)


def raw(metadata: Any, payload: bytes) -> bytes:
    return b'{"metadata": ' + json.dumps(metadata).encode() + b', "wabaPayload": ' + payload + b"}"


def body(payload: Any = PAYLOAD, **metadata: Any) -> bytes:
    return raw({**METADATA, **metadata}, json.dumps(payload).encode())


def with_payload(**fields: Any) -> bytes:
    """A body whose payload has other `fields`; None takes one away."""
    payload = {**PAYLOAD, **fields}
    return body({name: value for name, value in payload.items() if value is not None})


def read(data: bytes, *, track: bool = False) -> Message:
    return decode(data, MOST, track_callback_data=track)


def refusal(data: bytes) -> InvalidMessage:
    with pytest.raises(InvalidMessage) as caught:
        read(data)
    return caught.value


class GoodMessageTests(SynchronousTestCase):
    def test_the_least_message_has_the_documented_defaults(self) -> None:
        message = read(body())

        assert message == Message(
            tenant_id="t1",
            phone_number_id="100000001",
            internal_id="m-1",
            payload=json.dumps(PAYLOAD).encode(),
            recipient="15550001111",
            priority=5,
            retry_count=0,
            expires_at=None,
        )

    def test_all_that_the_metadata_may_say_is_read(self) -> None:
        message = read(
            body(
                timestamp="2026-11-23T10:30:00.000Z",
                priority=9,
                retryCount=2,
                expiresAt="2026-11-23T10:30:00.125Z",
            )
        )

        assert (message.priority, message.retry_count, message.expires_at) == (9, 2, NOW)

    def test_null_stands_for_what_is_absent(self) -> None:
        nothing = dict.fromkeys(("timestamp", "priority", "retryCount", "expiresAt"))

        assert read(body(**nothing)) == read(body())

    def test_priorities_reach_from_zero_to_ten(self) -> None:
        assert [read(body(priority=priority)).priority for priority in (0, 10)] == [0, 10]

    def test_ids_may_be_as_long_as_the_contract_says(self) -> None:
        for fields in (
            {"tenantId": "a" * 64},
            {"tenantId": "A9._-"},
            {"tenantId": "test-123"},
            {"tenantId": "0f8fad5b-d9cb-469f-a165-70867728950e"},
            {"phoneNumberId": "1" * 32},
            {"phoneNumberId": "0"},
            {"internalId": "é" * 128},
            {"internalId": "with a space, 'quotes\" and ünïcödé 🎈"},
        ):
            assert read(body(**fields))

    def test_what_nobody_knows_is_no_error(self) -> None:
        data = json.dumps({"metadata": {**METADATA, "x": [1]}, "wabaPayload": PAYLOAD, "more": None})

        assert read(data.encode()) == read(body())

    def test_its_three_ids_are_its_identity(self) -> None:
        assert read(body()).identity == Identity("t1", "100000001", "m-1")

    def test_it_expires_at_its_time(self) -> None:
        message = read(body(expiresAt=iso_utc(NOW)))

        assert [message.expired(NOW + late) for late in (-0.001, 0, 1)] == [False, True, True]

    def test_without_a_time_it_never_expires(self) -> None:
        assert not read(body()).expired(1e12)

    def test_times_come_in_the_forms_of_iso_8601(self) -> None:
        forms = (
            "2026-11-23T10:30:00.125Z",
            "2026-11-23T10:30:00.125+00:00",
            "2026-11-23T12:30:00.125+02:00",
            "2026-11-23T10:30:00.125",
            "20261123T103000.125Z",
            "2026-11-23 10:30:00,125Z",
        )

        assert [seconds_of(form) for form in forms] == [NOW] * len(forms)

    def test_a_body_may_be_as_long_as_the_limit(self) -> None:
        data = body()

        assert decode(data, len(data))


class RecipientTests(SynchronousTestCase):
    def recipient(self, **fields: Any) -> str | None:
        return read(with_payload(**fields)).recipient

    def test_a_phone_number_is_the_same_however_it_is_written(self) -> None:
        for to in ("+1 (555) 000-1111", "1.555.000.1111", "15550001111"):
            assert self.recipient(to=to) == "15550001111"

    def test_what_is_no_phone_number_stays_as_it_is(self) -> None:
        assert self.recipient(to="group-7 (a)") == "group-7 (a)"

    def test_a_business_scoped_id_is_a_recipient(self) -> None:
        assert self.recipient(to=None, recipient="US.1349") == "US.1349"

    def test_to_goes_before_recipient(self) -> None:
        assert self.recipient(recipient="US.1349") == "15550001111"

    def test_a_mark_as_read_has_none(self) -> None:
        assert self.recipient(to=None, status="read", message_id="wamid.1") is None


class PayloadTests(SynchronousTestCase):
    def test_every_example_of_metas_comes_out_byte_for_byte(self) -> None:
        assert len(EXAMPLES) > 50
        for example in EXAMPLES:
            for text in (
                json.dumps(example["body"]),
                json.dumps(example["body"], indent=3, ensure_ascii=False),
                json.dumps(example["body"], separators=(",", ":")),
            ):
                assert read(raw(METADATA, text.encode())).payload == text.encode(), example["name"]

    def test_order_doubles_spaces_escapes_and_numbers_stay_as_they_are(self) -> None:
        payload = (
            b'{ "z":1.0,"a" :1.10e2,\t"type":"x","type":"y","to":"\\u0031",\n'
            b'"n":123456789012345678901234567890, "messaging_product":"whatsapp", "e":"\xc3\xa9\\/"\r}'
        )

        assert read(raw(METADATA, payload)).payload == payload

    @determined
    @given(
        st.dictionaries(
            st.text(max_size=8).filter(lambda name: name not in {"to", "recipient", "status"}),
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers(-(2**63), 2**63)
                | st.floats(allow_nan=False, allow_infinity=False)
                | st.text(max_size=20),
                lambda inner: (
                    st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
                ),
                max_leaves=12,
            ),
            max_size=6,
        ),
        st.booleans(),
        st.sampled_from([None, 1, 4]),
    )
    def test_any_payload_comes_out_byte_for_byte(
        self, fields: dict[str, Any], ascii_only: bool, indent: int | None
    ) -> None:
        payload = {**fields, "messaging_product": "whatsapp", "to": "15550001111"}
        text = json.dumps(payload, ensure_ascii=ascii_only, indent=indent).encode()

        assert read(raw(METADATA, text)).payload == text


class CallbackDataTests(SynchronousTestCase):
    def test_it_is_added_where_it_is_absent_and_the_rest_stays(self) -> None:
        payload = b'{"to": "1", "messaging_product": "whatsapp"  }'
        sent = read(raw(METADATA, payload), track=True).payload

        assert sent == payload[:-1] + b',"biz_opaque_callback_data":"m-1"}'

    def test_every_example_of_metas_gets_it_and_nothing_else(self) -> None:
        for example in EXAMPLES:
            sent = read(body(example["body"]), track=True).payload

            assert json.loads(sent) == {**example["body"], "biz_opaque_callback_data": "m-1"}
            assert sent.startswith(json.dumps(example["body"]).encode()[:-1])

    def test_it_is_valid_json_whatever_the_id_holds(self) -> None:
        sent = read(body(internalId='a"b\\c é'), track=True).payload

        assert json.loads(sent)["biz_opaque_callback_data"] == 'a"b\\c é'

    def test_one_that_is_there_stays(self) -> None:
        for there in ("mine", "", None):
            data = body({**PAYLOAD, "biz_opaque_callback_data": there})

            assert read(data, track=True).payload == read(data).payload

    def test_nothing_is_added_unless_asked_for(self) -> None:
        assert b"biz_opaque" not in read(body()).payload


def without(name: str) -> bytes:
    return raw({key: value for key, value in METADATA.items() if key != name}, json.dumps(PAYLOAD).encode())


DEEP = b"[" * 100_000 + b"]" * 100_000
LONG_NUMBER = b"9" * 5000

NOT_JSON: dict[str, bytes] = {
    "not JSON": b"not json",
    "nothing": b"",
    "half a message": body()[:-20],
    "more than a message": body() + b"{}",
    "a BOM": b"\xef\xbb\xbf" + body(),
    "not UTF-8 in the metadata": body(internalId="~").replace(b"~", b"\xe9"),
    "not UTF-8 in the payload": body().replace(b"hello", b"\xe9"),
    "UTF-16": body().decode().encode("utf-16"),
    "an encoded surrogate": body().replace(b"hello", b"\xed\xa0\x80"),
    "a lone surrogate in the payload": body().replace(b"hello", b"\\ud800"),
    "a lone surrogate in the metadata": body(internalId="~").replace(b"~", b"\\udc00"),
    "a lone surrogate elsewhere": body()[:-1] + b', "x": "\\ud800"}',
    "NaN": body().replace(b'"hello"', b"NaN"),
    "Infinity": body().replace(b'"hello"', b"-Infinity"),
    "a control character": body().replace(b"hello", b"\x01"),
    "single quotes": body().replace(b'"', b"'"),
    "100,000 brackets": b"[" * 100_000,
    "100,000 brackets in the payload": body().replace(b'"hello"', DEEP),
    "100,000 brackets in the metadata": body(x="~").replace(b'"~"', DEEP),
    "a list": b"[]",
    "a text": b'"hello"',
    "null": b"null",
}

BAD_FIELDS: dict[str, list[bytes]] = {
    "metadata": [b"{}", b'{"wabaPayload": {}}', raw([], b"{}"), raw(None, b"{}"), raw("x", b"{}")],
    "metadata.tenantId": [
        without("tenantId"),
        *(
            body(tenantId=bad)
            for bad in (
                "../admin", "..", ".", "", "-a", "_a", "a/b", "a b", "a?b", "a#b", "a%2e", "a\n", "a\x00",
                "é", "a" * 65, 7, None, ["t1"], {}, True,
            )
        ),
    ],
    "metadata.phoneNumberId": [
        without("phoneNumberId"),
        *(
            body(phoneNumberId=bad)
            for bad in (
                "../../x", "1?x=1", "1#f", "..", "", "1\r\nX: y", "1\r", "1\n", "1\x00", "1" * 33, "+1", " 1",
                "1a", "١٢٣", "\uff11", 100000001, None, [],
            )
        ),
        body(phoneNumberId="~").replace(b'"~"', LONG_NUMBER),
    ],
    "metadata.internalId": [
        without("internalId"),
        *(body(internalId=bad) for bad in ("", "a\nb", "a\rb", "a\x00", "\x7f", "\u2028", "a" * 129, 1)),
    ],
    "metadata.timestamp": [body(timestamp=bad) for bad in ("yesterday", "", 1, "2026-13-01", [])],
    "metadata.priority": [
        *(body(priority=bad) for bad in (-1, 11, "5", 5.5, True, [])),
        body(priority="~").replace(b'"~"', LONG_NUMBER),
    ],
    "metadata.retryCount": [body(retryCount=bad) for bad in (-1, "1", 1.5, 2**31, False)],
    "metadata.expiresAt": [body(expiresAt=bad) for bad in ("tomorrow", "", 1_700_000_000, "10:30", True)],
    "wabaPayload": [
        json.dumps({"metadata": METADATA}).encode(),
        *(body(bad) for bad in ([], "x", None, 7)),
        body().replace(b'"hello"', LONG_NUMBER),
        body().replace(b'"hello"', b"1e999"),
    ],
    "wabaPayload.messaging_product": [
        body({}),
        *(with_payload(messaging_product=bad) for bad in (None, "", "sms", "WhatsApp", ["whatsapp"], 1)),
    ],
    "wabaPayload.to": [
        with_payload(to=None),
        with_payload(to=None, status="delivered", message_id="wamid.1"),
        *(with_payload(to=bad) for bad in ("", "  ", 15550001111, [], {"to": "1"}, True)),
        with_payload(to="", recipient="US.1349"),
    ],
    "wabaPayload.recipient": [
        *(with_payload(to=None, recipient=bad) for bad in ("", 7, [])),
        with_payload(recipient=7),
    ],
    "wabaPayload.message_id": [
        with_payload(to=None, status="read"),
        *(with_payload(to=None, status="read", message_id=bad) for bad in ("", 7)),
    ],
}  # fmt: skip


class BadMessageTests(SynchronousTestCase):
    def test_what_cannot_be_read_is_refused_as_a_whole(self) -> None:
        for name, bad in NOT_JSON.items():
            assert refusal(bad).detail.startswith("body: "), name

    def test_what_is_wrong_is_named(self) -> None:
        for field, bodies in BAD_FIELDS.items():
            for bad in bodies:
                detail = refusal(bad).detail
                assert detail.startswith((f"{field}: ", f"{field}.[")), (field, bad[:300], detail)

    def test_the_detail_is_one_line_that_a_header_can_hold(self) -> None:
        for bad in (*NOT_JSON.values(), *(bad for bodies in BAD_FIELDS.values() for bad in bodies)):
            detail = refusal(bad).detail
            assert detail.isprintable()
            assert len(detail.encode()) < 200

    def test_the_detail_never_quotes_what_came(self) -> None:
        for bad in (
            body(internalId=["EAAsecret"]),
            body(priority="EAAsecret"),
            with_payload(to=["EAAsecret"]),
        ):
            assert "EAAsecret" not in refusal(bad).detail

    def test_what_is_too_long_is_refused_unread(self) -> None:
        data = body(x="x" * (2 << 20))
        error = refusal(data)

        assert error.detail == f"body: {len(data)} bytes, at most 1048576 are taken"
        assert error.identity == Identity()

    def test_details_read_well(self) -> None:
        assert refusal(b"not json").detail == "body: JSON is malformed: invalid character (byte 4)"
        assert refusal(without("tenantId")).detail == "metadata.tenantId: missing"
        assert refusal(body(priority=11)).detail == "metadata.priority: expected `int` <= 10"
        assert refusal(body().replace(b"hello", b"\xe9")).detail.startswith("body: not UTF-8 (byte ")
        assert refusal(NOT_JSON["100,000 brackets in the payload"]).detail == "body: nested too deeply"
        assert refusal(body([])).detail == "wabaPayload: expected `object`, got `array`"

    @determined
    @given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
    def test_nothing_else_is_raised_whatever_comes(self, data: bytes) -> None:
        assert refusal(data).detail

    @determined
    @given(st.integers(0, len(body()) - 1), st.binary(min_size=1, max_size=2))
    def test_nor_where_a_message_was_damaged(self, at: int, damage: bytes) -> None:
        data = body()
        with contextlib.suppress(InvalidMessage):
            read(data[:at] + damage + data[at + len(damage) :])


class SalvageTests(SynchronousTestCase):
    def test_the_ids_are_kept_where_something_else_is_wrong(self) -> None:
        for bad in (
            body(priority=99),
            body(priority="~").replace(b'"~"', LONG_NUMBER),
            body(timestamp="yesterday"),
            body([]),
            body({}),
            json.dumps({"metadata": METADATA}).encode(),
            body().replace(b'"hello"', LONG_NUMBER),
        ):
            assert refusal(bad).identity == Identity("t1", "100000001", "m-1"), bad[:200]

    def test_an_id_that_is_wrong_itself_is_not_kept(self) -> None:
        assert refusal(body(tenantId="../admin")).identity == Identity(None, "100000001", "m-1")
        assert refusal(body(phoneNumberId="1\n")).identity == Identity("t1", None, "m-1")
        assert refusal(body(internalId="a\nb")).identity == Identity("t1", "100000001", None)
        assert refusal(body(tenantId=1, internalId=["x"])).identity == Identity(None, "100000001", None)
        assert refusal(body(tenantId=1, internalId="x" * 129)).identity == Identity(None, "100000001", None)
        assert refusal(body(tenantId=1, internalId="")).identity == Identity(None, "100000001", None)

    def test_nothing_is_kept_of_what_cannot_be_read(self) -> None:
        for bad in (
            b"",
            b"[]",
            b'{"metadata": []}',
            body()[:-1],
            NOT_JSON["100,000 brackets in the payload"],
        ):
            assert refusal(bad).identity == Identity()


FAULT = Fault("131047: Re-engagement message", None, 131047, 42, "Atrace", 400)
REJECTED = Dead(Reason.REJECTED, "131047: Re-engagement message", FAULT)
EXPIRED = Dead(Reason.EXPIRED, "expiresAt has passed")
IDENTITY = Identity("t1", "100000001", "m-1")


class DeadLetterHeaderTests(SynchronousTestCase):
    def test_they_say_all_that_is_known(self) -> None:
        assert dead_letter_headers(REJECTED, 2, NOW) == {
            "x-egress-reason": "rejected",
            "x-egress-detail": "131047: Re-engagement message",
            "x-egress-error-code": 131047,
            "x-egress-error-subcode": 42,
            "x-egress-fbtrace-id": "Atrace",
            "x-egress-http-status": 400,
            "x-egress-attempts": 2,
            "x-egress-failed-at": "2026-11-23T10:30:00.125Z",
        }

    def test_what_is_not_known_is_left_out(self) -> None:
        assert dead_letter_headers(EXPIRED, 0, NOW) == {
            "x-egress-reason": "expired",
            "x-egress-detail": "expiresAt has passed",
            "x-egress-attempts": 0,
            "x-egress-failed-at": "2026-11-23T10:30:00.125Z",
        }

    def test_each_reason_goes_by_the_contracts_name(self) -> None:
        reasons = {dead_letter_headers(Dead(reason, ""), 0, NOW)["x-egress-reason"] for reason in Reason}

        assert reasons == {
            "invalid_message", "expired", "tenant_not_found", "credentials_suspended", "rejected",
            "auth_failed", "retries_exhausted", "in_doubt",
        }  # fmt: skip


class EventTests(SynchronousTestCase):
    def test_a_sent_message_is_told_with_its_wamid(self) -> None:
        key, told = event(IDENTITY, Sent("wamid.1", "15550001111", "paused"), 1, NOW)

        assert key == "outbound.sent.t1"
        assert list(json.loads(told).items()) == [
            ("event", "sent"),
            ("tenantId", "t1"),
            ("phoneNumberId", "100000001"),
            ("internalId", "m-1"),
            ("wamid", "wamid.1"),
            ("waId", "15550001111"),
            ("messageStatus", "paused"),
            ("attempts", 1),
            ("timestamp", "2026-11-23T10:30:00.125Z"),
        ]

    def test_a_message_whose_status_was_not_said_is_accepted(self) -> None:
        _, told = event(IDENTITY, Sent(), 1, NOW)

        assert json.loads(told)["messageStatus"] == "accepted"
        assert json.loads(told)["wamid"] is None

    def test_a_failed_message_is_told_with_its_error(self) -> None:
        key, told = event(IDENTITY, REJECTED, 2, NOW)

        assert key == "outbound.failed.t1"
        assert list(json.loads(told).items()) == [
            ("event", "failed"),
            ("tenantId", "t1"),
            ("phoneNumberId", "100000001"),
            ("internalId", "m-1"),
            ("reason", "rejected"),
            ("errorCode", 131047),
            ("errorSubcode", 42),
            ("fbtraceId", "Atrace"),
            ("detail", "131047: Re-engagement message"),
            ("attempts", 2),
            ("timestamp", "2026-11-23T10:30:00.125Z"),
        ]

    def test_what_is_not_known_is_null(self) -> None:
        told = json.loads(event(IDENTITY, EXPIRED, 0, NOW)[1])

        assert [told[name] for name in ("errorCode", "errorSubcode", "fbtraceId")] == [None] * 3

    def test_a_message_whose_tenant_could_not_be_read_is_told_too(self) -> None:
        key, told = event(Identity(), Dead(Reason.INVALID_MESSAGE, "body: not JSON"), 0, NOW)

        assert key == "outbound.failed.unknown"
        assert json.loads(told)["tenantId"] is None
