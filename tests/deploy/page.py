"""A real /metrics page of a gateway to which everything has happened once."""

from __future__ import annotations

from functools import partial

from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel

from tests.observe.events import EXHAUSTED, REJECTED, TRANSIENT, job_of, opened
from tests.observe.seen import Seen
from tests.pipeline.doubles import NUMBER_THROTTLE
from tests.policy.meta import TABLE
from whatsapp_egress.observe.metrics import Metrics
from whatsapp_egress.policy.breaker import Breaker
from whatsapp_egress.policy.verdict import Answer, MetaError, Sent

TENANT = "t1"


def samples() -> list[Sample]:
    """What Prometheus reads from the page."""
    return [sample for family in text_string_to_metric_families(page()) for sample in family.samples]


def page() -> str:
    """The page as text. Its counters are registered, fed and rendered as the service does it."""
    seen = Seen()
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR, seen.shelf):
        seen.registry.register(collector)
    _count(
        Metrics(
            seen.registry,
            seen.stage.clock,
            seen.labels,
            lambda code: TABLE.by_code(code, None, "") is not None,
        )
    )
    seen.pulse.start()
    seen.stage.offer("m-1")
    seen.stage.offer("m-2")
    seen.stage.end("m-1", NUMBER_THROTTLE)
    seen.health.looked(3, 4, 0.1)
    seen.stage.pass_time(6)
    seen.pulse.stop()
    # With one lane it is done at once.
    Deferred.fromCoroutine(seen.gauges.read()).addCallback(partial(setattr, seen.shelf, "reading"))
    return generate_latest(seen.registry).decode()


def _count(metrics: Metrics) -> None:
    """Let each thing happen that a metric counts."""
    metrics.credentials(TENANT, 0.1, cached=False, known=True)
    metrics.credentials(TENANT, 0.0, cached=True, known=True)
    metrics.asked(TENANT, "connect", 1.0)
    job = job_of(TENANT)
    metrics.consumed(job)
    metrics.answered(job, Answer(200, "wamid"), 0.2)
    metrics.answered(job, Answer(429, error=MetaError(130429)), 0.2)
    metrics.retrying(job, TRANSIENT, 1.0)
    metrics.waiting(job, NUMBER_THROTTLE, 10.0)
    metrics.deferred(job)
    metrics.delivered(job, Sent("wamid"))
    metrics.dead_lettered(job, REJECTED)
    metrics.dead_lettered(job, EXHAUSTED)
    metrics.unpublished(job.identity, "event", "nack")
    metrics.unsettled(job)
    metrics.recalled(job)
    metrics.breaker(TENANT, opened(Breaker(1, lambda _n: 60.0, Clock(), lambda _state: None)))
    metrics.logged({"log_level": LogLevel.warn})
