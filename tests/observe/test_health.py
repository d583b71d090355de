"""How the things we depend on are, from what was seen of them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.observe.events import job_of
from tests.observe.seen import FakeBroker
from tests.pipeline.doubles import EPOCH
from whatsapp_egress.observe.health import Health
from whatsapp_egress.policy.verdict import Answer, Exchange, MetaError, Unanswered, Unsent


class HealthTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.broker = FakeBroker()
        self.health = Health(lambda: EPOCH)
        self.health.broker = self.broker

    def meta(self, *exchanges: Exchange) -> str:
        for exchange in exchanges:
            self.health.answered(job_of(), exchange, 0.5)
        return self.health.checks().metaApi.status

    def tenants(self, *troubles: str | None) -> str:
        for trouble in troubles:
            self.health.asked("t1", trouble, 0.25)
        return self.health.checks().tenantService.status

    def test_before_anything_was_seen_nothing_is_said_against_anybody(self) -> None:
        checks = self.health.checks()

        assert (checks.tenantService.status, checks.metaApi.status) == ("unknown", "unknown")
        assert checks.metaApi.latency is None
        assert checks.status == "healthy"

    def test_what_was_seen_comes_with_how_long_it_took_and_when(self) -> None:
        self.tenants(None)
        self.health.looked(7, 2, 0.0015)
        checks = self.health.checks()

        assert checks.tenantService.latency == 250.0
        assert checks.tenantService.lastSeen == "2026-05-28T20:26:40Z"
        assert (checks.rabbitmq.latency, checks.rabbitmq.queueDepth) == (1.5, 7)
        assert self.health.dead_letter_depth == 2

    def test_three_troubles_in_a_row_are_an_illness_and_one_answer_ends_it(self) -> None:
        assert self.tenants("connect", "no_answer") == "healthy"
        assert self.tenants("http_503") == "unhealthy"
        assert self.health.checks().tenantService.detail == "http_503"
        assert self.health.checks().status == "degraded"
        assert self.tenants(None) == "healthy"

    def test_metas_no_is_an_answer_and_its_5xx_or_silence_are_not(self) -> None:
        no = Answer(400, error=MetaError(131026))
        assert self.meta(no, no, no) == "healthy"
        assert self.meta(Unsent("refused"), Unanswered("reset"), Answer(503)) == "unhealthy"
        assert self.health.checks().metaApi.detail == "HTTP 503"
        assert self.meta(Answer(429, error=MetaError(130429))) == "healthy"

    def test_without_the_broker_nothing_goes(self) -> None:
        self.broker.consuming = False
        assert self.health.checks().rabbitmq.status == "unhealthy"
        assert self.health.checks().status == "unhealthy"
        assert not self.health.consuming

    def test_while_nothing_can_be_published_it_goes_badly(self) -> None:
        self.broker.publishing = False
        assert self.health.checks().rabbitmq.status == "degraded"
        assert self.health.checks().status == "degraded"

    def test_before_there_is_a_broker_it_is_away(self) -> None:
        self.health.broker = None
        assert self.health.checks().status == "unhealthy"
