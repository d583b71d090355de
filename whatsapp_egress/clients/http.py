"""One HTTP exchange under our conditions: what treq and `Agent` leave open is closed here."""

from __future__ import annotations

from http.cookiejar import DefaultCookiePolicy
from typing import Any

from attrs import define, field, frozen
from hyperlink import EncodedURL
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IConsumer,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, HTTPConnectionPool, ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IAgentEndpointFactory, IBodyProducer, IResponse
from zope.interface import implementer

from whatsapp_egress.clients.tls import ReadyEndpoint, TrustRoot, explain
from whatsapp_egress.errors import NoReply, NotConnected

LARGEST_ANSWER = 1 << 20
"""Bytes of an answer that are read (contract: answers over 1 MiB are refused)."""

IDLE_SECONDS = 60.0
"""How long an unused connection is kept: the longer, the likelier the server closes it as we write."""


@frozen
class Reply:
    """An answer. `complete` is False when the body broke off, took too long or was too large."""

    status: int
    headers: Headers
    body: bytes
    complete: bool = True


@implementer(IAgentEndpointFactory)
@define
class _Endpoints:
    """Name lookup, connection and verified TLS for an origin, each failure of which is `NotConnected`."""

    _reactor: IReactorTime
    _trust: TrustRoot
    _timeout: float

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            self._reactor, uri.host, uri.port, timeout=self._timeout
        )
        secure = uri.scheme == b"https"
        if secure:
            options = optionsForClientTLS(uri.host.decode("ascii"), trustRoot=self._trust)
            endpoint = wrapClientTLS(options, endpoint)
        return ReadyEndpoint(endpoint, self._reactor, secure)


@implementer(IAgent)
@define
class _PlainAgent:
    """Takes answers as they are.

    treq decodes gzip whatever we ask for, in one go and without a limit: 199 KB become 200 MB of memory. So
    under treq no encoding is asked for, and none is believed; an encoded body is then simply not JSON.
    """

    _agent: IAgent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        plain = Headers() if headers is None else headers.copy()
        plain.setRawHeaders(b"Accept-Encoding", [b"identity"])
        return self._agent.request(method, uri, plain, bodyProducer).addCallback(self._believe)

    def _believe(self, response: IResponse) -> IResponse:
        response.headers.removeHeader(b"Content-Encoding")
        return response


@implementer(IBodyProducer)
@define
class _Bytes:
    """A request body that is there: written at once, and not in turns of the reactor as a file would be."""

    _body: bytes
    length: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.length = len(self._body)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        consumer.write(self._body)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def stopProducing(self) -> None: ...


class _Body(Protocol):
    """Collects a body up to a limit; `done` fires with what came and whether that is all."""

    def __init__(self, limit: int) -> None:
        self.done: Deferred[tuple[bytes, bool]] = Deferred(lambda _: self._end(complete=False))
        self._room = limit
        self._parts: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self._room -= len(data)
        if self._room < 0:
            self._end(complete=False)
        else:
            self._parts.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # A body that ends with the connection may be cut off unnoticed; whether it is whole JSON tells.
        self._finish(complete=bool(reason.check(ResponseDone, PotentialDataLoss)))

    def _end(self, *, complete: bool) -> None:
        self._finish(complete=complete)
        if self.transport is not None:
            self.transport.loseConnection()

    def _finish(self, *, complete: bool) -> None:
        if not self.done.called:
            self.done.callback((b"".join(self._parts), complete))


@define
class HttpClient:
    """Requests over one pool of verified connections.

    No redirect is followed, no cookie is kept, no encoding is undone, an answer has at most
    `LARGEST_ANSWER` bytes, and `timeout` seconds cover the exchange from the first byte to the last.
    """

    _treq: HTTPClient
    _pool: HTTPConnectionPool
    _reactor: Any
    _timeout: float

    @classmethod
    def over(cls, reactor: Any, trust: TrustRoot, *, timeout: float, most_idle: int) -> HttpClient:
        """A client with its own pool, which keeps up to `most_idle` unused connections per origin."""
        pool = HTTPConnectionPool(reactor, persistent=True)
        pool.maxPersistentPerHost = most_idle
        pool.cachedConnectionTimeout = IDLE_SECONDS  # type: ignore[assignment]  # Twisted infers an int
        # A request is repeated by our verdicts alone; the pool would repeat a GET by itself.
        pool.retryAutomatically = False
        agent = Agent.usingEndpointFactory(reactor, _Endpoints(reactor, trust, timeout), pool)
        # treq keeps one jar for all requests, and with it one tenant's cookies would go out with another's.
        no_cookies = IndexableCookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
        client = HTTPClient(_PlainAgent(agent), cookiejar=no_cookies, data_to_body_producer=_Bytes)
        return cls(client, pool, reactor, timeout)

    def close(self) -> Deferred[None]:
        """Close the unused connections; fires when they are closed."""
        closed: Deferred[None] = self._pool.closeCachedConnections().addCallback(lambda _: None)
        return closed

    async def exchange(
        self, method: str, url: EncodedURL, headers: Headers, body: bytes | None = None
    ) -> Reply:
        """Raises `NotConnected` when no byte was written, `NoReply` when no answer came."""
        pending: Deferred[Any]
        deadline = self._reactor.callLater(self._timeout, lambda: pending.cancel())
        try:
            pending = self._treq.request(
                method,
                url,
                headers=headers,
                data=body,
                allow_redirects=False,
                unbuffered=True,
                reactor=self._reactor,
            )
            response = await pending
            reader = _Body(LARGEST_ANSWER)
            pending = reader.done
            response.deliverBody(reader)
            content, complete = await pending
        except NotConnected:
            raise
        except Exception as error:
            if not deadline.active():
                raise NoReply(f"no answer within {self._timeout:g} s") from error
            if isinstance(error, CancelledError):
                raise  # whoever asked doesn't want to know any more
            raise NoReply(explain(error)) from error
        finally:
            if deadline.active():
                deadline.cancel()
        return Reply(response.code, response.headers, content, complete)
