"""AMQP's errors in words that say what to do."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from pika.exceptions import (
    AMQPConnectionError,
    AMQPError,
    AuthenticationError,
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectionClosed

from whatsapp_egress.errors import QueueTrouble

T = TypeVar("T")

AMQP_TROUBLE = (AMQPError, ConnectionClosed)
"""What pika's Deferreds fail with: its own errors, and the transport's when that was lost."""

ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED, NOT_ALLOWED = 403, 404, 406, 530


class BrokerUnreachable(Exception):
    """No AMQP connection could be had; the text says why and what to look at."""


class TopologyMissing(Exception):
    """Something that must be there is not, and we may not make it."""


def connection_trouble(error: BaseException | None) -> str:
    """Why a connection could not be opened, or ended."""
    if isinstance(error, (ProbableAuthenticationError, AuthenticationError)):
        return "user or password refused: check RABBITMQ_USER and RABBITMQ_PASSWORD"
    if isinstance(error, ProbableAccessDeniedError):
        return "no access to the virtual host: check RABBITMQ_VHOST and the user's permissions on it"
    if isinstance(error, TimeoutError):
        return "no answer in time: is it RabbitMQ, and RABBITMQ_TLS as it should be?"
    if isinstance(error, ConnectionClosedByBroker):
        if error.reply_code == ACCESS_REFUSED:
            return f"refused, check RABBITMQ_USER, RABBITMQ_PASSWORD and RABBITMQ_VHOST: {error.reply_text}"
        if error.reply_code == NOT_ALLOWED:
            return f"not allowed, check RABBITMQ_VHOST: {error.reply_text}"
        return f"closed by the broker: {error.reply_code} {error.reply_text}"
    if isinstance(error, AMQPConnectionError) and error.args:
        return f"{type(error).__name__}: {error.args[0]}"
    return f"{type(error).__name__}: {error}" if error is not None else "connection lost"


def channel_trouble(error: BaseException | None) -> str:
    """Why a channel was closed, or a method refused."""
    if isinstance(error, ChannelClosedByBroker):
        return f"{error.reply_code} {error.reply_text}"
    return f"{type(error).__name__}: {error}".rstrip(": ")


async def in_our_words(asking: Coroutine[Deferred[Any], Any, T]) -> T:
    """What `asking` comes to; AMQP's errors become `QueueTrouble`."""
    try:
        return await asking
    except TopologyMissing as error:
        raise QueueTrouble(str(error)) from error
    except AMQP_TROUBLE as error:
        raise QueueTrouble(channel_trouble(error)) from error
