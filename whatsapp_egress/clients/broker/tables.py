"""Header values that pika can't read, or would change on the way to the dead letter.

pika up to 1.4 reads a float as an integer, and a timestamp that Python's calendar doesn't reach (milliseconds
instead of seconds are enough) ends the connection; the message is delivered again, and ends the next one
(https://github.com/pika/pika/issues/1698, https://github.com/pika/pika/pull/1705). Mended in pika 1.5; this
module goes when that is the oldest we take.
"""

from __future__ import annotations

import struct
from typing import Any

from pika import data

_DOUBLE = struct.Struct(">d")
_FLOAT = struct.Struct(">f")
_UNSIGNED = struct.Struct(">Q")

_read_value = data.decode_value
_write_value = data.encode_value


class Timestamp(int):
    """A timestamp in a table of headers, in whatever unit its sender took for seconds."""


def read_value(encoded: bytes, offset: int) -> tuple[Any, int]:
    """Stand in for pika's `decode_value`; returns the value and where the next one begins."""
    kind, start = encoded[offset : offset + 1], offset + 1
    if kind == b"T":
        return Timestamp(_UNSIGNED.unpack_from(encoded, start)[0]), start + _UNSIGNED.size
    if kind == b"d":
        return _DOUBLE.unpack_from(encoded, start)[0], start + _DOUBLE.size
    if kind == b"f":
        return _FLOAT.unpack_from(encoded, start)[0], start + _FLOAT.size
    return _read_value(encoded, offset)  # type: ignore[no-any-return]


def write_value(pieces: list[bytes], value: Any) -> int:
    """Stand in for pika's `encode_value`; returns how many bytes were added to `pieces`."""
    if isinstance(value, Timestamp):
        pieces.append(b"T" + _UNSIGNED.pack(value))
        return 1 + _UNSIGNED.size
    if isinstance(value, float):
        pieces.append(b"d" + _DOUBLE.pack(value))
        return 1 + _DOUBLE.size
    return _write_value(pieces, value)  # type: ignore[no-any-return]


def mend_pika() -> None:
    """Have pika read and write tables, and the tables and lists within them, with the two above."""
    data.decode_value = read_value
    data.encode_value = write_value
