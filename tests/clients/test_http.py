"""The HTTP client on real sockets: each trap of treq and Agent, and each way an exchange can end."""

import os
import tracemalloc
from itertools import product

import pytest
from hyperlink import URL
from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.ssl import TLSVersion
from twisted.web.http_headers import Headers

from tests.clients.peers import OK, ClientTestCase, FullHouse, deaf, reset, turns
from tests.sandbox.served import eventually
from whatsapp_egress.clients.http import IDLE_SECONDS, LARGEST_ANSWER
from whatsapp_egress.clients.tls import HANG_UP_SECONDS
from whatsapp_egress.errors import NoReply, NotConnected
from whatsapp_egress.sandbox import cards
from whatsapp_egress.sandbox.server import Sandbox
from whatsapp_egress.sandbox.tls import Authority

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"


def post(http, url, body=b'{"x":1}', *, method="POST"):
    """The Deferred of an exchange under way."""
    return Deferred.fromCoroutine(http.exchange(method, URL.from_text(url), Headers(), body))


def sized(body):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def in_pieces(body):
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


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


class DeadlineTests(ClientTestCase):
    async def test_no_headers_by_the_deadline_is_no_reply(self):
        server = self.serve(deaf)
        asked = post(self.client(timeout=10.0), server.url)
        await eventually(lambda: server.requests)

        self.clock.advance(9.9)
        self.assertNoResult(asked)
        self.clock.advance(0.1)
        with pytest.raises(NoReply, match="no answer within 10 s"):
            await asked

    async def test_half_of_the_headers_is_no_reply(self):
        server = self.serve(b"HTTP/1.1 200 OK\r\nX-A: ")
        asked = post(self.client(), server.url)
        await eventually(lambda: server.requests)

        self.clock.advance(10)
        with pytest.raises(NoReply, match="no answer within 10 s"):
            await asked

    async def test_a_body_that_stalls_is_an_incomplete_answer(self):
        server = self.serve(HEAD + b"half")
        asked = post(self.client(), server.url)
        await self.headers_read(1)

        self.clock.advance(10)
        reply = await asked
        await eventually(lambda: not server.open)

        assert (reply.status, reply.complete) == (200, False)

    async def test_one_deadline_covers_headers_and_body(self):
        server = self.serve(lambda visitor: None)
        asked = post(self.client(), server.url)
        await eventually(lambda: server.requests)
        self.clock.advance(6)
        server.visitors[0].write(HEAD)
        await self.headers_read(1)

        self.clock.advance(3.9)
        self.assertNoResult(asked)
        self.clock.advance(0.1)
        assert not (await asked).complete

    async def test_a_body_that_trickles_does_not_move_the_deadline(self):
        server = self.serve(HEAD)
        asked = post(self.client(), server.url)
        await self.headers_read(1)
        for _ in range(9):
            server.visitors[0].write(b"x")
            self.clock.advance(1)
        self.assertNoResult(asked)

        self.clock.advance(1)
        assert not (await asked).complete

    async def test_the_deadline_ends_with_the_exchange(self):
        http = self.client(timeout=10.0)
        server = self.serve()
        await post(http, server.url)
        self.clock.advance(11)

        assert (await post(http, server.url)).complete
        assert len(server.visitors) == 1

    async def test_over_tls_a_peer_that_hears_nothing_is_left_all_the_same(self):
        certificate = Authority.create().issue()
        server = self.serve(deaf, tls=certificate.options())
        asked = post(self.client(certificate.ca_pem), server.url)
        await eventually(lambda: server.requests)

        self.clock.advance(10)
        with pytest.raises(NoReply):
            await asked
        await self._gone_at_once(server)

    async def test_over_tls_a_peer_that_stalls_and_hears_nothing_is_left_all_the_same(self):
        def stall(visitor):
            visitor.write(HEAD + b"half")
            deaf(visitor)

        certificate = Authority.create().issue()
        server = self.serve(stall, tls=certificate.options())
        asked = post(self.client(certificate.ca_pem), server.url)
        await self.headers_read(1)

        self.clock.advance(10)
        assert not (await asked).complete
        await self._gone_at_once(server)

    async def _gone_at_once(self, server):
        """The clock stands still: no second deadline has to pass."""
        server.visitors[0].transport.resumeProducing()
        await eventually(lambda: not server.open)
        assert self.clock.getDelayedCalls() == []


