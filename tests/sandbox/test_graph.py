"""What the Graph API decides, without sockets."""

import hashlib
import hmac
from pathlib import Path

import msgspec
from attrs import evolve
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.sandbox import cards
from whatsapp_egress.sandbox.answers import Wire
from whatsapp_egress.sandbox.behaviour import Behaviours
from whatsapp_egress.sandbox.errors import entries
from whatsapp_egress.sandbox.graph import Call, GraphApi
from whatsapp_egress.sandbox.tenants import Tenants

TEXT = {"messaging_product": "whatsapp", "to": "49151", "type": "text", "text": {"body": "x"}}
EXAMPLES = Path(__file__).parents[1] / "data" / "openapi_send_requests.json"


def call(payload=None, **changes):
    body = payload if isinstance(payload, bytes) else msgspec.json.encode(payload or TEXT)
    return evolve(
        Call(
            method="POST",
            path="/v25.0/100000001/messages",
            query={},
            content_type="application/json",
            authorization="Bearer EAAsandbox000001ZD",
            body=body,
        ),
        **changes,
    )


def answered(api, asked):
    answer = api.decide(asked).answer
    return answer.status, msgspec.json.decode(answer.body)


def refused(api, asked):
    status, body = answered(api, asked)
    return status, body["error"]["code"], body["error"].get("error_subcode")


def to(number):
    return call({**TEXT, "to": number})


def refused_or_ok(api):
    return api.decide(call()).answer.error_code


class GraphTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        tenants = Tenants()
        tenants.add()
        tenants.add()
        self.api = GraphApi(tenants, Behaviours(self.clock), self.clock)

    def test_a_message_is_accepted_in_metas_words(self):
        status, body = answered(self.api, call({**TEXT, "to": "+49 151-7"}))

        wamid = body["messages"][0].pop("id")
        assert wamid.startswith("wamid.HBg")
        assert (status, body) == (
            200,
            {
                "messaging_product": "whatsapp",
                "contacts": [{"input": "+49 151-7", "wa_id": "491517"}],
                "messages": [{}],
            },
        )

    def test_each_message_has_an_id_of_its_own(self):
        assert len({self.api.decide(call()).answer.wamid for _ in range(100)}) == 100

    def test_the_decision_says_what_was_understood(self):
        decision = self.api.decide(call())

        assert (decision.phone_number_id, decision.tenant, decision.to) == ("100000001", "acme", "49151")

    def test_a_business_scoped_user_id_is_answered_as_such(self):
        payload = {"messaging_product": "whatsapp", "recipient": "US.123", "text": {"body": "x"}}

        assert answered(self.api, call(payload))[1]["contacts"] == [{"input": "US.123", "user_id": "US.123"}]

    def test_to_goes_before_recipient(self):
        assert self.api.decide(call({**TEXT, "recipient": "US.1"})).to == "49151"

    def test_a_read_receipt_succeeds_without_an_id(self):
        payload = {"messaging_product": "whatsapp", "status": "read", "message_id": "wamid.x"}

        assert answered(self.api, call(payload)) == (200, {"success": True})

    def test_every_example_of_metas_is_taken(self):
        examples = msgspec.json.decode(EXAMPLES.read_bytes())

        assert {self.api.decide(call(example["body"])).answer.status for example in examples} == {200}

    def test_a_call_that_is_not_right_is_refused(self):
        for changes, answer in [
            ({"authorization": None}, (401, 104, None)),
            ({"authorization": "Basic x"}, (401, 104, None)),
            ({"authorization": "Bearer nobody"}, (401, 190, None)),
            ({"path": "/v25.0/100000002/messages"}, (400, 100, 33)),
            ({"path": "/v25.0/12/messages"}, (400, 100, 33)),
            ({"path": "/v25.0/100000001/message"}, (400, 2500, None)),
            ({"path": "/100000001/messages"}, (400, 2500, None)),
            ({"method": "GET"}, (400, 2500, None)),
            ({"content_type": "text/plain"}, (400, 100, None)),
        ]:
            assert refused(self.api, call(**changes)) == answer

    def test_a_payload_that_is_not_right_is_refused(self):
        for payload, code in [
            (b"", 100),
            (b"[" * 100_000, 100),
            (b"[1]", 100),
            (b'{"a": NaN}', 100),
            ({"to": "1", "text": {}}, 100),
            ({**TEXT, "messaging_product": "sms"}, 100),
            ({"messaging_product": "whatsapp", "text": {}}, 100),
            ({**TEXT, "to": 49151}, 100),
            ({**TEXT, "to": " "}, 100),
            ({**TEXT, "type": 5}, 100),
            ({**TEXT, "type": "image"}, 131008),
            ({**TEXT, "type": "hologram"}, 131008),
            ({**TEXT, "text": "x"}, 131009),
            ({**TEXT, "type": "contacts", "contacts": {}}, 131009),
            ({"messaging_product": "whatsapp", "status": "seen", "message_id": "x"}, 131009),
            ({"messaging_product": "whatsapp", "status": "read"}, 131008),
            ({"messaging_product": "whatsapp", "status": "read", "message_id": 5}, 131009),
        ]:
            assert refused(self.api, call(payload)) == (400, code, None), payload

    def test_a_type_that_nobody_knows_yet_is_taken_with_its_object(self):
        payload = {"messaging_product": "whatsapp", "to": "1", "type": "hologram", "hologram": {"id": 5}}

        assert self.api.decide(call(payload)).answer.status == 200

    def test_a_token_that_was_replaced_is_refused(self):
        self.api.tenants.rotate("acme")

        assert refused(self.api, call()) == (401, 190, 467)

    def test_a_token_that_ran_out_is_refused(self):
        self.api.tenants.change("acme", expires_at="1970-01-01T00:00:10Z")
        self.clock.advance(10)

        assert refused(self.api, call()) == (401, 190, 463)

    def test_a_second_phone_number_of_the_tenant_is_taken(self):
        self.api.tenants.change("acme", more_phone_number_ids=("42",))

        assert self.api.decide(call(path="/v25.0/42/messages")).answer.status == 200

    def test_a_refused_token_comes_with_a_challenge(self):
        assert b"www-authenticate" in dict(self.api.decide(call(authorization="Bearer x")).answer.headers)

    def test_every_row_of_the_table_can_be_had_by_its_card(self):
        for row in [row for row in entries() if row.match_message is None]:
            code = int(str(row.code).partition("-")[0])

            assert refused(self.api, to(cards.always(code, row.subcode)))[1:] == (code, row.subcode)

    def test_the_row_that_goes_by_its_message_has_a_card_too(self):
        assert "appsecret_proof" in answered(self.api, to(cards.secret_proof()))[1]["error"]["message"]

    def test_a_counting_card_fails_so_often_and_then_no_more(self):
        number = cards.times(2, 131000)

        assert [self.api.decide(to(number)).answer.status for _ in range(4)] == [500, 500, 200, 200]

    def test_each_recipient_is_counted_for_itself(self):
        self.api.decide(to(cards.times(1, 131000, who=1)))

        assert self.api.decide(to(cards.times(1, 131000, who=2))).answer.status == 500

    def test_counts_can_be_reset(self):
        number = cards.times(1, 131000)
        self.api.decide(to(number))
        self.api.reset_counts()

        assert self.api.decide(to(number)).answer.status == 500

    def test_a_mode_goes_over_the_wire_its_way(self):
        for mode, wire in [
            ("hang", Wire.HANG),
            ("reset", Wire.RESET),
            ("close", Wire.CLOSE),
            ("truncated", Wire.TRUNCATED),
            ("stalled", Wire.STALLED),
            ("slow_body", Wire.SLOW),
        ]:
            self.api.behaviours.put("100000001", mode=mode)

            assert self.api.decide(call()).answer.wire is wire

    def test_mode_error_answers_its_code_with_retry_after_and_status(self):
        self.api.behaviours.put(mode="error", error_code=4, http_status=400, retry_after=30)

        answer = self.api.decide(call()).answer
        assert (answer.status, answer.error_code, dict(answer.headers)[b"retry-after"]) == (400, 4, b"30")

    def test_mode_html_answers_a_page(self):
        self.api.behaviours.put(mode="html", http_status=503)

        answer = self.api.decide(call()).answer
        assert (answer.status, answer.content_type) == (503, b"text/html; charset=utf-8")

    def test_over_the_throughput_messages_are_refused(self):
        self.api.behaviours.put("100000001", messages_per_second=2)

        assert [refused_or_ok(self.api) for _ in range(3)] == [None, None, 130429]

    def test_the_same_pair_too_soon_is_refused(self):
        self.api.behaviours.put(pair_interval_s=6)
        codes = [refused_or_ok(self.api), refused_or_ok(self.api)]
        self.clock.advance(6)

        assert [*codes, refused_or_ok(self.api)] == [None, 131056, None]

    def test_the_failure_rate_refuses_with_its_code(self):
        self.api.behaviours.put(failure_rate=1, failure_code=131016)

        assert refused(self.api, call()) == (500, 131016, None)

    def test_latency_delays_the_answer(self):
        self.api.behaviours.put(latency_ms=300)

        assert self.api.decide(call()).answer.delay_s == 0.3


class AppSecretTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        tenants = Tenants()
        tenants.add()
        tenants.add()
        self.api = GraphApi(tenants, Behaviours(self.clock), self.clock, app_secret="s3cret")

    def test_a_call_without_proof_is_refused(self):
        status, body = answered(self.api, call())

        assert (status, body["error"]["code"]) == (400, 100)
        assert "appsecret_proof" in body["error"]["message"]

    def test_a_wrong_proof_is_refused(self):
        assert refused(self.api, call(query={"appsecret_proof": "é"})) == (400, 100, None)

    def test_the_right_proof_is_taken(self):
        proof = hmac.new(b"s3cret", b"EAAsandbox000001ZD", hashlib.sha256).hexdigest()

        assert self.api.decide(call(query={"appsecret_proof": proof})).answer.status == 200
