"""One HTTP exchange under our conditions: what treq and `Agent` leave open is closed here."""

from __future__ import annotations

from typing import Any, NoReturn

from attrs import define, field, frozen
from hyperlink import EncodedURL
from treq.client import HTTPClient
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

from whatsapp_egress.clients.tls import OpenLines, ReadyEndpoint, TrustRoot, explain
from whatsapp_egress.errors import NoReply, NotConnected

LARGEST_ANSWER = 1 << 20
"""Bytes of an answer that are read, if nobody says otherwise (contract: answers over 1 MiB are refused)."""

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
    _open: OpenLines

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            self._reactor, uri.host, uri.port, timeout=self._timeout
        )
        secure = uri.scheme == b"https"
        if secure:
            options = optionsForClientTLS(uri.host.decode("ascii"), trustRoot=self._trust)
            endpoint = wrapClientTLS(options, endpoint)
        return ReadyEndpoint(endpoint, self._reactor, secure, self._open)


@implementer(IAgent)
@define
class _PlainAgent:
    """Takes answers as they are, and keeps from treq what it would make something of.

    treq decodes gzip whatever we ask for, in one go and without a limit: 199 KB become 200 MB of memory. So
    under treq no encoding is asked for, and none is believed; an encoded body is then simply not JSON.
    treq keeps one jar of cookies for all requests, and with it one tenant's would go out with another's; one
    that is not ASCII loses the whole answer. So it never gets to see any.
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
        for name in (b"Content-Encoding", b"Set-Cookie"):
            response.headers.removeHeader(name)
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


class _TooLargeError(Exception):
    """An answer has more bytes than are taken."""


class _Body(Protocol):
    """Collects a body up to a limit; `done` fires with what came and whether that is all."""

    transport: Any

    def __init__(self, limit: int) -> None:
        self.done: Deferred[tuple[bytes, bool]] = Deferred(lambda _: self.transport.stopProducing())
        self._room = limit
        self._parts: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self._room -= len(data)
        if self._room < 0:
            self.transport.stopProducing()
            raise _TooLargeError  # so that the parser stops here, and doesn't hand the connection to the pool
        self._parts.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        # A body that ends with the connection may be cut off unnoticed; whether it is whole JSON tells.
        complete = self._room >= 0 and bool(reason.check(ResponseDone, PotentialDataLoss))
        if not self.done.called:
            self.done.callback((b"".join(self._parts), complete))


@define
class HttpClient:
    """Requests over one pool of verified connections.

    No redirect is followed, no cookie is kept, no encoding is undone, an answer has at most `largest` bytes,
    and `timeout` seconds cover the exchange from the first byte to the last.
    """

    _treq: HTTPClient
    _pool: HTTPConnectionPool
    _open: OpenLines
    _reactor: Any
    _timeout: float
    _largest: int = LARGEST_ANSWER

    @classmethod
    def over(
        cls,
        reactor: Any,
        trust: TrustRoot,
        *,
        timeout: float,
        most_idle: int,
        largest: int = LARGEST_ANSWER,
    ) -> HttpClient:
        """A client with its own pool, which keeps up to `most_idle` unused connections per origin."""
        pool = HTTPConnectionPool(reactor, persistent=True)
        pool.maxPersistentPerHost = most_idle
        pool.cachedConnectionTimeout = IDLE_SECONDS  # type: ignore[assignment]  # Twisted infers an int
        # A request is repeated by our verdicts alone; the pool would repeat a GET by itself.
        pool.retryAutomatically = False
        lines = OpenLines()
        agent = Agent.usingEndpointFactory(reactor, _Endpoints(reactor, trust, timeout, lines), pool)
        client = HTTPClient(_PlainAgent(agent), data_to_body_producer=_Bytes)
        return cls(client, pool, lines, reactor, timeout, largest)

    async def close(self) -> None:
        """Close the unused connections and abort all others; returns when they are gone."""
        await self._pool.closeCachedConnections()
        await self._open.abort()

    async def exchange(
        self, method: str, url: EncodedURL, headers: Headers, body: bytes | None = None
    ) -> Reply:
        """Raises `NotConnected` when no byte was written, `NoReply` when no answer came.

        Cancelled, it aborts its connection and raises `CancelledError`.
        """
        deadline = self._reactor.seconds() + self._timeout
        try:
            response = await self._treq.request(
                method,
                url,
                headers=headers,
                data=body,
                allow_redirects=False,
                unbuffered=True,
                reactor=self._reactor,
            ).addTimeout(self._timeout, self._reactor, _too_late)
        except (NotConnected, NoReply):
            raise
        except Exception as error:
            if _cancelled(error):
                raise CancelledError from error
            raise NoReply(explain(error)) from error
        reader = _Body(self._largest)
        left = max(0.0, deadline - self._reactor.seconds())
        reader.done.addTimeout(left, self._reactor, lambda _, __: (b"", False))
        response.deliverBody(reader)
        content, complete = await reader.done
        return Reply(response.code, response.headers, content, complete)


def _too_late(result: object, seconds: float) -> NoReturn:
    """What a request came to that was cancelled at its deadline."""
    if isinstance(result, Failure) and result.check(CancelledError):
        raise NotConnected(f"no connection within {seconds:g} s")
    raise NoReply(f"no answer within {seconds:g} s")


def _cancelled(error: Exception) -> bool:
    """Whether somebody cancelled it: `Agent` wraps that in its own errors once the request is written."""
    reasons = getattr(error, "reasons", None) or [Failure(error)]
    return any(reason.check(CancelledError) for reason in reasons)
