"""A dead-letter queue in memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from attrs import define, field
from pika import BasicProperties
from twisted.internet.defer import Deferred

from tests.pipeline.doubles import EPOCH
from whatsapp_egress.clients.broker.letters import Letter, read_letter
from whatsapp_egress.clients.broker.looking import Look
from whatsapp_egress.errors import QueueTrouble
from whatsapp_egress.message import iso_utc


def letter(
    name: str = "m-1",
    tenant: str = "t1",
    body: bytes | None = None,
    *,
    reason: str | None = "rejected",
    code: int | None = None,
    age: float = 60.0,
    **headers: Any,
) -> Letter:
    """One that failed so many seconds before the test's clock began."""
    document = {
        "metadata": {"tenantId": tenant, "phoneNumberId": "100000001", "internalId": name},
        "wabaPayload": {
            "messaging_product": "whatsapp",
            "to": "919876543210",
            "type": "text",
            "text": {"body": "call 919876543210, it is a-secret"},
        },
    }
    given = {
        "x-egress-reason": reason,
        "x-egress-detail": "it failed",
        "x-egress-error-code": code,
        "x-egress-attempts": 1,
        "x-egress-failed-at": iso_utc(EPOCH - age),
        **headers,
    }
    properties = BasicProperties(headers={k: v for k, v in given.items() if v is not None})
    return read_letter(json.dumps(document).encode() if body is None else body, properties)


@define(eq=False)
class FakeQueue:
    """`away` says why it can't be reached. With `waits` an errand begins when that fires."""

    letters: list[Letter] = field(factory=list)
    away: str | None = None
    complete: bool = True
    replayed: list[str] = field(factory=list)
    dropped: list[str] = field(factory=list)
    rates: list[float] = field(factory=list)
    waits: Deferred[None] | None = None

    async def browse(self, visit: Callable[[Letter], None]) -> Look:
        if self.away is not None:
            raise QueueTrouble(self.away)
        for each in self.letters:
            visit(each)
        return Look(len(self.letters), len(self.letters), self.complete, frozenset())

    async def begin(self) -> FakeWork:
        if self.away is not None:
            raise QueueTrouble(self.away)
        return FakeWork(self)

    async def end(self, work: FakeWork) -> None:
        return

    def cut_short(self) -> None:
        return


@define(eq=False)
class FakeWork:
    """What one errand does with it."""

    queue: FakeQueue

    async def look(self, visit: Callable[[Letter], None]) -> Look:
        return await self.queue.browse(visit)

    async def replay(
        self,
        wanted: Counter[str],
        rate: float,
        moved: Callable[[str], None],
        stopping: Callable[[], bool],
    ) -> None:
        self.queue.rates.append(rate)
        await self._move(wanted, moved, stopping, self.queue.replayed)

    async def drop(
        self, wanted: Counter[str], moved: Callable[[str], None], stopping: Callable[[], bool]
    ) -> None:
        await self._move(wanted, moved, stopping, self.queue.dropped)

    async def _move(
        self,
        wanted: Counter[str],
        moved: Callable[[str], None],
        stopping: Callable[[], bool],
        into: list[str],
    ) -> None:
        if self.queue.waits is not None:
            await self.queue.waits
        for each in list(self.queue.letters):
            if wanted[each.facts.id] and not stopping():
                self.queue.letters.remove(each)
                into.append(str(each.facts.internal_id))
                moved(each.facts.id)
