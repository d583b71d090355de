"""The requests in flight over all lanes: how many there may be, who goes next, and when all go slower."""

from __future__ import annotations

from collections.abc import Callable
from sys import getrefcount

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.pipeline.turns import Turn, Turns
from whatsapp_egress.policy.blame import Word
from whatsapp_egress.policy.breaker import Breaker, State
from whatsapp_egress.policy.road import RoadWatch
from whatsapp_egress.policy.window import Window

THRESHOLD = 4
REST = 5.0
DOWN = "503"


@define(eq=False)
class Taker:
    """A lane that takes turns while it wants any."""

    turns: Turns
    tenant_id: str = "t"
    wants: int = 0
    held: list[Turn] = field(factory=list)

    @property
    def in_flight(self) -> int:
        return len(self.held)

    def pump(self) -> None:
        while self.wants and (turn := self.turns.take(self)):
            self.wants -= 1
            self.held.append(turn)

    def ask(self, more: int = 1) -> None:
        self.wants += more
        self.pump()

    def end(self, word: Word = Word.WELL, kind: str = "", *, answered: bool = True) -> None:
        """The oldest of its exchanges ends, and it looks whether it can go on."""
        self.turns.end(self.held.pop(0), word, kind, answered=answered)
        self.pump()

    def fail(self, kind: str = DOWN) -> None:
        self.end(Word.TROUBLE, kind, answered=False)

    def hear_nothing(self) -> None:
        self.end(Word.NOTHING, answered=False)


@define(eq=False)
class Settler(Taker):
    """A lane whose exchanges are over as soon as they begin."""

    def pump(self) -> None:
        while self.wants and (turn := self.turns.take(self)):
            self.wants -= 1
            self.turns.end(turn, Word.WELL, "", answered=True)


class _Turning(SynchronousTestCase):
    def setUp(self) -> None:
        self.have(20)

    def have(self, most: int) -> None:
        """So many turns there are."""
        self.clock = Clock()
        self.changes: list[State] = []
        self.before_serving: Callable[[], None] = lambda: None
        self.window = Window(most, self.clock)
        self.breaker = Breaker(10**9, lambda _n: REST, self.clock, self.changed)
        self.turns = Turns(self.window, self.breaker, RoadWatch(THRESHOLD, self.clock), self.clock)

    def changed(self, state: State) -> None:
        self.changes.append(state)
        self.before_serving()
        self.turns.serve()

    def lane(self, tenant_id: str = "t", wants: int = 0) -> Taker:
        taker = Taker(self.turns, tenant_id)
        taker.ask(wants)
        return taker

    def in_flight(self, *lanes: Taker) -> list[int]:
        return [lane.in_flight for lane in lanes]


