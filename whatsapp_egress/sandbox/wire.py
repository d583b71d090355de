"""Serves answers over HTTP, faults included, and closes what is open when it stops."""

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request
from twisted.web.resource import IResource
from twisted.web.server import Site

from .answers import Answer, Wire

log = Logger()
_PIECES = 20  # of a body that trickles
# twisted.web's requests and transports are untyped as far as they are used here.
Untyped = Any


class Channel(HTTPChannel):
    """One connection, which its site knows from opening to end."""

    site: "CountedSite"
    number = 0

    refused = False

    def connectionMade(self) -> None:
        """Count the connection."""
        super().connectionMade()  # type: ignore[no-untyped-call]
        self.number = self.site.opened_one(self)

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Take the connection off the list of those that are open."""
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self.site.lost_one(self)

    def allHeadersReceived(self) -> None:
        """Reset the connection before the body is read, where that is wanted."""
        super().allHeadersReceived()  # type: ignore[no-untyped-call]
        if self.site.refuses_early(self._path.decode("latin-1"), self.number):
            self.refused = True
            self.abort()

    def rawDataReceived(self, data: bytes) -> None:
        """Take a part of a body, unless the connection is being reset."""
        if not self.refused:
            super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        """Take a request that is complete, unless the connection is being reset."""
        if not self.refused:
            super().allContentReceived()  # type: ignore[no-untyped-call]

    def abort(self) -> None:
        """Reset the connection."""
        transport: Untyped = self.transport
        transport.abortConnection()

    def drop(self) -> None:
        """Close the connection once what was written is out."""
        transport: Untyped = self.transport
        transport.loseConnection()


def _refuses_nothing(_path: str, _connection: int) -> bool:
    return False


class CountedSite(Site):
    """A site that counts its connections and can end them all."""

    protocol = Channel  # type: ignore[assignment]
    noisy = False

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime,
        keep_alive_s: float,
        refuses_early: Callable[[str, int], bool] = _refuses_nothing,
    ) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            resource, reactor=reactor, timeout=keep_alive_s, parsePOSTFormSubmission=False
        )
        self.refuses_early = refuses_early
        self.opened = 0
        self._open: set[Channel] = set()
        self._all_gone: Deferred[None] | None = None

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._open)

    def opened_one(self, channel: Channel) -> int:
        """Note a new connection; return its number, counted from 1."""
        self.opened += 1
        self._open.add(channel)
        return self.opened

    def lost_one(self, channel: Channel) -> None:
        """Note the end of a connection."""
        self._open.discard(channel)
        if not self._open and self._all_gone is not None:
            gone, self._all_gone = self._all_gone, None
            gone.callback(None)

    async def close_all(self) -> None:
        """Reset every open connection; return when the last is gone."""
        if not self._open:
            return
        gone: Deferred[None] = Deferred()
        self._all_gone = gone
        for channel in list(self._open):
            channel.abort()
        await gone

    def log(self, request: Request) -> None:
        """Write no access log; the record is kept elsewhere."""


@define(eq=False)
class Deliveries:
    """Writes answers to their requests, now or later, each in the way it is meant to go."""

    clock: IReactorTime
    _later: set[IDelayedCall] = field(factory=set, init=False)
    in_flight: int = field(default=0, init=False)

    def start(self, request: Untyped, answer: Answer, finished: Callable[[], None]) -> None:
        """Begin to deliver; call *finished* when the answer is out or the connection gone."""
        delivery = _Delivery(self, request, answer)
        self.in_flight += 1

        def over(_: object) -> None:
            self.in_flight -= 1
            delivery.end()
            finished()

        request.notifyFinish().addBoth(over).addErrback(_unexpected)
        if answer.delay_s:
            delivery.after(answer.delay_s, delivery.go)
        else:
            delivery.go()

    def call_later(self, seconds: float, what: Callable[[], None]) -> IDelayedCall:
        """Call *what* later, unless everything stops before."""

        def due() -> None:
            self._later.discard(call)
            what()

        call: IDelayedCall = self.clock.callLater(seconds, due)
        self._later.add(call)
        return call

    def cancel(self, call: IDelayedCall) -> None:
        """Cancel a call if it is still to come."""
        if call in self._later:
            self._later.discard(call)
            call.cancel()

    def stop(self) -> None:
        """Forget every answer that is still to be given."""
        while self._later:
            self._later.pop().cancel()


@define(eq=False)
class _Delivery:
    deliveries: Deliveries
    request: Untyped
    answer: Answer
    _waiting: IDelayedCall | None = None
    _over: bool = False

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self._waiting = self.deliveries.call_later(seconds, what)

    def end(self) -> None:
        self._over = True
        if self._waiting is not None:
            self.deliveries.cancel(self._waiting)

    def go(self) -> None:
        channel: Untyped = self.request.channel
        wire = self.answer.wire
        if self._over or wire is Wire.HANG:
            return
        if wire in {Wire.RESET, Wire.RESET_EARLY}:
            channel.abort()
            return
        if wire is Wire.CLOSE:
            channel.drop()
            return
        write_head(self.request, self.answer)
        body = self.answer.body
        if wire in {Wire.TRUNCATED, Wire.STALLED}:
            self.request.write(body[: len(body) // 2])
            if wire is Wire.TRUNCATED:
                channel.drop()
            return
        if wire is Wire.SLOW:
            self._trickle(0)
            return
        self.request.write(body)
        self.request.finish()
        if wire is Wire.CLOSE_AFTER:
            channel.drop()

    def _trickle(self, start: int) -> None:
        body = self.answer.body
        size = -(-len(body) // _PIECES) or 1
        self.request.write(body[start : start + size])
        if start + size >= len(body):
            self.request.finish()
            return
        self.after(self.answer.slow_s / _PIECES, lambda: self._trickle(start + size))


def write_head(request: Untyped, answer: Answer) -> None:
    """Set status and headers of *answer*."""
    request.setResponseCode(answer.status)
    request.setHeader(b"content-type", answer.content_type)
    request.setHeader(b"content-length", str(len(answer.body)).encode())
    for name, value in answer.headers:
        request.responseHeaders.addRawHeader(name, value)


def _unexpected(failure: Failure) -> None:
    log.failure("sandbox_delivery_failed", failure)
