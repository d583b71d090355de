"""Connections that are kept, left, given up and closed."""

import pytest
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from tests.clients.peers import HEAD, OK, ClientTestCase, FullHouse, Names, deaf, post, reset, sized, turns
from tests.sandbox.served import eventually
from whatsapp_egress.clients.http import IDLE_SECONDS, LARGEST_ANSWER
from whatsapp_egress.clients.tls import HANG_UP_SECONDS
from whatsapp_egress.errors import NoReply
from whatsapp_egress.sandbox.tls import Authority


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
        self.time.nameResolver = names = Names(None)
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
        closing = Deferred.fromCoroutine(http.close())
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
        closing = Deferred.fromCoroutine(http.close())

        with pytest.raises(NoReply):
            await asked
        await closing
