"""The dead-letter queue for operators: look at it, send letters again, drop them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from whatsapp_egress.clients.broker.address import BrokerAddress
from whatsapp_egress.clients.broker.delivery import shielded
from whatsapp_egress.clients.broker.errors import in_our_words
from whatsapp_egress.clients.broker.letters import Letter
from whatsapp_egress.clients.broker.link import Connection
from whatsapp_egress.clients.broker.looking import Letters, Look
from whatsapp_egress.clients.broker.once import connect_once
from whatsapp_egress.clients.broker.publisher import Outlet
from whatsapp_egress.clients.broker.replay_notes import Notes
from whatsapp_egress.clients.broker.replaying import Work
from whatsapp_egress.clients.broker.tables import mend_pika
from whatsapp_egress.clients.broker.topology import Topology
from whatsapp_egress.errors import ReplayUnderWay

LOCK_SECONDS = 15.0
"""How long a replay waits for the notes: somebody else may only look."""

LOCK_AGAIN_SECONDS = 0.2


class DeadLetterQueue:
    """Opens a connection for each errand, and closes it after that.

    Raises `QueueTrouble` where RabbitMQ can't be reached or refuses. Letters that are looked at, or are in a
    replay's hands, are not ready for others meanwhile; what comes in is. `now` gives seconds since the epoch.
    """

    def __init__(
        self, reactor: Any, address: BrokerAddress, topology: Topology, now: Callable[[], float]
    ) -> None:
        mend_pika()
        self._reactor = reactor
        self._clock: IReactorTime = reactor
        self._address = address
        self._topology = topology
        self._now = now
        self._looking = DeferredLock()
        self._connections: set[Connection] = set()
        self._work: Work | None = None

    async def browse(self, visit: Callable[[Letter], None]) -> Look:
        """Hand each letter to `visit`, the oldest first; all stay where they are.

        Who gives up waiting does not end it.
        """
        looking: Deferred[Look] = self._looking.run(lambda: Deferred.fromCoroutine(self._browse(visit)))
        return await shielded(looking)

    async def begin(self) -> Work:
        """Be the one who may replay and drop. Raises `ReplayUnderWay` when somebody else is."""
        if self._work is not None:
            raise ReplayUnderWay("dead letters are being replayed or dropped: wait for its end")
        connection = await self._connect("replay")
        try:
            work = self._work = await in_our_words(self._begin(connection))
        except BaseException:
            await self._close(connection)
            raise
        return work

    async def end(self, work: Work) -> None:
        """The work is over, however it went."""
        if self._work is work:
            self._work = None
        try:
            await in_our_words(work.end())
        finally:
            self._connections.discard(work.connection)

    def cut_short(self) -> None:
        """Drop all connections: what is under way fails, and loses nothing."""
        for connection in list(self._connections):
            connection.abort()

    async def _browse(self, visit: Callable[[Letter], None]) -> Look:
        connection = await self._connect("browse")
        try:
            return await in_our_words(self._look(connection, visit))
        finally:
            await self._close(connection)

    async def _look(self, connection: Connection, visit: Callable[[Letter], None]) -> Look:
        await self._ensure(connection)
        work = self._work
        doubts = await self._read_notes(connection) if work is None else work.doubts
        channel = await connection.channel()
        look = await Letters(connection, channel, self._clock).look(visit, doubts)
        return look if work is None else evolve(look, complete=False)  # it has some in hand

    async def _read_notes(self, connection: Connection) -> frozenset[str] | None:
        """They are held for as long as the connection is open, so that nobody begins a replay meanwhile."""
        notes = Notes(self._note_outlet(), self._clock, self._now)
        try:
            await notes.take(connection)
        except ReplayUnderWay:
            return None
        return notes.doubts

    async def _begin(self, connection: Connection) -> Work:
        await self._ensure(connection)
        notes_outlet = self._note_outlet()
        outlet = Outlet(
            self._topology.exchange, True, self._topology.ensure, self._topology.ensure, self._clock
        )
        await notes_outlet.open_on(connection)
        await outlet.open_on(connection)
        notes = Notes(notes_outlet, self._clock, self._now)
        await self._take(notes, connection)
        letters = Letters(connection, await connection.channel(), self._clock)
        return Work(connection, letters, notes, outlet, self._clock, self._looking)

    async def _take(self, notes: Notes, connection: Connection) -> None:
        until = self._clock.seconds() + LOCK_SECONDS
        while True:
            try:
                return await notes.take(connection)
            except ReplayUnderWay:
                if self._clock.seconds() > until:
                    raise
                await deferLater(self._clock, LOCK_AGAIN_SECONDS)

    async def _ensure(self, connection: Connection) -> None:
        await self._topology.ensure(connection)
        await self._topology.ensure_replays(connection)

    def _note_outlet(self) -> Outlet:
        ensure = self._topology.ensure_replays
        return Outlet("", True, ensure, ensure, self._clock)

    async def _connect(self, errand: str) -> Connection:
        connection = await connect_once(self._reactor, self._address, f"whatsapp-egress {errand}")
        self._connections.add(connection)
        return connection

    async def _close(self, connection: Connection) -> None:
        self._connections.discard(connection)
        await connection.close(self._clock)
