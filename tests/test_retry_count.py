"""retryCount is set back, and nothing else of a message is touched."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress import retry_count
from whatsapp_egress.message import decode

METADATA = b'"tenantId":"t1","phoneNumberId":"1","internalId":"m1"'

PAYLOAD = b'{ "messaging_product":"whatsapp","to":"1555","n":1.50,"metadata":{"retryCount":4} }'

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def message(count: bytes, payload: bytes = PAYLOAD) -> bytes:
    return (
        b'{"wabaPayload":' + payload + b', "metadata" : {' + METADATA + b', "retryCount" :\t' + count + b"} }"
    )


class ResetTests(SynchronousTestCase):
    def test_it_is_set_back_and_no_other_byte_is_touched(self) -> None:
        for count in [b"3", b"2147483647"]:
            assert decode(message(count), 10_000).retry_count == int(count)
            assert retry_count.reset(message(count)) == message(b"0")

    def test_one_that_is_0_already_stays(self) -> None:
        for count in [b"0", b"null"]:
            body = message(count)
            assert retry_count.reset(body) is body

    def test_where_there_is_none_none_is_added(self) -> None:
        body = b'{"metadata":{' + METADATA + b'},"wabaPayload":' + PAYLOAD + b"}"
        assert retry_count.reset(body) is body

    def test_of_two_both_are_set_back(self) -> None:
        inner = METADATA + b',"retryCount":1,"retryCount":2'
        body = b'{"metadata":{' + inner + b'},"metadata":{' + inner + b'},"wabaPayload":' + PAYLOAD + b"}"
        assert decode(retry_count.reset(body), 10_000).retry_count == 0
        assert retry_count.reset(body) == body.replace(
            b'"retryCount":1,"retryCount":2', b'"retryCount":0,"retryCount":0'
        )

    def test_what_is_no_message_stays(self) -> None:
        for body in [b"\xff", b"", b"[]", b"7", b'{"metadata":', b'{"metadata": 7}', b"[" * 100_000]:
            assert retry_count.reset(body) is body

    def test_a_number_that_python_does_not_read_is_passed_by(self) -> None:
        payload = b'{"messaging_product":"whatsapp","to":"1555","n":' + b"9" * 5000 + b"}"
        assert retry_count.reset(message(b"1", payload)) == message(b"0", payload)

    @given(
        st.dictionaries(st.text().map("x{}".format), json_values, max_size=4),
        st.dictionaries(st.text().map("x{}".format), json_values, max_size=4),
        st.integers(1, 2**31 - 1),
        st.sampled_from([None, 2]),
        st.booleans(),
    )
    def test_the_rest_has_the_same_value(
        self, extra: dict[str, Any], payload: dict[str, Any], count: int, indent: int | None, ascii_only: bool
    ) -> None:
        metadata = {"tenantId": "t1", "phoneNumberId": "1", "internalId": "m1", "retryCount": count}
        waba = {**payload, "messaging_product": "whatsapp", "to": "1555", "recipient": None}
        value = {**extra, "metadata": {**extra, **metadata}, "wabaPayload": waba}
        body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
        again = retry_count.reset(body)
        value["metadata"]["retryCount"] = 0
        assert json.loads(again) == value
        assert decode(again, 10**6).payload == decode(body, 10**6).payload
