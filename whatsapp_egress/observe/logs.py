"""Writes log events as lines of JSON."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from time import gmtime, strftime
from typing import Any

import msgspec
from attrs import define, field
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEvent
from twisted.python.failure import Failure
from twisted.python.reflect import safe_str
from zope.interface import implementer

from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.observe.values import Presenter, kind_of

SERVICE = "whatsapp-egress"

FOREIGN = "log"
"""The event of a line that no part of ours wrote; what it says stands in `message`."""

_LEVELS = {
    LogLevel.debug: "DEBUG",
    LogLevel.info: "INFO",
    LogLevel.warn: "WARNING",
    LogLevel.error: "ERROR",
    LogLevel.critical: "CRITICAL",
}
_HEAD = frozenset(["timestamp", "level", "service", "version", "event"])
_OURS = "whatsapp_egress"
_MOST_FRAMES = 20
_MOST_CAUSES = 5
_SEPARATORS = {b"\xe2\x80\xa8": b"\\u2028", b"\xe2\x80\xa9": b"\\u2029", b"\xc2\x85": b"\\u0085"}
"""Line ends to some readers, and nothing special to JSON."""


def line_observer(
    write: Callable[[bytes], object], *, level: str, pii: bool, redactor: Redactor, version: str
) -> ILogObserver:
    """Return an observer that hands each event from `level` up to `write`, as one line with its end.

    `level` is a name that Twisted has: debug, info, warn, error or critical. With `pii`, phone numbers are
    shown in full. The observer raises nothing that comes of an event or of writing it.
    """
    return LineObserver(write, Presenter(redactor, pii), version, _below(level))


def _below(level: str) -> frozenset[Any]:
    levels = list(_LEVELS)
    return frozenset(levels[: levels.index(LogLevel.levelWithName(level))])


@implementer(ILogObserver)
@define(eq=False)
class LineObserver:
    """See `line_observer`."""

    _write: Callable[[bytes], object]
    _presenter: Presenter
    _version: str
    _quiet: frozenset[Any]
    _second: tuple[int, str] = (-1, "")
    _encode: Callable[[object], bytes] = field(factory=lambda: msgspec.json.Encoder().encode)

    def __call__(self, event: LogEvent) -> None:
        """Write `event`, if its level is high enough."""
        if event.get("log_level") in self._quiet:
            return
        try:
            line = self._encode(self._line(event))
        except Exception as error:  # noqa: BLE001 - whatever an object does when it is shown
            line = self._encode(self._lost(event, error))
        if not line.isascii():
            for separator, escape in _SEPARATORS.items():
                line = line.replace(separator, escape)
        try:
            self._write(line + b"\n")
        except (OSError, ValueError):
            # The reader has gone or the disk is full: there is no other place to say so.
            return

    def _line(self, event: LogEvent) -> dict[str, object]:
        name = event.get("log_format")
        ours = _is_ours(name, event.get("log_namespace"))
        line = self._head(event, name if ours else FOREIGN)
        if ours:
            show = self._presenter.field
            for key, value in event.items():
                if value is not None and not key.startswith("log_"):
                    line[key if key not in _HEAD else f"{key}_"] = show(key, value)
        else:
            line["message"] = self._presenter.text(_message(event))
            line["logger"] = self._presenter.field("logger", event.get("log_namespace", ""))
        failure = event.get("log_failure") or event.get("failure")
        if isinstance(failure, Failure):
            line.pop("failure", None)
            self._add_failure(line, failure)
        return line

    def _head(self, event: LogEvent, name: object) -> dict[str, object]:
        return {
            "timestamp": self._timestamp(event.get("log_time") or 0.0),
            "level": _LEVELS.get(event.get("log_level"), "INFO"),
            "service": SERVICE,
            "version": self._version,
            "event": name,
        }

    def _timestamp(self, when: float) -> str:
        second = int(when)
        if self._second[0] != second:
            self._second = (second, strftime("%Y-%m-%dT%H:%M:%S", gmtime(second)))
        return f"{self._second[1]}.{int((when - second) * 1000):03d}Z"

    def _add_failure(self, line: dict[str, object], failure: Failure) -> None:
        line["exception"] = kind_of(failure.value)
        if not line.get("message"):
            line["message"] = self._presenter.text(failure.getErrorMessage())
        line["traceback"] = self._presenter.text("\n".join(_traceback(failure)))

    def _lost(self, event: LogEvent, error: Exception) -> dict[str, object]:
        """Return what can still be told of an event that could not be shown."""
        line = self._head({"log_level": LogLevel.error}, "log_line_lost")
        name, when = event.get("log_format"), event.get("log_time")
        if isinstance(when, float):
            line["timestamp"] = self._timestamp(when)
        if _is_ours(name, event.get("log_namespace")):
            line["lost"] = name
        line["exception"] = kind_of(error)
        return line


def _is_ours(name: object, namespace: object) -> bool:
    """Say whether an event of ours is called `name`. A word that somebody else logs may be anything."""
    return (
        isinstance(name, str)
        and name.isidentifier()
        and isinstance(namespace, str)
        and namespace.startswith(_OURS)
    )


def _message(event: LogEvent) -> str:
    if isinstance(event.get("failure"), Failure):
        # An event of Twisted's old log, which would bring a traceback of its own.
        return safe_str(event.get("why") or "")
    return formatEvent(event)


def _traceback(failure: Failure) -> Iterator[str]:
    """Return where it happened and what brought it about, one frame a line and without any variable.

    Made from the frames alone: a Failure's own traceback can hold local variables, tokens among them.
    """
    yield from _frames(failure)
    error: object = failure.value
    for _ in range(_MOST_CAUSES):
        if not isinstance(error, BaseException):
            return
        cause = error.__cause__
        if cause is None and not error.__suppress_context__:
            cause = error.__context__
        if cause is None:
            return
        yield f"because of {kind_of(cause)}: {safe_str(cause)}"
        yield from _frames(Failure(cause))
        error = cause


def _frames(failure: Failure) -> list[str]:
    frames = [f'  File "{file}", line {line}, in {name}' for name, file, line, *_ in failure.frames]
    if len(frames) > _MOST_FRAMES:
        half = _MOST_FRAMES // 2
        frames = [*frames[:half], f"  ... {len(frames) - 2 * half} more ...", *frames[-half:]]
    return frames


class _ToTwisted(logging.Handler):
    """Hands what comes through the standard library's logging to Twisted's."""

    _THRESHOLDS = (
        (logging.CRITICAL, LogLevel.critical),
        (logging.ERROR, LogLevel.error),
        (logging.WARNING, LogLevel.warn),
        (logging.INFO, LogLevel.info),
    )

    def emit(self, record: logging.LogRecord) -> None:
        """Log `record` under its logger's name."""
        level = next((to for least, to in self._THRESHOLDS if record.levelno >= least), LogLevel.debug)
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - arguments that don't fit the format
            text = safe_str(record.msg)
        fields: dict[str, Any] = {}
        if record.exc_info and record.exc_info[1] is not None:
            fields["log_failure"] = Failure(record.exc_info[1], record.exc_info[0], record.exc_info[2])
        Logger(record.name).emit(level, "{log_text}", log_text=text, **fields)


def forward_stdlib_logging(least: int = logging.WARNING) -> Callable[[], None]:
    """Send what pika and others log, from `least` up, the way of all events. The result undoes it."""
    root, handler = logging.getLogger(), _ToTwisted(least)
    root.addHandler(handler)
    return lambda: root.removeHandler(handler)
