"""How things stand, as gauges."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.observe.seen import Seen
from tests.pipeline.doubles import EPOCH, NUMBER_THROTTLE
from whatsapp_egress import __version__
from whatsapp_egress.observe import gauges as module
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.policy.table import ErrorClass
from whatsapp_egress.policy.verdict import Fault, Scope, Sent, Wait


class GaugeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.seen = Seen()
        self.stage = self.seen.stage
        for tenant in ("t1", "t2"):
            self.seen.labels.learn(tenant)

    def value(self, name: str, **labels: str) -> float | None:
        reading = Deferred.fromCoroutine(self.seen.gauges.read())
        self.seen.shelf.reading = self.successResultOf(reading)
        for family in self.seen.shelf.collect():
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        return None

    def test_many_lanes_are_read_a_few_at_a_time(self) -> None:
        for number in range(module.SLICE + 1):
            self.stage.offer("m-1", tenant_id=f"x{number}")
        reading = Deferred.fromCoroutine(self.seen.gauges.read())
        self.assertNoResult(reading)

        self.stage.clock.advance(0)
        assert len(self.successResultOf(reading).labelled["unknown"]) == module.SLICE + 1

    def test_before_anything_was_read_there_is_nothing(self) -> None:
        assert not list(self.seen.shelf.collect())

    def test_the_process(self) -> None:
        self.stage.clock.advance(30)

        assert self.value("whatsapp_egress_up_info", version=__version__) == 1
        assert self.value("whatsapp_egress_start_time_seconds") == EPOCH
        assert self.value("whatsapp_egress_consuming") == 1
        self.seen.broker.consuming = False
        assert self.value("whatsapp_egress_consuming") == 0

    def test_what_is_under_way_and_in_hand(self) -> None:
        self.stage.offer("m-1", created=EPOCH - 10)
        self.stage.offer("m-2")

        for name, value in {
            "lanes": 1,
            "in_flight": 1,
            "window": 1000,
            "held_bytes": 6,
            "oldest_waiting_seconds": 10,
            "fairness_jain_index": 1,
        }.items():
            assert self.value(f"whatsapp_egress_{name}") == value, name
        for name, value in {"in_flight": 1, "active": 2, "deferred": 0, "oldest_seconds": 10}.items():
            assert self.value(f"whatsapp_egress_lane_{name}", tenant="t1") == value, name

    def test_queues_once_they_were_looked_at(self) -> None:
        assert self.value("rabbitmq_queue_depth", queue="outbound-processed") is None

        self.seen.health.looked(12, 4, 0.001)
        assert self.value("rabbitmq_queue_depth", queue="outbound-processed") == 12
        assert self.value("rabbitmq_queue_depth", queue="outbound-failed") == 4

    def test_the_brokers_connections(self) -> None:
        assert self.value("whatsapp_egress_rabbitmq_connected", connection="publish") == 0
        assert self.value("whatsapp_egress_rabbitmq_reconnects_total", connection="consume") == 2
        assert self.value("whatsapp_egress_rabbitmq_reconnects_total", connection="publish") == 0
        assert self.value("whatsapp_egress_confirms_pending", exchange="dlx") == 7

    def test_what_is_waited_for(self) -> None:
        self.stage.lanes.pause("t1", Pause("r", "a", EPOCH))

        assert self.value("whatsapp_egress_lanes_waiting", cause="pause") == 1
        assert self.value("whatsapp_egress_lanes_waiting", cause="turn") == 0

    def test_why_nothing_is_taken_and_the_roads_breaker(self) -> None:
        assert self.value("whatsapp_egress_backpressure", reason="road") == 0
        assert self.value("whatsapp_egress_road_breaker_state", state="closed") == 1

        self.stage.turns.breaker.trip()
        self.seen.backpressure.road_changed()
        assert self.value("whatsapp_egress_backpressure", reason="road") == 1
        assert self.value("whatsapp_egress_road_breaker_state", state="open") == 1
        assert self.value("whatsapp_egress_road_breaker_state", state="closed") == 0

    def test_numbers_that_a_throttle_holds(self) -> None:
        self.stage.warm_up()
        self.stage.offer("m-1")
        self.stage.end("m-1", NUMBER_THROTTLE)

        assert self.value("whatsapp_egress_number_throttled", tenant="t1") == 1

    def test_a_throttle_of_the_whole_tenant_holds_each_of_them(self) -> None:
        self.stage.warm_up()
        self.stage.offer("m-1")
        self.stage.offer("m-2", "15550002", phone_number_id="100000002")
        self.stage.end("m-1", Wait(Fault("80007", ErrorClass.THROTTLE_WABA_OR_APP), Scope.TENANT, 10.0))

        assert self.value("whatsapp_egress_number_throttled", tenant="t1") == 2

    def test_the_breaker_of_each_tenant_also_when_it_has_no_lane(self) -> None:
        assert self.value("tenant_circuit_breaker_state", tenant="t2", state="closed") == 1
        self.stage.warm_up("t1")
        standing = self.stage.lanes.standing("t1")
        assert standing is not None
        standing.breaker.trip()
        self.stage.pass_time(5)

        for state, value in {"open": 1, "closed": 0, "half_open": 0}.items():
            assert self.value("tenant_circuit_breaker_state", tenant="t1", state=state) == value

    def test_of_tenants_that_share_a_label_the_worst_breaker_is_shown(self) -> None:
        for tenant in ("x1", "x2"):
            self.stage.offer("m-1", tenant_id=tenant)
        standing = self.stage.lanes.standing("x2")
        assert standing is not None
        standing.breaker.trip()

        assert self.value("tenant_circuit_breaker_state", tenant="unknown", state="open") == 1
        assert self.value("whatsapp_egress_lane_active", tenant="unknown") == 2

    def test_tokens_there_are_and_a_bucket_that_nobody_uses_is_full(self) -> None:
        self.stage.offer("m-1")
        assert self.value("tenant_rate_limit_available", tenant="t1") == pytest.approx(199.0)

        self.stage.end("m-1", Sent())
        self.stage.pass_time(5)
        assert self.stage.lanes.find("t1") is None
        assert self.value("tenant_rate_limit_available", tenant="t1") == 200.0
        assert self.value("tenant_rate_limit_available", tenant="t2") is None