class TakeTests(_Turning):
    def test_there_are_only_so_many(self) -> None:
        self.have(2)
        lane = self.lane()
        turns = [self.turns.take(lane) for _ in range(3)]

        assert [turn is not None for turn in turns] == [True, True, False]
        assert self.turns.taken == 2

    def test_a_turn_knows_whose_it_is_and_when_it_began(self) -> None:
        self.clock.advance(7)
        lane = self.lane()
        turn = self.turns.take(lane)

        assert turn is not None
        assert (turn.lane, turn.began) == (lane, 7)

    def test_one_that_comes_back_goes_to_who_waits(self) -> None:
        self.have(1)
        first, second = self.lane(wants=1), self.lane(wants=1)
        assert self.in_flight(first, second) == [1, 0]

        first.end()
        assert self.in_flight(first, second) == [0, 1]

    def test_who_has_the_fewest_goes_first(self) -> None:
        self.have(4)
        free, greedy, modest = self.lane(wants=1), self.lane(wants=9), self.lane(wants=1)
        free.end()

        assert self.in_flight(greedy, modest) == [3, 1]

    def test_who_waits_goes_by_what_it_has_in_flight_now(self) -> None:
        self.have(7)
        first, second, third = self.lane(wants=3), self.lane(wants=2), self.lane(wants=2)
        for lane in (first, second, third):
            lane.ask(5)
        first.end()
        assert self.in_flight(first, second, third) == [2, 3, 2]

        first.end()
        assert self.in_flight(first, second, third) == [2, 3, 2]

    def test_among_those_with_as_many_who_came_first_goes_first(self) -> None:
        self.have(1)
        busy, early, late = self.lane(wants=1), self.lane(wants=1), self.lane(wants=1)
        busy.end()

        assert self.in_flight(early, late) == [1, 0]

    def test_who_asks_once_more_keeps_its_place(self) -> None:
        self.have(1)
        busy, early, late = self.lane(wants=1), self.lane(wants=1), self.lane(wants=1)
        early.pump()
        busy.end()

        assert self.in_flight(early, late) == [1, 0]

    def test_who_comes_while_others_wait_stands_in_line(self) -> None:
        self.have(1)
        busy, newcomer = self.lane(wants=1), self.lane()

        class Host(Taker):
            def pump(self) -> None:
                newcomer.ask()  # whoever is asked first does not go before who is asked
                super().pump()

        host = Host(self.turns)
        self.turns.take(host)
        host.wants = 1
        busy.end()

        assert self.in_flight(host, newcomer) == [1, 0]

    def test_who_left_is_not_asked(self) -> None:
        self.have(1)
        first, second = self.lane(wants=1), self.lane(wants=1)
        self.turns.leave(second)
        first.end()

        assert second.in_flight == 0

    def test_who_left_stands_in_line_anew_when_it_comes_back(self) -> None:
        self.have(1)
        busy, first, second = self.lane(wants=1), self.lane(wants=1), self.lane(wants=1)
        self.turns.leave(first)
        first.pump()
        busy.end()

        assert self.in_flight(first, second) == [0, 1]

    def test_a_turn_that_is_not_wanted_any_more_goes_to_the_next(self) -> None:
        self.have(1)
        first, second, third = (self.lane(wants=1) for _ in range(3))
        second.wants = 0
        first.end()

        assert third.in_flight == 1

    def test_who_never_waited_can_leave(self) -> None:
        self.turns.leave(self.lane())

        assert self.lane(wants=1).in_flight == 1

    def test_the_line_does_not_grow_with_what_passes(self) -> None:
        lanes = [self.lane(wants=1000), self.lane(wants=1000)]

        def pass_some() -> list[int]:
            for lane in lanes * 100:
                lane.end()
            return [getrefcount(lane) for lane in lanes]

        assert pass_some() == pass_some()

    def test_many_whose_turns_end_at_once_follow_each_other(self) -> None:
        self.have(1)
        busy = self.lane(wants=1)
        settlers = [Settler(self.turns) for _ in range(5000)]
        for settler in settlers:
            settler.ask()
        busy.end()

        assert not any(settler.wants for settler in settlers)
        assert self.turns.taken == 0


class FairTests(_Turning):
    @settings(derandomize=True, deadline=None)
    @given(st.integers(1, 9), st.integers(1, 5), st.lists(st.integers(0, 4), max_size=80))
    def test_with_more_work_than_turns_nobody_gets_more_than_its_share_and_one(
        self, most: int, tenants: int, steps: list[int]
    ) -> None:
        self.have(most)
        lanes = [self.lane() for _ in range(tenants)]
        share_and_one = most // tenants + 1
        for lane in [lanes[step % tenants] for step in steps] + lanes:
            before = self.in_flight(*lanes)
            if not lane.wants:
                lane.ask(10_000)  # now it has arrived, and has more to do than there are turns
            elif lane.in_flight:
                lane.end()
            if all(lane.wants for lane in lanes):
                more = [now for now, then in zip(self.in_flight(*lanes), before, strict=True) if now > then]

                assert max(more, default=0) <= share_and_one
        for _ in range(most):
            max(lanes, key=lambda lane: lane.in_flight).end()

        assert max(self.in_flight(*lanes)) <= share_and_one

    @settings(derandomize=True, deadline=None)
    @given(
        st.integers(1, 5),
        st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["ask", "end", "leave", "idle"])), max_size=60),
    )
    def test_no_turn_is_lost_and_none_is_made_up(self, most: int, steps: list[tuple[int, str]]) -> None:
        self.have(most)
        lanes = [self.lane() for _ in range(4)]
        for index, step in steps:
            lane = lanes[index]
            if step == "ask":
                lane.ask()
            elif step == "end" and lane.in_flight:
                lane.end()
            elif step == "leave":
                lane.wants = 0
                self.turns.leave(lane)
            elif step == "idle":
                lane.wants = 0  # and stays in line, wanting nothing
            taken, wanted = sum(self.in_flight(*lanes)), sum(lane.wants for lane in lanes)

            assert self.turns.taken == taken <= most
            assert wanted == 0 or taken == most


