"""The publishing side: dead letters and events, each confirmed by the broker, on a connection of its own.

While an alarm blocks publishing, RabbitMQ reads nothing from a connection that has published, not even acks.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from pika import BasicProperties
from pika.adapters.twisted_connection import TwistedChannel
from pika.exceptions import UnroutableError
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from whatsapp_egress.clients.broker.errors import AMQP_TROUBLE, TopologyMissing, channel_trouble
from whatsapp_egress.clients.broker.link import Connection, Link
from whatsapp_egress.clients.broker.topology import Topology
from whatsapp_egress.errors import Unpublished
from whatsapp_egress.tasks import Tasks

log = Logger()

AGAIN_SECONDS = 5.0
"""Before opening the channel again after the broker closed it."""


@define(eq=False)
class _Mandatory:
    """A mandatory publish that is not confirmed, and whether the broker gave it back."""

    routing_key: str
    body: bytes
    returned: bool = False


@define
class Publisher:
    """Publishes whenever there is a connection, and says so when there is none."""

    _link: Link
    _topology: Topology
    _clock: IReactorTime
    _connection: Connection | None = field(default=None, init=False)
    _channel: TwistedChannel | None = field(default=None, init=False)
    _mending: bool = field(default=False, init=False)
    _unconfirmed: list[_Mandatory] = field(factory=list, init=False)
    _tasks: Tasks = field(factory=Tasks, init=False)

    def __attrs_post_init__(self) -> None:
        self._link.serve = self._serve
        self._link.on_down = self._down

    def publish(
        self, exchange: str, routing_key: str, body: bytes, properties: BasicProperties, *, mandatory: bool
    ) -> Deferred[None]:
        """Fires when the broker has confirmed it, fails with `Unpublished`."""
        if self._channel is None:
            return fail(Unpublished("no connection to publish on"))
        publish = _Mandatory(routing_key, body)
        if mandatory:
            self._unconfirmed.append(publish)
        try:
            confirmed = self._channel.basic_publish(
                exchange, routing_key, body, properties, mandatory=mandatory
            )
        except AMQP_TROUBLE:
            confirmed = fail()
        confirmed.addBoth(self._settled, publish, mandatory)
        done: Deferred[None] = confirmed
        return done

    def start(self) -> None:
        """Connect, and connect again for ever."""
        self._link.start()

    async def stop(self) -> None:
        """Close the connection; what is not confirmed fails."""
        await self._link.stop()
        self._tasks.cancel()

    def _down(self) -> None:
        self._connection = self._channel = None

    async def _serve(self, connection: Connection) -> None:
        """Keep a channel open on `connection` for as long as that is open."""
        self._connection = connection
        while connection.is_open:
            try:
                await self._topology.ensure(connection)
                channel = await connection.channel()
                channel.add_on_return_callback(self._returned)
                await channel.confirm_delivery()
                self._channel = channel
                log.info("rabbitmq_publishing")
                detail = channel_trouble(await channel.on_closed)
            except (*AMQP_TROUBLE, TopologyMissing) as error:
                detail = channel_trouble(error)
            self._channel = None
            if connection.is_open:
                log.error("rabbitmq_not_publishing", detail=detail)
                await deferLater(self._clock, AGAIN_SECONDS)

    def _returned(self, message: Any) -> None:
        """Remember which publish came back.

        pika does not: it fails the oldest publish of the next confirm, and with a confirm of several it calls
        a returned dead letter published.
        """
        for publish in self._unconfirmed:
            if (
                not publish.returned
                and publish.routing_key == message.method.routing_key
                and publish.body == message.body
            ):
                publish.returned = True
                return

    def _settled(self, result: object, publish: _Mandatory, mandatory: bool) -> None:
        if mandatory:
            self._unconfirmed.remove(publish)
        if publish.returned:
            self._mend()
            raise Unpublished(f"no queue takes {publish.routing_key}")
        if isinstance(result, Failure) and not result.check(UnroutableError):
            raise Unpublished(channel_trouble(result.value)) from result.value

    def _mend(self) -> None:
        """Somebody deleted the queue, or its binding: see to it before the next try."""
        connection = self._connection
        if connection is not None and connection.is_open and not self._mending:
            self._mending = True
            self._tasks.own(self._declare_again(connection))

    async def _declare_again(self, connection: Connection) -> None:
        try:
            await self._topology.mend(connection)
        except (*AMQP_TROUBLE, TopologyMissing) as error:
            log.error("rabbitmq_not_declared", detail=channel_trouble(error))
        finally:
            self._mending = False
