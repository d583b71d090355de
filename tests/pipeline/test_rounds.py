"""Rounds: once a second while somebody wants them, and none when nobody does."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.pipeline.rounds import Rounds


class RoundsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.rounds = Rounds(self.clock)
        self.seen: list[tuple[str, float]] = []
        self.wanted = {"a": 10**6, "b": 10**6}
        for name in self.wanted:
            self.rounds.looks.append(lambda name=name: self.look(name))  # type: ignore[misc]

    def look(self, name: str) -> bool:
        self.seen.append((name, self.clock.seconds()))
        self.wanted[name] -= 1
        return self.wanted[name] > 0

    def pass_seconds(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)

    def test_they_begin_with_a_rest(self) -> None:
        self.pass_seconds(3)

        assert self.seen == []
        assert self.clock.getDelayedCalls() == []

    def test_woken_everybody_looks_once_a_second(self) -> None:
        self.rounds.wake()
        assert self.seen == []

        self.pass_seconds(2)
        assert self.seen == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]

    def test_woken_twice_they_are_no_faster(self) -> None:
        self.rounds.wake()
        self.clock.advance(0.5)
        self.rounds.wake()
        self.clock.advance(0.5)
        self.pass_seconds(1)

        assert self.seen == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]

    def test_everybody_looks_as_long_as_one_wants_to(self) -> None:
        self.wanted.update(a=1, b=2)
        self.rounds.wake()
        self.pass_seconds(5)

        assert self.seen == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]

    def test_when_nobody_wants_to_they_cost_nothing(self) -> None:
        self.wanted.update(a=1, b=1)
        self.rounds.wake()
        self.pass_seconds(1)

        assert self.clock.getDelayedCalls() == []

    def test_they_can_be_woken_again(self) -> None:
        self.wanted.update(a=1, b=1)
        self.rounds.wake()
        self.pass_seconds(3)
        self.rounds.wake()
        self.pass_seconds(1)

        assert self.seen[2:] == [("a", 4), ("b", 4)]

    def test_woken_during_a_round_there_is_another(self) -> None:
        self.wanted.update(a=1, b=1)
        self.rounds.looks.append(self.wake_once)
        self.rounds.wake()
        self.pass_seconds(5)

        assert self.seen == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]

    def wake_once(self) -> bool:
        if self.clock.seconds() == 1:
            self.rounds.wake()
        return False

    def test_stopped_nobody_looks(self) -> None:
        self.rounds.wake()
        self.rounds.stop()
        self.pass_seconds(3)

        assert self.seen == []

    def test_stopped_they_can_not_be_woken(self) -> None:
        self.rounds.stop()
        self.rounds.wake()

        assert self.clock.getDelayedCalls() == []

    def test_a_look_may_stop_them(self) -> None:
        self.rounds.looks.append(self.stop)
        self.rounds.wake()
        self.pass_seconds(3)

        assert self.seen == [("a", 1), ("b", 1)]
        assert self.clock.getDelayedCalls() == []

    def stop(self) -> bool:
        self.wanted.update(a=0, b=0)
        self.rounds.stop()
        return False

    def test_one_that_fails_is_told_of_and_called_again_like_the_others(self) -> None:
        self.wanted.update(a=1, b=1)
        self.rounds.looks.insert(0, self.fail_once)
        self.rounds.wake()
        self.pass_seconds(3)

        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1  # type: ignore[no-untyped-call]
        assert self.seen == [("a", 1), ("b", 1), ("failed", 2), ("a", 2), ("b", 2)]

    def fail_once(self) -> bool:
        if self.clock.seconds() == 1:
            raise ZeroDivisionError
        self.seen.append(("failed", self.clock.seconds()))
        return False
