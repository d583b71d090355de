"""The POST to Meta, and what is read from its answers, trusting nothing in them."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from tests.clients.peers import ClientTestCase, reset, sized
from tests.sandbox.served import eventually
from whatsapp_egress.clients.graph import Destination, GraphApi, read_answer
from whatsapp_egress.clients.http import Reply
from whatsapp_egress.policy.verdict import Answer, Exchange, MetaError, Unanswered, Unsent

EPOCH = 1_780_000_000.0
TOKEN = "EAAtoken"
DATA = Path(__file__).parents[1] / "data"
RESPONSES = json.loads((DATA / "openapi_send_responses.json").read_text("utf-8"))
ERRORS = json.loads((DATA / "openapi_errors.json").read_text("utf-8"))
JUNK = (b"", b"<html>", b"[]", b'"x"', b"\xff", b"[" * 100_000, b'{"messages": NaN}', b"\x1f\x8b")


def redact(text: str) -> str:
    return text.replace(TOKEN, "[REDACTED]")


class Sending(ClientTestCase):
    def graph(self, url: str, app_secret: str | None = None, **options: Any) -> GraphApi:
        destination = Destination.parse(url, "v25.0", app_secret)
        return GraphApi(self.client(**options), destination, "whatsapp-egress/test", lambda: EPOCH, redact)

    async def request(self, payload: bytes = b"{}", **options: Any) -> tuple[str, dict[str, str], bytes]:
        """Request line, headers and body of what arrives."""
        server = self.serve()
        await self.graph(server.url + options.pop("base", ""), **options).send("100000001", TOKEN, payload)
        head, _, body = server.visitors[0].got.partition(b"\r\n\r\n")
        line, *headers = head.decode().split("\r\n")
        return line, dict(header.split(": ", 1) for header in headers), body

    async def exchange(self, answer: Any, **options: Any) -> Exchange:
        return await self.graph(self.serve(answer).url, **options).send("100000001", TOKEN, b"{}")


class RequestTests(Sending):
    async def test_it_is_the_one_of_the_contract(self) -> None:
        line, headers, body = await self.request(b'{ "to" : "1" }')

        assert line == "POST /v25.0/100000001/messages HTTP/1.1"
        assert body == b'{ "to" : "1" }'
        assert headers.pop("Host").startswith("127.0.0.1:")
        assert headers == {
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": "application/json",
            "User-Agent": "whatsapp-egress/test",
            "Content-Length": "14",
            "Accept-Encoding": "identity",
        }

    async def test_the_base_may_have_a_path(self) -> None:
        line, _, _ = await self.request(base="/proxy/meta/")

        assert line == "POST /proxy/meta/v25.0/100000001/messages HTTP/1.1"

    async def test_with_an_app_secret_the_token_is_proven(self) -> None:
        line, _, _ = await self.request(app_secret="app-secret")

        proof = hmac.new(b"app-secret", TOKEN.encode(), hashlib.sha256).hexdigest()
        assert line == f"POST /v25.0/100000001/messages?appsecret_proof={proof} HTTP/1.1"

    async def test_an_id_that_would_reach_elsewhere_is_never_sent(self) -> None:
        graph = self.graph("http://127.0.0.1:1")
        for wrong in ("", "..", "../../me", "1/../../me", "1?x=1", "1#f", "%2e%2e", "1\r\nX: y", "١٢٣", "1 "):
            with pytest.raises(ValueError, match="not a phone number id"):
                await graph.send(wrong, TOKEN, b"{}")


class ExchangeTests(Sending):
    async def test_an_answer_is_read(self) -> None:
        exchange = await self.exchange(sized(b'{"messages": [{"id": "wamid.1"}]}'))

        assert exchange == Answer(200, wamid="wamid.1")

    async def test_no_connection_is_unsent(self) -> None:
        server = self.serve()
        await server.stop()
        exchange = await self.meanwhile(self.graph(server.url).send("1", TOKEN, b"{}"))

        assert isinstance(exchange, Unsent)
        assert "refused" in exchange.cause

    async def test_no_answer_is_unanswered(self) -> None:
        exchange = await self.exchange(reset)

        assert isinstance(exchange, Unanswered)
        assert "ConnectionLost" in exchange.cause

    async def test_no_answer_in_time_is_unanswered(self) -> None:
        server = self.serve(lambda visitor: None)
        sending = self.graph(server.url, timeout=10.0).send("1", TOKEN, b"{}")
        await eventually(lambda: server.requests)
        self.clock.advance(10)

        assert await sending == Unanswered("no answer within 10 s")

    async def test_an_answer_that_breaks_off_has_its_status_and_nothing_else(self) -> None:
        def answer(visitor: Any) -> None:
            visitor.write(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"messages": [{"id": "wamid.1"}]}')
            visitor.transport.loseConnection()

        assert await self.exchange(answer) == Answer(200, complete=False)


def read(body: object, status: int = 200, now: float = EPOCH, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): [value] for name, value in headers.items()}
    return read_answer(Reply(status, Headers(named), content), now, redact)


def error_of(fields: dict[str, Any], **headers: str) -> MetaError:
    error = read({"error": fields}, 400, **headers).error
    assert error is not None
    return error


class ReadTests(SynchronousTestCase):
    def test_metas_examples_are_sent(self) -> None:
        for example in RESPONSES:
            answer = read(example["body"], example["http_status"])
            assert answer.wamid or answer.success, example

    def test_metas_errors_have_their_codes(self) -> None:
        for example in ERRORS:
            answer = read(example["body"], example["http_status"])
            assert answer.error is not None
            assert answer.error.code == example["body"]["error"]["code"], example

    def test_all_that_is_said_of_a_sent_message(self) -> None:
        body = {
            "messaging_product": "whatsapp",
            "contacts": [{"input": "+1 555", "wa_id": "1555"}],
            "messages": [{"id": "wamid.1", "message_status": "held_for_quality_assessment"}],
        }

        assert read(body) == Answer(
            200, wamid="wamid.1", wa_id="1555", message_status="held_for_quality_assessment"
        )

    def test_all_that_is_said_of_an_error(self) -> None:
        fields = {
            "message": "(#131026) Message undeliverable",
            "type": "OAuthException",
            "code": 131026,
            "error_subcode": 2494010,
            "is_transient": True,
            "error_data": {"messaging_product": "whatsapp", "details": "Not on WhatsApp"},
            "fbtrace_id": "Abc",
        }

        assert error_of(fields) == MetaError(
            131026, 2494010, "(#131026) Message undeliverable", "Not on WhatsApp", True, "Abc"
        )

    def test_a_code_may_be_written_as_text(self) -> None:
        assert error_of({"code": "131026", "error_subcode": "7"}) == MetaError(131026, 7)

    def test_what_is_no_code_is_none(self) -> None:
        for junk in (None, "x", "", "-1", "1.5", "٣", "9" * 5000, 2**63, 1.5, True, [131026], {"code": 1}):
            assert error_of({"code": junk, "error_subcode": junk}) == MetaError(None), junk

    def test_the_trace_may_be_in_a_header(self) -> None:
        assert error_of({"code": 1}, x_fb_trace_id="Hdr").fbtrace_id == "Hdr"
        assert error_of({"code": 1, "fbtrace_id": "Own"}, x_fb_trace_id="Hdr").fbtrace_id == "Own"

    def test_nothing_is_trusted_to_be_of_its_type(self) -> None:
        for junk in (None, True, 7, "text", [], {}, [[]], [7], [None], [{}], {"id": 7}):
            body = {"messages": junk, "contacts": junk, "error": junk, "success": junk}
            answer = read(body)
            assert (answer.wamid, answer.wa_id, answer.success) == (None, None, junk is True), junk

    def test_nor_is_what_is_inside(self) -> None:
        for junk in (None, True, 7, [], {}, ""):
            body = {
                "messages": [{"id": junk, "message_status": junk}],
                "contacts": [{"wa_id": junk}],
                "error": {"message": junk, "error_data": junk, "fbtrace_id": junk, "is_transient": 1},
            }
            assert read(body) == Answer(200, error=MetaError()), junk

    def test_what_is_no_json_object_says_nothing(self) -> None:
        for junk in JUNK:
            assert read(junk) == Answer(200), junk[:20]

    def test_secrets_are_taken_out_of_what_meta_says_to_people(self) -> None:
        said = f"Malformed access token {TOKEN}"
        error = error_of({"code": 190, "message": said, "error_data": {"details": said}, "fbtrace_id": said})

        assert {error.message, error.details, error.fbtrace_id} == {"Malformed access token [REDACTED]"}

    def test_and_out_of_nothing_else(self) -> None:
        answer = read({"messages": [{"id": f"wamid.{TOKEN}"}]})

        assert answer.wamid == f"wamid.{TOKEN}"


class RetryAfterTests(SynchronousTestCase):
    def seconds(self, value: str) -> float | None:
        return read({}, 429, Retry_After=value).retry_after

    def test_it_is_a_number_of_seconds(self) -> None:
        assert [self.seconds("0"), self.seconds(" 120 ")] == [0, 120]

    def test_or_a_date(self) -> None:
        later = datetime.fromtimestamp(EPOCH, timezone.utc) + timedelta(seconds=90)

        assert self.seconds(format_datetime(later, usegmt=True)) == 90

    def test_a_date_that_has_passed_is_now(self) -> None:
        assert self.seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0

    def test_anything_else_is_none(self) -> None:
        for junk in ("", "-1", "1.5", "soon", "1e9", "٣", "Wed, 99 Oct 2015 07:28:00 GMT"):
            assert self.seconds(junk) is None, junk

    def test_not_even_what_is_no_text_does_harm(self) -> None:
        junk = Headers({b"Retry-After": [b"\xe9\xff"], b"x-fb-trace-id": [b"\xe9"]})
        answer = read_answer(Reply(200, junk, b'{"messages": [{"id": "wamid.1"}]}'), EPOCH, redact)

        assert answer == Answer(200, wamid="wamid.1")

    def test_without_it_there_is_none(self) -> None:
        assert read({}, 429).retry_after is None
