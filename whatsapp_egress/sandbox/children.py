"""A child process that ends when its owner ends, however the owner ended."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from attrs import define

# Reads until its owner has gone, then ends what the owner can no longer end.
_GUARD = 'read -r _; kill -s KILL -- "-$1"; [ -z "$2" ] || rm -rf -- "$2"'


@define(eq=False)
class Child:
    """A process that leads its own session, so that a Ctrl-C in the terminal does not reach it.

    A guard beside it holds a pipe to this process.  When that breaks, because this process was killed, the
    guard kills the child and what it started.
    """

    _process: subprocess.Popen[bytes]
    _guard: subprocess.Popen[bytes]

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        output: IO[bytes],
        remove: Path | None = None,
    ) -> Child:
        """Run *command*; its output and errors go to *output*, an open file.

        The folder *remove* is removed by the guard, and only by the guard.  Raises OSError when the command
        cannot be run.
        """
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "guard", str(process.pid), "" if remove is None else str(remove)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        return cls(process, guard)

    @property
    def pid(self) -> int:
        """The process id, which is its group's, too."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def terminate(self, patience: float) -> int:
        """End it with SIGTERM, after *patience* seconds with SIGKILL; return its exit status.

        The status is negative where a signal ended it, as in `subprocess`.
        """
        if self.running:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
        return self.kill()

    def kill(self) -> int:
        """End it and what it started with SIGKILL, if they are there; return its exit status."""
        for process in (self._process, self._guard):
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        return self._process.returncode
