"""The gate: shut for a while, longer each time in a row."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.policy.gate import Gate


def doubling(n: int) -> float:
    return 10.0 * 2.0**n


class GateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.openings: list[float] = []
        self.gate = Gate(self.clock, lambda: self.openings.append(self.clock.seconds()))

    def test_it_begins_open(self) -> None:
        assert not self.gate.shut
        assert self.gate.opens_at is None

    def test_it_opens_after_its_time_and_says_so_once(self) -> None:
        assert self.gate.shut_for(0, doubling) == 10
        self.clock.advance(9.9)

        assert self.gate.shut
        assert self.gate.opens_at == 10
        self.clock.advance(0.1)
        assert not self.gate.shut
        assert self.openings == [10]

    def test_each_wait_in_a_row_is_longer(self) -> None:
        waits = []
        for _ in range(3):
            waits.append(self.gate.shut_for(0, doubling))
            self.clock.advance(waits[-1])

        assert waits == [10, 20, 40]

    def test_what_was_asked_for_first_can_lengthen_the_step(self) -> None:
        assert self.gate.shut_for(77, doubling) == 77

    def test_what_arrives_at_a_shut_gate_does_not_count(self) -> None:
        self.gate.shut_for(0, doubling)
        self.gate.shut_for(0, doubling)

        assert self.gate.shuttings == 1

    def test_what_arrives_at_a_shut_gate_can_lengthen_the_wait(self) -> None:
        self.gate.shut_for(0, doubling)
        self.clock.advance(4)

        assert self.gate.shut_for(30, doubling) == 30
        assert self.gate.opens_at == 34

    def test_what_arrives_at_a_shut_gate_never_shortens_the_wait(self) -> None:
        self.gate.shut_for(0, doubling)
        self.clock.advance(4)

        assert self.gate.shut_for(1, doubling) == 6
        assert self.gate.opens_at == 10

    def test_after_something_passed_the_next_wait_begins_anew(self) -> None:
        self.gate.shut_for(0, doubling)
        self.clock.advance(10)
        self.gate.passed()

        assert self.gate.shut_for(0, doubling) == 10

    def test_what_passed_before_it_shut_does_not_count(self) -> None:
        self.gate.shut_for(0, doubling)
        self.gate.passed()
        self.clock.advance(10)

        assert self.gate.shut_for(0, doubling) == 20

    def test_stopped_it_leaves_no_timer_and_never_calls(self) -> None:
        self.gate.shut_for(0, doubling)
        self.gate.stop()
        self.clock.advance(100)

        assert self.clock.getDelayedCalls() == []
        assert self.openings == []

    def test_an_open_gate_can_be_stopped(self) -> None:
        self.gate.stop()

        assert not self.gate.shut
