"""Every way in which an exchange can end without an answer, and how it is told apart."""

import pytest
from twisted.internet import reactor
from twisted.internet.address import IPv4Address

from tests.clients.peers import HEAD, ClientTestCase, FullHouse, Names, deaf, post, reset, turns
from tests.sandbox.served import eventually
from whatsapp_egress.errors import NoReply, NotConnected
from whatsapp_egress.sandbox.server import Sandbox
from whatsapp_egress.sandbox.tls import Authority


class DeadlineTests(ClientTestCase):
    async def test_no_headers_by_the_deadline_is_no_reply(self):
        server = self.serve(lambda visitor: None)
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
        await self.fails(
            b"HTTP/1.1 200 OK\r\nX-A: " + b"x" * 100_000,
            "ConnectionDone",
        )

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
            await self.meanwhile(post(self.client(), server.url))

    async def test_a_name_that_nobody_knows(self):
        self.time.nameResolver = Names([])

        with pytest.raises(NotConnected, match=r"nowhere\.example"):
            await post(self.client(), "http://nowhere.example/")

    async def test_a_lookup_that_takes_too_long(self):
        self.time.nameResolver = Names(None)
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
        self.time.nameResolver = Names(
            [IPv4Address("TCP", "127.0.0.1", away.port), IPv4Address("TCP", "127.0.0.1", server.port)]
        )

        assert (await self.meanwhile(post(self.client(), "http://two.example/"))).complete
