"""When nothing more is taken from the queue that all share, why, and when it is again."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import FakeDelivery, Witness
from whatsapp_egress.message import Identity
from whatsapp_egress.pipeline.backpressure import Backpressure
from whatsapp_egress.pipeline.job import Parcel
from whatsapp_egress.pipeline.recent import Recent, digest
from whatsapp_egress.pipeline.rounds import Rounds
from whatsapp_egress.pipeline.turns import Turn, Turns
from whatsapp_egress.policy.breaker import Breaker, State
from whatsapp_egress.policy.road import RoadWatch
from whatsapp_egress.policy.verdict import History
from whatsapp_egress.policy.window import Window

MOST = 1000
REST = 5.0


class Lane:
    """One that waits for a turn."""

    tenant_id = "t"
    in_flight = 0

    def pump(self) -> None: ...


class _Pressed(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.done: list[str] = []
        self.witness = Witness()
        self.recent = Recent(self.clock)
        self.rounds = Rounds(self.clock)
        self.breaker = Breaker(10**9, lambda _n: REST, self.clock, self.road_changed)
        self.window = Window(20, self.clock)
        self.turns = Turns(self.window, self.breaker, RoadWatch(4, self.clock), self.clock)
        self.pressure = Backpressure(
            self.turns,
            self.recent,
            MOST,
            lambda: self.done.append("hold"),
            lambda: self.done.append("release"),
            self.witness,
            self.rounds,
        )

    def road_changed(self, _state: State) -> None:
        self.pressure.road_changed()

    def took(self, size: int = 1) -> Parcel:
        """A message of so many bytes came."""
        body = bytes(size)
        parcel = Parcel(FakeDelivery(body), digest(body), Identity(), 0.0)
        self.recent.begin(parcel)
        self.pressure.took()
        return parcel

    def gone(self, parcel: Parcel) -> None:
        self.recent.forget(parcel, History())

    def pass_seconds(self, seconds: int) -> None:
        for _ in range(seconds):
            self.clock.advance(1)

    @property
    def told(self) -> list[tuple[str, bool]]:
        return [(call[1], call[2]) for call in self.witness.calls]


class BytesTests(_Pressed):
    def test_up_to_what_is_allowed_everything_is_taken(self) -> None:
        self.took(MOST)

        assert (self.pressure.on, self.pressure.heavy) == (False, False)
        assert (self.done, self.told) == ([], [])
        assert self.clock.getDelayedCalls() == []

    def test_beyond_it_nothing_is(self) -> None:
        self.took(MOST)
        self.took()

        assert (self.pressure.on, self.pressure.heavy) == (True, True)
        assert (self.done, self.told) == (["hold"], [("bytes", True)])

    def test_it_is_held_once(self) -> None:
        self.took(MOST)
        self.took()
        self.took()

        assert self.done == ["hold"]

    def test_it_goes_on_when_half_of_it_is_gone(self) -> None:
        large, half = self.took(MOST // 2 + 1), self.took(MOST // 2)
        self.gone(half)
        self.pass_seconds(3)
        assert self.done == ["hold"]

        self.gone(large)
        self.took(MOST // 2)
        self.pass_seconds(1)
        assert (self.done, self.told[-1]) == (["hold", "release"], ("bytes", False))
        assert not self.pressure.on

    def test_then_it_costs_nothing(self) -> None:
        self.gone(self.took(MOST + 1))
        self.pass_seconds(2)

        assert self.clock.getDelayedCalls() == []


class RoadTests(_Pressed):
    def test_while_the_road_is_broken_nothing_is_taken(self) -> None:
        self.breaker.trip()

        assert (self.done, self.told) == (["hold"], [("road", True)])

    def test_when_it_is_well_again_everything_is(self) -> None:
        self.took()
        self.breaker.trip()
        self.clock.advance(REST)
        self.breaker.succeeded(self.breaker.begin())

        assert (self.done, self.told[-1]) == (["hold", "release"], ("road", False))

    def test_while_one_message_finds_out_no_more_are_taken(self) -> None:
        self.breaker.trip()
        self.turns.take(Lane())
        self.pass_seconds(round(REST) + 3)

        assert self.breaker.state is State.HALF_OPEN
        assert self.done == ["hold"]

    def test_where_none_is_in_hand_one_is_let_in_to_find_out(self) -> None:
        self.breaker.trip()
        self.clock.advance(REST)
        assert self.done == ["hold", "release"]

        self.turns.take(Lane())
        self.took()
        assert self.done == ["hold", "release", "hold"]

    def test_so_it_is_where_none_in_hand_can_go(self) -> None:
        self.took()  # a dead letter, say, that the broker does not confirm
        self.breaker.trip()
        self.clock.advance(REST)

        assert self.done == ["hold", "release"]

    def test_when_the_last_one_is_gone_meanwhile_another_is_let_in(self) -> None:
        lane = Lane()
        self.breaker.trip()
        self.turns.take(lane)
        self.clock.advance(REST)
        self.turns.leave(lane)
        self.pass_seconds(1)

        assert self.done == ["hold", "release"]


class SlowTests(_Pressed):
    def setUp(self) -> None:
        super().setUp()
        self.lane = Lane()
        self.open_turns: list[Turn] = []

    def fill(self) -> None:
        """Take every turn there is, and one more."""
        while turn := self.turns.take(self.lane):
            self.open_turns.append(turn)

    def starve(self) -> None:
        self.window.troubled()
        self.fill()
        self.rounds.wake()
        assert self.turns.starved

    def feed(self) -> None:
        self.turns.leave(self.lane)
        assert not self.turns.starved

    def look(self, times: int) -> None:
        """So many looks; others want the rounds, too."""
        for _ in range(times):
            self.rounds.wake()
            self.clock.advance(1)

    def test_when_meta_is_slow_for_everybody_nothing_is_taken(self) -> None:
        self.starve()
        self.look(1)
        assert self.done == []

        self.look(1)
        assert (self.done, self.told) == (["hold"], [("slow", True)])

    def test_much_to_do_is_no_reason(self) -> None:
        self.fill()
        self.look(5)

        assert self.done == []

    def test_only_looks_in_a_row_count(self) -> None:
        self.starve()
        self.look(1)
        self.feed()
        self.look(1)
        self.fill()
        self.look(1)

        assert self.done == []

    def test_it_goes_on_when_nobody_is_starved_any_more(self) -> None:
        self.starve()
        self.look(2)
        self.feed()
        self.pass_seconds(1)
        assert self.done == ["hold"]

        self.pass_seconds(1)
        assert (self.done, self.told[-1]) == (["hold", "release"], ("slow", False))

    def test_one_good_look_in_between_is_not_enough(self) -> None:
        self.starve()
        self.look(2)
        for _ in range(3):
            self.feed()
            self.pass_seconds(1)
            self.fill()
            self.pass_seconds(1)

        assert self.done == ["hold"]

    def test_with_two_reasons_it_goes_on_when_both_are_gone(self) -> None:
        self.starve()
        self.look(2)
        self.gone(self.took(MOST + 1))
        self.pass_seconds(1)
        assert (self.done, self.told[1:]) == (["hold"], [("bytes", True), ("bytes", False)])

        self.feed()
        self.pass_seconds(2)
        assert self.done == ["hold", "release"]
