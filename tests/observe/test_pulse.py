"""How late the reactor is, what lanes wait for, how fair it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.observe.events import job_of
from tests.observe.seen import Seen
from tests.pipeline.doubles import EPOCH, Stage
from whatsapp_egress.observe.pulse import LOOK_BEATS, jain
from whatsapp_egress.pipeline.road import Cause
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.policy.verdict import Sent


class Beating(SynchronousTestCase):
    def begin(self, stage: Stage | None = None) -> None:
        self.seen = Seen(stage)
        self.stage = self.seen.stage
        self.pulse = self.seen.pulse
        self.pulse.start()
        self.addCleanup(self.pulse.stop)

    def value(self, name: str, **labels: str) -> float | None:
        return self.seen.registry.get_sample_value(name, labels)

    def beats(self, count: int) -> None:
        for _ in range(count):
            self.stage.clock.advance(1.0)


class LagTests(Beating):
    def setUp(self) -> None:
        self.begin()

    def test_in_time_it_is_nothing(self) -> None:
        self.beats(3)

        assert self.pulse.lag == 0.0
        assert self.value("whatsapp_egress_loop_lag_seconds_count") == 3

    def test_a_reactor_that_was_busy_is_late_once(self) -> None:
        self.beats(1)
        self.stage.clock.advance(3.5)
        assert self.pulse.lag == pytest.approx(2.5)

        self.stage.clock.advance(0.5)
        assert self.pulse.lag == pytest.approx(0.0)

    def test_it_ends_when_told_to_and_once_more(self) -> None:
        self.pulse.stop()
        self.pulse.stop()
        assert not self.stage.clock.getDelayedCalls()

    def test_a_fault_of_ours_is_told(self) -> None:
        seen: list[object] = []
        globalLogPublisher.addObserver(lambda event: seen.append(event["log_format"]))
        self.patch(self.pulse, "_look", lambda: 1 / 0)
        self.beats(LOOK_BEATS)

        assert "pulse_failed" in seen
        self.flushLoggedErrors(ZeroDivisionError)


class WaitingTests(Beating):
    def test_what_waits_is_added_up_by_what_for(self) -> None:
        self.begin()
        self.stage.warm_up()
        self.stage.lanes.pause("t1", Pause("r", "a", EPOCH))
        for number in range(3):
            self.stage.offer(f"m{number}", f"1555000{number}")
        self.beats(LOOK_BEATS)

        waiting = (view.waitsFor for view in self.seen.overview.view())
        assert [waits.cause for waits in waiting if waits] == [Cause.PAUSE.value]
        assert self.value("whatsapp_egress_waited_seconds_total", cause="pause") == 3 * LOOK_BEATS
        assert self.value("whatsapp_egress_waited_seconds_total", cause="turn") == 0

    def test_a_lane_that_waits_for_nothing_adds_nothing(self) -> None:
        self.begin()
        self.stage.warm_up()
        self.stage.offer("m1")
        self.beats(LOOK_BEATS)

        assert self.stage.in_flight == ["m1"]
        assert self.value("whatsapp_egress_waited_seconds_total", cause="turn") == 0


class FairnessTests(Beating):
    def test_one_that_gets_nothing_while_another_gets_all_is_not_fair(self) -> None:
        self.begin(Stage(most=1))
        for tenant in ("t1", "t2"):
            self.stage.warm_up(tenant)
        self.stage.offer("m1", "15550001", tenant_id="t1")
        self.stage.offer("m2", "15550002", tenant_id="t2")
        for _ in range(10):
            self.seen.chronicle.delivered(job_of("t1"), Sent("wamid"))
        self.beats(LOOK_BEATS)

        assert self.pulse.fairness == pytest.approx(0.5)

    def test_what_may_not_be_sent_anyway_is_nobodys_unfairness(self) -> None:
        self.begin()
        for tenant in ("t1", "t2"):
            self.stage.warm_up(tenant)
        self.stage.lanes.pause("t2", Pause("r", "a", EPOCH))
        self.stage.offer("m2", "15550002", tenant_id="t2")
        self.seen.chronicle.delivered(job_of("t1"), Sent("wamid"))
        self.beats(LOOK_BEATS)

        assert self.pulse.fairness == 1.0

    @given(st.lists(st.floats(0.0, 1.0), max_size=20))
    def test_the_index_is_between_one_for_all_and_fair(self, shares: list[float]) -> None:
        index = jain(shares)
        assert 1 / max(1, len(shares)) - 1e-9 <= index <= 1 + 1e-9

    def test_equal_shares_are_fair_and_one_of_four_is_a_quarter(self) -> None:
        assert jain([0.3, 0.3, 0.3]) == pytest.approx(1.0)
        assert jain([1.0, 0.0, 0.0, 0.0]) == pytest.approx(0.25)
        assert jain([]) == 1.0