class RoadTests(_Turning):
    """The breaker that all tenants share."""

    def setUp(self) -> None:
        super().setUp()
        self.a, self.b = self.lane("a"), self.lane("b")

    def both_fail(self, kinds: str = "xxxx") -> None:
        """The exchanges of both tenants fail in turns, each with its kind of trouble."""
        for lane, kind in zip((self.a, self.b) * len(kinds), kinds, strict=False):
            lane.ask()
            lane.fail(kind)

    def break_road(self) -> None:
        self.both_fail()
        assert self.changes == [State.OPEN]

    def test_when_all_tenants_fail_alike_it_opens(self) -> None:
        self.both_fail("xxx")
        assert self.changes == []

        self.both_fail("x")
        assert self.changes == [State.OPEN]

    def test_when_they_fail_in_different_ways_it_does_not(self) -> None:
        self.both_fail("xyxyxyxy")

        assert self.changes == []

    def test_when_one_tenant_fails_alone_it_does_not(self) -> None:
        for _ in range(THRESHOLD * 3):
            self.a.ask()
            self.a.fail()

        assert self.changes == []

    def test_when_one_of_them_is_well_it_does_not(self) -> None:
        well = self.lane("c", wants=1)
        well.end()
        self.both_fail("xxxxxxxx")

        assert self.changes == []

    def test_an_answer_that_concerns_a_message_alone_says_that_the_road_is_well(self) -> None:
        self.lane("c", wants=1).end(Word.NOTHING)
        self.both_fail("xxxxxxxx")

        assert self.changes == []

    def test_one_that_was_cut_off_says_nothing(self) -> None:
        self.lane("c", wants=1).hear_nothing()
        self.both_fail()

        assert self.changes == [State.OPEN]

    def test_while_it_is_open_nobody_goes(self) -> None:
        self.break_road()
        self.a.ask()

        assert self.in_flight(self.a) == [0]

    def test_half_open_one_goes_and_finds_out(self) -> None:
        self.break_road()
        for lane in (self.a, self.b):
            lane.ask(3)
        self.clock.advance(REST)
        assert self.in_flight(self.a, self.b) == [1, 0]

        self.a.end()
        assert self.changes[-1] is State.CLOSED
        assert self.in_flight(self.a, self.b) == [2, 3]

    def test_who_asks_first_when_it_changes_does_not_go_before_those_in_line(self) -> None:
        self.have(1)
        busy, idle = self.lane(wants=1), self.lane(wants=1)
        idle.wants = 0
        busy.end()  # idle is asked, and does not want its turn any more
        self.breaker.trip()
        waiting = self.lane(wants=1)
        idle.wants = 1
        self.before_serving = idle.pump
        self.clock.advance(REST)

        assert self.in_flight(waiting, idle) == [1, 0]

    def test_closed_again_all_have_their_share_at_once(self) -> None:
        self.have(4)
        self.breaker.trip()
        first, second = self.lane(wants=9), self.lane(wants=9)
        self.clock.advance(REST)
        assert self.in_flight(first, second) == [1, 0]

        self.breaker.close()
        assert self.in_flight(first, second) == [2, 2]

    def test_when_the_probe_fails_it_opens_again(self) -> None:
        self.break_road()
        self.a.ask(3)
        self.clock.advance(REST)
        self.a.fail()

        assert self.changes == [State.OPEN, State.HALF_OPEN, State.OPEN]
        assert self.in_flight(self.a) == [0]

    def test_when_the_probe_says_nothing_the_next_one_goes(self) -> None:
        self.break_road()
        self.a.ask()
        self.b.ask()
        self.clock.advance(REST)
        self.a.hear_nothing()

        assert (self.breaker.state, self.in_flight(self.a, self.b)) == (State.HALF_OPEN, [0, 1])

    def test_an_answer_of_any_kind_closes_it(self) -> None:
        self.break_road()
        self.a.ask()
        self.clock.advance(REST)
        self.a.end(Word.NOTHING)

        assert self.breaker.state is State.CLOSED

    def test_what_began_before_it_opened_is_not_heard_when_it_ends_well(self) -> None:
        stragglers = self.lane("c", wants=2)
        self.break_road()
        stragglers.end()
        self.clock.advance(REST)
        stragglers.end()

        assert self.changes == [State.OPEN, State.HALF_OPEN]

    def test_nor_when_it_fails(self) -> None:
        stragglers = [self.lane("c", wants=4), self.lane("d", wants=4)]
        self.break_road()
        for lane in stragglers * 2:
            lane.fail("x")
        self.clock.advance(REST)
        for lane in stragglers * 2:
            lane.fail("x")

        assert self.changes == [State.OPEN, State.HALF_OPEN]

    def test_once_closed_it_opens_as_before(self) -> None:
        self.break_road()
        self.a.ask()
        self.clock.advance(REST)
        self.a.end()
        self.both_fail("xxxx")

        assert self.changes == [State.OPEN, State.HALF_OPEN, State.CLOSED, State.OPEN]


