"""The record of who asked for what: a log event for each call that changes something, and each refused."""

from __future__ import annotations

from typing import Any

from twisted.logger import Logger

log = Logger()

_READS = ("GET", "HEAD")
_LONGEST_PATH = 200


def record(method: str, path: str, remote: str, status: int, **told: Any) -> None:
    """Write `control_call`, if there is reason to. What is None is left out. `path` comes without its query,
    and is cut: whoever knocks can write what he likes there."""
    if method in _READS and status < 400:
        return
    tell = log.warn if status >= 400 else log.info
    known = {name: value for name, value in told.items() if value is not None}
    tell("control_call", method=method, path=path[:_LONGEST_PATH], remote=remote, status=status, **known)
