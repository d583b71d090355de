"""Describes the settings to people, from their declaration: for `--help` and for the documentation."""

from __future__ import annotations

import textwrap

from whatsapp_egress.setting import Setting, settings_of
from whatsapp_egress.settings import Settings

_WIDTH = 100
_BEHIND_NAME = 37


def help_text() -> str:
    """Every setting with its default, its unit and what it means, in lines of at most 100 columns."""
    lines = ["Settings, from the environment:", ""]
    for _, declared in settings_of(Settings):
        file = f" [also {declared.name}_FILE]" if declared.secret else ""
        lines.append(f"  {declared.name:<{_BEHIND_NAME}}{declared.default_shown}{file}")
        lines += textwrap.wrap(declared.means, _WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines) + "\n"


def table() -> str:
    """Every setting as a row of a Markdown table."""
    rows = ["| name | default | takes | |", "|---|---|---|---|"]
    rows += [_row(declared) for _, declared in settings_of(Settings)]
    return "\n".join(rows) + "\n"


def _row(declared: Setting) -> str:
    name = f"`{declared.name}`"
    if declared.secret:
        name += f" or `{declared.name}_FILE`"
    default = declared.default_shown
    if declared.default is not None:
        default = f"`{declared.default}` {declared.kind.unit}".strip()
    return f"| {name} | {default} | {declared.kind.expects} | {declared.means} |"


if __name__ == "__main__":
    print(table(), end="")
