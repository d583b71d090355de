"""A connection for one errand, closed at its end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from whatsapp_egress.clients.broker.address import BrokerAddress
from whatsapp_egress.clients.broker.errors import BrokerUnreachable
from whatsapp_egress.clients.broker.link import Connection
from whatsapp_egress.clients.broker.once import connect_once
from whatsapp_egress.clients.broker.tables import mend_pika
from whatsapp_egress.errors import QueueTrouble


@asynccontextmanager
async def visiting(reactor: Any, address: BrokerAddress, name: str) -> AsyncIterator[Connection]:
    """Raises `BrokerUnreachable` when there is no connection to be had."""
    mend_pika()
    try:
        connection = await connect_once(reactor, address, name)
    except QueueTrouble as error:
        raise BrokerUnreachable(str(error)) from error
    try:
        yield connection
    finally:
        await connection.close(reactor)
