"""How a command can end, and the sentence that says why."""

from __future__ import annotations

import re
from enum import IntEnum

import click

_CLASS = re.compile(r"\b[A-Za-z]+Error: ")


class Exit(IntEnum):
    """Exit statuses, as `--help` documents them."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    UNREACHABLE = 3
    REFUSED = 4
    INTERRUPTED = 130


class Trouble(click.ClickException):
    """What went wrong and what to do, in a sentence or two; goes to standard error.

    `code` is the gateway's own word for it, where the gateway said it.
    """

    exit_code = Exit.FAILED

    def __init__(self, words: str, code: str | None = None) -> None:
        super().__init__(words)
        self.code = code


class Misunderstood(Trouble):
    """The gateway can make nothing of what it was asked."""

    exit_code = Exit.USAGE


class Unreachable(Trouble):
    """Nobody is there, or the broker isn't."""

    exit_code = Exit.UNREACHABLE


class Refused(Trouble):
    """The token is missing or wrong, or there is no control API."""

    exit_code = Exit.REFUSED


class Interrupted(Trouble):
    """Somebody pressed Ctrl-C, or the process was told to end."""

    exit_code = Exit.INTERRUPTED


def plain(error: object) -> str:
    """What an error says, for the middle of a sentence: without the names of classes, and no full stop."""
    return _CLASS.sub("", str(error)).rstrip(".")
