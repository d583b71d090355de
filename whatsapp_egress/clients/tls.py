"""Verified TLS: which roots are trusted, and an endpoint that knows when the handshake is through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import define, field
from OpenSSL import SSL
from twisted.internet._sslverify import IOpenSSLTrustRoot
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, platformTrust, trustRootFromCertificates
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from whatsapp_egress.errors import NotConnected

# Twisted has no public name for what `optionsForClientTLS` takes as its trust root.
TrustRoot = IOpenSSLTrustRoot

HANG_UP_SECONDS = 2.0
"""How long a polite close may take. Over TLS it waits for the peer's goodbye, which may never come."""

_PEM_END = b"-----END CERTIFICATE-----"


def certificates(pem: bytes) -> Sequence[Certificate]:
    """All certificates of a PEM file's content."""
    parts = pem.split(_PEM_END)[:-1]
    return [Certificate.loadPEM(part[part.index(b"-----BEGIN") :] + _PEM_END) for part in parts]


@implementer(IOpenSSLTrustRoot)
@define
class MoreRoots:
    """The platform's trust roots and some more."""

    _more: TrustRoot

    def _addCACertsToContext(self, context: SSL.Context) -> None:
        for root in (platformTrust(), self._more):
            root._addCACertsToContext(context)


def trust(pem: bytes | None, *, platform: bool) -> TrustRoot:
    """The roots to trust: those of `pem`, with the platform's if `platform` or if there is no `pem`."""
    if pem is None:
        roots: TrustRoot = platformTrust()
        return roots
    own: TrustRoot = trustRootFromCertificates(certificates(pem))
    return MoreRoots(own) if platform else own


@implementer(IHandshakeListener)
class _Line(Protocol):
    """Stands between the transport and the protocol: brings them together after the handshake, and hangs up
    for sure. It is the protocol's transport, and passes on what it doesn't change."""

    transport: Any

    def __init__(
        self,
        factory: IProtocolFactory,
        address: IAddress,
        clock: IReactorTime,
        secure: bool,
        among: OpenLines,
    ) -> None:
        self.ready: Deferred[IProtocol] = Deferred(lambda _: self.abortConnection())
        self.gone: Deferred[None] = Deferred()
        self._factory = factory
        self._address = address
        self._clock = clock
        self._secure = secure
        self._among = among
        self._protocol: IProtocol | None = None
        self._hanging_up: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._among.lines.add(self)
        directlyProvides(self, providedBy(self.transport))
        if not self._secure:
            self._join()

    def handshakeCompleted(self) -> None:
        if self._protocol is None:
            self._join()

    def dataReceived(self, data: bytes) -> None:
        if self._protocol is not None:
            self._protocol.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.connected = 0
        self._among.lines.discard(self)
        if self._hanging_up is not None and self._hanging_up.active():
            self._hanging_up.cancel()
        if self._protocol is not None:
            self._protocol.connectionLost(reason)
        elif not self.ready.called:
            self.ready.errback(Failure(NotConnected(f"TLS handshake: {explain(reason.value)}")))
        self.gone.callback(None)

    def loseConnection(self) -> None:
        """Hang up politely, and then for sure."""
        if self.connected and self._hanging_up is None:
            self._hanging_up = self._clock.callLater(HANG_UP_SECONDS, self.abortConnection)
            self.transport.loseConnection()

    def abortConnection(self) -> None:
        """Hang up at once. TLS would trip over an abort of what is lost already."""
        if self.connected:
            self.transport.abortConnection()

    # Who wants nothing more of what comes need not wait for a peer that perhaps sends without end.
    stopProducing = abortConnection

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def _join(self) -> None:
        protocol = self._factory.buildProtocol(self._address)
        if protocol is None:
            self.abortConnection()
            return
        self._protocol = protocol
        line: Any = self
        protocol.makeConnection(line)
        self.ready.callback(protocol)


@define
class OpenLines:
    """The connections there are, so that whoever leaves can see them end."""

    lines: set[_Line] = field(factory=set, init=False)

    async def abort(self) -> None:
        """Abort them all; returns when they are gone."""
        lines = list(self.lines)
        for line in lines:
            line.abortConnection()
        await gatherResults([line.gone for line in lines])


@define
class _Lines(Factory):
    noisy = False

    _factory: IProtocolFactory
    _clock: IReactorTime
    _secure: bool
    _among: OpenLines

    def buildProtocol(self, addr: Any) -> _Line:
        return _Line(self._factory, addr, self._clock, self._secure, self._among)


@implementer(IStreamClientEndpoint)
@define
class ReadyEndpoint:
    """An endpoint whose protocols can be written to: the connection is there and TLS is verified.

    Whatever goes wrong before that is `NotConnected`, and no byte of the protocol's was written. The
    connections hang up for sure: a close that the peer doesn't answer becomes an abort. While they are
    there they are among the `OpenLines`.
    """

    _endpoint: IStreamClientEndpoint
    _clock: IReactorTime
    _secure: bool
    _among: OpenLines = field(factory=OpenLines)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, and shake hands if the endpoint is a TLS one. Cancelled, it is `CancelledError`."""
        connecting = Deferred.fromCoroutine(self._connect(protocolFactory))

        def cancel(connected: Deferred[IProtocol]) -> None:
            # Before its parts end, each in its way: a name lookup that is cancelled calls itself failed.
            connected.errback(CancelledError())
            connecting.cancel()

        connected: Deferred[IProtocol] = Deferred(cancel)
        connecting.addBoth(lambda result: None if connected.called else connected.callback(result))
        return connected

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        try:
            line = await self._endpoint.connect(_Lines(factory, self._clock, self._secure, self._among))
        except Exception as error:
            raise NotConnected(explain(error)) from error
        assert isinstance(line, _Line)  # noqa: S101 - _Lines makes nothing else
        return await line.ready


def explain(error: BaseException | None) -> str:
    """One line about a network error, with OpenSSL's own words, which its exceptions hide in their args."""
    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list):
        return "; ".join(str(part[-1]) for part in error.args[0]) or "TLS error"
    reasons = getattr(error, "reasons", None)
    if isinstance(reasons, list) and reasons:
        return "; ".join(explain(reason.value) for reason in reasons if isinstance(reason, Failure))
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
