"""The breaker: stops what keeps failing, and lets one at a time find out whether it works again."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.policy.breaker import Breaker, State

RESET = 60.0


class _Breaking(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.changes: list[State] = []
        self.breaker = Breaker(3, self.reset, self.clock, self.changes.append)

    def reset(self, n: int) -> float:
        """Each time in a row twice as long."""
        return RESET * 2.0**n

    def lose(self, *, times: int) -> None:
        for _ in range(times):
            self.breaker.failed(self.breaker.begin())

    def open(self) -> None:
        self.lose(times=3)

    def half_open(self) -> None:
        self.open()
        self.clock.advance(RESET)


class ClosedTests(_Breaking):
    def test_it_begins_closed_and_without_a_timer(self) -> None:
        assert self.breaker.state is State.CLOSED
        assert self.breaker.allows()
        assert self.breaker.pristine
        assert self.breaker.until is None
        assert self.clock.getDelayedCalls() == []

    def test_it_lets_all_through_at_once(self) -> None:
        for _ in range(10):
            self.breaker.begin()

        assert self.breaker.allows()

    def test_fewer_failures_than_the_threshold_leave_it_closed(self) -> None:
        self.lose(times=2)

        assert self.breaker.state is State.CLOSED
        assert self.breaker.failures == 2
        assert not self.breaker.pristine

    def test_as_many_failures_in_a_row_open_it(self) -> None:
        self.lose(times=3)

        assert self.breaker.state is State.OPEN
        assert self.changes == [State.OPEN]

    def test_a_success_between_them_counts_anew(self) -> None:
        self.lose(times=2)
        self.breaker.succeeded(self.breaker.begin())
        self.lose(times=2)

        assert self.breaker.state is State.CLOSED

    def test_what_says_nothing_between_them_counts_neither_way(self) -> None:
        self.lose(times=2)
        self.breaker.released(self.breaker.begin())
        assert self.breaker.failures == 2

        self.lose(times=1)
        assert self.breaker.state is State.OPEN

    def test_success_alone_is_nothing_to_remember(self) -> None:
        self.breaker.succeeded(self.breaker.begin())

        assert self.breaker.pristine
        assert self.changes == []

    def test_closed_by_hand_it_forgets_what_was_counted(self) -> None:
        self.lose(times=2)
        self.breaker.close()

        assert self.breaker.pristine
        assert self.changes == []

    def test_it_can_be_opened_whatever_was_counted(self) -> None:
        self.breaker.trip()

        assert self.breaker.state is State.OPEN
        assert self.breaker.until == RESET


class OpenTests(_Breaking):
    def test_it_lets_none_through(self) -> None:
        self.open()

        assert not self.breaker.allows()
        assert not self.breaker.pristine

    def test_it_says_until_when(self) -> None:
        self.clock.advance(5)
        self.open()

        assert self.breaker.until == 5 + RESET

    def test_it_half_opens_at_its_time(self) -> None:
        self.open()
        self.clock.advance(RESET - 0.1)
        assert self.changes == [State.OPEN]

        self.clock.advance(0.1)
        assert self.changes == [State.OPEN, State.HALF_OPEN]
        assert self.breaker.state is State.HALF_OPEN
        assert self.breaker.until is None

    def test_what_began_before_is_not_heard(self) -> None:
        tickets = [self.breaker.begin() for _ in range(3)]
        self.open()
        for ticket in tickets:
            self.breaker.succeeded(ticket)
            self.breaker.failed(ticket)
            self.breaker.released(ticket)

        assert self.breaker.state is State.OPEN
        assert self.breaker.until == RESET

    def test_what_began_while_it_was_open_is_never_heard(self) -> None:
        self.open()
        ticket = self.breaker.begin()
        self.clock.advance(RESET)
        self.breaker.succeeded(ticket)
        assert self.breaker.state is State.HALF_OPEN

        self.breaker.close()
        self.breaker.failed(ticket)
        assert self.breaker.pristine

    def test_opened_once_more_it_is_left_alone(self) -> None:
        self.open()
        self.clock.advance(10)
        self.breaker.trip()

        assert self.breaker.until == RESET
        assert self.changes == [State.OPEN]

    def test_closed_by_hand_it_has_no_timer(self) -> None:
        self.open()
        self.breaker.close()

        assert self.breaker.pristine
        assert self.changes == [State.OPEN, State.CLOSED]
        assert self.clock.getDelayedCalls() == []

    def test_after_it_was_closed_as_many_failures_open_it(self) -> None:
        self.open()
        self.breaker.close()
        self.lose(times=2)
        assert self.changes == [State.OPEN, State.CLOSED]

        self.lose(times=1)
        assert self.changes == [State.OPEN, State.CLOSED, State.OPEN]


class HalfOpenTests(_Breaking):
    def test_it_lets_one_through(self) -> None:
        self.half_open()
        assert self.breaker.allows()

        self.breaker.begin()
        assert not self.breaker.allows()

    def test_a_second_one_that_goes_all_the_same_is_not_heard(self) -> None:
        self.half_open()
        self.breaker.begin()
        self.breaker.succeeded(self.breaker.begin())

        assert self.breaker.state is State.HALF_OPEN
        assert not self.breaker.allows()

    def test_success_of_the_probe_closes_it(self) -> None:
        self.half_open()
        self.breaker.succeeded(self.breaker.begin())

        assert self.breaker.pristine
        assert self.changes == [State.OPEN, State.HALF_OPEN, State.CLOSED]

    def test_failure_of_the_probe_opens_it_for_longer(self) -> None:
        self.half_open()
        self.lose(times=1)

        assert self.breaker.state is State.OPEN
        assert self.breaker.until == RESET + 2 * RESET

    def test_after_it_was_closed_it_opens_for_the_first_time_again(self) -> None:
        self.half_open()
        self.lose(times=1)
        self.clock.advance(2 * RESET)
        self.breaker.succeeded(self.breaker.begin())
        self.open()

        assert self.breaker.until == self.clock.seconds() + RESET

    def test_after_a_probe_that_says_nothing_another_may_go(self) -> None:
        self.half_open()
        self.breaker.released(self.breaker.begin())
        assert self.breaker.allows()

        self.breaker.succeeded(self.breaker.begin())
        assert self.breaker.state is State.CLOSED

    def test_a_probe_that_was_released_is_not_heard_any_more(self) -> None:
        self.half_open()
        first = self.breaker.begin()
        self.breaker.released(first)
        self.breaker.begin()
        self.breaker.released(first)
        assert not self.breaker.allows()

        self.breaker.succeeded(first)
        assert self.breaker.state is State.HALF_OPEN

    def test_what_began_before_is_not_heard(self) -> None:
        ticket = self.breaker.begin()
        self.half_open()
        self.breaker.succeeded(ticket)
        assert self.breaker.state is State.HALF_OPEN

        self.breaker.failed(ticket)
        assert self.breaker.state is State.HALF_OPEN

    def test_it_can_be_opened_while_the_probe_is_out(self) -> None:
        self.half_open()
        probe = self.breaker.begin()
        self.breaker.trip()
        self.breaker.succeeded(probe)

        assert self.breaker.state is State.OPEN

    def test_closed_by_hand_the_probe_is_not_heard(self) -> None:
        self.half_open()
        probe = self.breaker.begin()
        self.breaker.close()
        self.breaker.failed(probe)

        assert self.breaker.pristine


class StopTests(_Breaking):
    def test_stopped_while_open_it_has_no_timer_and_stays_open(self) -> None:
        self.open()
        self.breaker.stop()
        self.clock.advance(10 * RESET)

        assert self.clock.getDelayedCalls() == []
        assert self.breaker.state is State.OPEN
        assert self.breaker.until is None

    def test_stopped_before_it_opens_it_has_no_timer_either(self) -> None:
        self.breaker.stop()
        self.open()

        assert self.clock.getDelayedCalls() == []
        assert self.breaker.state is State.OPEN

    def test_stopped_it_can_be_closed_by_hand(self) -> None:
        self.open()
        self.breaker.stop()
        self.breaker.close()

        assert self.breaker.state is State.CLOSED


class UsedFromWithinTests(SynchronousTestCase):
    """`on_change` may use the breaker, as a lane does that is told to go on."""

    def test_the_probe_may_begin_when_it_half_opens(self) -> None:
        clock, tickets = Clock(), list[int]()

        def changed(state: State) -> None:
            if state is State.HALF_OPEN:
                tickets.append(breaker.begin())

        breaker = Breaker(1, lambda n: RESET, clock, changed)
        breaker.failed(breaker.begin())
        clock.advance(RESET)
        assert not breaker.allows()

        breaker.succeeded(tickets[0])
        assert breaker.state is State.CLOSED

    def test_it_may_be_closed_when_it_opens(self) -> None:
        clock = Clock()

        def changed(state: State) -> None:
            if state is State.OPEN:
                breaker.close()

        breaker = Breaker(1, lambda n: RESET, clock, changed)
        breaker.failed(breaker.begin())

        assert breaker.pristine
        assert clock.getDelayedCalls() == []

    def test_it_may_fail_when_it_closes(self) -> None:
        clock = Clock()

        def changed(state: State) -> None:
            if state is State.CLOSED:
                breaker.failed(breaker.begin())

        breaker = Breaker(1, lambda n: RESET, clock, changed)
        breaker.trip()
        clock.advance(RESET)
        breaker.succeeded(breaker.begin())

        assert breaker.state is State.OPEN
        assert len(clock.getDelayedCalls()) == 1


THRESHOLD = 3


class BreakerMachine(RuleBasedStateMachine):
    """Any sequence of calls, beside a model that knows of each attempt what it began in."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.told: list[State] = []
        self.breaker = Breaker(THRESHOLD, lambda n: RESET + n, self.clock, self.told.append)
        self.state = State.CLOSED
        self.changes = 0
        self.in_a_row = 0
        self.openings = 0
        self.half_opens_at = 0.0
        self.stopped = False
        self.tickets: list[tuple[int, int | None]] = []  # with the number of changes before, if it is heard
        self.probe: int | None = None

    def enter(self, state: State) -> None:
        self.state = state
        self.changes += 1
        self.in_a_row = 0
        self.probe = None
        if state is State.OPEN:
            self.half_opens_at = self.clock.seconds() + RESET + self.openings
            self.openings += 1
        elif state is State.CLOSED:
            self.openings = 0

    @rule()
    def begin(self) -> None:
        heard = self.state is State.CLOSED or (self.state is State.HALF_OPEN and self.probe is None)
        assert self.breaker.allows() == heard
        ticket = self.breaker.begin()
        self.tickets.append((ticket, self.changes if heard else None))
        if self.state is State.HALF_OPEN and heard:
            self.probe = ticket

    def end(self, data: st.DataObject) -> tuple[int, bool]:
        """Any attempt that is out ends: its ticket, and whether it is heard."""
        ticket, began = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        heard = began == self.changes and (self.state is not State.HALF_OPEN or ticket == self.probe)
        return ticket, heard

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def succeeded(self, data: st.DataObject) -> None:
        ticket, heard = self.end(data)
        self.breaker.succeeded(ticket)
        if heard:
            self.in_a_row = 0
            if self.state is State.HALF_OPEN:
                self.enter(State.CLOSED)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def failed(self, data: st.DataObject) -> None:
        ticket, heard = self.end(data)
        self.breaker.failed(ticket)
        if heard:
            self.in_a_row += 1
            if self.state is State.HALF_OPEN or self.in_a_row == THRESHOLD:
                self.enter(State.OPEN)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def released(self, data: st.DataObject) -> None:
        ticket, heard = self.end(data)
        self.breaker.released(ticket)
        if heard:
            self.probe = None

    @rule(seconds=st.sampled_from([0.5, RESET - 1, RESET, RESET + 20]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)
        if self.state is State.OPEN and not self.stopped and self.clock.seconds() >= self.half_opens_at:
            self.enter(State.HALF_OPEN)

    @rule()
    def trip(self) -> None:
        self.breaker.trip()
        if self.state is not State.OPEN:
            self.enter(State.OPEN)

    @rule()
    def close(self) -> None:
        self.breaker.close()
        self.in_a_row = 0
        if self.state is not State.CLOSED:
            self.enter(State.CLOSED)

    @precondition(lambda self: self.changes > 8)
    @rule()
    def stop(self) -> None:
        self.breaker.stop()
        self.stopped = True

    @invariant()
    def is_as_the_model(self) -> None:
        assert self.breaker.state is self.state
        assert self.breaker.failures == self.in_a_row
        assert self.breaker.pristine == (self.state is State.CLOSED and self.in_a_row == 0)
        assert len(self.told) == self.changes
        assert not self.told or self.told[-1] is self.state

    @invariant()
    def has_a_timer_only_while_it_is_open(self) -> None:
        waits = self.state is State.OPEN and not self.stopped
        assert self.breaker.until == (self.half_opens_at if waits else None)
        assert len(self.clock.getDelayedCalls()) == waits


class AnySequenceTests(SynchronousTestCase):
    def test_any_sequence_of_calls_is_as_the_model(self) -> None:
        case = BreakerMachine.TestCase
        case.settings = settings(
            derandomize=True, deadline=None, max_examples=300, stateful_step_count=50, database=None
        )
        case("runTest").runTest()
