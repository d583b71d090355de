"""docs/command-line.md has every command, and every exit status."""

from __future__ import annotations

from pathlib import Path

import click
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.cli.main import main
from whatsapp_egress.cli.trouble import Exit

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")


class Documented(SynchronousTestCase):
    def test_every_command_has_an_example(self) -> None:
        for name, command in main.commands.items():
            below = command.commands if isinstance(command, click.Group) else {"": command}
            for each in below:
                assert f"$ whatsapp-egress {name} {each}".rstrip() in DOCUMENTED, (name, each)

    def test_every_exit_status_is_there_and_in_the_help(self) -> None:
        for status in Exit:
            assert f"| {status.value} |" in DOCUMENTED
            assert f"\n  {status.value:<5}" in str(main.epilog)
