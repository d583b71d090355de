"""A's flood, published by a process of its own as fast as the broker confirms it."""

from __future__ import annotations

import json
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pika
from attrs import define, field, frozen

from bench.load import EXCHANGE, PERSISTENT, A
from whatsapp_egress.sandbox.children import Child

_UNCONFIRMED = 2000
"""Messages on their way at most: enough to keep the broker busy, and less than it begins to refuse."""


@frozen
class Flood:
    """When it was published; seconds since the epoch."""

    count: int
    began: float
    confirmed: float


@define(eq=False)
class FloodProcess:
    """The process that publishes it."""

    _child: Child
    _output: Path

    @classmethod
    def start(cls, amqp_url: str, count: int, folder: Path, environment: Mapping[str, str]) -> FloodProcess:
        """Publish *count* messages of A."""
        path = folder / "flood.json"
        with path.open("wb") as output:
            command = [sys.executable, "-m", "bench.flood", amqp_url, str(count)]
            return cls(Child.start(command, environment, output), path)

    def ended(self) -> Flood | None:
        """Return what it did; None while it is at it.  Raises RuntimeError when it failed."""
        if self._child.running:
            return None
        said = self._output.read_text(errors="replace")
        try:
            return msgspec.json.decode(said, type=Flood)
        except msgspec.MsgspecError as error:
            raise RuntimeError(f"The flood could not be published: {said[-2000:]}") from error

    def stop(self) -> None:
        """End it, if it is still there."""
        self._child.kill()


@define(eq=False)
class _Publisher:
    """Keeps `_UNCONFIRMED` messages on their way until all are confirmed."""

    _bodies: list[bytes]
    began: float = 0.0
    confirmed: float = 0.0
    problem: str | None = None
    _connection: Any = None
    _channel: Any = None
    _sent: int = 0
    _open: OrderedDict[int, None] = field(factory=OrderedDict)

    def run(self, amqp_url: str) -> None:
        """Publish all; `problem` then says what went wrong, if anything."""
        self._connection = pika.SelectConnection(
            pika.URLParameters(amqp_url),
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._opened),
            on_open_error_callback=self._closed,
            on_close_callback=self._closed,
        )
        self._connection.ioloop.start()

    def _opened(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(lambda _, reason: self._end(str(reason)))
        channel.confirm_delivery(self._told, callback=lambda _: self._begin())

    def _begin(self) -> None:
        self.began = time.time()
        self._fill()

    def _fill(self) -> None:
        while self._sent < len(self._bodies) and len(self._open) < _UNCONFIRMED:
            self._channel.basic_publish(EXCHANGE, A.routing_key, self._bodies[self._sent], PERSISTENT)
            self._sent += 1
            self._open[self._sent] = None  # the delivery tags of a channel count from 1

    def _told(self, frame: Any) -> None:
        if isinstance(frame.method, pika.spec.Basic.Nack):
            self._end("the broker refused a message")
            return
        tag = frame.method.delivery_tag
        if frame.method.multiple:
            while self._open and next(iter(self._open)) <= tag:
                self._open.popitem(last=False)
        else:
            del self._open[tag]
        if self._sent == len(self._bodies) and not self._open:
            self.confirmed = time.time()
            self._end(None)
        else:
            self._fill()

    def _end(self, problem: str | None) -> None:
        if not self._connection.is_closing and not self._connection.is_closed:
            self.problem = problem
            self._connection.close()

    def _closed(self, _: Any, reason: Exception) -> None:
        if not self.confirmed and self.problem is None:
            self.problem = str(reason)
        self._connection.ioloop.stop()


def main() -> int:
    """Publish, and print when it was."""
    url, count = sys.argv[1], int(sys.argv[2])
    publisher = _Publisher([A.message(number) for number in range(count)])
    publisher.run(url)
    if publisher.problem is not None:
        print(publisher.problem)
        return 1
    print(json.dumps({"count": count, "began": publisher.began, "confirmed": publisher.confirmed}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
