import json
from unittest import TestCase

from whatsapp_egress.message import decode
from whatsapp_egress.sandbox.fates import internal_id_of, the_eight


class FatesTests(TestCase):
    def test_there_are_eight_tenants(self) -> None:
        assert len({fate.tenant for fate in the_eight()}) == 8

    def test_each_message_s_end_is_foretold(self) -> None:
        for fate in the_eight():
            foretold = fate.sent + sum(fate.dead_lettered.values())
            assert foretold == len(fate.payloads), fate.tenant

    def test_every_message_is_one_that_the_gateway_takes(self) -> None:
        for fate in the_eight():
            for internal_id, body in fate.messages("r"):
                message = decode(body, max_bytes=1 << 20, track_callback_data=False)
                assert (message.tenant_id, message.phone_number_id, message.internal_id) == (
                    fate.tenant,
                    fate.phone_number_id,
                    internal_id,
                )

    def test_no_id_is_used_twice(self) -> None:
        ids = [internal_id for fate in the_eight() for internal_id, _ in fate.messages("r")]
        assert len(set(ids)) == len(ids)

    def test_meta_s_callback_data_names_the_message(self) -> None:
        internal_id, body = next(the_eight()[0].messages("r"))
        assert json.loads(body)["wabaPayload"]["biz_opaque_callback_data"] == internal_id

    def test_the_id_is_read_from_a_message(self) -> None:
        internal_id, body = next(the_eight()[0].messages("r"))
        assert internal_id_of(body) == internal_id

    def test_what_is_no_message_has_no_id(self) -> None:
        for body in (b"\xff", b"[]", b"{}", b'{"metadata": 3}'):
            assert internal_id_of(body) == ""
