"""A reactor whose clock the test moves, and hand-written servers for what the sandbox can't do."""

import socket

from hyperlink import URL
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase
from twisted.web.http_headers import Headers
from zope.interface import directlyProvides, providedBy

from tests.sandbox.served import eventually
from whatsapp_egress.clients.http import HttpClient, _Body
from whatsapp_egress.clients.tls import trust

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
"""The beginning of an answer whose body is still to come."""


class MovableReactor:
    """The reactor's sockets, with a clock that stands still until it is moved."""

    def __init__(self):
        self.clock = Clock()
        self.callLater = self.clock.callLater
        self.seconds = self.clock.seconds
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name):
        return getattr(reactor, name)


class Visitor(Protocol):
    """One connection at a hand-written server."""

    def __init__(self, server):
        self.server = server
        self.got = b""
        self.requests = 0
        self.lost = False
        self._begun = 0

    def connectionMade(self):
        self.server.visitors.append(self)

    def dataReceived(self, data):
        self.got += data
        head, ended, body = self.got[self._begun :].partition(b"\r\n\r\n")
        if not ended or len(body) < _length(head):
            return
        self._begun = len(self.got)
        self.requests += 1
        self.server.answer(self)

    def connectionLost(self, reason):
        self.lost = True

    def write(self, data):
        self.transport.write(data)


def _length(head):
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0


class Server(Factory):
    """Calls `answer` with a visitor whenever a request has come in whole; bytes are just written."""

    noisy = False

    def __init__(self, answer=OK, *, tls=None):
        self.visitors = []
        self.answer = (lambda visitor: visitor.write(answer)) if isinstance(answer, bytes) else answer
        if tls is None:
            self._port = reactor.listenTCP(0, self, interface="127.0.0.1")
        else:
            self._port = reactor.listenSSL(0, self, tls, interface="127.0.0.1")
        self.scheme = "http" if tls is None else "https"
        self.port = self._port.getHost().port

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def open(self):
        return sum(not visitor.lost for visitor in self.visitors)

    @property
    def requests(self):
        return sum(visitor.requests for visitor in self.visitors)

    def buildProtocol(self, _address):
        return Visitor(self)

    async def stop(self):
        """Leave once every visitor has; a client that leaves none alone is not helped to look clean."""
        await maybeDeferred(self._port.stopListening)
        await eventually(lambda: not self.open)


class ClientTestCase(TestCase):
    """Each test makes its clients and servers here; at the end no call and no connection may be left."""

    timeout = 20

    def setUp(self):
        self.time = MovableReactor()
        self.clock = self.time.clock
        self._bodies = []
        self._servers = []
        self._clients = []
        self.patch(_Body, "connectionMade", lambda body: self._bodies.append(body))
        self.addCleanup(self._leave)

    def serve(self, answer=OK, *, tls=None):
        server = Server(answer, tls=tls)
        self._servers.append(server)
        return server

    def client(self, pem=None, *, timeout=10.0, most_idle=10):
        """A client that trusts `pem` alone, if there is one."""
        http = HttpClient.over(
            self.time, trust(pem, platform=pem is None), timeout=timeout, most_idle=most_idle
        )
        self._clients.append(http)
        return http

    async def meanwhile(self, waited_for):
        """Let time pass, five times as fast as it does, until it has fired: Twisted takes a while between one
        address and the next, and the system a while to answer."""
        while not waited_for.called:
            await deferLater(reactor, 0.01)
            self.clock.advance(0.05)
        return await waited_for

    async def headers_read(self, count):
        """Return once the headers of `count` answers were read, and their bodies are waited for."""
        await eventually(lambda: len(self._bodies) >= count)

    async def _leave(self):
        for http in self._clients:
            await http.close()
        assert self.clock.getDelayedCalls() == []
        for server in self._servers:
            await server.stop()


async def turns(count):
    """Let the reactor turn, where there is nothing to be seen from outside that could be waited for."""
    for _ in range(count):
        await deferLater(reactor, 0)


def deaf(visitor):
    """Read nothing any more, not even a goodbye."""
    visitor.transport.pauseProducing()


def reset(visitor):
    visitor.transport.abortConnection()


class FullHouse:
    """A port whose connections are never made: its queue is full."""

    def __init__(self):
        self._listening = socket.socket()
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen(0)
        self.port = self._listening.getsockname()[1]
        self._guests = [socket.socket() for _ in range(4)]
        for guest in self._guests:
            guest.setblocking(False)
            guest.connect_ex(("127.0.0.1", self.port))

    def close(self):
        for guest in (*self._guests, self._listening):
            guest.close()


def post(http, url, body=b'{"x":1}', *, method="POST"):
    """The Deferred of an exchange under way."""
    return Deferred.fromCoroutine(http.exchange(method, URL.from_text(url), Headers(), body))


def sized(body):
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def in_pieces(body):
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


class Names:
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
