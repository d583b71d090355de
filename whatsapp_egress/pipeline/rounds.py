"""A look at everything once a second, while there is something to look at."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

log = Logger()

LOOK_SECONDS = 1.0
"""Between two rounds."""


class Rounds:
    """Calls `looks` once a second. Each says whether it wants to be called again; when none does it rests,
    and costs nothing, until it is woken. One that fails takes nothing from the others, and is called
    again."""

    def __init__(self, clock: IReactorTime) -> None:
        self.looks: list[Callable[[], bool]] = []
        self._stopped = False
        self._wanted = False
        self._call = LoopingCall(self._go)
        self._call.clock = clock

    def wake(self) -> None:
        """There is something to look at."""
        self._wanted = True
        if not self._call.running and not self._stopped:
            self._call.start(LOOK_SECONDS, now=False)

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        if self._call.running:
            self._call.stop()

    def _go(self) -> None:
        self._wanted = False
        for look in self.looks:
            if _looked(look):
                self._wanted = True
        if not self._wanted and self._call.running:
            self._call.stop()


def _looked(look: Callable[[], bool]) -> bool:
    try:
        return look()
    except Exception:  # noqa: BLE001 - a fault of ours, and the others are to go on
        log.failure("look_failed")
        return True
