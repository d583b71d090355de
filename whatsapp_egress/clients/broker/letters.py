"""Reads a dead letter: what its headers say of its end, and its body of itself."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Any

from attrs import frozen
from pika import BasicProperties

from whatsapp_egress import message
from whatsapp_egress.message import InvalidMessage, Message
from whatsapp_egress.policy.replay import DeadLetter

_FAILED_AT = "x-egress-failed-at"
_UNKNOWN = "unknown"


@frozen
class Letter:
    """A dead letter as it is in the queue.

    `deliveries` is how often a quorum queue has delivered it before, as far as it says so. `retry_count` is 0
    also where the body is no message.
    """

    facts: DeadLetter
    body: bytes
    properties: BasicProperties
    retry_count: int = 0
    deliveries: int = 0


def read_letter(body: bytes, properties: BasicProperties) -> Letter:
    """Whatever is in the dead-letter queue, be it by our doing, RabbitMQ's or somebody else's."""
    headers: Mapping[Any, Any] = properties.headers or {}
    death = _last_death(headers)
    read = _read_body(body)
    identity = read.identity
    facts = DeadLetter(
        id=_digest(body, headers, death),
        reason=_text(headers, "x-egress-reason") or _reason_of(death),
        tenant_id=identity.tenant_id,
        phone_number_id=identity.phone_number_id,
        internal_id=identity.internal_id,
        detail=_text(headers, "x-egress-detail") or "",
        error_code=_number(headers, "x-egress-error-code"),
        error_subcode=_number(headers, "x-egress-error-subcode"),
        http_status=_number(headers, "x-egress-http-status"),
        fbtrace_id=_text(headers, "x-egress-fbtrace-id"),
        attempts=_number(headers, "x-egress-attempts") or 0,
        failed_at=_failed_at(headers, death),
        replays=max(0, _number(headers, "x-egress-replays") or 0),
        expires_at=None if isinstance(read, InvalidMessage) else read.expires_at,
        no_message=isinstance(read, InvalidMessage),
    )
    retry_count = 0 if isinstance(read, InvalidMessage) else read.retry_count
    return Letter(facts, body, properties, retry_count, _number(headers, "x-delivery-count") or 0)


def _digest(body: bytes, headers: Mapping[Any, Any], death: Mapping[Any, Any]) -> str:
    """Of the body and the moment it failed: what RabbitMQ changes in the headers while the letter is in the
    queue (`x-delivery-count`) is not in it."""
    moment = f"{headers.get(_FAILED_AT)}|{death.get('time')}|{death.get('count')}"
    return blake2b(moment.encode(errors="replace") + b"\0" + body, digest_size=16).hexdigest()


def _read_body(body: bytes) -> Message | InvalidMessage:
    try:
        return message.decode(body, sys.maxsize)
    except InvalidMessage as error:
        return error


def _last_death(headers: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """What RabbitMQ wrote when it dead-lettered the message itself."""
    deaths = headers.get("x-death")
    first = deaths[0] if isinstance(deaths, list) and deaths else None
    return first if isinstance(first, Mapping) else {}


def _reason_of(death: Mapping[Any, Any]) -> str:
    reason = death.get("reason")
    return f"broker_{reason}" if isinstance(reason, str) else _UNKNOWN


def _failed_at(headers: Mapping[Any, Any], death: Mapping[Any, Any]) -> float | None:
    said = headers.get(_FAILED_AT)
    if isinstance(said, str):
        try:
            return message.seconds_of(said)
        except (ValueError, OverflowError):
            return None
    died = death.get("time")
    if isinstance(died, datetime):  # where pika was not mended
        return died.timestamp()
    return float(died) if isinstance(died, int) else None


def _text(headers: Mapping[Any, Any], name: str) -> str | None:
    value = headers.get(name)
    return value if isinstance(value, str) and value else None


def _number(headers: Mapping[Any, Any], name: str) -> int | None:
    value = headers.get(name)
    # pika's 64-bit integers are of a class of their own, of which JSON can't be made.
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else None
