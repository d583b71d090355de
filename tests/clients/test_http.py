"""The HTTP client on real sockets: each trap of treq and Agent, whole answers and too large ones."""

import tracemalloc
from itertools import product

from hyperlink import URL
from twisted.internet import reactor
from twisted.web.http_headers import Headers

from tests.clients.peers import ClientTestCase, in_pieces, post, sized
from tests.sandbox.served import eventually
from whatsapp_egress.clients.http import LARGEST_ANSWER
from whatsapp_egress.sandbox import cards
from whatsapp_egress.sandbox.server import Sandbox
from whatsapp_egress.sandbox.tls import Authority


class WholeAnswerTests(ClientTestCase):
    async def test_status_headers_and_body_are_read(self):
        server = self.serve(b"HTTP/1.1 418 Teapot\r\nX-A: b\r\nContent-Length: 3\r\n\r\nabc")
        reply = await post(self.client(), server.url)

        assert (reply.status, reply.body, reply.complete) == (418, b"abc", True)
        assert reply.headers.getRawHeaders(b"x-a") == [b"b"]

    async def test_an_answer_in_chunks_is_read(self):
        reply = await post(self.client(), self.serve(in_pieces(b"abc")).url)

        assert (reply.body, reply.complete) == (b"abc", True)

    async def test_an_answer_without_a_body_is_read(self):
        reply = await post(self.client(), self.serve(b"HTTP/1.1 204 No Content\r\n\r\n").url)

        assert (reply.status, reply.body, reply.complete) == (204, b"", True)

    async def test_an_answer_that_ends_with_the_connection_is_read(self):
        def answer(visitor):
            visitor.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc")
            visitor.transport.loseConnection()

        reply = await post(self.client(), self.serve(answer).url)

        assert (reply.body, reply.complete) == (b"abc", True)

    async def test_a_provisional_answer_is_passed_over(self):
        reply = await post(self.client(), self.serve(b"HTTP/1.1 100 Continue\r\n\r\n" + sized(b"abc")).url)

        assert (reply.status, reply.body) == (200, b"abc")

    async def test_the_body_goes_out_with_its_length_and_nothing_of_ours_but_accept_encoding(self):
        server = self.serve()
        await post(self.client(), server.url + "/a?b=c", b"\x00abc")
        head, _, body = server.visitors[0].got.partition(b"\r\n\r\n")

        assert body == b"\x00abc"
        assert head.split(b"\r\n")[0] == b"POST /a?b=c HTTP/1.1"
        assert {line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:]} == {
            b"host",
            b"content-length",
            b"accept-encoding",
        }

    async def test_a_large_body_over_tls_arrives_whole(self):
        certificate = Authority.create().issue()
        server = self.serve(tls=certificate.options())
        body = bytes(range(256)) * 4096

        await post(self.client(certificate.ca_pem), server.url, body)

        assert server.visitors[0].got.partition(b"\r\n\r\n")[2] == body

    async def test_the_callers_headers_stay_as_they_are(self):
        headers = Headers({b"X-A": [b"b"]})
        await self.client().exchange("GET", URL.from_text(self.serve().url), headers)

        assert list(headers.getAllRawHeaders()) == [(b"X-A", [b"b"])]


