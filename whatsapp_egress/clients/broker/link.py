"""One AMQP connection, kept up: connects, shakes hands, watches for silence, and connects again."""

from __future__ import annotations

import typing
from collections.abc import Callable, Coroutine
from typing import Any

import pika
from attrs import define
from pika.adapters.twisted_connection import TwistedChannel, TwistedProtocolConnection
from twisted.application.internet import ClientService
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from whatsapp_egress.clients.broker.address import BrokerAddress
from whatsapp_egress.clients.broker.errors import BrokerUnreachable, connection_trouble
from whatsapp_egress.errors import NotConnected
from whatsapp_egress.policy import backoff
from whatsapp_egress.tasks import Tasks

log = Logger()

HANDSHAKE_SECONDS = 20.0
"""How long TCP and TLS may take, and then AMQP's own opening; RabbitMQ's own limit for each is 10 s."""

CLOSE_SECONDS = 3.0
"""How long a close waits for the broker's answer; a broker with an alarm does not read it."""

SILENCE_HEARTBEATS = 2.0
"""Heartbeat intervals without a byte after which a connection is dead. RabbitMQ sends one every half."""


class _Amqp(TwistedProtocolConnection):  # type: ignore[misc]  # pika has no types
    """pika's connection, with an eye on it.

    A link that is half open is never noticed by pika over TLS: its missed heartbeat calls `loseConnection`,
    which waits for the peer for ever. So silence is measured here, and ends in `abortConnection`.
    """

    def __init__(self, parameters: pika.ConnectionParameters, clock: IReactorTime, heartbeat: int) -> None:
        super().__init__(parameters, custom_reactor=clock)
        self._clock = clock
        self._silence = heartbeat * SILENCE_HEARTBEATS
        self._heard = clock.seconds()
        self._watch = LoopingCall(self._look)
        self._watch.clock = clock
        self.refusal: BaseException | None = None
        self.on_lost: Callable[[Failure], None] | None = None

    def makeConnection(self, transport: Any) -> None:
        self._heard = self._clock.seconds()
        self._watch.start(self._silence / 8, now=False).addErrback(
            lambda failure: log.failure("watch_failed", failure)
        )
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        self._heard = self._clock.seconds()
        super().dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._watch.running:
            self._watch.stop()
        # What the broker said when it closed the connection; pika is about to put "closed cleanly" over it.
        self.refusal = self.refusal or self._impl._error
        super().connectionLost(reason)
        if self.on_lost is not None:
            self.on_lost(reason)

    def abort(self) -> None:
        """Drop the connection now."""
        if self.transport is not None:
            self.transport.abortConnection()

    def _look(self) -> None:
        silent = self._clock.seconds() - self._heard
        if silent > self._silence:
            log.warn("rabbitmq_silent", seconds=round(silent, 1))
            self.abort()

    def _on_connection_failed(self, _connection: Any, _error_message: Any = None) -> None:
        # pika keeps the reason to itself and says "AMQPConnectionError: (1,)".
        self.refusal = self.refusal or _error_message
        super()._on_connection_failed(_connection, _error_message)

    def _on_connection_closed(self, _connection: Any, exception: Any) -> None:
        self.refusal = self.refusal or exception
        super()._on_connection_closed(_connection, exception)


class _Owner(typing.Protocol):
    """Who wants to know that a connection was made, and lost, and why."""

    def up(self, connection: Connection) -> None: ...
    def down(self, trouble: str) -> None: ...


