"""What the properties of dead letters, deferred messages and replays are made of: the original's and ours."""

from __future__ import annotations

from typing import Any

from pika import BasicProperties, data, spec

PERSISTENT = 2
"""AMQP delivery mode: on disk before it is confirmed."""

_OURS = "x-egress-"
_USER_ID = "x-egress-user-id"
_DROPPED = "x-egress-headers-dropped"
_ROUTING = {"CC": "x-egress-cc", "BCC": "x-egress-bcc"}
"""Headers that RabbitMQ routes further copies by (https://www.rabbitmq.com/docs/sender-selected)."""
_REPLAYS = "x-egress-replays"
_LASTING = frozenset((_USER_ID, *_ROUTING.values(), _REPLAYS))
"""Headers of ours that outlive a dead-lettering: what the original said, and how often it was replayed."""
_DEATHS = ("x-first-death-", "x-last-death-")
_OF_THE_BROKER = frozenset(("x-death", "x-delivery-count", "x-acquired-count"))
"""Headers that RabbitMQ adds to what it dead-letters or delivers again, and how others of that kind begin."""
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


def json_properties(headers: dict[str, str] | None = None) -> BasicProperties:
    """The properties of what the service itself has to say: an event, a lease."""
    return BasicProperties(
        content_type="application/json", delivery_mode=PERSISTENT, app_id="whatsapp-egress", headers=headers
    )


def dead_letter_properties(
    original: BasicProperties, headers: dict[str, str | int], frame_max: int
) -> BasicProperties:
    """The properties of a dead letter: the original's with `headers`, but for what would lose the message.

    `expiration` would let it expire in the dead-letter queue too (RabbitMQ drops it when it dead-letters, for
    the same reason), and a foreign `user_id` is refused by the broker. Both become headers. What an earlier
    dead-lettering wrote makes room for the new; what the message said before it was deferred stays.
    """
    said = {f"{_OURS}expiration": original.expiration, _USER_ID: original.user_id}
    ours: dict[Any, Any] = {name: value for name, value in said.items() if value is not None} | headers
    theirs = {
        name: value
        for name, value in (original.headers or {}).items()
        if name in _LASTING or not (isinstance(name, str) and name.startswith(_OURS))
    }
    return _fitting(original, None, theirs, ours, frame_max)


def deferred_properties(
    original: BasicProperties, headers: dict[str, Any], frame_max: int
) -> BasicProperties:
    """The properties of a deferred message: the original's with `headers`, but for what the broker acts on.

    It refuses a foreign `user_id`, and would put further copies where a CC or BCC header says, which it did
    when the message was published. They become headers of other names. `expiration` stays: it is RabbitMQ's.
    """
    said = {} if original.user_id is None else {_USER_ID: original.user_id}
    theirs = {_ROUTING.get(name, name): value for name, value in (original.headers or {}).items()}
    return _fitting(original, original.expiration, theirs, said | headers, frame_max)


def replay_properties(original: BasicProperties, replays: int, frame_max: int) -> BasicProperties:
    """The properties of a dead letter's copy that is to be sent: the original's, without what was written
    when it failed.

    `expiration` is not restored: it counts from publishing, and what died of it would die of it again. CC and
    BCC have had their copies when the message was first published.
    """
    theirs = {
        name: value
        for name, value in (original.headers or {}).items()
        if name not in _OF_THE_BROKER
        and name not in _ROUTING
        and not (isinstance(name, str) and name.startswith((_OURS, *_DEATHS)))
    }
    return _fitting(original, None, theirs, {_REPLAYS: replays}, frame_max)


def _fitting(
    original: BasicProperties,
    expiration: str | None,
    theirs: dict[Any, Any],
    ours: dict[Any, Any],
    frame_max: int,
) -> BasicProperties:
    """The original's properties with `theirs | ours` as headers.

    AMQP has properties in one frame of at most `frame_max` bytes: of `theirs` that no longer fit beside
    `ours` the largest are dropped, and counted in a header.
    """
    theirs = {name: value for name, value in theirs.items() if name not in ours}
    properties = _with(original, expiration, theirs | ours)
    if not theirs:
        return properties  # there is nothing to drop, and the size costs an encoding
    surplus = _size(properties) - frame_max
    if surplus <= 0:
        return properties
    surplus += _header_size(_DROPPED, len(theirs))
    kept = dict(theirs)
    for name in sorted(theirs, key=lambda name: _header_size(name, theirs[name]), reverse=True):
        if surplus <= 0:
            break
        surplus -= _header_size(name, kept.pop(name))
    return _with(original, expiration, kept | ours | {_DROPPED: len(theirs) - len(kept)})


def _with(original: BasicProperties, expiration: str | None, headers: dict[Any, Any]) -> BasicProperties:
    copied = {name: getattr(original, name) for name in _COPIED}
    return BasicProperties(delivery_mode=PERSISTENT, expiration=expiration, headers=headers, **copied)


def _size(properties: BasicProperties) -> int:
    return _AROUND + sum(len(piece) for piece in properties.encode())


def _header_size(name: Any, value: Any) -> int:
    pieces: list[bytes] = []
    return int(data.encode_short_string(pieces, name) + data.encode_value(pieces, value))
