"""Notes of what a replay has in hand, for who comes after one that was killed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from uuid import uuid4

import msgspec
from attrs import define, field
from pika.adapters.twisted_connection import TwistedChannel
from pika.exceptions import ChannelClosedByBroker
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from whatsapp_egress.clients.broker.declaring import look_at
from whatsapp_egress.clients.broker.delivery import RabbitDelivery, hand_over
from whatsapp_egress.clients.broker.errors import ACCESS_REFUSED
from whatsapp_egress.clients.broker.link import Connection
from whatsapp_egress.clients.broker.properties import json_properties
from whatsapp_egress.clients.broker.publisher import Outlet
from whatsapp_egress.clients.broker.topology import REPLAYS_QUEUE
from whatsapp_egress.errors import ReplayUnderWay, Unpublished

log = Logger()

MOST_NOTES = 65_535
KEEP_SECONDS = 3600.0
"""How long a note stays whose letters are nowhere to be seen: somebody may hold them unacknowledged, at most
for the broker's `consumer_timeout`, 30 minutes if nobody says otherwise."""

LINGER_SECONDS = 1.0
"""How long a note stays after the last ack of its letters: a quorum queue has those a little after they were
sent, and of a connection that is lost meanwhile perhaps never."""

RENEW_SECONDS = 300.0
"""How long a note is held, long before the broker's `consumer_timeout`."""

LOOK_SECONDS = 0.05
"""Between looks whether all notes have come."""


class _Note(msgspec.Struct):
    ids: list[str]
    at: float


_read = msgspec.json.Decoder(_Note)
_write = msgspec.json.Encoder()


@define(eq=False)
class _Kept:
    delivery: RabbitDelivery | None
    ids: frozenset[str]
    at: float


@define(eq=False)
class Notes:
    """The notes of this replay, and those that earlier ones have left.

    A note is written and confirmed before the first of its letters is published, and acknowledged when the
    last is. One that is left names letters whose copies may be in the queue already. Who has the notes is
    their exclusive consumer: the broker lets nobody else in, and puts them back in the moment that one is
    gone, however it went. `now` gives seconds since the epoch.
    """

    _outlet: Outlet
    _clock: IReactorTime
    _now: Callable[[], float]
    _ours: dict[str, RabbitDelivery | None] = field(factory=dict, init=False)
    """Those that are being written, and what has come of them."""
    _moved: Deferred[None] | None = field(default=None, init=False)
    """Fires when one has come, or none can come any more."""
    _left: dict[str, _Kept] = field(factory=dict, init=False)
    _closed: deque[tuple[float, RabbitDelivery]] = field(factory=deque, init=False)
    _channel: TwistedChannel = field(init=False)
    _renewed: float = field(default=0.0, init=False)

    @property
    def doubts(self) -> frozenset[str]:
        """The ids of letters whose replay was broken off."""
        return frozenset().union(*(kept.ids for kept in self._left.values()))

    async def take(self, connection: Connection) -> None:
        """Read what was left. Raises `ReplayUnderWay`."""
        channel = self._channel = await connection.channel()
        await channel.basic_qos(prefetch_count=MOST_NOTES)
        try:
            queue, _ = await channel.basic_consume(REPLAYS_QUEUE, exclusive=True)
        except ChannelClosedByBroker as error:
            if error.reply_code == ACCESS_REFUSED:
                raise ReplayUnderWay("somebody replays or drops dead letters: wait for its end") from error
            raise
        Deferred.fromCoroutine(hand_over(channel, queue, self._receive)).addBoth(self._end)
        while (state := await look_at(connection, REPLAYS_QUEUE)) is not None and state.messages > 0:
            await deferLater(self._clock, LOOK_SECONDS)
        if state is not None and state.consumers > 1:  # somebody has made it a quorum queue
            channel.close()
            raise ReplayUnderWay("somebody replays or drops dead letters: wait for its end")
        # What was sent to us comes before the answer to this.
        await channel.basic_qos(prefetch_count=MOST_NOTES)
        self._renewed = self._clock.seconds()

    async def write(self, ids: list[str]) -> RabbitDelivery:
        """Note that letters are about to be published; what it returns is to be closed when all are safe."""
        self._ack_old()
        name = uuid4().hex
        self._ours[name] = None
        properties = json_properties()
        properties.message_id = name
        try:
            await self._outlet.publish(REPLAYS_QUEUE, _write.encode(_Note(ids, self._now())), properties)
            while (note := self._ours[name]) is None:
                self._moved = Deferred()
                await self._moved
        finally:
            del self._ours[name]
        return note

    def close(self, note: RabbitDelivery) -> None:
        """None of its letters is in doubt: the broker was sent the ack of each that was published."""
        self._closed.append((self._clock.seconds(), note))

    async def renew(self) -> None:
        """Now and then, give what was left back, and get it again: the broker wants nothing held for long."""
        if self._clock.seconds() - self._renewed < RENEW_SECONDS:
            return
        self._renewed = self._clock.seconds()
        for kept in self._left.values():
            if kept.delivery is not None:
                kept.delivery.give_back()
                kept.delivery = None
        while self._channel.is_open and any(kept.delivery is None for kept in self._left.values()):
            await deferLater(self._clock, LOOK_SECONDS)

    async def end(self, done: Collection[str], seen: Collection[str] | None) -> None:
        """Acknowledge the notes whose letters are all done with, or gone; `seen` are those that were left by
        others and are still there, None where nobody looked at all."""
        for kept in self._left.values():
            open_ids = kept.ids.difference(done)
            old = self._now() - kept.at > KEEP_SECONDS
            gone = old and seen is not None and open_ids.isdisjoint(seen)
            if kept.delivery is not None and (gone or not open_ids):
                self.close(kept.delivery)
        while self._closed and self._channel.is_open:
            await deferLater(self._clock, LOOK_SECONDS)
            self._ack_old()

    def _ack_old(self) -> None:
        while self._closed and self._clock.seconds() - self._closed[0][0] >= LINGER_SECONDS:
            self._closed.popleft()[1].ack()

    def _end(self, _reason: object) -> None:
        """No more come: the channel is gone, or the queue."""
        moved, self._moved = self._moved, None
        if moved is not None:
            moved.errback(Unpublished(f"nothing comes from {REPLAYS_QUEUE} any more"))

    def _receive(self, delivery: RabbitDelivery) -> None:
        name = str(delivery.properties.message_id or f"#{delivery.tag}")
        if name in self._ours:
            self._ours[name] = delivery
            moved, self._moved = self._moved, None
            if moved is not None:
                moved.callback(None)
            return
        try:
            note = _read.decode(delivery.body)
        except msgspec.DecodeError as error:
            log.warn("replay_note_invalid", detail=str(error))
            return
        self._left[name] = _Kept(delivery, frozenset(note.ids), note.at)
