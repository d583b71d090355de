"""Coroutines that nobody awaits: kept while they run, logged when they fail, waited for at the end."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

log = Logger()


@define
class Tasks:
    """Owner of the Deferreds of running coroutines."""

    _running: set[Deferred[None]] = field(factory=set, init=False)
    _waiting: list[Deferred[None]] = field(factory=list, init=False)

    def __len__(self) -> int:
        """How many are running."""
        return len(self._running)

    def own(self, coroutine: Coroutine[Deferred[Any], Any, None]) -> None:
        """Run `coroutine`; a failure other than being cancelled is logged, for nobody else will see it."""
        task = Deferred.fromCoroutine(coroutine)
        self._running.add(task)
        task.addErrback(_log_failure)
        task.addCallback(lambda _: self._finished(task))

    def done(self) -> Deferred[None]:
        """Fires when nothing runs."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        self._tell()
        return waiting

    def cancel(self) -> None:
        """Cancel all that runs."""
        for task in list(self._running):
            task.cancel()

    def _finished(self, task: Deferred[None]) -> None:
        self._running.discard(task)
        self._tell()

    def _tell(self) -> None:
        if not self._running:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                # A waiter that was cancelled meanwhile (a drain that took too long) has fired already.
                if not one.called:
                    one.callback(None)


def _log_failure(failure: Failure) -> None:
    if not failure.check(CancelledError):
        log.failure("task_failed", failure)
