"""`GET /events`: how things are, told as server-sent events to those who look."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime, ITCPTransport
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

log = Logger()

OVERVIEW_SECONDS = 1.0
"""Between two overviews; that is the heartbeat too."""

SERIES_TICKS = 5
"""Every so many overviews the series are sent as well: as long as one step of theirs."""

PART_OF_REACTOR = 0.05
"""The most of the reactor's time that the making of events may take; with very many lanes they come less
often."""

SLOWEST_SECONDS = 5.0
"""Between two overviews at the most. To the page a stream that says nothing for twice as long is broken."""

MOST_VIEWERS = 50

PATIENCE = 30.0
"""Seconds after which a viewer who doesn't take what it is sent is dropped."""

_FIRST = b"retry: 2000\n\n"


@implementer(IPushProducer)
@define(eq=False)
class _Viewer:
    """Somebody who looks. What is sent while its connection is full is skipped: the next event says all that
    the lost one did, and nothing is kept for it but what one event and the socket's buffer hold."""

    request: Request
    _transport: ITCPTransport
    _clock: IReactorTime
    _full_since: float | None = field(default=None, init=False)

    def send(self, events: bytes) -> None:
        """Write, unless the connection is full; hang up if it has been for too long."""
        if self._full_since is None:
            self.request.write(events)
        elif self._clock.seconds() - self._full_since >= PATIENCE:
            log.info("viewer_dropped", seconds=PATIENCE)
            self._transport.abortConnection()

    def end(self) -> None:
        """Tell that no more will come, if it can be told."""
        if self._full_since is not None:
            self._transport.abortConnection()
            return
        self.request.unregisterProducer()
        self.request.finish()
        self._transport.loseConnection()

    def pauseProducing(self) -> None:
        """The connection is full."""
        if self._full_since is None:
            self._full_since = self._clock.seconds()

    def resumeProducing(self) -> None:
        """It is not any more."""
        self._full_since = None

    def stopProducing(self) -> None:
        """It is gone; `notifyFinish` tells."""


@define(eq=False)
class EventStream(Resource):
    """While somebody looks, `overview` is called once a second and `series` every fifth time, once for all
    who look; both give JSON without a line break."""

    isLeaf = True
    _clock: IReactorTime
    _overview: Callable[[], bytes]
    _series: Callable[[], bytes]
    _viewers: set[_Viewer] = field(factory=set, init=False)
    _next: IDelayedCall | None = field(default=None, init=False)
    _tick: int = field(default=0, init=False)
    _last: dict[str, bytes] = field(factory=dict, init=False)
    _stopped: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        Resource.__init__(self)

    def __len__(self) -> int:
        """How many look."""
        return len(self._viewers)

    def __bool__(self) -> bool:
        """A stream that nobody looks at is one still; `Resource` is asked for its truth."""
        return True

    def render_HEAD(self, request: Request) -> bytes:
        """The headers alone."""
        _describe(request)
        return b""

    def render_GET(self, request: Request) -> bytes | int:
        """Begin to tell, with what was last told to the others, or how it is now."""
        if self._stopped or len(self._viewers) >= MOST_VIEWERS:
            request.setResponseCode(503)
            request.setHeader(b"Retry-After", b"10")
            request.setHeader(b"Content-Type", b"text/plain; charset=utf-8")
            return b"the service is stopping\n" if self._stopped else b"too many look already\n"
        if self._next is None:
            self._tick = 0
            self._turn()
        _describe(request)
        viewer = _Viewer(request, cast(ITCPTransport, request.transport), self._clock)
        self._viewers.add(viewer)
        request.notifyFinish().addBoth(self._gone, viewer)
        request.registerProducer(viewer, streaming=True)
        viewer.send(_FIRST + b"".join(self._last.values()))
        return NOT_DONE_YET

    def stop(self) -> None:
        """End it for all, and let nobody in any more."""
        self._stopped = True
        for viewer in list(self._viewers):
            viewer.end()
        self._rest()

    def _rest(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _gone(self, _result: object, viewer: _Viewer) -> None:
        self._viewers.discard(viewer)
        if not self._viewers:
            self._rest()

    def _look(self) -> None:
        self._next = None
        if self._viewers:
            self._turn()

    def _turn(self) -> None:
        began = self._clock.seconds()
        # Before anything can fail: who looks is told again a second later.
        self._next = self._clock.callLater(OVERVIEW_SECONDS, self._look)
        events = self._make()
        cost = self._clock.seconds() - began
        wait = min(SLOWEST_SECONDS, cost / PART_OF_REACTOR)
        if wait > OVERVIEW_SECONDS:
            self._next.delay(wait - OVERVIEW_SECONDS)
        for viewer in list(self._viewers):
            viewer.send(events)

    def _make(self) -> bytes:
        made = {"overview": self._overview()}
        if self._tick % SERIES_TICKS == 0:
            made["series"] = self._series()
        self._tick += 1
        told = {name: b"event: %s\ndata: %s\n\n" % (name.encode(), made[name]) for name in made}
        self._last.update(told)
        return b"".join(told.values())


def _describe(request: Request) -> None:
    request.setHeader(b"Content-Type", b"text/event-stream; charset=utf-8")
    request.setHeader(b"Cache-Control", b"no-cache, no-store")
    request.setHeader(b"X-Accel-Buffering", b"no")  # nginx would keep events back
    request.setHeader(b"X-Content-Type-Options", b"nosniff")
    request.setHeader(b"Cross-Origin-Resource-Policy", b"same-origin")  # for pages of ours alone