class FailureTests(ClientTestCase):
    """No answer, though bytes were written."""

    async def fails(self, answer, match):
        server = self.serve(answer)
        with pytest.raises(NoReply, match=match):
            await post(self.client(), server.url)
        assert server.requests == 1

    async def test_a_reset_after_the_request_is_no_reply(self):
        await self.fails(reset, "ConnectionLost")

    async def test_a_close_after_the_request_is_no_reply(self):
        await self.fails(lambda visitor: visitor.transport.loseConnection(), "ConnectionDone")

    async def test_a_reset_before_the_request_is_read_is_no_reply(self):
        sandbox = Sandbox(reactor)
        sandbox.behaviours.put(mode="reset_early")
        sandbox.startService()
        self.addCleanup(sandbox.stopService)

        with pytest.raises(NoReply):
            await post(self.client(), sandbox.graph_url + "/v25.0/1/messages", b"x" * 1_000_000)

    async def test_an_answer_that_is_not_http_is_no_reply(self):
        await self.fails(b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "ParseError|BadResponseVersion")

    async def test_an_answer_that_breaks_off_in_its_headers_is_no_reply(self):
        def answer(visitor):
            visitor.write(b"HTTP/1.1 200 OK\r\nX-A: b\r\n")
            visitor.transport.loseConnection()

        await self.fails(answer, "ConnectionDone")

    async def test_a_transfer_coding_that_nobody_knows_is_no_reply(self):
        await self.fails(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "gzip")

    async def test_a_header_line_without_end_is_no_reply(self):
        await self.fails(b"HTTP/1.1 200 OK\r\nX-A: " + b"x" * 100_000, "")

    async def test_a_body_that_breaks_off_is_an_incomplete_answer(self):
        for head in (HEAD, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n"):

            def answer(visitor, head=head):
                visitor.write(head + b"half")
                visitor.transport.loseConnection()

            reply = await post(self.client(), self.serve(answer).url)

            assert (reply.status, reply.complete) == (200, False)

    async def test_a_body_that_breaks_off_with_a_reset_is_an_incomplete_answer(self):
        server = self.serve(HEAD + b"half")
        asked = post(self.client(), server.url)
        await self.headers_read(1)
        reset(server.visitors[0])

        assert not (await asked).complete

    async def test_a_body_that_breaks_the_rules_of_chunks_is_an_incomplete_answer(self):
        reply = await post(
            self.client(), self.serve(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").url
        )

        assert (reply.status, reply.complete) == (200, False)


class NotConnectedTests(ClientTestCase):
    """No byte was written."""

    async def test_a_refused_connection(self):
        server = self.serve()
        await server.stop()

        with pytest.raises(NotConnected, match="refused"):
            await post(self.client(), server.url)

    async def test_a_name_that_nobody_knows(self):
        self.time.nameResolver = _Names([])

        with pytest.raises(NotConnected, match=r"nowhere\.example"):
            await post(self.client(), "http://nowhere.example/")

    async def test_a_name_that_is_none(self):
        with pytest.raises(NotConnected):
            await post(self.client(), "http://a..b/")

    async def test_a_lookup_that_takes_too_long(self):
        self.time.nameResolver = _Names(None)
        asked = post(self.client(), "http://nowhere.example/")

        self.clock.advance(9.9)
        self.assertNoResult(asked)
        self.clock.advance(0.1)
        with pytest.raises(NotConnected, match="no connection within 10 s"):
            await asked

    async def test_a_connection_that_takes_too_long(self):
        house = FullHouse()
        self.addCleanup(house.close)
        asked = post(self.client(), f"http://127.0.0.1:{house.port}/")
        await turns(5)

        self.clock.advance(10)
        with pytest.raises(NotConnected, match="no connection within 10 s"):
            await asked

    async def test_a_handshake_that_takes_too_long(self):
        server = self.serve(lambda visitor: None)
        asked = post(self.client(), f"https://127.0.0.1:{server.port}/")
        await eventually(lambda: server.visitors and server.visitors[0].got)

        self.clock.advance(10)
        with pytest.raises(NotConnected, match="no connection within 10 s"):
            await asked
        await eventually(lambda: not server.open)
        assert b"POST" not in server.visitors[0].got

    async def test_a_second_address_is_tried_where_the_first_is_away(self):
        away = self.serve()
        await away.stop()
        server = self.serve()
        self.time.nameResolver = _Names(
            [IPv4Address("TCP", "127.0.0.1", away.port), IPv4Address("TCP", "127.0.0.1", server.port)]
        )
        asked = post(self.client(), "http://two.example/")
        await turns(5)
        self.clock.advance(1)

        assert (await asked).complete


class VerificationTests(ClientTestCase):
    """What isn't verified gets no byte of a request, be it small or larger than every buffer."""

    async def refused(self, certificate, pem, match, highest=None):
        for body in (b"{}", b"x" * 300_000):
            server = self.serve(tls=certificate.options(highest=highest))
            with pytest.raises(NotConnected, match=match):
                await post(self.client(pem), server.url, body)
            await eventually(lambda server=server: server.visitors and not server.open)
            assert server.visitors[0].got == b""

    async def test_a_certificate_for_another_host(self):
        authority = Authority.create()
        certificate = authority.wrong_host()
        await self.refused(certificate, certificate.ca_pem, "VerificationError")

    async def test_a_certificate_for_another_host_with_a_name(self):
        certificate = Authority.create().issue(("127.0.0.1",))
        server = self.serve(tls=certificate.options())

        with pytest.raises(NotConnected, match="VerificationError"):
            await post(self.client(certificate.ca_pem), f"https://localhost:{server.port}")
        assert server.visitors[0].got == b""

    async def test_an_authority_that_nobody_knows(self):
        await self.refused(
            Authority.create().issue(), Authority.create().issue().ca_pem, "certificate verify failed"
        )

    async def test_an_authority_that_the_platform_does_not_know(self):
        await self.refused(Authority.create().issue(), None, "certificate verify failed")

    async def test_a_certificate_that_has_run_out(self):
        certificate = Authority.create().expired()
        await self.refused(certificate, certificate.ca_pem, "certificate verify failed")

    async def test_a_version_of_tls_that_is_too_old(self):
        certificate = Authority.create().issue()
        for version in (TLSVersion.TLSv1_0, TLSVersion.TLSv1_1):
            await self.refused(certificate, certificate.ca_pem, "(?i)protocol", highest=version)

    async def test_tls_1_2_is_good_enough(self):
        certificate = Authority.create().issue()
        server = self.serve(tls=certificate.options(highest=TLSVersion.TLSv1_2))

        assert (await post(self.client(certificate.ca_pem), server.url)).complete

    async def test_a_server_that_speaks_no_tls(self):
        server = self.serve(lambda visitor: None)
        asked = post(self.client(), f"https://127.0.0.1:{server.port}")
        await eventually(lambda: server.visitors and server.visitors[0].got)
        server.visitors[0].write(OK)

        with pytest.raises(NotConnected, match="TLS handshake"):
            await asked
        assert b"POST" not in server.visitors[0].got

    async def test_a_server_that_hangs_up_in_the_handshake(self):
        server = self.serve()
        asked = post(self.client(), f"https://127.0.0.1:{server.port}")
        await eventually(lambda: server.visitors and server.visitors[0].got)
        server.visitors[0].transport.abortConnection()

        with pytest.raises(NotConnected, match="TLS handshake: ConnectionLost"):
            await asked

    async def test_the_platforms_roots_are_trusted_where_no_others_are_named(self):
        certificate = Authority.create().issue()
        self.platform_trusts(certificate)
        server = self.serve(tls=certificate.options())

        assert (await post(self.client(None), server.url)).complete

    def platform_trusts(self, certificate):
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(certificate.ca_pem)
        self.patch_environment("SSL_CERT_FILE", path)

    def patch_environment(self, name, value):
        before = os.environ.get(name)
        os.environ[name] = value
        self.addCleanup(
            lambda: os.environ.pop(name) if before is None else os.environ.__setitem__(name, before)
        )


class KeepAliveTests(ClientTestCase):
    async def test_20_requests_after_each_other_share_a_connection(self):
        certificate = Authority.create().issue()
        for tls in (None, certificate.options()):
            server = self.serve(tls=tls)
            http = self.client(certificate.ca_pem)
            for _ in range(20):
                assert (await post(http, server.url)).complete

            assert (server.requests, len(server.visitors)) == (20, 1)

    async def test_requests_at_once_have_a_connection_each_and_so_many_are_kept(self):
        server = self.serve()
        http = self.client(most_idle=3)
        await gatherResults([post(http, server.url) for _ in range(8)])
        self.clock.advance(HANG_UP_SECONDS)
        await eventually(lambda: server.open == 3)
        await gatherResults([post(http, server.url) for _ in range(3)])

        assert (server.requests, len(server.visitors)) == (11, 8)

    async def test_a_connection_that_nobody_uses_is_closed_after_a_while(self):
        certificate = Authority.create().issue()
        server = self.serve(tls=certificate.options())
        await post(self.client(certificate.ca_pem), server.url)
        self.clock.advance(IDLE_SECONDS - 1)
        await turns(5)
        assert server.open == 1

        self.clock.advance(1)
        await eventually(lambda: not server.open)

    async def test_a_peer_that_does_not_answer_the_goodbye_is_left_all_the_same(self):
        certificate = Authority.create().issue()
        server = self.serve(tls=certificate.options())
        await post(self.client(certificate.ca_pem), server.url)
        deaf(server.visitors[0])
        self.clock.advance(IDLE_SECONDS)
        self.clock.advance(HANG_UP_SECONDS)

        server.visitors[0].transport.resumeProducing()
        await eventually(lambda: not server.open)

    async def test_a_connection_that_the_server_closed_is_not_used_again(self):
        for end in ("loseConnection", "abortConnection"):
            server = self.serve()
            http = self.client()
            await post(http, server.url)
            getattr(server.visitors[0].transport, end)()
            await eventually(lambda server=server: not server.open)
            await turns(5)

            assert (await post(http, server.url)).complete
            assert len(server.visitors) == 2

    async def test_a_connection_that_the_server_wants_closed_is_not_used_again(self):
        certificate = Authority.create().issue()
        for tls in (None, certificate.options()):
            server = self.serve(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}", tls=tls
            )
            http = self.client(certificate.ca_pem)
            for _ in range(2):
                assert (await post(http, server.url)).complete
            assert len(server.visitors) == 2
            await eventually(lambda server=server: not server.open)

    async def test_a_connection_on_which_the_server_speaks_unasked_is_not_used_again(self):
        server = self.serve()
        http = self.client()
        await post(http, server.url)
        server.visitors[0].write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await eventually(lambda: not server.open)
        reply = await post(http, server.url)

        assert (reply.status, len(server.visitors)) == (200, 2)

    async def test_a_request_is_never_repeated_by_the_pool(self):
        for method in ("GET", "POST"):
            server = self.serve()
            http = self.client()
            await post(http, server.url, None, method=method)
            server.answer = reset

            with pytest.raises(NoReply):
                await post(http, server.url, None, method=method)
            assert server.requests == 2

    async def test_an_incomplete_answer_costs_its_connection(self):
        server = self.serve(sized(b"x" * (LARGEST_ANSWER + 1)))
        http = self.client()
        await post(http, server.url)
        server.answer = lambda visitor: visitor.write(OK)

        assert (await post(http, server.url)).body == b"{}"
        assert len(server.visitors) == 2


class CancelTests(ClientTestCase):
    """Whoever asked wants no answer any more: CancelledError, whatever it was waiting for."""

    async def cancelled(self, asked):
        asked.cancel()
        with pytest.raises(CancelledError):
            await asked
        assert self.clock.getDelayedCalls() == []

    async def test_in_the_name_lookup(self):
        self.time.nameResolver = names = _Names(None)
        await self.cancelled(post(self.client(), "http://nowhere.example/"))

        names.found([])

    async def test_while_connecting(self):
        house = FullHouse()
        self.addCleanup(house.close)
        asked = post(self.client(), f"http://127.0.0.1:{house.port}/")
        await turns(5)

        await self.cancelled(asked)

    async def test_in_the_handshake(self):
        server = self.serve(lambda visitor: None)
        asked = post(self.client(), f"https://127.0.0.1:{server.port}/")
        await eventually(lambda: server.visitors and server.visitors[0].got)

        await self.cancelled(asked)
        await eventually(lambda: not server.open)

    async def test_before_the_headers(self):
        certificate = Authority.create().issue()
        for tls in (None, certificate.options()):
            server = self.serve(deaf, tls=tls)
            asked = post(self.client(certificate.ca_pem), server.url)
            await eventually(lambda server=server: server.requests)

            await self.cancelled(asked)
            server.visitors[0].transport.resumeProducing()
            await eventually(lambda server=server: not server.open)

    async def test_in_the_headers(self):
        server = self.serve(b"HTTP/1.1 200 OK\r\nX-A: ")
        asked = post(self.client(), server.url)
        await eventually(lambda: server.requests)
        await turns(5)

        await self.cancelled(asked)
        await eventually(lambda: not server.open)

    async def test_in_the_body(self):
        certificate = Authority.create().issue()
        for number, tls in enumerate((None, certificate.options()), start=1):
            server = self.serve(HEAD + b"half", tls=tls)
            asked = post(self.client(certificate.ca_pem), server.url)
            await self.headers_read(number)

            await self.cancelled(asked)
            await eventually(lambda server=server: not server.open)


class CloseTests(ClientTestCase):
    async def test_idle_connections_are_closed_before_close_is_over(self):
        certificate = Authority.create().issue()
        for tls in (None, certificate.options()):
            server = self.serve(tls=tls)
            http = self.client(certificate.ca_pem)
            await gatherResults([post(http, server.url) for _ in range(3)])
            await http.close()

            await eventually(lambda server=server: not server.open)

    async def test_it_does_not_wait_for_ever_for_a_peer_that_says_no_goodbye(self):
        certificate = Authority.create().issue()
        server = self.serve(tls=certificate.options())
        http = self.client(certificate.ca_pem)
        await post(http, server.url)
        deaf(server.visitors[0])
        closing = http.close()
        await turns(3)
        self.clock.advance(HANG_UP_SECONDS)

        await closing
        server.visitors[0].transport.resumeProducing()

    async def test_connections_that_were_hanging_up_are_gone_too(self):
        certificate = Authority.create().issue()
        server = self.serve(tls=certificate.options())
        http = self.client(certificate.ca_pem)
        await post(http, server.url)
        deaf(server.visitors[0])
        self.clock.advance(IDLE_SECONDS)
        await http.close()

        assert self.clock.getDelayedCalls() == []
        server.visitors[0].transport.resumeProducing()

    async def test_an_exchange_under_way_ends_without_a_reply(self):
        server = self.serve(lambda visitor: None)
        http = self.client()
        asked = post(http, server.url)
        await eventually(lambda: server.requests)
        closing = http.close()

        with pytest.raises(NoReply):
            await asked
        await closing


class _Names:
    """Knows the same addresses for every name, or (None) is still looking for them."""

    def __init__(self, addresses):
        self._addresses = addresses
        self._receiver = None

    def resolveHostName(self, receiver, _name, *_, **__):
        self._receiver = receiver
        if self._addresses is not None:
            self.found(self._addresses)

    def found(self, addresses):
        for address in addresses:
            self._receiver.addressResolved(address)
        self._receiver.resolutionComplete()
