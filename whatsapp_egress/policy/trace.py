"""The trace a message belongs to: W3C Trace Context, read from its headers and written to others.

https://www.w3.org/TR/trace-context-1/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import evolve, frozen

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
"""Headers, in the lower case that instrumentations of AMQP write."""

LONGEST_STATE = 512
"""Characters of a `tracestate` that are passed on; a longer one is dropped, as the recommendation allows."""

# A version to come may append fields behind another dash; this one ends here. Upper case is invalid.
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_LONGEST_PARENT = 512
_INVALID_VERSION = "ff"
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
_SAMPLED = 0x01
_MOST_MEMBERS = 32
_KEY = r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
# Printable, but for the comma and the equals sign, and no space at the end.
_MEMBER = re.compile(rf"({_KEY})=[ -+\--<>-~]{{0,255}}[!-+\--<>-~]")


@frozen
class TraceContext:
    """A place in a trace: what happens next is a child of the span `span_id`."""

    trace_id: str
    span_id: str
    sampled: bool = False
    tracestate: str = ""

    @property
    def traceparent(self) -> str:
        """The header that says so."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def trace_of(headers: Mapping[str, Any]) -> TraceContext | None:
    """The trace that `headers` name; None where they name none, or nothing that can be understood."""
    context = read_parent(headers.get(TRACEPARENT))
    if context is None:
        return None
    state = _state(headers.get(TRACESTATE))
    return evolve(context, tracestate=state) if state else context


def read_parent(value: object) -> TraceContext | None:
    """What a `traceparent` says, whoever wrote it; None where it is not valid."""
    text = _text(value, _LONGEST_PARENT)
    found = None if text is None else _PARENT.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == _INVALID_VERSION or (version == "00" and more is not None):
        return None
    if trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & _SAMPLED))


def headers(context: TraceContext | None) -> dict[str, str]:
    """What is written beside something that belongs to the same trace."""
    if context is None:
        return {}
    parent = {TRACEPARENT: context.traceparent}
    return parent | {TRACESTATE: context.tracestate} if context.tracestate else parent


def log_fields(context: TraceContext | None) -> dict[str, Any]:
    """What is written into a line of log."""
    return {} if context is None else {"traceId": context.trace_id, "spanId": context.span_id}


def _state(value: object) -> str:
    """What vendors keep beside a trace, as it came; nothing where any of it is not as it should be."""
    text = _text(value, LONGEST_STATE) or ""
    members = [member for part in text.split(",") if (member := part.strip(" "))]
    if len(members) > _MOST_MEMBERS:
        return ""
    keys = {found[1] for member in members if (found := _MEMBER.fullmatch(member))}
    return text if len(keys) == len(members) else ""


def _text(value: object, longest: int) -> str | None:
    """A header's value: text, or bytes where its sender made no text of it."""
    if isinstance(value, (bytes, bytearray)):
        value = value[: longest + 1].decode("ascii", "replace")
    return value if isinstance(value, str) and len(value) <= longest else None
