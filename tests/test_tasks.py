"""Coroutines that nobody awaits: kept, logged, waited for."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.tasks import Tasks


class TasksTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.tasks = Tasks()
        self.ended: list[str] = []

    def run_until(self, end: Deferred[None], name: str = "task") -> None:
        async def task() -> None:
            await end
            self.ended.append(name)

        self.tasks.own(task())

    def test_a_task_runs_and_is_counted_until_it_ends(self) -> None:
        end: Deferred[None] = Deferred()
        self.run_until(end)

        assert len(self.tasks) == 1
        end.callback(None)
        assert len(self.tasks) == 0
        assert self.ended == ["task"]

    def test_a_task_that_ends_at_once_is_not_kept(self) -> None:
        end: Deferred[None] = Deferred()
        end.callback(None)
        self.run_until(end)

        assert len(self.tasks) == 0

    def test_a_failure_is_logged_and_the_task_is_over(self) -> None:
        end: Deferred[None] = Deferred()
        self.run_until(end)
        end.errback(ZeroDivisionError())

        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1
        assert len(self.tasks) == 0

    def test_done_fires_at_once_when_nothing_runs(self) -> None:
        self.successResultOf(self.tasks.done())

    def test_done_fires_when_the_last_has_ended_for_all_who_wait(self) -> None:
        ends: list[Deferred[None]] = [Deferred(), Deferred()]
        for end in ends:
            self.run_until(end)
        waiting = [self.tasks.done(), self.tasks.done()]

        ends[0].callback(None)
        for one in waiting:
            self.assertNoResult(one)
        ends[1].callback(None)
        for one in waiting:
            self.successResultOf(one)

    def test_who_waited_and_gave_up_is_not_called(self) -> None:
        end: Deferred[None] = Deferred()
        self.run_until(end)
        gave_up, waiting = self.tasks.done(), self.tasks.done()
        gave_up.cancel()
        end.callback(None)

        self.failureResultOf(gave_up)
        self.successResultOf(waiting)

    def test_cancel_ends_all_without_a_word_in_the_log(self) -> None:
        self.run_until(Deferred())
        self.run_until(Deferred())
        self.tasks.cancel()

        assert len(self.tasks) == 0
        assert self.ended == []
        assert self.flushLoggedErrors() == []
