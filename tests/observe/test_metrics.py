"""Each counter moves when its event happens, for the right tenant."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from twisted.internet.task import Clock
from twisted.logger import Logger, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.observe import events
from tests.observe.events import (
    EXHAUSTED,
    REJECTED,
    TRANSIENT,
    UNKNOWN_TENANT,
    deferred_job_of,
    job_of,
    parcel_of,
)
from tests.pipeline.doubles import NUMBER_THROTTLE, PAIR_THROTTLE, TENANT_WAIT
from tests.policy.meta import TABLE
from whatsapp_egress.message import Identity
from whatsapp_egress.observe import labels as labels_module
from whatsapp_egress.observe import metrics as module
from whatsapp_egress.observe.labels import TenantLabels
from whatsapp_egress.observe.metrics import Metrics
from whatsapp_egress.policy.breaker import Breaker
from whatsapp_egress.policy.table import ErrorClass
from whatsapp_egress.policy.verdict import (
    Answer,
    Dead,
    Fault,
    MetaError,
    Reason,
    Scope,
    Sent,
    Unanswered,
    Unsent,
    Wait,
)


class Counting(SynchronousTestCase):
    most = 3

    def setUp(self) -> None:
        self.clock = Clock()
        self.registry = CollectorRegistry()
        self.labels = TenantLabels(self.most)
        self.metrics = Metrics(
            self.registry, self.clock, self.labels, lambda code: TABLE.by_code(code, None, "") is not None
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def know(self, *tenant_ids: str) -> None:
        for each in tenant_ids:
            self.metrics.credentials(each, 0.0, cached=True, known=True)


class MessageTests(Counting):
    def setUp(self) -> None:
        super().setUp()
        self.know("t1")

    def test_one_that_came(self) -> None:
        self.metrics.consumed(job_of())

        assert self.value("messages_consumed_total", tenant="t1", status="consumed") == 1

    def test_one_that_comes_back_from_its_deferred_queue_came_before(self) -> None:
        self.metrics.consumed(deferred_job_of())

        assert self.value("messages_consumed_total", tenant="t1", status="consumed") is None

    def test_one_that_was_sent(self) -> None:
        job = job_of(received=1.0)
        self.clock.advance(3.0)
        self.metrics.delivered(job, Sent("wamid"))

        assert self.value("messages_consumed_total", tenant="t1", status="success") == 1
        assert self.value("messages_delivered_total", tenant="t1") == 1
        assert self.value("message_processing_duration_seconds_sum", tenant="t1") == 2.0

    def test_one_that_failed_and_how(self) -> None:
        self.metrics.dead_lettered(job_of(), REJECTED)

        assert self.value("messages_consumed_total", tenant="t1", status="failed") == 1
        assert self.value("messages_failed_total", tenant="t1", error_code="131047", retryable="false") == 1
        assert self.value("message_processing_duration_seconds_count", tenant="t1") == 1
        assert self.value("whatsapp_egress_dead_letters_total", reason="rejected") == 1
        assert self.value("whatsapp_egress_dead_letters_total", reason="expired") == 0

    def test_what_failed_for_a_passing_reason_may_be_tried_again(self) -> None:
        self.metrics.dead_lettered(job_of(), EXHAUSTED)
        self.metrics.dead_lettered(
            job_of(), Dead(Reason.AUTH_FAILED, "190", Fault("190", ErrorClass.AUTH, code=190))
        )

        assert self.value("messages_failed_total", tenant="t1", error_code="131000", retryable="true") == 1
        assert self.value("messages_failed_total", tenant="t1", error_code="190", retryable="true") == 1

    def test_without_a_code_of_metas_the_reason_stands_for_it(self) -> None:
        self.metrics.dead_lettered(job_of(), Dead(Reason.EXPIRED, "late"))

        assert self.value("messages_failed_total", tenant="t1", error_code="expired", retryable="false") == 1

    def test_a_code_that_nobody_has_heard_of_makes_no_label(self) -> None:
        self.metrics.dead_lettered(job_of(), Dead(Reason.REJECTED, "?", Fault("?", code=987654321)))

        assert self.value("messages_failed_total", tenant="t1", error_code="unlisted", retryable="false") == 1

    def test_exchanges_by_how_they_ended(self) -> None:
        for exchange in (
            Answer(200, "wamid"),
            Answer(429, error=MetaError(130429)),
            Unsent("refused"),
            Unanswered("reset"),
        ):
            self.metrics.answered(job_of(), exchange, 0.25)

        for status in ("200", "429", "unsent", "unanswered"):
            assert self.value("meta_api_requests_total", tenant="t1", status_code=status, method="POST") == 1
        assert self.value("meta_api_request_duration_seconds_sum", tenant="t1") == 1.0

    def test_credentials_and_whether_anybody_was_asked(self) -> None:
        self.metrics.credentials("t1", 0.5, cached=False, known=True)

        assert self.value("credential_fetch_duration_seconds_sum", tenant="t1", cached="false") == 0.5
        assert self.value("credential_fetch_duration_seconds_count", tenant="t1", cached="true") == 1

    def test_troubles_with_the_tenant_service(self) -> None:
        self.metrics.asked("t1", "http_503", 1.0)
        self.metrics.asked("t1", None, 1.0)

        assert self.value("tenant_service_errors_total", tenant="t1", reason="http_503") == 1

    def test_a_clock_that_was_set_back_takes_no_time_away(self) -> None:
        self.metrics.delivered(job_of(received=5.0), Sent("wamid"))

        assert self.value("message_processing_duration_seconds_sum", tenant="t1") == 0.0

    def test_retries_by_class(self) -> None:
        self.metrics.retrying(job_of(), TRANSIENT, 1.0)
        self.metrics.retrying(job_of(), Fault("?"), 1.0)

        assert self.value("whatsapp_egress_retries_total", error_class="transient") == 1
        assert self.value("whatsapp_egress_retries_total", error_class="unclassified") == 1

    def test_throttles_by_who_waits_and_no_other_waits(self) -> None:
        app = Wait(Fault("4", ErrorClass.THROTTLE_WABA_OR_APP, app_wide=True), Scope.TENANT)
        for wait in (PAIR_THROTTLE, NUMBER_THROTTLE, app, TENANT_WAIT):
            self.metrics.waiting(job_of(), wait, 10.0)

        for scope in ("recipient", "sender", "app"):
            assert self.value("whatsapp_egress_throttles_total", scope=scope) == 1, scope
        assert self.value("whatsapp_egress_throttles_total", scope="tenant") == 0

    def test_events_that_are_lost_but_not_dead_letters_that_are_published_again(self) -> None:
        self.metrics.unpublished(Identity("t1"), "event", "too many")
        self.metrics.unpublished(Identity("t1"), "dead letter", "no connection")

        assert self.value("whatsapp_egress_events_lost_total") == 1

    def test_what_happens_to_deliveries(self) -> None:
        self.metrics.unsettled(job_of())
        self.metrics.recalled(job_of())
        self.metrics.deferred(job_of())

        for name in ("unsettled", "recalled", "deferrals"):
            assert self.value(f"whatsapp_egress_{name}_total") == 1, name

    def test_breakers_that_open(self) -> None:
        breaker = Breaker(1, lambda _: 60.0, self.clock, lambda _: None)
        self.metrics.breaker("t1", breaker)
        events.opened(breaker)
        self.metrics.breaker("t1", breaker)
        self.metrics.breaker(None, breaker)

        assert self.value("whatsapp_egress_breaker_opened_total", scope="tenant") == 1
        assert self.value("whatsapp_egress_breaker_opened_total", scope="road") == 1

    def test_warnings_and_worse_in_the_log(self) -> None:
        globalLogPublisher.addObserver(self.metrics.logged)
        self.addCleanup(globalLogPublisher.removeObserver, self.metrics.logged)
        log = Logger("whatsapp_egress.somewhere")
        log.info("fine")
        log.warn("odd")
        log.error("bad")
        self.metrics.logged({})

        assert self.value("whatsapp_egress_log_events_total", level="warn") == 1
        assert self.value("whatsapp_egress_log_events_total", level="error") == 1
        assert self.value("whatsapp_egress_log_events_total", level="critical") == 0
        assert self.value("whatsapp_egress_log_events_total", level="info") is None


class LabelTests(Counting):
    def consumed(self, tenant: str) -> float | None:
        return self.value("messages_consumed_total", tenant=tenant, status="consumed")

    def test_what_came_before_a_tenant_was_known_is_counted_for_it(self) -> None:
        for _ in range(3):
            self.metrics.consumed(job_of("t1"))
        self.metrics.asked("t1", "connect", 1.0)
        assert self.consumed("t1") is None

        self.know("t1")

        assert self.consumed("t1") == 3
        assert self.value("tenant_service_errors_total", tenant="t1", reason="connect") == 1

    def test_tenants_that_the_tenant_service_does_not_know_share_a_label(self) -> None:
        for tenant in ("x1", "x2"):
            self.metrics.consumed(job_of(tenant))
            self.metrics.credentials(tenant, 0.1, cached=False, known=False)
            self.metrics.dead_lettered(job_of(tenant), UNKNOWN_TENANT)

        assert self.consumed("unknown") == 2
        assert self.value("messages_consumed_total", tenant="unknown", status="failed") == 2
        assert not list(self.labels)

    def test_what_is_no_message_names_no_tenant(self) -> None:
        for tenant in ("made-up", None):
            self.metrics.consumed(parcel_of(tenant))
            self.metrics.dead_lettered(parcel_of(tenant), Dead(Reason.INVALID_MESSAGE, "no"))

        assert self.consumed("unknown") == 2

    def test_a_tenant_that_nothing_becomes_known_of_is_one_of_the_unknown_after_a_while(self) -> None:
        self.metrics.consumed(job_of("t1"))
        self.clock.advance(module.UNRESOLVED_SECONDS - 1)
        self.metrics.give_up_unresolved()
        assert self.consumed("unknown") is None

        self.clock.advance(1)
        self.metrics.give_up_unresolved()
        assert self.consumed("unknown") == 1

    def test_where_the_service_can_not_say_nothing_is_decided(self) -> None:
        self.metrics.consumed(job_of("t1"))
        self.metrics.credentials("t1", 1.0, cached=False, known=None)
        assert self.consumed("unknown") is None

    def test_only_so_many_are_kept_for_later(self) -> None:
        self.patch(module, "MOST_UNRESOLVED", 2)
        for tenant in ("a", "b", "c"):
            self.metrics.consumed(job_of(tenant))

        assert self.consumed("unknown") == 1
        self.know("b")
        assert self.consumed("b") == 1

    def test_past_the_limit_tenants_share_a_label(self) -> None:
        self.know("t1", "t2", "t3", "t4", "t5")
        for tenant in ("t3", "t4", "t5"):
            self.metrics.consumed(job_of(tenant))

        assert self.consumed("t3") == 1
        assert self.consumed("other") == 2
        assert list(self.labels) == ["t1", "t2", "t3"]

    def test_a_tenant_that_has_its_label_keeps_it_when_the_service_forgets_it(self) -> None:
        self.know("t1")
        self.metrics.credentials("t1", 0.1, cached=False, known=False)
        self.metrics.dead_lettered(job_of("t1"), UNKNOWN_TENANT)

        assert self.value("messages_consumed_total", tenant="t1", status="failed") == 1


class NoLabelTests(Counting):
    most = 0

    def test_an_operator_may_want_no_tenants_at_all(self) -> None:
        self.know("t1")
        self.metrics.consumed(job_of("t1"))

        assert self.value("messages_consumed_total", tenant="other", status="consumed") == 1


class OtherTests(SynchronousTestCase):
    def test_of_those_past_the_limit_only_so_many_are_remembered(self) -> None:
        self.patch(labels_module, "MOST_OTHERS", 2)
        labels = TenantLabels(0)
        for tenant in ("a", "b", "c"):
            labels.learn(tenant)

        assert labels.find("a") is None
        assert labels.find("c") == "other"
