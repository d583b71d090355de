"""promtool, which knows what Prometheus makes of a file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
ALERTS = PROMETHEUS / "alerts.yml"
ALERTS_TEST = PROMETHEUS / "alerts_test.yml"
RUNBOOK = ROOT / "docs" / "runbook.md"


def promtool(*arguments: str | Path) -> tuple[bool, str]:
    """Whether it is content, and what it said."""
    program = shutil.which("promtool")
    assert program, "promtool is not there: apt-get install prometheus"
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stdout + done.stderr
