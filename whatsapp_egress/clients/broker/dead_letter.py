"""What a dead letter's properties are made of: those it came with, and ours."""

from __future__ import annotations

from typing import Any

from pika import BasicProperties, data, spec

PERSISTENT = 2
"""AMQP delivery mode: on disk before it is confirmed."""

_OURS = "x-egress-"
_DROPPED = "x-egress-headers-dropped"
_COPIED = (
    "content_type",
    "content_encoding",
    "priority",
    "correlation_id",
    "reply_to",
    "message_id",
    "timestamp",
    "type",
    "app_id",
    "cluster_id",
)
_AROUND: int = spec.FRAME_HEADER_SIZE + spec.FRAME_END_SIZE + 12
"""Bytes of a header frame besides the properties: its own, and class, weight and size of the body."""


def dead_letter_properties(
    original: BasicProperties, headers: dict[str, str | int], frame_max: int
) -> BasicProperties:
    """The properties of a dead letter: the original's with `headers`, but for what would lose the message.

    `expiration` would let it expire in the dead-letter queue too (RabbitMQ drops it when it dead-letters, for
    the same reason), and a foreign `user_id` is refused by the broker. Both become headers. What an earlier
    dead-lettering wrote makes room for the new. AMQP has properties in one frame of at most `frame_max`
    bytes: of headers that no longer fit beside ours the largest are dropped, and counted in a header.
    """
    said = {f"{_OURS}expiration": original.expiration, f"{_OURS}user-id": original.user_id}
    ours: dict[Any, Any] = {name: value for name, value in said.items() if value is not None} | headers
    theirs = {
        name: value
        for name, value in (original.headers or {}).items()
        if not (isinstance(name, str) and name.startswith(_OURS))
    }
    properties = _with(original, theirs | ours)
    surplus = _size(properties) - frame_max
    if surplus <= 0:
        return properties
    surplus += _header_size(_DROPPED, len(theirs))
    kept = dict(theirs)
    for name in sorted(theirs, key=lambda name: _header_size(name, theirs[name]), reverse=True):
        if surplus <= 0:
            break
        surplus -= _header_size(name, kept.pop(name))
    return _with(original, kept | ours | {_DROPPED: len(theirs) - len(kept)})


def _with(original: BasicProperties, headers: dict[Any, Any]) -> BasicProperties:
    copied = {name: getattr(original, name) for name in _COPIED}
    return BasicProperties(delivery_mode=PERSISTENT, headers=headers, **copied)


def _size(properties: BasicProperties) -> int:
    return _AROUND + sum(len(piece) for piece in properties.encode())


def _header_size(name: Any, value: Any) -> int:
    pieces: list[bytes] = []
    return int(data.encode_short_string(pieces, name) + data.encode_value(pieces, value))
