"""Checks RabbitMQ: the connection, what must be there, and our rights to it. Changes nothing."""

from __future__ import annotations

from typing import Any

from whatsapp_egress import parts
from whatsapp_egress.cli.findings import Finding, failed, ok, warning
from whatsapp_egress.cli.tables import counted
from whatsapp_egress.cli.trouble import plain
from whatsapp_egress.clients.broker import Topology
from whatsapp_egress.clients.broker.errors import (
    AMQP_TROUBLE,
    BrokerUnreachable,
    TopologyMissing,
    channel_trouble,
)
from whatsapp_egress.clients.broker.inspection import (
    exchange_is_there,
    may_consume,
    may_publish,
    queue_state,
)
from whatsapp_egress.clients.broker.link import Connection
from whatsapp_egress.clients.broker.topology import LANES_QUEUE
from whatsapp_egress.clients.broker.visit import visiting
from whatsapp_egress.settings import Settings

_PART = "RabbitMQ"
_DECLARED = "The gateway declares it when it starts; its user needs the configure right for that."


async def broker_findings(reactor: Any, settings: Settings) -> list[Finding]:
    """Connect as the gateway does, and look."""
    where = f"{settings.rabbitmq_host}:{settings.rabbitmq_port}"
    try:
        async with visiting(reactor, parts.address(settings), "whatsapp-egress check") as connection:
            kind = "TLS, verified" if settings.rabbitmq_tls else "no TLS"
            who = f"user {settings.rabbitmq_user}, vhost {settings.rabbitmq_vhost}"
            findings = [ok(_PART, f"connected to {where} ({kind}; {who})")]
            try:
                findings += await _look_around(connection, settings)
            except AMQP_TROUBLE as error:
                findings.append(
                    failed(_PART, f"the connection was lost: {channel_trouble(error)}", "Try once more.")
                )
            return findings
    except BrokerUnreachable as error:
        return [failed(_PART, _with_place(plain(error), where), _what_to_do(str(error), settings))]


async def _look_around(connection: Connection, settings: Settings) -> list[Finding]:
    topology = Topology(settings.rabbitmq_exchange, settings.rabbitmq_queue, settings.rabbitmq_queue_type)
    findings = [await _exchange(connection, name) for name in topology.exchanges]
    return findings + [await _queue(connection, name) for name in topology.queues]


async def _exchange(connection: Connection, name: str) -> Finding:
    part = f"exchange {name}"
    try:
        if not await exchange_is_there(connection, name):
            return warning(part, "is not there yet", _DECLARED)
    except TopologyMissing as error:
        return failed(part, plain(error), "")
    if not await may_publish(connection, name):
        return failed(part, "is there, but may not be published to", "Give the user the write right to it.")
    return ok(part, "is there and may be published to")


async def _queue(connection: Connection, name: str) -> Finding:
    part = f"queue {name}"
    try:
        state = await queue_state(connection, name)
    except TopologyMissing as error:
        return failed(part, plain(error), "")
    if state is None:
        return warning(part, "is not there yet", _DECLARED)
    if not await may_consume(connection, name):
        grade = warning if name == LANES_QUEUE else failed
        return grade(part, "is there, but may not be consumed from", "Give the user the read right to it.")
    waiting = "leases" if name == LANES_QUEUE else "messages"
    told = f"{state.messages} {waiting}, {counted(state.consumers, 'consumer')}"
    return ok(part, f"is there and may be consumed from: {told}")


def _with_place(trouble: str, where: str) -> str:
    return trouble if where in trouble else f"{where}: {trouble}"


def _what_to_do(trouble: str, settings: Settings) -> str:
    if "check RABBITMQ_" in trouble:
        return ""  # it says so itself
    if "certificate" in trouble:
        return "RABBITMQ_CA_FILE must hold the authority of the broker's certificate, and that its host name."
    if "no answer in time" in trouble or "handshake" in trouble:
        tls = str(settings.rabbitmq_tls).lower()
        return f"Is it the right port for RABBITMQ_TLS={tls}? RabbitMQ has one with TLS and one without."
    return "Check RABBITMQ_HOST and RABBITMQ_PORT, and whether RabbitMQ runs and may be reached from here."
