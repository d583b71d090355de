"""The publishing side: whatever goes out is confirmed by the broker, on a connection of its own.

While an alarm blocks publishing, RabbitMQ reads nothing from a connection that has published, not even acks.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import define, field
from pika import BasicProperties
from pika.adapters.twisted_connection import TwistedChannel
from pika.exceptions import UnroutableError
from twisted.internet.defer import Deferred, FirstError, fail, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from whatsapp_egress.clients.broker.delivery import shielded
from whatsapp_egress.clients.broker.errors import AMQP_TROUBLE, TopologyMissing, channel_trouble
from whatsapp_egress.clients.broker.link import Connection, Link
from whatsapp_egress.errors import Unpublished, Unroutable
from whatsapp_egress.tasks import Tasks

log = Logger()

_SMALL_FRAME = 4096
"""Bytes that every AMQP peer takes in one frame."""

MOST_UNCONFIRMED = 5_000
"""What is published while the broker takes nothing (an alarm) waits in memory, wanted or not."""

AGAIN_SECONDS = 5.0
"""Before opening a channel again after the broker closed it."""

_NOT_CONNECTED = "no connection to publish on"

SeeTo = Callable[[Connection], Coroutine[Deferred[Any], Any, None]]
"""Looks whether all is there, and declares what is not."""


@define(eq=False)
class _Publish:
    """A publish that is not confirmed, and whether the broker gave it back."""

    routing_key: str
    body: bytes
    returned: bool = False


@define(eq=False)
class Outlet:
    """A channel with confirms to publish to one exchange, kept open on the publishing connection.

    With `mandatory` a message that no queue takes is not published. `ensure` sees to what must be there
    before the channel is opened, `mend` does so after a message came back.
    """

    exchange: str
    mandatory: bool
    _ensure: SeeTo
    _mend: SeeTo
    _clock: IReactorTime
    _trouble: str = field(default=_NOT_CONNECTED, init=False)
    """Why nothing can be published while there is no channel."""
    _connection: Connection | None = field(default=None, init=False)
    _channel: TwistedChannel | None = field(default=None, init=False)
    _unconfirmed: dict[int, _Publish] = field(factory=dict, init=False)
    _mending: Tasks = field(factory=Tasks, init=False)

    @property
    def frame_max(self) -> int:
        """Bytes that one frame may have."""
        return _SMALL_FRAME if self._connection is None else self._connection.frame_max

    @property
    def name(self) -> str:
        """The exchange, for people."""
        return self.exchange or "(default)"

    @property
    def open(self) -> bool:
        """Whether it can publish now."""
        return self._channel is not None

    @property
    def unconfirmed(self) -> int:
        """How many publishes the broker has not confirmed yet."""
        return len(self._unconfirmed)

    def publish(self, routing_key: str, body: bytes, properties: BasicProperties) -> Deferred[None]:
        """Fires when the broker has confirmed it, fails with `Unpublished`.

        Who cancels it waits no more, and knows no more whether it was published.
        """
        if self._channel is None:
            return fail(Unpublished(self._trouble))
        if len(self._unconfirmed) >= MOST_UNCONFIRMED:
            return fail(Unpublished("too many are not confirmed yet"))
        publish = _Publish(routing_key, body)
        self._unconfirmed[id(publish)] = publish
        try:
            confirmed = self._channel.basic_publish(
                self.exchange, routing_key, body, properties, mandatory=self.mandatory
            )
        except Exception:  # noqa: BLE001 - also what can't be encoded, which pika finds out now
            confirmed = fail()
        confirmed.addBoth(self._settled, publish)
        return shielded(confirmed)  # what was written can't be taken back

    async def serve(self, connection: Connection) -> None:
        """Keep the channel open on `connection` for as long as that is open."""
        while connection.is_open:
            try:
                channel = await self.open_on(connection)
                log.info("rabbitmq_publishing", exchange=self.name)
                detail = channel_trouble(await channel.on_closed)
            except (*AMQP_TROUBLE, TopologyMissing) as error:
                detail = channel_trouble(error)
            self._channel = None
            if connection.is_open:
                self._trouble = detail
                log.error("rabbitmq_not_publishing", exchange=self.name, detail=detail)
                await deferLater(self._clock, AGAIN_SECONDS)

    async def open_on(self, connection: Connection) -> TwistedChannel:
        """Open the channel when all is there."""
        self._connection = connection
        await self._ensure(connection)
        channel = await connection.channel()
        channel.add_on_return_callback(self._returned)
        await channel.confirm_delivery()
        self._channel = channel
        return channel

    def down(self) -> None:
        """The connection was lost."""
        self._connection = self._channel = None
        self._trouble = _NOT_CONNECTED

    def stop(self) -> None:
        """Mend nothing any more."""
        self._mending.cancel()

    def _returned(self, message: Any) -> None:
        """Remember which publish came back.

        pika does not: it fails the oldest publish of the next confirm, and with a confirm of several it calls
        a returned dead letter published.
        """
        for publish in self._unconfirmed.values():
            if (
                not publish.returned
                and publish.routing_key == message.method.routing_key
                and publish.body == message.body
            ):
                publish.returned = True
                return

    def _settled(self, result: object, publish: _Publish) -> None:
        del self._unconfirmed[id(publish)]
        if publish.returned:
            self._see_to_it()
            raise Unroutable(f"no queue takes {publish.routing_key}")
        if isinstance(result, Failure) and not result.check(UnroutableError):
            raise Unpublished(channel_trouble(result.value)) from result.value

    def _see_to_it(self) -> None:
        """Somebody deleted the queue, or its binding: see to it before the next try."""
        connection = self._connection
        if connection is not None and connection.is_open and not self._mending:
            self._mending.own(self._declare_again(connection))

    async def _declare_again(self, connection: Connection) -> None:
        try:
            await self._mend(connection)
        except (*AMQP_TROUBLE, TopologyMissing) as error:
            log.error("rabbitmq_not_declared", detail=channel_trouble(error))


@define
class Publisher:
    """Keeps its outlets open whenever there is a connection.

    Each has a channel of its own: what the broker refuses to one closes its channel, and would take the
    unconfirmed messages of the others with it.
    """

    _link: Link
    _outlets: tuple[Outlet, ...]

    def __attrs_post_init__(self) -> None:
        self._link.serve = self._serve
        self._link.on_down = self._down

    def start(self) -> None:
        """Connect, and connect again for ever."""
        self._link.start()

    async def stop(self) -> None:
        """Close the connection; what is not confirmed fails."""
        await self._link.stop()
        for outlet in self._outlets:
            outlet.stop()

    async def _serve(self, connection: Connection) -> None:
        serving = [Deferred.fromCoroutine(outlet.serve(connection)) for outlet in self._outlets]
        try:
            await gatherResults(serving, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()

    def _down(self) -> None:
        for outlet in self._outlets:
            outlet.down()
