"""Takes the messages of a queue in their order, page by page, and gives them back in their order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

from attrs import define, field
from pika.adapters.twisted_connection import TwistedChannel
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from whatsapp_egress.clients.broker.declaring import look_at
from whatsapp_egress.clients.broker.delivery import RabbitDelivery, hand_over, require_open, shielded
from whatsapp_egress.clients.broker.errors import AMQP_TROUBLE
from whatsapp_egress.clients.broker.link import Connection
from whatsapp_egress.errors import QueueTrouble

log = Logger()

T = TypeVar("T")

LOOK_SECONDS = 0.1
"""Between looks whether messages that were there have gone to others."""

ANSWER_SECONDS = 10.0
"""How long RabbitMQ may take to answer; it reads nothing from one who publishes while it has an alarm."""

BACK_SECONDS = 2.0
"""How long a quorum queue may take to have back what was given back, if others do not take it at once."""

BACK_LOOK_SECONDS = 0.02


@define(eq=False)
class _Page:
    """Deliveries as they come, until there are enough or no more can come."""

    wanted: int
    deliveries: list[RabbitDelivery] = field(factory=list)
    complete: Deferred[None] = field(factory=Deferred)
    over: bool = False

    def receive(self, delivery: RabbitDelivery) -> None:
        self.deliveries.append(delivery)
        if len(self.deliveries) == self.wanted:
            self.complete.callback(None)

    def end(self, _reason: object) -> None:
        """The consumer is gone, by our doing or not."""
        self.over = True
        if not self.complete.called:
            self.complete.callback(None)


@define(eq=False)
class Taking:
    """Takes from one queue on one channel. What is not acknowledged is held until `give_back`.

    Each page has a consumer of its own that may have just that many; it is cancelled before anything is
    settled, or it would be given more.
    """

    _connection: Connection
    _channel: TwistedChannel
    _queue: str
    _clock: IReactorTime
    _pages: list[set[int]] = field(factory=list, init=False)
    """The tags of what was taken and not acknowledged."""

    async def take(self, most: int) -> list[RabbitDelivery]:
        """The next messages, at most so many; none when none is ready."""
        return await self._answered(self._take(most))

    async def _take(self, most: int) -> list[RabbitDelivery]:
        state = await look_at(self._connection, self._queue)
        page = _Page(min(most, 0 if state is None else state.messages))
        if page.wanted == 0:
            return []
        require_open(self._channel)
        await self._channel.basic_qos(prefetch_count=page.wanted)
        require_open(self._channel)
        queue, tag = await self._channel.basic_consume(self._queue)
        Deferred.fromCoroutine(hand_over(self._channel, queue, page.receive)).addBoth(page.end)
        await self._fill(page)
        if not page.over:
            await self._channel.basic_cancel(tag)
        require_open(self._channel)
        self._pages.append({delivery.tag for delivery in page.deliveries})
        return page.deliveries

    def ack(self, delivery: RabbitDelivery) -> bool:
        """Acknowledge one of the last page; False when the channel is gone."""
        self._pages[-1].discard(delivery.tag)
        return delivery.ack()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """What is taken within is given back at the end. When that was an error, it is told, whatever becomes
        of the rest: when the connection is closed, all goes back."""
        try:
            yield
        except BaseException:
            try:
                await self.give_back()
            except (*AMQP_TROUBLE, QueueTrouble) as error:
                log.debug("dead_letters_not_given_back", detail=str(error))
            raise
        await self.give_back()

    async def give_back(self) -> None:
        """Put all that was taken and not acknowledged back, in its order.

        In a classic queue each has its old place again, and in a quorum queue with a delivery limit it comes
        first again. One without puts it behind the rest (RabbitMQ 3.10 was seen to; its default from 4.0 on
        is a limit): there the order is kept when all was taken.

        Page by page: when more than one nack is under way a quorum queue's client, which is the broker's
        channel, puts those of different consumers together in an order of its own (seen with 3.10).
        """
        pages, self._pages = self._pages, []
        for tags in pages:
            if tags:
                require_open(self._channel)
                self._channel.basic_nack(max(tags), multiple=True, requeue=True)
                await self.synchronize()
        count, until = sum(map(len, pages)), self._clock.seconds() + BACK_SECONDS
        while count and await self.synchronize() < count and self._clock.seconds() < until:
            await deferLater(self._clock, BACK_LOOK_SECONDS)

    async def synchronize(self) -> int:
        """Have the broker do all that was settled before; how many messages are ready then.

        A quorum queue does it a little later.
        """
        require_open(self._channel)
        declared = await self._answered(self._channel.queue_declare(self._queue, passive=True))
        return int(declared.method.message_count)

    async def _answered(self, asking: Awaitable[T]) -> T:
        async def answer() -> T:
            return await asking

        answering = shielded(Deferred.fromCoroutine(answer()))
        try:
            return await answering.addTimeout(ANSWER_SECONDS, self._clock)
        except TimeoutError as error:
            raise QueueTrouble(f"RabbitMQ has not answered in {ANSWER_SECONDS:.0f} s") from error

    async def _fill(self, page: _Page) -> None:
        while not page.complete.called:
            try:
                await shielded(page.complete).addTimeout(LOOK_SECONDS, self._clock)
            except TimeoutError:
                state = await look_at(self._connection, self._queue)
                if state is None or state.messages == 0:
                    # Others have taken some. What was sent to us comes before the answer to this.
                    require_open(self._channel)
                    await self._channel.basic_qos(prefetch_count=page.wanted)
                    return
