"""What the ways to run it have in common: settings by name and value, secrets in files, time to drain."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.setting import settings_of
from whatsapp_egress.settings import Settings

ROOT = Path(__file__).parents[2]
DECLARED = {declared.name: declared for _, declared in settings_of(Settings)}
SECRETS = {name for name, declared in DECLARED.items() if declared.secret}

GATEWAY = ["twistd", "-n", "--pidfile=", "whatsapp-egress"]
CLOSING = 9.0
"""Seconds that the end of consuming and two connections may take after the drain: docs/operations.md."""

A_SECRET = "0123456789abcdef0123456789abcdef"


def documents(path: Path) -> list[dict[str, Any]]:
    """Every document of a YAML file."""
    with path.open() as file:
        return [document for document in yaml.safe_load_all(file) if document]


def assignments(text: str) -> dict[str, str]:
    """NAME=value, one a line, of a file of environment variables."""
    lines = (line.strip() for line in text.splitlines())
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def run(*command: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, with what it says."""
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=60, check=False, **more
    )


def tool(name: str) -> Path:
    """A program that the extra `dev` installs."""
    return Path(sys.executable).with_name(name)


class WayTestCase(SynchronousTestCase):
    def settings(self, environment: Mapping[str, str]) -> Settings:
        """What the gateway makes of `environment`, if it takes it; files of secrets hold one."""
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        given = dict(environment)
        for name in given:
            plain = name.removesuffix("_FILE")
            assert name in DECLARED or (plain in SECRETS and name.endswith("_FILE")), f"{name} is no setting"
            assert name not in SECRETS, f"{name} is given where everybody can read it"
            if plain in SECRETS:
                (folder / plain).write_text(A_SECRET)
                given[name] = str(folder / plain)
        return Settings.from_environment(given)

    def assert_time_to_drain(self, seconds: float, settings: Settings) -> None:
        assert seconds > settings.shutdown_timeout + CLOSING