class WindowTests(_Turning):
    """How many there are when everybody has trouble."""

    def setUp(self) -> None:
        super().setUp()
        self.a, self.b, self.c = self.lane("a"), self.lane("b"), self.lane("c")

    def exchange(self, lane: Taker, seconds: float) -> None:
        lane.ask()
        self.clock.advance(seconds)
        lane.end()

    def trouble(self, *lanes: Taker, kind: str = DOWN) -> None:
        for lane in lanes:
            lane.ask()
            lane.fail(kind)

    def test_trouble_of_more_than_half_makes_it_smaller(self) -> None:
        self.exchange(self.c, 0.1)
        self.trouble(self.a)
        assert self.window.full

        self.trouble(self.b, kind="500")
        assert self.window.limit == 14

    def test_trouble_of_half_does_not(self) -> None:
        self.exchange(self.a, 0.1)
        self.trouble(self.b)

        assert self.window.full

    def test_trouble_of_the_only_tenant_does_not(self) -> None:
        self.trouble(self.a, self.a, self.a)

        assert self.window.full

    def test_slowness_of_more_than_half_makes_it_smaller(self) -> None:
        for lane in (self.a, self.b, self.c):
            self.exchange(lane, 0.1)
        self.exchange(self.a, 3.0)
        assert self.window.full

        self.exchange(self.b, 3.0)
        assert self.window.limit == 14

    def test_slowness_of_one_tenant_does_not(self) -> None:
        for lane in (self.a, self.b, self.c):
            self.exchange(lane, 0.1)
        for _ in range(2):
            self.exchange(self.a, 3.0)

        assert self.window.full

    def test_a_quick_one_among_slow_ones_does_not(self) -> None:
        for lane in (self.a, self.b, self.c):
            self.exchange(lane, 0.1)
        self.c.ask()
        self.trouble(self.a, self.b)
        assert self.window.limit == 14

        self.clock.advance(0.2)
        self.c.end()
        assert self.window.limit == 14

    def test_trouble_at_which_the_road_opens_leaves_it_as_it_is(self) -> None:
        self.c.ask()
        self.trouble(self.a, self.a, self.a, self.b)
        assert self.changes == [State.OPEN]

        self.c.fail()  # alone, for what made the road open is not counted again
        assert self.window.full

    def test_it_grows_again_when_it_is_nearly_used_up(self) -> None:
        assert self.limit_after_using(12) == 15

    def test_it_does_not_grow_while_more_is_free(self) -> None:
        assert self.limit_after_using(11) == 14

    def limit_after_using(self, turns: int) -> int:
        """What becomes of a window of 14 of which so many are in use, one after the other ending well."""
        self.trouble(self.a, self.b)
        self.a.ask(turns)
        for _ in range(20):
            self.a.wants = 1
            self.a.end()
        return self.window.limit

    def test_when_it_is_smaller_fewer_go(self) -> None:
        self.trouble(self.a, self.b)
        self.a.ask(100)

        assert self.in_flight(self.a) == [14]


class StarvedTests(_Turning):
    def setUp(self) -> None:
        super().setUp()
        self.a, self.b = self.lane("a"), self.lane("b")

    def shrink(self) -> None:
        for lane in (self.a, self.b):
            lane.ask()
            lane.fail()
        assert not self.window.full

    def test_lanes_that_wait_at_a_full_window_are_not(self) -> None:
        self.a.ask(100)

        assert self.a.wants
        assert not self.turns.starved

    def test_lanes_that_wait_at_a_smaller_one_are(self) -> None:
        self.shrink()
        self.a.ask(100)

        assert self.turns.starved

    def test_a_smaller_one_that_nobody_waits_at_starves_nobody(self) -> None:
        self.shrink()
        self.a.ask(3)

        assert not self.turns.starved

    def test_who_waits_no_more_is_not_starved(self) -> None:
        self.shrink()
        self.a.ask(100)
        self.turns.leave(self.a)

        assert not self.turns.starved
