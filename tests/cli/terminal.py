"""The command line as a process of its own, with or without a terminal."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

COMMAND = (sys.executable, "-m", "whatsapp_egress.cli")
ROOT = Path(__file__).parents[2]
PATIENCE = 60


def clean_environment(settings: Mapping[str, object]) -> dict[str, str]:
    """Nothing of ours but `settings`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ("PATH", "HOME") or name.startswith("COVERAGE")
    }
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "110",
        **{name: str(value) for name, value in settings.items()},
    }


@frozen
class Ended:
    """How a command ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on its standard output."""
        return json.loads(self.out)


async def run(*arguments: str, given: str = "", **settings: object) -> Ended:
    """Run it to its end, without a terminal."""

    def work() -> Ended:
        done = subprocess.run(
            [*COMMAND, *arguments],
            env=clean_environment(settings),
            input=given,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return await deferToThread(work)


class Typed:
    """The command with somebody at its terminal, who sees both its outputs there."""

    def __init__(self, *arguments: str, **settings: object) -> None:
        self._screen, terminal = pty.openpty()
        self.seen = ""
        self._process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=clean_environment({"TERM": "xterm", **settings}),
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)
        self._reading = deferToThread(self._read)

    def _read(self) -> None:
        while True:
            try:
                read = os.read(self._screen, 4096)
            except OSError:  # the other side is closed
                break
            if not read:
                break
            reactor.callFromThread(self._saw, read.decode(errors="replace"))

    def _saw(self, text: str) -> None:
        self.seen += text

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    async def ended(self) -> int:
        await self._reading
        status = await deferToThread(self._process.wait, PATIENCE)
        os.close(self._screen)
        return int(status)

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
