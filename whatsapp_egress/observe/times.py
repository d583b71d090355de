"""Times as people and JSON want them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from math import isinf

from attrs import frozen
from twisted.internet.interfaces import IReactorTime


def iso(seconds: float | None) -> str | None:
    """ISO 8601 in UTC to the second, from seconds since the epoch; None for what nobody knows."""
    if seconds is None or isinf(seconds):
        return None
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@frozen
class Times:
    """Translates the reactor's clock. `now` gives seconds since the epoch."""

    clock: IReactorTime
    now: Callable[[], float]

    def at(self, moment: float | None) -> str | None:
        """ISO 8601, from a time by the reactor's clock."""
        return None if moment is None else iso(self.epoch(moment))

    def epoch(self, moment: float) -> float:
        """Seconds since the epoch, from a time by the reactor's clock."""
        return self.now() + moment - self.clock.seconds()

    def since(self, moment: float) -> float:
        """Seconds since a time by the reactor's clock."""
        return max(0.0, self.clock.seconds() - moment)
