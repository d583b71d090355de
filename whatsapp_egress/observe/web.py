"""The two ports: health, page and control on one, metrics on the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.protocols.policies import WrappingFactory
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site


@define(eq=False)
class _Answer(Resource):
    """200 with the document while `check` holds, else 503 with it. Nothing is asked of anybody for it."""

    _check: Callable[[], bool]
    _document: Callable[[], bytes]

    def __attrs_post_init__(self) -> None:
        Resource.__init__(self)

    def render_GET(self, request: Request) -> bytes:
        """Answer from what is known."""
        request.setResponseCode(200 if self._check() else 503)
        request.setHeader(b"Content-Type", b"application/json")
        request.setHeader(b"Cache-Control", b"no-store")
        return self._document() + b"\n"


def health_resource(
    healthy: Callable[[], bool], document: Callable[[], bytes], ready: Callable[[], bool]
) -> Resource:
    """`/health`: how all is. Below it `live`: the reactor turns, for it answers; and `ready`: messages are
    being consumed, for a broker that is away alone makes it unready."""

    def live() -> bytes:
        return b'{"status": "alive"}'

    def readiness() -> bytes:
        return b'{"status": "ready"}' if ready() else b'{"status": "not ready"}'

    health = _Answer(healthy, document)
    health.putChild(b"live", _Answer(lambda: True, live))
    health.putChild(b"ready", _Answer(ready, readiness))
    return health


MOST_BODY = 64 * 1024
"""Bytes of a request's body that are kept: more than anybody has a reason to send."""

_MOST_READ = 1024 * 1024
"""Bytes after which the connection is closed, instead of waiting until a no can be sent."""


class BoundedRequest(Request):
    """A request whose body takes no more room than it may. Of one that is `too_large` nothing is kept; forms
    are nothing to us."""

    too_large = False

    def __init__(self, channel: Any, *args: Any, **kwargs: Any) -> None:
        kwargs["parsePOSTFormSubmission"] = False
        super().__init__(channel, *args, **kwargs)  # type: ignore[no-untyped-call]
        self._read = 0

    def gotLength(self, length: int | None) -> None:  # noqa: ARG002 - it is bounded, whatever is announced
        """So many bytes are announced; None where nobody says."""
        super().gotLength(0)  # type: ignore[no-untyped-call] # keeps them in memory

    def handleContentChunk(self, data: bytes) -> None:
        """Some of the body came."""
        self._read += len(data)
        if self._read <= MOST_BODY:
            super().handleContentChunk(data)  # type: ignore[no-untyped-call]
            return
        if not self.too_large:
            self.too_large = True
            super().gotLength(0)  # type: ignore[no-untyped-call] # begins anew
        if self._read > _MOST_READ:
            self.channel.loseConnection()


class _QuietSite(Site):
    """Logs no access: probes and scrapers come every few seconds, and each would be a line."""

    noisy = False

    def log(self, request: object) -> None:
        pass


class PortTaken(Exception):
    """A port can't be had; `setting` is the one to change."""

    def __init__(self, setting: str, detail: str) -> None:
        super().__init__(detail)
        self.setting = setting


class WebService(Service):
    """Serves `root` on a port. `setting` names where the port comes from."""

    def __init__(self, reactor: Any, setting: str, port: int, interface: str, root: IResource) -> None:
        self._reactor = reactor
        self._setting = setting
        self._wanted = port
        self._interface = interface
        site = _QuietSite(root, requestFactory=BoundedRequest)  # type: ignore[no-untyped-call]
        self._factory = WrappingFactory(site)
        """Knows the connections that are open."""
        self._factory.noisy = False
        self._port: Any = None

    @property
    def port(self) -> int:
        """The port it listens on, also where 0 was asked for."""
        number: int = self._port.getHost().port
        return number

    def startService(self) -> None:
        """Listen. Raises `PortTaken`."""
        Service.startService(self)
        try:
            self._port = self._reactor.listenTCP(self._wanted, self._factory, interface=self._interface)
        except CannotListenError as error:
            raise PortTaken(self._setting, str(error)) from error

    def stopService(self) -> Deferred[None]:
        """Listen no more, and hang up: browsers and scrapers keep connections open for the next time."""
        Service.stopService(self)
        if self._port is None:
            return maybeDeferred(lambda: None)
        for connection in list(self._factory.protocols):
            connection.loseConnection()
        closed: Deferred[None] = maybeDeferred(self._port.stopListening)
        return closed
