"""How many messages wait in one tenant's deferred queues, as was seen last."""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from whatsapp_egress.deferred import Place
from whatsapp_egress.pipeline.job import DeferredQueues, Delivery

COUNT_SECONDS = 15.0
"""Between two counts made for those who watch: each costs the broker a channel."""


@define(eq=False)
class Depths:
    """Looks at queues, and remembers what it saw and what was put there since. What is in our hands is not
    counted, as it is not waiting there."""

    _queues: DeferredQueues
    _clock: IReactorTime
    _seen: dict[Place, int] = field(factory=dict, init=False)
    _counted_at: float | None = field(default=None, init=False)

    @property
    def total(self) -> int:
        """All that was seen."""
        return sum(self._seen.values())

    async def look(self, place: Place) -> int:
        """How many there are in `place`. Raises `QueueTrouble`."""
        depth = self._seen[place] = await self._queues.depth(place)
        return depth

    def publish(self, place: Place, delivery: Delivery, headers: dict[str, Any]) -> Deferred[None]:
        """Publish a copy there, as `DeferredQueues` does; it counts when it is confirmed."""

        def stored(_: None) -> None:
            self._seen[place] = self._seen.get(place, 0) + 1

        return self._queues.publish(place, delivery, headers).addCallback(stored)

    async def count(self, *places: Place) -> None:
        """Look at all, if it is time to. Raises `QueueTrouble`."""
        now = self._clock.seconds()
        if self._counted_at is not None and now - self._counted_at < COUNT_SECONDS:
            return
        self._counted_at = now
        for place in places:
            await self.look(place)
