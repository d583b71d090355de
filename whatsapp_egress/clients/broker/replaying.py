"""Works on dead letters: looks at all, sends some again, drops some. One at a time may do so."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList, DeferredLock, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from whatsapp_egress import retry_count
from whatsapp_egress.clients.broker.delivery import RabbitDelivery, shielded
from whatsapp_egress.clients.broker.errors import in_our_words
from whatsapp_egress.clients.broker.letters import Letter
from whatsapp_egress.clients.broker.link import Connection
from whatsapp_egress.clients.broker.looking import PAGE, Letters, Look
from whatsapp_egress.clients.broker.properties import replay_properties
from whatsapp_egress.clients.broker.publisher import Outlet
from whatsapp_egress.clients.broker.replay_notes import Notes
from whatsapp_egress.errors import QueueTrouble, Unpublished, Unroutable

BATCH = 50
"""Letters that are in hand at once, published and perhaps not acknowledged: so many, at most, are in doubt
after a kill."""

BATCH_SECONDS = 0.2
"""What a batch is worth at the replay's speed: a slow one has fewer in hand."""

HELD_SECONDS = 300.0
"""How long letters that are not meant are held, while the meant ones behind them are replayed. Then all are
given back and taken anew, long before the broker's `consumer_timeout`."""

PAGE_SECONDS = 60.0
"""What a page is worth at the replay's speed."""

CONFIRM_SECONDS = 30.0
"""How long the broker may take to confirm; it confirms nothing while it has an alarm."""

SLICE_SECONDS = 0.25
"""Between looks whether a slow replay is to stop."""

AGAIN_SECONDS = 1.0
VAIN_PASSES = 3
"""Passes, so many seconds apart, that find none of what was counted: others have taken it."""

_InHand = list[tuple[RabbitDelivery, Letter]]
_Act = Callable[[_InHand], Coroutine[Any, Any, None]]


@define(eq=False)
class _Pace:
    """So many a second, and no more."""

    _rate: float
    _clock: IReactorTime
    _stopping: Callable[[], bool]
    _next: float = field(default=0.0, init=False)

    async def turn(self) -> bool:
        """Wait for the next one's turn; False when there is to be none."""
        while not self._stopping():
            wait = self._next - self._clock.seconds()
            if wait <= 0:
                self._next = self._clock.seconds() + 1 / self._rate
                return True
            await deferLater(self._clock, min(wait, SLICE_SECONDS))
        return False


