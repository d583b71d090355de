import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import TestCase

from whatsapp_egress.sandbox.children import Child

PATIENCE = 20.0


class ChildTests(TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.output = (self.folder / "output").open("wb")
        self.addCleanup(self.output.close)

    def start(self, script: str) -> Child:
        child = Child.start(["/bin/sh", "-c", script], os.environ, self.output)
        self.addCleanup(child.kill)
        return child

    def said(self) -> str:
        return (self.folder / "output").read_text()

    def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, "never came true"
            time.sleep(0.01)

    def test_it_runs_until_it_ends_by_itself(self) -> None:
        child = self.start("echo hello; exit 3")
        self.until(lambda: not child.running)
        assert (child.terminate(1.0), self.said()) == (3, "hello\n")

    def test_sigterm_lets_it_end_in_order(self) -> None:
        child = self.start("trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done")
        self.until(lambda: "ready" in self.said())
        assert child.terminate(PATIENCE) == 5

    def test_one_that_ignores_sigterm_is_killed(self) -> None:
        child = self.start("trap '' TERM; echo ready; while :; do sleep 0.01; done")
        self.until(lambda: "ready" in self.said())
        assert child.terminate(0.1) == -signal.SIGKILL

    def test_what_it_started_ends_with_it(self) -> None:
        child = self.start("sleep 1000 & echo $!; wait")
        self.until(lambda: "\n" in self.said())
        child.kill()
        self.until(lambda: _gone(int(self.said())))

    def test_it_ends_when_its_owner_is_killed(self) -> None:
        removed = self.folder / "removed"
        removed.mkdir()
        owner = (
            "import os, sys, pathlib\n"
            "from whatsapp_egress.sandbox.children import Child\n"
            "child = Child.start(['sleep', '1000'], os.environ, open(os.devnull, 'wb'),"
            " pathlib.Path(sys.argv[1]))\n"
            "print(child.pid, flush=True)\n"
            "os.kill(os.getpid(), 9)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", owner, str(removed)], capture_output=True, text=True, check=False
        )
        self.until(lambda: _gone(int(done.stdout)))
        self.until(lambda: not removed.exists())


def _gone(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return state.stdout.strip() in ("", "Z", "Zs")
