"""The probes over HTTP: is it alive, is it ready."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.web.resource import Resource
from twisted.web.server import Request, Site


@define(eq=False)
class _Probe(Resource):
    """200 with `yes` while `check` holds, else 503 with `no`."""

    isLeaf = True
    _check: Callable[[], bool]
    _yes: str
    _no: str

    def __attrs_post_init__(self) -> None:
        Resource.__init__(self)

    def render_GET(self, request: Request) -> bytes:
        """Answer from what is known; nothing is asked of anybody for it."""
        good = self._check()
        request.setResponseCode(200 if good else 503)
        request.setHeader(b"Content-Type", b"application/json")
        request.setHeader(b"Cache-Control", b"no-store")
        return f'{{"status": "{self._yes if good else self._no}"}}\n'.encode()


class _QuietSite(Site):
    """Logs no access: probes come every few seconds, and each would be a line."""

    noisy = False

    def log(self, request: object) -> None:
        pass


class HealthService(Service):
    """`/health/live`: the reactor turns, for it answers. `/health/ready`: messages are being consumed."""

    def __init__(self, reactor: Any, port: int, interface: str, ready: Callable[[], bool]) -> None:
        self._reactor = reactor
        self._wanted = port
        self._interface = interface
        root, health = Resource(), Resource()
        root.putChild(b"health", health)
        health.putChild(b"live", _Probe(lambda: True, "alive", "dead"))
        health.putChild(b"ready", _Probe(ready, "ready", "not ready"))
        self._site = _QuietSite(root)  # type: ignore[no-untyped-call]
        self._port: Any = None

    @property
    def port(self) -> int:
        """The port it listens on, also where 0 was asked for."""
        number: int = self._port.getHost().port
        return number

    def startService(self) -> None:
        """Listen. Raises `twisted.internet.error.CannotListenError`."""
        Service.startService(self)
        self._port = self._reactor.listenTCP(self._wanted, self._site, interface=self._interface)

    def stopService(self) -> Deferred[None]:
        """Listen no more."""
        Service.stopService(self)
        closed: Deferred[None] = maybeDeferred(self._port.stopListening)
        return closed