class Connection(Protocol):
    """An AMQP connection that is open. It is what `ClientService` gets to see, so that a connection that
    fails in AMQP's handshake counts as failed."""

    def __init__(self, amqp: _Amqp, link: _Owner) -> None:
        self._amqp, self._link = amqp, link

    def connectionMade(self) -> None:
        """Twisted's word that it is there."""
        self._link.up(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted's word that it is gone."""
        refusal = self._amqp.refusal
        self._link.down(connection_trouble(refusal if refusal is not None else reason.value))

    def channel(self) -> Deferred[TwistedChannel]:
        """A new channel."""
        opened: Deferred[TwistedChannel] = self._amqp.channel()
        return opened

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return bool(self._amqp.is_open)

    @property
    def frame_max(self) -> int:
        """Bytes that one frame may have, as agreed with the broker."""
        agreed: int = self._amqp._impl.params.frame_max
        return agreed

    @property
    def server_version(self) -> str:
        """The version that RabbitMQ says it is."""
        return str((self._amqp._impl.server_properties or {}).get("version", ""))

    def abort(self) -> None:
        """Drop it now."""
        self._amqp.abort()

    async def close(self, clock: IReactorTime) -> None:
        """Say goodbye, and leave after `CLOSE_SECONDS` in any case."""
        late = clock.callLater(CLOSE_SECONDS, self._amqp.abort)
        try:
            if self._amqp.is_open:
                await self._amqp.close()
        finally:
            if late.active():
                late.cancel()
            self._amqp.abort()


@implementer(IStreamClientEndpoint)
@define
class AmqpEndpoint:
    """Connects, and hands out a connection only when AMQP's handshake is through."""

    _reactor: IReactorTime
    _address: BrokerAddress
    _name: str

    def __str__(self) -> str:
        """What ClientService writes into the log when it is going to try again."""
        return f"{self._name} to {self._address.host}:{self._address.port}"

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Twisted's wish to be connected."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: Any) -> IProtocol:
        try:
            amqp = await self._shake_hands()
        except CancelledError:
            raise
        except Exception as error:
            log.error("rabbitmq_unreachable", connection=self._name, detail=str(error))
            raise
        connection: IProtocol = factory.buildProtocol(amqp)
        amqp.on_lost = connection.connectionLost
        connection.makeConnection(amqp.transport)
        return connection

    async def _shake_hands(self) -> _Amqp:
        parameters = self._address.parameters(self._name)
        plug = Factory.forProtocol(lambda: _Amqp(parameters, self._reactor, self._address.heartbeat))
        try:
            connecting = self._address.endpoint(self._reactor).connect(plug)
            amqp: Any = await connecting.addTimeout(HANDSHAKE_SECONDS, self._reactor)
        except (NotConnected, TimeoutError) as error:
            where = f"{self._address.host}:{self._address.port}"
            detail = str(error) if isinstance(error, NotConnected) else connection_trouble(error)
            raise BrokerUnreachable(f"{where}: {detail}") from error
        try:
            await amqp.ready.addTimeout(HANDSHAKE_SECONDS, self._reactor)
        except Exception as error:
            amqp.abort()
            raise BrokerUnreachable(connection_trouble(amqp.refusal or error)) from error
        connected: _Amqp = amqp
        return connected


Serve = Callable[["Connection"], Coroutine[Deferred[Any], Any, None]]


async def _leave_alone(_connection: Connection) -> None:
    """What is done with a connection before anybody said what to do."""


class Link:
    """Keeps one connection up through `ClientService`. `serve` works with each one, `on_down` learns of its
    loss.

    `first_delay` is RABBITMQ_RECONNECT_DELAY in seconds, `jitter` gives 0..1.
    """

    def __init__(
        self,
        reactor: Any,
        address: BrokerAddress,
        name: str,
        first_delay: float,
        jitter: Callable[[], float],
    ) -> None:
        self._clock: IReactorTime = reactor
        self._name = name
        self._reconnecting = backoff.Reconnecting(first_delay, reactor, jitter)
        self._connection: Connection | None = None
        self.made = 0
        """Connections made so far."""
        self._tasks = Tasks()
        self.serve: Serve = _leave_alone
        self.on_down: Callable[[], None] = lambda: None
        self._service = ClientService(
            AmqpEndpoint(reactor, address, name),
            Connections(self),
            # ClientService counts a lost connection as a failed try; we don't.
            retryPolicy=lambda _attempts: self._reconnecting.wait(),
            clock=reactor,
        )

    @property
    def connection(self) -> Connection | None:
        """The connection that is open now."""
        return self._connection

    def start(self) -> None:
        """Connect, and connect again for ever."""
        self._service.startService()

    async def stop(self) -> None:
        """Close the connection, and connect no more."""
        # The connection first, which ends all that waits for an answer of the broker's. Cancelled while it is
        # open, such a call would be fired once more by pika when its channel closes.
        if self._connection is not None:
            await self._connection.close(self._clock)
        await self._service.stopService()
        self._tasks.cancel()

    def up(self, connection: Connection) -> None:
        """A connection was made."""
        self._reconnecting.made()
        self.made += 1
        self._connection = connection
        log.info("rabbitmq_connected", connection=self._name)
        self._tasks.own(self._serve(connection))

    def down(self, trouble: str) -> None:
        """It was lost."""
        self._reconnecting.lost()
        self._connection = None
        log.warn("rabbitmq_disconnected", connection=self._name, detail=trouble)
        self.on_down()

    async def _serve(self, connection: Connection) -> None:
        try:
            await self.serve(connection)
        except CancelledError:
            raise
        except Exception:  # noqa: BLE001 - a fault of ours, whatever it is: a new connection begins anew
            log.failure("rabbitmq_connection_given_up", connection=self._name)
            connection.abort()


class Connections(Factory):
    """Dresses up what `AmqpEndpoint` connected; the "address" it is asked for is the connection itself."""

    noisy = False

    def __init__(self, link: _Owner) -> None:
        self._link = link

    def buildProtocol(self, addr: Any) -> Connection:
        """Twisted's wish for a protocol."""
        return Connection(addr, self._link)
