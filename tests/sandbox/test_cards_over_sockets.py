"""What each card does on the wire."""

import zlib
from io import BytesIO

import msgspec
import pytest
import treq
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.web.client import (
    Agent,
    FileBodyProducer,
    HTTPConnectionPool,
    ResponseFailed,
    ResponseNeverReceived,
)
from twisted.web.http_headers import Headers

from tests.sandbox.served import SandboxTestCase, eventually
from tests.sandbox.test_graph import TEXT
from whatsapp_egress.sandbox import cards
from whatsapp_egress.sandbox.server import Sandbox


class AnswerTests(SandboxTestCase):
    async def test_an_ordinary_number_is_accepted_with_metas_headers(self):
        response = await self.post(cards.ordinary(1))
        await response.content()

        names = {name.lower() for name, _ in response.headers.getAllRawHeaders()}
        assert response.code == 200
        assert {b"x-fb-trace-id", b"x-fb-request-id", b"facebook-api-version", b"cache-control"} <= names

    async def test_the_version_of_the_path_is_the_version_of_the_answer(self):
        response = await self.post("1", path="/v23.0/100000001/messages")
        await response.content()

        assert response.headers.getRawHeaders("facebook-api-version") == ["v23.0"]

    async def test_an_error_card_is_answered_with_its_error(self):
        status, body = await self.send(cards.always(131026))

        assert (status, body["error"]["code"]) == (400, 131026)

    async def test_an_error_card_may_have_a_subcode(self):
        status, body = await self.send(cards.always(190, 463))

        assert (status, body["error"]["error_subcode"]) == (401, 463)

    async def test_a_counting_card_fails_and_then_succeeds(self):
        number = cards.times(2, 131000)

        assert [(await self.send(number))[0] for _ in range(3)] == [500, 500, 200]

    async def test_retry_after_is_said_once_and_then_the_message_is_accepted(self):
        number = cards.retry_after(7)
        response = await self.post(number)
        await response.content()

        assert response.headers.getRawHeaders("retry-after") == ["7"]
        assert (await self.send(number))[0] == 200

    async def test_the_states_of_quality_assessment_are_told(self):
        messages = [(await self.send(number))[1]["messages"][0] for number in (cards.held(), cards.paused())]

        assert [each["message_status"] for each in messages] == ["held_for_quality_assessment", "paused"]

    async def test_another_2xx_can_be_had(self):
        assert (await self.send(cards.status(202)))[0] == 202

    async def test_an_error_without_a_code_can_be_had(self):
        status, body = await self.send(cards.without_code(503))

        assert (status, "code" in body["error"]) == (503, False)

    async def test_an_unknown_transient_error_can_be_had(self):
        status, body = await self.send(cards.unknown_transient(400))

        assert (status, body["error"]["code"], body["error"]["is_transient"]) == (400, 999999, True)

    async def test_the_error_that_asks_for_the_secret_proof_can_be_had(self):
        assert "appsecret_proof" in (await self.send(cards.secret_proof()))[1]["error"]["message"]


class OddAnswerTests(SandboxTestCase):
    async def raw(self, number):
        response = await self.post(number)
        return response, await response.content()

    async def test_an_answer_may_have_no_id(self):
        assert (await self.send(cards.without_id()))[1]["messages"] == []

    async def test_an_answer_may_not_be_json(self):
        response, body = await self.raw(cards.not_json())

        assert (response.code, body) == (200, b"OK\n")

    async def test_an_answer_may_be_empty(self):
        response, body = await self.raw(cards.empty())

        assert (response.code, body) == (200, b"")

    async def test_an_answer_may_be_the_page_of_a_proxy(self):
        response, body = await self.raw(cards.html(504))

        assert (response.code, body[:15]) == (504, b"<!DOCTYPE html>")

    async def test_an_answer_may_be_a_redirect(self):
        response, _ = await self.raw(cards.redirect())

        assert response.code == 303
        assert response.headers.getRawHeaders("location") == ["http://redirected.invalid/messages"]

    async def test_an_answer_may_set_a_cookie(self):
        response, _ = await self.raw(cards.cookie())

        assert response.headers.getRawHeaders("set-cookie")[0].startswith("sandbox=")

    async def test_an_answer_may_be_large(self):
        _, body = await self.raw(cards.large(2))

        assert len(body) > 2 << 20

    async def test_a_gzip_bomb_is_small_on_the_wire_and_huge_unpacked(self):
        # An Agent without treq around it, because treq would unpack the body.
        pool = HTTPConnectionPool(reactor, persistent=False)
        response = await Agent(reactor, pool=pool).request(
            b"POST",
            f"{self.sandbox.graph_url}/v25.0/100000001/messages".encode(),
            Headers({"Authorization": [f"Bearer {self.acme.token}"], "Content-Type": ["application/json"]}),
            FileBodyProducer(BytesIO(msgspec.json.encode({**TEXT, "to": cards.gzip_bomb()}))),
        )
        packed = await treq.content(response)
        unpacker = zlib.decompressobj(wbits=31)
        size, rest = 0, packed
        while rest:
            size += len(unpacker.decompress(rest, 1 << 24))
            rest = unpacker.unconsumed_tail

        assert (len(packed) < 300_000, size, unpacker.eof) == (True, 200 << 20, True)


