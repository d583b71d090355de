"""The runbook leads where it says it does."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path

import click
import yaml
from twisted.trial.unittest import SynchronousTestCase

from tests.deploy.named import faults
from tests.deploy.promtool import RUNBOOK, promtool
from whatsapp_egress.cli.main import main

_QUERIES = re.compile(r"^```promql\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


class RunbookTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.text = RUNBOOK.read_text()
        self.queries = [line for block in _QUERIES.findall(self.text) for line in block.splitlines()]

    def test_each_query_names_what_is_on_a_real_page(self) -> None:
        assert self.queries
        for query in self.queries:
            assert faults(query) == [], query

    def test_prometheus_understands_each_query(self) -> None:
        there = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, there)
        rules = [{"record": f"query:{n}", "expr": query} for n, query in enumerate(self.queries)]
        (there / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
        content, said = promtool("check", "rules", there / "rules.yml")
        assert content, said

    def test_the_command_line_has_each_command_and_option(self) -> None:
        typed = re.findall(r"(?:^|`)whatsapp-egress ([a-z][^`\n]*)", self.text, re.MULTILINE)
        assert len(typed) > 10
        for line in typed:
            command: click.Command | None = main
            for word in line.split():
                if not isinstance(command, click.Group):
                    break
                command = command.get_command(click.Context(command), word)
            assert command is not None, line
            options = {option for parameter in command.params for option in parameter.opts}
            assert set(re.findall(r"--[a-z-]+", line)) <= options, line

    def test_each_link_to_a_section_or_a_file_has_one(self) -> None:
        prose = _FENCED.sub("", self.text)
        anchors = {_anchor(heading) for heading in re.findall(r"^#+ (.*)$", prose, re.MULTILINE)}
        links = re.findall(r"\]\((?!http)([^)]+)\)", prose)
        assert links
        for link in links:
            if link.startswith("#"):
                assert link[1:] in anchors, link
            else:
                assert (RUNBOOK.parent / link.split("#")[0]).exists(), link


def _anchor(heading: str) -> str:
    """What GitHub and most others make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
