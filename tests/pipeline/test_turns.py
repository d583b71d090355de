"""The requests in flight over all lanes."""

from __future__ import annotations

from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.pipeline.turns import Turns


@define(eq=False)
class Taker:
    """Takes turns while it wants any."""

    turns: Turns
    wants: int = 0
    in_flight: int = 0

    def pump(self) -> None:
        while self.wants and self.turns.take(self):
            self.wants -= 1
            self.in_flight += 1

    def end(self) -> None:
        self.in_flight -= 1
        self.turns.give_back()


class TurnsTests(SynchronousTestCase):
    def test_there_are_only_so_many(self) -> None:
        turns = Turns(2)
        lane = Taker(turns)

        assert [turns.take(lane) for _ in range(3)] == [True, True, False]

    def test_one_that_comes_back_goes_to_who_waits(self) -> None:
        turns = Turns(1)
        first, second = Taker(turns, wants=1), Taker(turns, wants=1)
        first.pump()
        second.pump()

        assert second.in_flight == 0
        first.end()
        assert second.in_flight == 1

    def test_who_has_the_fewest_goes_first(self) -> None:
        turns = Turns(4)
        greedy, modest, free = Taker(turns, wants=9), Taker(turns), Taker(turns)
        turns.take(free)
        greedy.pump()
        modest.wants = 1
        modest.pump()
        turns.give_back()

        assert (greedy.in_flight, modest.in_flight) == (3, 1)

    def test_who_left_is_not_asked(self) -> None:
        turns = Turns(1)
        first, second = Taker(turns, wants=1), Taker(turns, wants=1)
        first.pump()
        second.pump()
        turns.leave(second)
        first.end()

        assert second.in_flight == 0

    def test_a_turn_that_is_not_wanted_any_more_goes_to_the_next(self) -> None:
        turns = Turns(1)
        first, second, third = (Taker(turns, wants=1) for _ in range(3))
        for lane in (first, second, third):
            lane.pump()
        second.wants = 0
        first.end()

        assert third.in_flight == 1

    def test_who_never_waited_can_leave(self) -> None:
        turns = Turns(1)
        turns.leave(Taker(turns))

        assert turns.take(Taker(turns))

    @settings(derandomize=True, deadline=None)
    @given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
    def test_no_turn_is_lost_and_none_is_made_up(self, most: int, steps: list[tuple[int, bool]]) -> None:
        turns = Turns(most)
        lanes = [Taker(turns) for _ in range(4)]
        for index, more in steps:
            lane = lanes[index]
            if more:
                lane.wants += 1
                lane.pump()
            elif lane.in_flight:
                lane.end()
            taken, wanted = sum(lane.in_flight for lane in lanes), sum(lane.wants for lane in lanes)

            assert taken <= most
            assert wanted == 0 or taken == most
