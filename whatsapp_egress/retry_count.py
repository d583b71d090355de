"""Sets `metadata.retryCount` of a message back to 0, and touches no other byte."""

from __future__ import annotations

import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from typing import Any

_SPACE = re.compile(r"[ \t\n\r]*")


def _nothing(_text: str) -> None:
    """A number is only to be passed by; Python refuses to read one of 5,000 digits."""


_reader = JSONDecoder(parse_int=_nothing, parse_float=_nothing, strict=False)


def reset(body: bytes) -> bytes:
    """`body`, a message that was decoded before, with a retryCount of 0 where it has another.

    What can't be read here (it is nested deeper than Python likes) stays as it is: a message gets at least
    one attempt, whatever its retryCount.
    """
    try:
        text = body.decode()
        spans = list(_retry_counts(text))
    except (UnicodeDecodeError, JSONDecodeError, IndexError, RecursionError):
        return body
    for start, end in reversed(spans):
        text = f"{text[:start]}0{text[end:]}"
    return text.encode() if spans else body


def _retry_counts(text: str) -> Iterator[tuple[int, int]]:
    """Where the values stand: of a name that is there twice each one, for readers differ on which counts."""
    for name, start, _ in _members(text, _skip(text, 0)):
        if name != "metadata" or text[start] != "{":
            continue
        for inner, begin, end in _members(text, start):
            if inner == "retryCount" and text[begin:end] not in ("0", "null"):
                yield begin, end


def _members(text: str, start: int) -> Iterator[tuple[Any, int, int]]:
    """The members of the object that begins at `start`: the name, and where its value begins and ends."""
    at = _skip(text, start + 1)
    while text[at] != "}":
        name, at = _reader.raw_decode(text, at)
        begin = _skip(text, _skip(text, at) + 1)  # past the colon
        _, end = _reader.raw_decode(text, begin)
        yield name, begin, end
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()
