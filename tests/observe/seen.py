"""Real lanes on a clock of their own, and all that reads them."""

from __future__ import annotations

from attrs import define
from prometheus_client import CollectorRegistry

from tests.pipeline.doubles import EPOCH, Stage
from tests.policy.meta import TABLE
from whatsapp_egress.observe.chronicle import Chronicle
from whatsapp_egress.observe.gauges import BrokerState, Gauges, Shelf
from whatsapp_egress.observe.health import Health
from whatsapp_egress.observe.labels import TenantLabels
from whatsapp_egress.observe.lane_view import LaneReader, LaneView
from whatsapp_egress.observe.overview import Overview
from whatsapp_egress.observe.pulse import Pulse
from whatsapp_egress.observe.times import Times
from whatsapp_egress.observe.words import Words
from whatsapp_egress.pipeline.backpressure import Backpressure


@define
class FakeBroker:
    """What health asks of the broker's client."""

    consuming: bool = True
    publishing: bool = True


class Seen:
    """Everything that a watch has, around a `Stage`."""

    def __init__(self, stage: Stage | None = None) -> None:
        self.stage = stage = stage or Stage()
        clock = stage.clock
        self.registry = CollectorRegistry()
        self.labels = TenantLabels(3)
        self.broker = FakeBroker()
        self.health = Health(self.now)
        self.health.broker = self.broker
        self.chronicle = Chronicle(clock, self.now)
        self.pulse = Pulse(self.registry, clock, stage.lanes, self.chronicle)
        words, times = Words(TABLE), Times(clock, self.now)
        self.backpressure = Backpressure(
            stage.turns, stage.recent, 10**6, lambda: None, lambda: None, stage.witness, stage.rounds
        )
        reader = LaneReader(
            times, stage.lanes, self.chronicle, words, lambda text: text.replace("9198", "****")
        )
        self.overview = Overview(
            times,
            0.0,
            stage.lanes,
            stage.turns,
            stage.recent,
            self.backpressure,
            self.chronicle,
            self.health,
            self.pulse,
            words,
            reader,
            lambda text: text.replace("a-secret", "[REDACTED]"),
        )
        self.shelf = Shelf()
        self.gauges = Gauges(
            self.overview,
            self.labels,
            lambda: BrokerState(
                {"consume": True, "publish": False}, {"consume": 3, "publish": 0}, {"dlx": 7}
            ),
            ("outbound-processed", "outbound-failed"),
            clock,
        )

    def now(self) -> float:
        return EPOCH + self.stage.clock.seconds()

    def lane(self, tenant_id: str = "t1") -> LaneView:
        view = self.overview.lane(tenant_id)
        assert view is not None
        return view
