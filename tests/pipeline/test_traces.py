"""What belongs to a trace stays in it on its way through the pipeline."""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import EPOCH, FakeBroker, FakeCredentials, FakeDelivery, FakeGraph, Witness, a_job
from tests.pipeline.test_intake import BODY, DEAD
from tests.policy.meta import TABLE
from whatsapp_egress.errors import Unpublished
from whatsapp_egress.message import decode
from whatsapp_egress.pipeline.attempt import Attempt
from whatsapp_egress.pipeline.intake import Intake
from whatsapp_egress.pipeline.job import Job
from whatsapp_egress.pipeline.outcome import PUBLISH_AGAIN, Outcome
from whatsapp_egress.pipeline.recent import Recent
from whatsapp_egress.policy.trace import TraceContext
from whatsapp_egress.policy.verdict import Patience, Sent

TRACE = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True, "vendor=1")
HEADERS = {"traceparent": TRACE.traceparent, "tracestate": TRACE.tracestate}
SPAN = TraceContext(TRACE.trace_id, "2" * 16, sampled=True)
IDS = {"traceId": TRACE.trace_id, "spanId": TRACE.span_id}


class Traced(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.broker, self.witness, self.recent = FakeBroker(), Witness(), Recent(self.clock)
        self.outcome = Outcome(self.broker, self.recent, self.witness, self.clock, lambda: EPOCH)
        self.offered: list[Job] = []
        self.intake = Intake(
            partial(decode, max_bytes=10_000),
            self.offered.append,
            self.outcome,
            self.recent,
            self.witness,
            self.clock,
        )

    def receive(self, body: bytes = BODY, **fields: object) -> FakeDelivery:
        delivery = FakeDelivery(body, **{"headers": HEADERS, **fields})
        self.intake.receive(delivery)
        return delivery

    def test_a_job_knows_the_trace_of_its_delivery(self) -> None:
        self.receive()
        self.receive(headers={})
        self.receive(headers={"traceparent": "junk"})

        assert [job.context for job in self.offered] == [TRACE, None, None]

    def test_events_are_told_in_the_trace(self) -> None:
        self.receive()
        self.outcome.settle(self.offered[-1], Sent("wamid.1"))
        self.receive()
        self.outcome.settle(self.offered[-1], DEAD)
        self.receive(b"not json")

        assert self.broker.event_headers == [HEADERS] * 3

    def test_an_event_of_no_trace_has_no_headers(self) -> None:
        self.receive(headers={"tracestate": "vendor=1", "other": 1})
        self.outcome.settle(self.offered[-1], Sent("wamid.1"))

        assert self.broker.event_headers == [{}]

    def test_an_event_is_a_child_of_the_span_where_spans_are_made_also_when_it_is_published_again(
        self,
    ) -> None:
        confirm: Deferred[None] = Deferred()
        self.broker.on_announce = lambda: confirm
        self.receive()
        self.offered[-1].span = SPAN
        self.outcome.settle(self.offered[-1], Sent("wamid.1"))
        refusal, confirm = confirm, Deferred()
        refusal.errback(Unpublished("no connection"))
        self.clock.advance(PUBLISH_AGAIN)

        assert self.broker.event_headers == [{"traceparent": SPAN.traceparent}] * 2

    def test_an_outcome_that_is_told_after_a_redelivery_is_told_in_the_trace(self) -> None:
        self.receive().alive = False
        self.broker.on_dead_letter = lambda: Deferred()
        self.outcome.settle(self.offered[-1], DEAD)
        self.outcome.cut_short()
        assert self.broker.event_headers == []

        self.broker.on_dead_letter = FakeBroker().on_dead_letter
        self.receive(redelivered=True)
        assert self.broker.event_headers == [HEADERS]

    def test_a_message_that_is_put_back_is_told_of(self) -> None:
        self.receive()
        self.outcome.give_back(self.offered[-1])

        assert self.witness.names == ["consumed", "left"]


class FaultTests(Traced):
    """Faults of ours are logged with the trace that they happened in."""

    def test_in_decoding(self) -> None:
        self.patch(self.intake, "_decode", lambda body: 1 // 0)
        with capturedLogs() as logs:
            self.receive()

        assert logs[0].items() >= IDS.items()
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1

    def test_in_an_attempt(self) -> None:
        job = a_job("m-1", delivery=FakeDelivery(b"m-1", headers=HEADERS))
        credentials = FakeCredentials(KeyError("x"))
        attempt = Attempt(
            credentials, FakeGraph(), TABLE, Patience(), self.witness, self.clock, lambda: EPOCH
        )
        with capturedLogs() as logs:
            self.successResultOf(Deferred.fromCoroutine(attempt.look_up(job)))

        assert logs[0].items() >= {"tenantId": "t1", "internalId": "m-1", **IDS}.items()
        assert len(self.flushLoggedErrors(KeyError)) == 1
