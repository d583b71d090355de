"""What `check` finds out about one thing."""

from __future__ import annotations

from enum import Enum

from attrs import frozen


class Grade(str, Enum):
    """How good it is; `failed` is what keeps messages from being sent."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@frozen
class Finding:
    """`what` says how it is, `advice` what to do about it."""

    part: str
    grade: Grade
    what: str
    advice: str = ""


def ok(part: str, what: str) -> Finding:
    """It is as it should be."""
    return Finding(part, Grade.OK, what)


def warning(part: str, what: str, advice: str) -> Finding:
    """It works, and somebody should know."""
    return Finding(part, Grade.WARNING, what, advice)


def failed(part: str, what: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(part, Grade.FAILED, what, advice)