class _Peer(Protocol):
    """Sends what it is given and keeps what comes until the other side closes."""

    def __init__(self, request):
        self.request = request
        self.received = b""
        self.ended = Deferred()

    def connectionMade(self):
        self.transport.write(self.request)

    def dataReceived(self, data):
        self.received += data

    def connectionLost(self, _reason):
        self.ended.callback(self.received)


class FaultTests(SandboxTestCase):
    async def test_hang_reads_the_request_and_never_answers(self):
        asked = self.post(cards.hang())
        await self.sandbox.record.reached(1)

        await self.sandbox.stopService()
        with pytest.raises(ResponseNeverReceived):
            await asked

    async def test_reset_reads_the_request_and_breaks_the_connection(self):
        with pytest.raises(ResponseNeverReceived):
            await self.post(cards.reset())

        assert self.sandbox.record.by_wire == {"reset": 1}

    async def test_close_reads_the_request_and_ends_the_connection(self):
        with pytest.raises(ResponseNeverReceived):
            await self.post(cards.close())

        assert self.sandbox.record.by_wire == {"close": 1}

    async def test_a_fault_may_come_at_first_only(self):
        number = cards.reset(first=1)
        with pytest.raises(ResponseNeverReceived):
            await self.post(number)

        assert (await self.send(number))[0] == 200

    async def test_a_truncated_body_ends_too_early(self):
        response = await self.post(cards.truncated())

        with pytest.raises(ResponseFailed):
            await response.content()

    async def test_a_stalled_body_stops_in_its_middle(self):
        response = await self.post(cards.stalled())
        pieces = []
        collected = treq.collect(response, pieces.append)
        await eventually(lambda: pieces)

        await self.sandbox.stopService()
        with pytest.raises(ResponseFailed):
            await collected

    async def test_a_connection_may_close_unannounced_after_its_answer(self):
        body = msgspec.json.encode({**TEXT, "to": cards.close_after()})
        head = (
            "POST /v25.0/100000001/messages HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {self.acme.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        peer = _Peer(head.encode() + body)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.sandbox.graph_port)
        await connectProtocol(endpoint, peer)
        answer = await peer.ended

        assert b"wamid." in answer
        assert b"connection: close" not in answer.lower()

    async def test_without_a_fault_a_connection_stays_open(self):
        self.use_client(persistent=True)
        for _ in range(3):
            await self.send("1")

        assert self.sandbox.connections()["graph"].opened == 1


class LateTests(SandboxTestCase):
    def make_sandbox(self):
        self.clock = Clock()
        return Sandbox(reactor, clock=self.clock)

    async def test_a_delayed_answer_begins_after_its_time(self):
        answers = []
        asked = self.post(cards.delayed(20)).addCallback(answers.append)
        await self.sandbox.record.reached(1)
        self.clock.advance(1.99)
        await self.fetch()
        before = list(answers)
        self.clock.advance(0.01)
        await asked

        assert (before, [answer.code for answer in answers]) == ([], [200])

    async def test_a_slow_body_comes_in_pieces(self):
        response = await self.post(cards.slow_body(20))
        pieces = []
        collected = treq.collect(response, pieces.append)
        for wanted in range(1, 20):
            await eventually(lambda wanted=wanted: len(pieces) >= wanted)
            self.clock.advance(0.1)
        await collected

        assert len(pieces) > 10
        assert msgspec.json.decode(b"".join(pieces))["messages"]

    async def test_an_answer_whose_asker_left_is_dropped(self):
        asked = self.post(cards.delayed(20))
        asked.addErrback(lambda _: None)
        await self.sandbox.record.reached(1)
        asked.cancel()
        await eventually(lambda: self.sandbox.deliveries.in_flight == 0)

        assert self.clock.getDelayedCalls() == []

    async def test_the_record_tells_when_an_answer_was_out(self):
        asked = self.post(cards.delayed(20))
        await self.sandbox.record.reached(1)
        self.clock.advance(2)
        await asked
        await eventually(lambda: self.sandbox.deliveries.in_flight == 0)

        (arrival,) = self.sandbox.record
        assert (arrival.time, arrival.finished_at) == (0.0, 2.0)
