"""Plays one run: a gateway, A's flood or none, and B to K beside it."""

from __future__ import annotations

import time
from collections.abc import Callable

from attrs import define, frozen

from bench.figures import Arrival, Run
from bench.flood import Flood, FloodProcess
from bench.load import B_TO_K, Steady
from bench.stage import Gateway, Room, Scenario, Stage
from bench.watch import Watch, deferral

_WARM_UP = 5
"""Messages of each of B to K that go ahead, so that no run measures their first credentials."""

_WARM_UP_PATIENCE = 30.0
_BOOKS_PATIENCE = 10.0
_LOOK = 0.25
_REST = 2.0
"""Seconds between the warm-up and what is measured."""


class RunFailed(Exception):
    """The run could not be played; the text says why."""


@frozen
class Plan:
    """How long B to K publish, how large the flood is, and how long is waited for what is not there then."""

    seconds: float
    flood: int
    patience: float


@define
class Play:
    """One run. *scenario* None is the one without A."""

    _stage: Stage
    _plan: Plan
    _scenario: Scenario | None
    _say: Callable[[str], None]

    @property
    def name(self) -> str:
        """What it is called."""
        return "baseline" if self._scenario is None else self._scenario.name

    def play(self) -> Run:
        """Play it.  Raises `RunFailed`."""
        with self._stage.set(self.name, self._scenario) as (room, gateway):
            try:
                run = self._measure(room, gateway)
            except RuntimeError as error:
                raise RunFailed(f"{self.name}: {error}") from error
            self._say("  stopping the gateway, and closing the books")
            run.status = gateway.stop()
            run.arrivals = [Arrival.of(recorded) for recorded in self._stage.sandbox.arrivals()]
            # What the gateway held has to come back to its queue.
            give_up = time.monotonic() + _BOOKS_PATIENCE
            run.left = room.left()
            while run.unaccounted and time.monotonic() < give_up:
                time.sleep(_LOOK)
                run.left = room.left()
        return run

    def _measure(self, room: Room, gateway: Gateway) -> Run:
        with room.connection() as connection:
            steady = Steady(connection.channel(), B_TO_K)
            steady.once(_WARM_UP)
            if not self._until_accepted(len(steady.published), _WARM_UP_PATIENCE, lambda: None):
                raise RunFailed(f"{self.name}: the messages to warm up with did not arrive; see its log")
            time.sleep(_REST)
            warm_up = set(steady.published)
            before = gateway.resident()
            with Watch(room, gateway) as watch:
                flood = None if self._scenario is None else self._flood(room, watch)
                self._say(f"  B to K publish for {self._plan.seconds:g} s")
                began = time.time()
                steady.keep_on(self._plan.seconds, watch.check)
                ended = time.time()
                self._await_the_rest(steady, flood, watch)
        return Run(
            name=self.name,
            published={mark: when for mark, when in steady.published.items() if mark not in warm_up},
            samples=watch.samples,
            began=began,
            ended=ended,
            flood=flood,
            deferral=None if flood is None else deferral(watch.samples, flood),
            resident_before=before,
            lateness=steady.latest,
            total=len(steady.published) + (0 if flood is None else flood.count),
        )

    def _flood(self, room: Room, watch: Watch) -> Flood:
        self._say(f"  A publishes {self._plan.flood} messages at once")
        process = FloodProcess.start(room.url, self._plan.flood, self._stage.folder, self._stage.environ)
        try:
            while (flood := process.ended()) is None:
                watch.check()
                time.sleep(0.01)
        finally:
            process.stop()
        return flood

    def _await_the_rest(self, steady: Steady, flood: Flood | None, watch: Watch) -> None:
        """Wait, not for ever, until what B to K published has arrived and the flood is deferred."""
        give_up = time.monotonic() + self._plan.patience
        if not self._until_accepted(len(steady.published), self._plan.patience, watch.check):
            self._say(f"  not all of B to K's messages have arrived within {self._plan.patience:g} s")
        while flood is not None and deferral(watch.samples, flood) is None:
            if time.monotonic() > give_up:
                self._say(f"  the flood was not deferred within {self._plan.patience:g} s")
                return
            watch.check()
            time.sleep(_LOOK)

    def _until_accepted(self, count: int, patience: float, check: Callable[[], None]) -> bool:
        give_up = time.monotonic() + patience
        while True:
            counts = self._stage.accepted()
            if sum(counts.get(sender.tenant, 0) for sender in B_TO_K) >= count:
                return True
            if time.monotonic() > give_up:
                return False
            check()
            time.sleep(_LOOK)
