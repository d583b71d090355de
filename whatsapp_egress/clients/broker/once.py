"""A connection for one errand: made once, and not again when it is lost."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

from whatsapp_egress.clients.broker.address import BrokerAddress
from whatsapp_egress.clients.broker.errors import BrokerUnreachable
from whatsapp_egress.clients.broker.link import AmqpEndpoint, Connection, Connections
from whatsapp_egress.errors import QueueTrouble

log = Logger()


class _Errand:
    """Is told of a connection that is used once."""

    def __init__(self, name: str) -> None:
        self._name = name

    def up(self, connection: Connection) -> None:
        """It was made; who asked for it has it."""

    def down(self, trouble: str) -> None:
        log.debug("rabbitmq_disconnected", connection=self._name, detail=trouble)


async def connect_once(reactor: Any, address: BrokerAddress, name: str) -> Connection:
    """Connect; who asked closes it. Raises `QueueTrouble`."""
    try:
        endpoint = AmqpEndpoint(reactor, address, name)
        connection: Any = await endpoint.connect(Connections(_Errand(name)))
    except BrokerUnreachable as error:
        raise QueueTrouble(str(error)) from error
    return connection  # type: ignore[no-any-return]