class CookieTests(ClientTestCase):
    async def test_a_cookie_that_an_answer_sets_does_not_go_out_with_the_next_request(self):
        server = self.serve(b"HTTP/1.1 200 OK\r\nSet-Cookie: tenant=a; Path=/\r\nContent-Length: 0\r\n\r\n")
        http = self.client()
        await post(http, server.url)
        await post(http, server.url)

        assert server.requests == 2
        assert b"cookie" not in b"".join(visitor.got for visitor in server.visitors).lower()

    async def test_a_cookie_that_is_no_text_does_not_lose_the_answer(self):
        server = self.serve(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=caf\xe9\r\nContent-Length: 2\r\n\r\n{}")
        reply = await post(self.client(), server.url)

        assert (reply.status, reply.body) == (200, b"{}")

    async def test_a_cookie_for_a_name_is_not_kept_either(self):
        server = self.serve(
            b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Domain=localhost\r\nContent-Length: 0\r\n\r\n"
        )
        http = self.client()
        for _ in range(2):
            await post(http, f"http://localhost:{server.port}")

        assert b"cookie" not in b"".join(visitor.got for visitor in server.visitors).lower()


class RedirectTests(ClientTestCase):
    async def test_a_redirect_is_an_answer_like_any_other(self):
        elsewhere = self.serve()
        for status, host in product((301, 302, 303, 307, 308), ("127.0.0.1", "localhost")):
            target = f"http://{host}:{elsewhere.port}/x"
            server = self.serve(
                f"HTTP/1.1 {status} Moved\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode()
            )
            reply = await post(self.client(), server.url)

            assert reply.status == status
            assert reply.headers.getRawHeaders(b"location") == [target.encode()]
            assert server.requests == 1
        assert elsewhere.visitors == []

    async def test_a_redirect_on_the_same_host_is_not_followed(self):
        server = self.serve(b"HTTP/1.1 303 See Other\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n")
        reply = await post(self.client(), server.url)

        assert reply.status == 303
        assert server.requests == 1

    async def test_a_get_is_not_redirected_either(self):
        server = self.serve(b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n")
        reply = await post(self.client(), server.url, None, method="GET")

        assert reply.status == 302
        assert server.requests == 1


class EncodingTests(ClientTestCase):
    async def test_no_encoding_is_asked_for(self):
        server = self.serve()
        await post(self.client(), server.url)

        assert b"accept-encoding: identity\r\n" in server.visitors[0].got.lower()

    async def test_200_mib_behind_200_kb_of_gzip_stay_200_kb(self):
        sandbox = Sandbox(reactor)
        acme = sandbox.tenants.add()
        sandbox.startService()
        self.addCleanup(sandbox.stopService)
        url = f"{sandbox.graph_url}/v25.0/{acme.phone_number_id}/messages"
        headers = Headers({"Authorization": [f"Bearer {acme.token}"], "Content-Type": ["application/json"]})
        message = (
            b'{"messaging_product":"whatsapp","type":"text","text":{"body":"x"},"to":"%s"}'
            % cards.gzip_bomb().encode()
        )
        http = self.client()
        await http.exchange("POST", URL.from_text(url), headers, message)  # the sandbox makes it but once

        tracemalloc.start()
        try:
            reply = await http.exchange("POST", URL.from_text(url), headers, message)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        assert reply.body[:2] == b"\x1f\x8b"
        assert reply.complete
        assert len(reply.body) < 300_000
        assert peak < 8_000_000

    async def test_every_spelling_of_an_encoding_is_left_alone(self):
        for encoding in (b"gzip", b"GZIP", b"deflate, gzip", b"br"):
            answer = b"HTTP/1.1 200 OK\r\nContent-Encoding: %s\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08"
            reply = await post(self.client(), self.serve(answer % encoding).url)

            assert (reply.body, reply.complete) == (b"\x1f\x8b\x08", True)


class SizeTests(ClientTestCase):
    async def test_an_answer_of_1_mib_is_taken(self):
        for answer in (sized, in_pieces):
            reply = await post(self.client(), self.serve(answer(b"x" * LARGEST_ANSWER)).url)

            assert reply.complete
            assert len(reply.body) == LARGEST_ANSWER

    async def test_one_byte_more_is_refused(self):
        for answer in (sized, in_pieces):
            server = self.serve(answer(b"x" * (LARGEST_ANSWER + 1)))
            reply = await post(self.client(), server.url)

            assert not reply.complete
            assert reply.status == 200

    async def test_an_answer_without_end_is_hung_up_on(self):
        certificate = Authority.create().issue()
        for tls in (None, certificate.options()):
            server = self.serve(_endless, tls=tls)
            reply = await post(self.client(certificate.ca_pem), server.url)
            await eventually(lambda server=server: not server.open)

            assert not reply.complete


class _Flood:
    def __init__(self, visitor):
        self._visitor = visitor

    def resumeProducing(self):
        self._visitor.write(b"x" * 65536)

    def stopProducing(self):
        pass


def _endless(visitor):
    visitor.write(b"HTTP/1.1 200 OK\r\n\r\n")
    visitor.transport.registerProducer(_Flood(visitor), False)
