"""What is written beside deferred messages: where they wait, who owns their queues, what was tried before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from attrs import frozen

from whatsapp_egress.message import TENANT_ID
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.policy.trace import TraceContext, read_parent
from whatsapp_egress.policy.verdict import History

ATTEMPTS_HEADER = "x-egress-attempts"
"""Header of a deferred message: attempts made so far, those of `retryCount` included."""

GRANTED_HEADER = "x-egress-granted"
"""Header of a deferred message: which of the attempts that are granted but once were granted, `reauthorized`
and `repeated`, with a comma between them."""

SPAN_HEADER = "x-egress-span"
"""Header of a deferred message: where spans are made, the `traceparent` of the one that ended when it was
deferred. The message's own stays beside it."""

_MOST_ATTEMPTS = 2**31 - 1


@frozen
class Place:
    """One of a tenant's two deferred queues.

    What exceeds the lane goes to the back. `first` is for what the lane had in hand before it began to defer,
    and has to put aside after all: it is taken before the rest, or conversations would lose their order.
    """

    tenant_id: str
    first: bool = False


@frozen
class Lease:
    """Says that a tenant has deferred queues, or is paused: whoever holds it unacked looks after them.

    `writer` names the process that wrote it.
    """

    tenant_id: str
    pause: Pause | None = None
    writer: str = ""


class InvalidLease(Exception):
    """What came is no lease; the text says why in one line."""


class _Pause(msgspec.Struct):
    reason: str
    actor: str
    since: float
    until: float | None = None


class _Lease(msgspec.Struct):
    tenantId: Annotated[str, msgspec.Meta(pattern=TENANT_ID)]
    pause: _Pause | None = None
    writer: str = ""


_lease = msgspec.json.Decoder(_Lease)
_encoder = msgspec.json.Encoder()


def write_lease(lease: Lease) -> bytes:
    """A lease as it is published, times in seconds since the epoch:
    `{"tenantId", "pause": null | {"reason", "actor", "since", "until"}, "writer"}`."""
    pause = lease.pause
    written = None if pause is None else _Pause(pause.reason, pause.actor, pause.since, pause.until)
    return _encoder.encode(_Lease(lease.tenant_id, written, lease.writer))


def read_lease(body: bytes) -> Lease:
    """A lease as it came. Raises `InvalidLease`."""
    try:
        lease = _lease.decode(body)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise InvalidLease(str(error)) from error
    pause = lease.pause
    read = None if pause is None else Pause(pause.reason, pause.actor, pause.since, pause.until)
    return Lease(lease.tenantId, read, lease.writer)


def headers(history: History, span: TraceContext | None = None) -> dict[str, Any]:
    """What is written beside a message that is deferred: what was tried so far, and the span that ends."""
    granted = [name for name in ("reauthorized", "repeated") if getattr(history, name)]
    written = {ATTEMPTS_HEADER: history.attempts, GRANTED_HEADER: ",".join(granted)}
    return written if span is None else written | {SPAN_HEADER: span.traceparent}


def span(headers: Mapping[str, Any]) -> TraceContext | None:
    """The span that ended when the message was deferred; None where nothing beside it says so."""
    return read_parent(headers.get(SPAN_HEADER))


def history(headers: Mapping[str, Any]) -> History | None:
    """What was tried of a message that comes from a deferred queue; None where nothing beside it says so."""
    attempts, granted = headers.get(ATTEMPTS_HEADER), headers.get(GRANTED_HEADER)
    if not isinstance(attempts, int) or isinstance(attempts, bool) or not 0 <= attempts <= _MOST_ATTEMPTS:
        return None
    names = granted.split(",") if isinstance(granted, str) else ()
    return History(attempts, "reauthorized" in names, "repeated" in names)
