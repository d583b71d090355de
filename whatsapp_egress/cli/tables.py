"""What people see: aligned columns, and colour where there is a terminal for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec

_RIGHT = ">"

_COLOURS = {
    "paused": "red",
    "breaker_open": "red",
    "half_open": "yellow",
    "throttled": "yellow",
    "day_limit": "yellow",
    "credentials": "yellow",
    "deferring": "yellow",
    "waiting": "yellow",
    "sending": "green",
    "ok": "green",
    "warning": "yellow",
    "failed": "red",
    "sent": "green",
    "send": "green",
    "expire": "red",
    "fail": "red",
    "doubt": "yellow",
    "wait": "yellow",
}


def coloured(word: str) -> str:
    """A state in its colour, if it has one."""
    colour = _COLOURS.get(word)
    return click.style(word, fg=colour) if colour else word


def columns(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Aligned columns. A head that begins with `>` aligns its column to the right."""
    names = [head.removeprefix(_RIGHT) for head in heads]
    lines = [
        [click.style(name, bold=True) for name in names],
        *([cell or "-" for cell in row] for row in rows),
    ]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(heads))]
    return "\n".join(
        "  ".join(
            _padded(cell, width, head) for cell, width, head in zip(line, widths, heads, strict=True)
        ).rstrip()
        for line in lines
    )


def pairs(named: Iterable[tuple[str, str]]) -> str:
    """Names and what they have, one a line; what is empty is left out."""
    shown = [(name, text) for name, text in named if text]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{click.style(f'{name:<{width}}', bold=True)}  {text}" for name, text in shown)


def put(text: str = "") -> None:
    """Print for people."""
    click.echo(text)


def put_json(document: Any) -> None:
    """Print the one JSON document of a run with `--json`."""
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


def counted(count: int, one: str, many: str | None = None) -> str:
    """`1 message`, `2 messages`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def _width(cell: str) -> int:
    return len(click.unstyle(cell))


def _padded(cell: str, width: int, head: str) -> str:
    space = " " * (width - _width(cell))
    return space + cell if head.startswith(_RIGHT) else cell + space
