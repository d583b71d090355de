"""Looks at the queues' depths and the gateway's memory while a run is played, many times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from attrs import frozen

from bench.flood import Flood
from bench.stage import DEFERRED, INCOMING, Depths, Gateway, Room

EVERY = 0.05
"""Seconds between two looks."""

_LOOK_FOR_MISSING = 0.25
"""Seconds between two looks for a queue that was not there: each one costs the broker a channel."""

_NEARLY_NONE = 20
"""Ready messages of the incoming queue that are B to K's passing through."""


@frozen
class Sample:
    """How things stood at `time`, seconds since the epoch."""

    time: float
    ready: int
    deferred: int
    resident: int


class Watch(threading.Thread):
    """Takes samples between entering and leaving it; `check` raises what kept it from doing so."""

    def __init__(self, room: Room, gateway: Gateway) -> None:
        super().__init__(name="watch", daemon=True)
        self.samples: list[Sample] = []
        self._room = room
        self._gateway = gateway
        self._over = threading.Event()
        self._problem: Exception | None = None

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join(10)

    def check(self) -> None:
        """Raise RuntimeError when it can't look any more, which is mostly because the gateway has ended."""
        if self._problem is not None or not self._gateway.running:
            raise RuntimeError(f"The gateway has ended, or can't be watched: {self._problem!r}")

    def run(self) -> None:
        """Look until it is over."""
        try:
            with self._room.connection() as connection:
                self._look(Depths(connection))
        except Exception as error:  # noqa: BLE001 - whatever it is, `check` tells it
            self._problem = error

    def _look(self, depths: Depths) -> None:
        look_again = dict.fromkeys(DEFERRED, 0.0)
        while not self._over.wait(EVERY):
            now, deferred = time.time(), 0
            ready = depths.of(INCOMING)
            for queue in DEFERRED:
                if now >= look_again[queue]:
                    depth = depths.of(queue)
                    deferred += depth
                    look_again[queue] = now + (0 if depth else _LOOK_FOR_MISSING)
            self.samples.append(Sample(now, ready, deferred, self._gateway.resident()))


@frozen
class Deferral:
    """How the flood went out of everybody's way."""

    ended: float
    count: int
    """Messages in A's own queues by then."""


def deferral(samples: Sequence[Sample], flood: Flood) -> Deferral | None:
    """Return when nothing of *flood* was ready in the incoming queue any more; None if that did not come.

    A flood that was not put aside, but sent or dead-lettered, was not deferred.
    """
    for sample in samples:
        if sample.time >= flood.confirmed and sample.ready <= _NEARLY_NONE and sample.deferred:
            return Deferral(sample.time, sample.deferred)
    return None
