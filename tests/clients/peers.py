"""A reactor whose clock the test moves, and hand-written servers for what the sandbox can't do."""

import socket

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase
from zope.interface import directlyProvides, providedBy

from tests.sandbox.served import eventually
from whatsapp_egress.clients.http import HttpClient, _Body
from whatsapp_egress.clients.tls import trust

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


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
        await self._port.stopListening()
        await eventually(lambda: not self.open)


class ClientTestCase(TestCase):
    """Each test makes its clients and servers here; at the end no call and no connection may be left."""

    timeout = 20

    def setUp(self):
        self.time = MovableReactor()
        self.clock = self.time.clock
        self._bodies = []
        self.patch(_Body, "connectionMade", lambda body: self._bodies.append(body))

    def serve(self, answer=OK, *, tls=None):
        server = Server(answer, tls=tls)
        self.addCleanup(server.stop)
        return server

    def client(self, pem=None, *, timeout=10.0, most_idle=10):
        """A client that trusts `pem` alone, if there is one."""
        http = HttpClient.over(
            self.time, trust(pem, platform=pem is None), timeout=timeout, most_idle=most_idle
        )
        self.addCleanup(self._close, http)
        return http

    async def headers_read(self, count):
        """Return once the headers of `count` answers were read, and their bodies are waited for."""
        await eventually(lambda: len(self._bodies) >= count)

    async def _close(self, http):
        await http.close()
        assert self.clock.getDelayedCalls() == []


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
