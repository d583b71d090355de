"""The log of what happens to messages says which trace each belongs to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import NUMBER_THROTTLE, TRANSIENT, FakeDelivery, a_job
from whatsapp_egress.observe.journal import Journal
from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.observe.values import Presenter
from whatsapp_egress.pipeline.job import Job
from whatsapp_egress.policy.trace import TraceContext
from whatsapp_egress.policy.verdict import Dead, Reason, Sent

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01"}

ABOUT_A_MESSAGE: dict[str, Callable[[Journal, Job], None]] = {
    "message_consumed": lambda journal, job: journal.consumed(job),
    "meta_api_error": lambda journal, job: journal.faulted(job, TRANSIENT, 0.1),
    "message_retry": lambda journal, job: journal.retrying(job, TRANSIENT, 1.0),
    "rate_limit_exceeded": lambda journal, job: journal.waiting(job, NUMBER_THROTTLE, 10.0),
    "message_delivered": lambda journal, job: journal.delivered(job, Sent("wamid.1")),
    "message_dead_lettered": lambda journal, job: journal.dead_lettered(job, Dead(Reason.EXPIRED, "x")),
    "message_unpublished": lambda journal, job: journal.unpublished(job, "event", "x"),
    "message_unsettled": lambda journal, job: journal.unsettled(job),
    "message_left": lambda journal, job: journal.left(job),
    "message_recalled": lambda journal, job: journal.recalled(job),
    "message_deferred": lambda journal, job: journal.deferred(job),
}


def logged(name: str, job: Job) -> dict[str, Any]:
    with capturedLogs() as logs:
        ABOUT_A_MESSAGE[name](Journal(Clock()), job)
    (event,) = logs
    assert event["log_format"] == name
    assert event["internalId"] == "m-1"
    return dict(event)


def the_job(headers: dict[str, Any]) -> Job:
    return a_job("m-1", delivery=FakeDelivery(b"m-1", headers=headers))


class TraceTests(SynchronousTestCase):
    def test_each_line_about_a_message_names_the_trace_and_the_span(self) -> None:
        for name in ABOUT_A_MESSAGE:
            with self.subTest(name=name):
                event = logged(name, the_job(HEADERS))
                assert (event["traceId"], event["spanId"]) == (TRACE_ID, SPAN_ID)

    def test_without_a_trace_it_says_nothing_of_one(self) -> None:
        for name in ABOUT_A_MESSAGE:
            with self.subTest(name=name):
                event = logged(name, the_job({"traceparent": "junk"}))
                assert not {"traceId", "spanId"} & event.keys()

    def test_where_spans_are_made_it_names_ours(self) -> None:
        job = the_job(HEADERS)
        job.span = TraceContext(TRACE_ID, "2" * 16)
        assert logged("message_delivered", job)["spanId"] == "2" * 16

    def test_an_id_that_looks_like_a_phone_number_is_not_masked(self) -> None:
        presenter = Presenter(Redactor())
        assert presenter.field("traceId", "9" * 32) == "9" * 32
        assert presenter.field("spanId", "9198765432101234") == "9198765432101234"
