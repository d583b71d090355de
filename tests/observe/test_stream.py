"""The stream of events, on a clock of its own and over sockets that a test keeps full."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from whatsapp_egress.observe import stream
from whatsapp_egress.observe.stream import EventStream


class Connection(StringTransport):
    """A viewer's connection, which a test can fill and empty."""

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True

    def events(self) -> list[str]:
        """The names of the events that have come since this was asked last."""
        text = self.value().decode()
        self.clear()
        return [line.removeprefix("event: ") for line in text.split("\n") if line.startswith("event: ")]


class StreamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.made: list[str] = []
        self.cost = 0.0
        self.stream = EventStream(self.clock, self.overview, lambda: self.make("series"))
        root = Resource()
        root.putChild(b"events", self.stream)
        self.site = Site(root, reactor=self.clock)  # type: ignore[no-untyped-call]
        self.site.timeOut = None

    def overview(self) -> bytes:
        self.clock.rightNow += self.cost
        return self.make("overview")

    def make(self, name: str) -> bytes:
        self.made.append(name)
        return b'{"number": %d}' % len(self.made)

    def look(self, method: str = "GET") -> Connection:
        connection = Connection()
        connection.protocol = self.site.buildProtocol(None)
        connection.protocol.makeConnection(connection)
        connection.protocol.dataReceived(method.encode() + b" /events HTTP/1.1\r\nHost: x\r\n\r\n")
        return connection

    def leave(self, connection: Connection) -> None:
        connection.protocol.connectionLost(Failure(ConnectionDone()))

    def test_who_comes_is_told_all_at_once(self) -> None:
        text = self.look().value().decode()

        assert "200 OK" in text
        assert "Content-Type: text/event-stream" in text
        assert "Cache-Control: no-cache, no-store" in text
        assert "X-Accel-Buffering: no" in text
        assert "Cross-Origin-Resource-Policy: same-origin" in text
        assert 'event: overview\ndata: {"number": 1}\n\n' in text
        assert 'event: series\ndata: {"number": 2}\n\n' in text

    def test_the_overview_comes_each_second_and_the_series_each_fifth(self) -> None:
        connection = self.look()
        connection.events()
        told = []
        for _ in range(10):
            self.clock.advance(1)
            told.append(connection.events())

        one, both = ["overview"], ["overview", "series"]
        assert told == [one, one, one, one, both, one, one, one, one, both]

    def test_it_is_made_once_for_all(self) -> None:
        viewers = [self.look() for _ in range(3)]
        assert self.made == ["overview", "series"]
        assert [viewer.events() for viewer in viewers] == [["overview", "series"]] * 3

        self.clock.advance(1)
        assert self.made == ["overview", "series", "overview"]
        assert [viewer.events() for viewer in viewers] == [["overview"]] * 3

    def test_nothing_is_made_when_nobody_looks(self) -> None:
        assert not self.clock.getDelayedCalls()
        first, second = self.look(), self.look()
        self.leave(first)
        assert len(self.clock.getDelayedCalls()) == 1
        self.leave(second)
        assert len(self.stream) == 0
        assert not self.clock.getDelayedCalls()

        self.made.clear()
        assert self.look().events() == ["overview", "series"]
        assert self.made == ["overview", "series"]

    def test_there_is_room_for_so_many(self) -> None:
        self.patch(stream, "MOST_VIEWERS", 2)
        first, _ = self.look(), self.look()
        refused = self.look().value()
        assert b"503 Service Unavailable" in refused
        assert b"Retry-After" in refused

        self.leave(first)
        assert b"200 OK" in self.look().value()

    def test_what_a_full_connection_misses_is_not_kept_for_it(self) -> None:
        slow, quick = self.look(), self.look()
        slow.events()
        slow.producer.pauseProducing()
        for _ in range(5):
            self.clock.advance(1)
        assert slow.value() == b""
        slow.producer.resumeProducing()
        self.clock.advance(1)

        assert slow.events() == ["overview"]
        assert len(quick.events()) == 2 + 7

    def test_who_takes_nothing_for_long_is_dropped(self) -> None:
        slow, quick = self.look(), self.look()
        slow.producer.pauseProducing()
        self.clock.pump([1] * (int(stream.PATIENCE) - 1))
        slow.producer.pauseProducing()  # that it is full still begins nothing anew
        assert not slow.aborted
        self.clock.advance(1)

        assert slow.aborted
        assert not quick.aborted

    def test_the_end_ends_all_and_lets_nobody_in(self) -> None:
        viewer, slow = self.look(), self.look()
        slow.producer.pauseProducing()
        self.stream.stop()

        assert viewer.value().endswith(b"0\r\n\r\n")
        assert viewer.disconnecting
        assert slow.aborted
        self.leave(slow)
        assert not self.clock.getDelayedCalls()
        assert b"503 Service Unavailable" in self.look().value()

    def test_the_end_with_nobody_there(self) -> None:
        self.stream.stop()
        assert not self.clock.getDelayedCalls()

    def test_head_is_told_the_headers_alone(self) -> None:
        connection = self.look("HEAD")

        assert b"text/event-stream" in connection.value()
        assert connection.events() == []
        assert len(self.stream) == 0

    def test_what_costs_much_is_made_less_often(self) -> None:
        self.cost = 0.1
        connection = self.look()
        connection.events()
        self.clock.advance(1)
        assert connection.events() == []
        self.clock.advance(1)
        assert connection.events() == ["overview"]

        self.cost = 2.0
        self.clock.advance(2)
        connection.events()
        self.clock.advance(stream.SLOWEST_SECONDS - self.cost - 0.1)
        assert connection.events() == []
        self.clock.advance(0.2)
        assert "overview" in connection.events()

    def test_a_failure_is_over_a_second_later(self) -> None:
        connection = self.look()
        connection.events()
        self.patch(self.stream, "_overview", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            self.clock.advance(1)
        assert connection.events() == []
        self.patch(self.stream, "_overview", self.overview)
        self.clock.advance(1)

        assert connection.events() == ["overview"]

    def test_a_failure_at_the_first_leaves_nothing_running(self) -> None:
        self.patch(self.stream, "_overview", lambda: 1 / 0)
        assert b"500 Internal Server Error" in self.look().value()
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1
        self.clock.advance(1)
        assert not self.clock.getDelayedCalls()
