"""The road's breaker, and what it makes of the tenants' own."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import Stage
from whatsapp_egress.policy.breaker import State
from whatsapp_egress.policy.table import ErrorClass
from whatsapp_egress.policy.verdict import Fault, Retry, Sent

BROKEN = Retry(Fault("131016: Service unavailable", ErrorClass.TRANSIENT, 131016, http_status=500), 20.0)
SENT = Sent("wamid.1")


class TenantsBreakersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = Stage(threshold=3)
        for n in range(3):
            self.stage.offer(f"a{n}", None, tenant_id="a")
        for n in range(3):
            self.stage.end(f"a{n}", BROKEN)
        assert self.state("a") is State.OPEN

    def state(self, tenant_id: str) -> State:
        standing = self.stage.standings.find(tenant_id)
        assert standing is not None
        return standing.breaker.state

    def break_road(self) -> None:
        self.stage.offer("b", None, tenant_id="b")
        self.stage.end("b", BROKEN)
        assert self.stage.turns.breaker.state is State.OPEN

    def test_one_that_opened_for_what_broke_the_road_does_not_outlast_it(self) -> None:
        self.break_road()

        assert self.state("a") is State.CLOSED
        self.stage.offer("a3", None, tenant_id="a")
        assert "a3" not in self.stage.in_flight

        self.stage.pass_time(5.1)
        self.stage.end("a3", SENT)
        assert self.stage.turns.breaker.state is State.CLOSED

    def test_one_that_has_been_open_for_a_while_is_its_tenants_own(self) -> None:
        self.stage.pass_time(11)
        for tenant_id in ("b", "c", "d"):
            self.stage.offer(tenant_id, None, tenant_id=tenant_id)
        for tenant_id in ("b", "c", "d"):
            self.stage.end(tenant_id, BROKEN)

        assert self.stage.turns.breaker.state is State.OPEN
        assert self.state("a") is State.OPEN