@define(eq=False)
class Work:
    """Replays and drops letters, on a connection of its own; who begun it ends it.

    `looking` is held while all is looked at. Nothing that was counted is lost, and nothing doubled, whenever
    it is stopped, killed or loses its connection: what was in hand then is in doubt for who comes after.
    """

    connection: Connection
    _letters: Letters
    _notes: Notes
    _outlet: Outlet
    _clock: IReactorTime
    _looking: DeferredLock
    _seen: set[str] | None = field(default=None, init=False)
    _done: set[str] = field(factory=set, init=False)

    @property
    def doubts(self) -> frozenset[str]:
        """The ids of letters whose replay was broken off."""
        return self._notes.doubts

    async def look(self, visit: Callable[[Letter], None]) -> Look:
        """Hand all letters to `visit`, as many as can be held."""
        doubts, seen = self.doubts, set[str]()

        def see(letter: Letter) -> None:
            if letter.facts.broken_off:
                seen.add(letter.facts.id)
            visit(letter)

        looking: Deferred[Look] = self._looking.run(
            lambda: Deferred.fromCoroutine(in_our_words(self._letters.look(see, doubts)))
        )
        look = await looking
        self._seen = seen if look.complete else None
        return look

    async def replay(
        self, wanted: Counter[str], rate: float, moved: Callable[[str], None], stopping: Callable[[], bool]
    ) -> None:
        """Publish the letters with these ids, at most `rate` a second, and acknowledge each when its copy is
        confirmed; `moved` is told of each.

        Returns when all are done, when it is `stopping`, or when the rest is not in the queue any more.
        Raises `Unpublished` or `QueueTrouble`.
        """
        pace = _Pace(rate, self._clock, stopping)
        size = max(1, min(BATCH, int(rate * BATCH_SECONDS)))

        async def send(chosen: _InHand) -> None:
            for start in range(0, len(chosen), size):
                await self._send(chosen[start : start + size], pace, moved, stopping)

        page = max(1, min(PAGE, math.ceil(rate * PAGE_SECONDS)))
        await in_our_words(self._until_done(wanted, page, send, stopping))

    async def drop(
        self, wanted: Counter[str], moved: Callable[[str], None], stopping: Callable[[], bool]
    ) -> None:
        """Acknowledge the letters with these ids, which ends them; the rest as in `replay`."""

        async def drop(chosen: _InHand) -> None:
            for delivery, letter in chosen:
                self._settle(delivery, letter, moved)

        await in_our_words(self._until_done(wanted, PAGE, drop, stopping))

    async def end(self) -> None:
        """Tidy up the notes, give all back and close the connection."""
        try:
            if self.connection.is_open:
                await self._letters.taking.synchronize()
                await self._notes.end(self._done, self._seen)
        finally:
            await self.connection.close(self._clock)

    async def _until_done(
        self,
        meant: Counter[str],
        page: int,
        act: _Act,
        stopping: Callable[[], bool],
    ) -> None:
        wanted, vain = Counter(meant), 0
        while wanted and not stopping():
            await self._notes.renew()
            found = await self._pass(wanted, page, act, stopping)
            vain = 0 if found else vain + 1
            if vain == VAIN_PASSES:
                return
            if vain:
                await deferLater(self._clock, AGAIN_SECONDS)

    async def _pass(
        self,
        wanted: Counter[str],
        most: int,
        act: _Act,
        stopping: Callable[[], bool],
    ) -> bool:
        """From the front of the queue to its end, or for as long as letters may be held; whether any was one
        of those wanted."""
        taking, until, found = self._letters.taking, self._clock.seconds() + HELD_SECONDS, False
        async with taking.held():
            while wanted and not stopping() and self._clock.seconds() < until:
                deliveries = await taking.take(most)
                if not deliveries:
                    break
                chosen = []
                for delivery in deliveries:
                    letter = self._letters.read(delivery)
                    if wanted[letter.facts.id] > 0:
                        wanted[letter.facts.id] -= 1
                        chosen.append((delivery, letter))
                wanted -= Counter()  # leaves those that are still wanted
                found = found or bool(chosen)
                await act(chosen)
        return found

    async def _send(
        self,
        batch: _InHand,
        pace: _Pace,
        moved: Callable[[str], None],
        stopping: Callable[[], bool],
    ) -> None:
        """Publish a batch. Its note is acknowledged when nothing of it is in doubt."""
        note, sending = None, []
        for delivery, letter in batch:
            if stopping() or not await pace.turn():
                break
            if note is None:
                ids = [each.facts.id for _, each in batch]
                note = await self._in_time(Deferred.fromCoroutine(self._notes.write(ids)))
            sending.append(Deferred.fromCoroutine(self._send_one(delivery, letter, moved)))
        results: list[tuple[bool, Any]] = await DeferredList(sending, consumeErrors=True)
        failures: list[Failure] = [result for succeeded, result in results if not succeeded]
        doubtful = [failure for failure in failures if not failure.check(Unroutable)]
        if note is not None and not doubtful:
            await self._letters.taking.synchronize()
            self._notes.close(note)
        for failure in (*doubtful, *failures):
            failure.raiseException()

    async def _send_one(self, delivery: RabbitDelivery, letter: Letter, moved: Callable[[str], None]) -> None:
        body = letter.body if letter.retry_count == 0 else retry_count.reset(letter.body)
        properties = replay_properties(letter.properties, letter.facts.replays + 1, self._outlet.frame_max)
        key = f"outbound.processed.{letter.facts.tenant_id or 'unknown'}"
        await self._in_time(self._outlet.publish(key, body, properties))
        self._settle(delivery, letter, moved)

    def _settle(self, delivery: RabbitDelivery, letter: Letter, moved: Callable[[str], None]) -> None:
        if not self._letters.taking.ack(delivery):
            raise QueueTrouble("the connection was lost")
        self._done.add(letter.facts.id)
        moved(letter.facts.id)

    async def _in_time(self, confirmed: Deferred[Any]) -> Any:
        try:
            return await shielded(confirmed).addTimeout(CONFIRM_SECONDS, self._clock)
        except TimeoutError as error:
            raise Unpublished(f"not confirmed in {CONFIRM_SECONDS:.0f} s: has RabbitMQ an alarm?") from error
