"""Spans of what happens to messages, as an exporter gets them."""

from __future__ import annotations

import base64
from functools import partial
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import (
    CREDENTIALS,
    EPOCH,
    NUMBER_THROTTLE,
    FakeBroker,
    FakeCredentials,
    FakeDelivery,
    FakeGraph,
    Witness,
)
from tests.policy.meta import TABLE
from whatsapp_egress import deferred
from whatsapp_egress.deferred import Place
from whatsapp_egress.message import decode
from whatsapp_egress.observe.everyone import Everyone
from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.observe.spans import Spans
from whatsapp_egress.pipeline.attempt import Attempt
from whatsapp_egress.pipeline.intake import Intake
from whatsapp_egress.pipeline.job import Job
from whatsapp_egress.pipeline.outcome import Outcome
from whatsapp_egress.pipeline.recent import Recent
from whatsapp_egress.policy.trace import TraceContext
from whatsapp_egress.policy.verdict import (
    Answer,
    Dead,
    Exchange,
    MetaError,
    Patience,
    Reason,
    Retry,
    Sent,
    Unanswered,
    Unsent,
    Verdict,
    Wait,
)

PHONE = "919876543210"
BODY = (
    b'{"metadata": {"tenantId": "t1", "phoneNumberId": "100000001", "internalId": "m-1"},'
    b' "wabaPayload": {"messaging_product": "whatsapp", "to": "919876543210", "text": {"body": "hello"}}}'
)
WAMID = "wamid." + base64.b64encode(PHONE.encode()).decode()
TRACE = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", True, "vendor=1")
HEADERS = {"traceparent": TRACE.traceparent, "tracestate": TRACE.tracestate}
OK = Answer(200, wamid=WAMID, wa_id=PHONE)
EXCHANGE = {
    "http.request.method": "POST",
    "server.address": "graph.facebook.com",
    "server.port": 443,
    "url.template": "/v25.0/{phoneNumberId}/messages",
}


class Watched(SynchronousTestCase):
    """A pipeline from intake to outcome, without lanes: a test makes each attempt itself."""

    sampler: Any = None

    def setUp(self) -> None:
        self.clock = Clock()
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=self.sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.redactor = Redactor()
        self.spans = Spans.of(
            provider.get_tracer("test"),
            "outbound-processed",
            "https://graph.facebook.com",
            "v25.0",
            self.redactor.known,
        )
        self.observer = Everyone((self.spans, Witness()))
        self.broker, self.recent, self.graph = FakeBroker(), Recent(self.clock), FakeGraph()
        self.outcome = Outcome(self.broker, self.recent, self.observer, self.clock, lambda: EPOCH)
        self.attempt = Attempt(
            FakeCredentials(), self.graph, TABLE, Patience(1), self.observer, self.clock, lambda: EPOCH
        )
        self.jobs: list[Job] = []
        self.intake = Intake(
            partial(decode, max_bytes=10_000),
            self.jobs.append,
            self.outcome,
            self.recent,
            self.observer,
            self.clock,
        )

    def receive(self, body: bytes = BODY, **fields: Any) -> FakeDelivery:
        delivery = FakeDelivery(body, **{"headers": HEADERS, **fields})
        self.intake.receive(delivery)
        return delivery

    def try_it(self, exchange: Exchange, seconds: float = 0.0) -> Verdict:
        """One attempt; what ends the message is settled."""
        answer: Deferred[Exchange] = Deferred()
        self.graph.exchanges = [answer]
        verdict = Deferred.fromCoroutine(self.attempt(self.jobs[-1], CREDENTIALS))
        self.clock.advance(seconds)
        answer.callback(exchange)
        ended = self.successResultOf(verdict)
        if isinstance(ended, (Sent, Dead)):
            self.outcome.settle(self.jobs[-1], ended)
        return ended

    @property
    def ended(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def process_span(self) -> ReadableSpan:
        """The one of the message."""
        (span,) = (span for span in self.ended if span.kind is SpanKind.CONSUMER)
        return span

    def exchange_spans(self) -> list[ReadableSpan]:
        return [span for span in self.ended if span.kind is SpanKind.CLIENT]


def hexadecimal(span: ReadableSpan) -> tuple[str, str]:
    context = span.get_span_context()
    assert context is not None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


def fields(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def happened(span: ReadableSpan) -> list[tuple[str, dict[str, Any]]]:
    return [(event.name, dict(event.attributes or {})) for event in span.events]


class SentTests(Watched):
    def setUp(self) -> None:
        super().setUp()
        self.receive()
        self.try_it(OK, seconds=0.25)

    def test_a_message_has_a_span_within_the_trace_that_it_came_with(self) -> None:
        span = self.process_span()

        assert span.name == "process outbound-processed"
        assert span.parent is not None
        assert span.parent.is_remote
        assert f"{span.parent.trace_id:032x}" == hexadecimal(span)[0] == TRACE.trace_id
        assert f"{span.parent.span_id:016x}" == TRACE.span_id
        assert span.context.trace_state.to_header() == "vendor=1"
        assert span.status.status_code is StatusCode.UNSET
        assert span.links == ()

    def test_it_says_what_the_conventions_have_names_for(self) -> None:
        assert fields(self.process_span()) == {
            "messaging.system": "rabbitmq",
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.destination.name": "outbound-processed",
            "messaging.rabbitmq.destination.routing_key": "outbound.processed.t1",
            "messaging.message.id": "m-1",
            "messaging.message.body.size": len(BODY),
            "whatsapp.tenant.id": "t1",
            "whatsapp.outcome": "sent",
            "whatsapp.attempts": 1,
        }

    def test_the_exchange_is_a_span_in_it_that_began_with_the_request(self) -> None:
        (exchange,) = self.exchange_spans()

        assert exchange.name == "POST /v25.0/{phoneNumberId}/messages"
        assert exchange.parent is not None
        assert f"{exchange.parent.span_id:016x}" == hexadecimal(self.process_span())[1]
        assert fields(exchange) == EXCHANGE | {"http.response.status_code": 200}
        assert exchange.status.status_code is StatusCode.UNSET
        assert exchange.start_time is not None
        assert exchange.end_time is not None
        assert exchange.end_time - exchange.start_time == 250_000_000

    def test_its_event_is_a_child_of_it(self) -> None:
        trace_id, span_id = hexadecimal(self.process_span())

        assert self.broker.event_headers == [
            {"traceparent": f"00-{trace_id}-{span_id}-01", "tracestate": "vendor=1"}
        ]

    def test_nothing_is_left_open(self) -> None:
        assert len(self.spans) == 0


class RetriedTests(Watched):
    def test_each_exchange_is_told_and_each_wait_is_an_event(self) -> None:
        self.receive()
        retry = self.try_it(Answer(500, error=MetaError(131000, 7, fbtrace_id="fb")))
        assert isinstance(retry, Retry)
        self.observer.retrying(self.jobs[-1], retry.fault, 1.5)
        wait = self.try_it(Answer(400, error=MetaError(130429)))
        assert isinstance(wait, Wait)
        self.observer.waiting(self.jobs[-1], wait, 10.0)
        self.try_it(OK)

        assert [fields(span).get("error.type") for span in self.exchange_spans()] == ["500", "400", None]
        assert [fields(span)["http.response.status_code"] for span in self.exchange_spans()] == [
            500,
            400,
            200,
        ]
        statuses = [span.status.status_code for span in self.exchange_spans()]
        assert statuses == [StatusCode.ERROR, StatusCode.ERROR, StatusCode.UNSET]
        retried, waited = happened(self.process_span())
        assert retried == (
            "retry",
            {
                "whatsapp.delay": 1.5,
                "whatsapp.attempts": 1,
                "whatsapp.error.class": "transient",
                "whatsapp.error.code": 131000,
                "whatsapp.error.subcode": 7,
                "whatsapp.error.fbtrace_id": "fb",
            },
        )
        assert waited[0] == "wait"
        assert waited[1]["whatsapp.wait.scope"] == "sender"
        assert waited[1]["whatsapp.delay"] == 10.0
        assert fields(self.process_span())["whatsapp.attempts"] == 2
        assert self.process_span().status.status_code is StatusCode.UNSET

    def test_an_exchange_without_a_whole_answer_says_how_it_ended(self) -> None:
        self.receive()
        for exchange, error in (
            (Unsent("refused"), "unsent"),
            (Unanswered("lost"), "unanswered"),
            (Answer(200, complete=False), "incomplete"),
        ):
            self.observer.answered(self.jobs[-1], exchange, 0.1)
            span = self.exchange_spans()[-1]
            assert fields(span)["error.type"] == error
            assert span.status.status_code is StatusCode.ERROR


class DeadTests(Watched):
    def test_a_dead_letter_is_an_error_with_its_reason(self) -> None:
        self.receive()
        self.try_it(Answer(400, error=MetaError(131026, message=f"not {PHONE}", fbtrace_id="fb")))

        span = self.process_span()
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description is None
        about = fields(span)
        assert about["error.type"] == "rejected"
        assert about["whatsapp.outcome"] == "dead_lettered"
        assert (about["whatsapp.error.code"], about["whatsapp.error.fbtrace_id"]) == (131026, "fb")

    def test_what_meta_was_never_asked_about_has_its_reason_alone(self) -> None:
        self.receive()
        self.outcome.settle(self.jobs[-1], Dead(Reason.EXPIRED, "expiresAt has passed"))

        about = fields(self.process_span())
        assert about["error.type"] == "expired"
        assert not [name for name in about if name.startswith("whatsapp.error")]

    def test_the_span_is_open_until_the_dead_letter_is_safe(self) -> None:
        confirm: Deferred[None] = Deferred()
        self.broker.on_dead_letter = lambda: confirm
        self.receive()
        self.outcome.settle(self.jobs[-1], Dead(Reason.EXPIRED, "expiresAt has passed"))
        assert self.ended == []

        confirm.callback(None)
        assert fields(self.process_span())["error.type"] == "expired"

    def test_one_that_can_not_be_settled_any_more_ends_as_that(self) -> None:
        self.broker.on_dead_letter = Deferred
        self.receive()
        self.outcome.settle(self.jobs[-1], Dead(Reason.EXPIRED, "expiresAt has passed"))
        self.outcome.cut_short()

        assert fields(self.process_span())["whatsapp.outcome"] == "unsettled"

    def test_what_is_no_message_says_what_could_be_read(self) -> None:
        self.receive(b'{"metadata": {"tenantId": "t1"}}', headers={}, routing_key="")

        span = self.process_span()
        about = fields(span)
        assert span.parent is None
        assert (about["error.type"], about["whatsapp.outcome"]) == ("invalid_message", "dead_lettered")
        assert about["whatsapp.tenant.id"] == "t1"
        assert "messaging.message.id" not in about
        assert "messaging.rabbitmq.destination.routing_key" not in about

        self.exporter.clear()
        self.receive(b"junk")
        assert "whatsapp.tenant.id" not in fields(self.process_span())


class DeferredTests(Watched):
    def test_a_span_ends_with_the_deferral_and_the_next_one_is_linked_to_it(self) -> None:
        self.receive()
        job = self.jobs[-1]
        copied = HEADERS | deferred.headers(job.history, job.span)
        self.outcome.moved(job)

        first = self.process_span()
        assert fields(first)["whatsapp.outcome"] == "deferred"
        assert len(self.spans) == 0

        self.exporter.clear()
        self.receive(headers=copied, place=Place("t1"), routing_key="outbound-deferred.t1")
        self.try_it(OK)
        second = self.process_span()
        (link,) = second.links
        assert (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") == hexadecimal(first)
        assert second.parent is not None
        assert f"{second.parent.span_id:016x}" == TRACE.span_id
        assert second.name == "process outbound-processed"
        assert fields(second)["messaging.destination.name"] == "outbound-deferred.t1"
        assert fields(second)["whatsapp.outcome"] == "sent"

    def test_what_a_publisher_writes_is_no_span_of_ours(self) -> None:
        self.receive(headers=HEADERS | {deferred.SPAN_HEADER: TRACE.traceparent})
        self.try_it(OK)

        assert self.process_span().links == ()

    def test_junk_from_a_deferred_queue_is_no_link(self) -> None:
        self.receive(headers={deferred.SPAN_HEADER: "junk"}, place=Place("t1"))
        self.try_it(OK)

        assert self.process_span().links == ()


class LeftTests(Watched):
    def test_a_message_that_is_put_back_has_ended_here(self) -> None:
        self.receive()
        self.outcome.give_back(self.jobs[-1])

        assert fields(self.process_span())["whatsapp.outcome"] == "left"
        assert len(self.spans) == 0

    def test_a_redelivery_while_it_is_in_hand_is_an_event(self) -> None:
        self.receive().alive = False
        self.receive(redelivered=True)
        self.try_it(OK)

        assert happened(self.process_span()) == [("redelivered", {})]

    def test_one_that_ended_before_makes_no_span_when_it_comes_again(self) -> None:
        self.receive()
        self.try_it(OK)
        self.recent.lost()
        self.exporter.clear()
        self.receive(redelivered=True)

        assert self.ended == []

    def test_what_is_open_at_the_end_is_ended(self) -> None:
        self.receive()
        self.spans.close()

        assert fields(self.process_span())["whatsapp.outcome"] == "left"


class UnsampledTests(Watched):
    sampler = ALWAYS_OFF

    def test_nothing_is_kept_or_told_and_the_event_says_that_it_was_not_sampled(self) -> None:
        self.receive()
        assert len(self.spans) == 0
        self.observer.waiting(self.jobs[-1], NUMBER_THROTTLE, 10.0)
        self.try_it(OK)
        self.receive()
        self.try_it(Answer(400, error=MetaError(131026)))

        assert self.ended == []
        assert all(
            headers["traceparent"].startswith(f"00-{TRACE.trace_id}-")
            and headers["traceparent"].endswith("-00")
            for headers in self.broker.event_headers
        )
        assert len(self.broker.event_headers) == 2


class UnsampledUpstreamTests(Watched):
    def test_who_began_the_trace_decides_whether_it_is_sampled(self) -> None:
        self.receive(headers={"traceparent": TRACE.traceparent[:-2] + "00"})
        self.try_it(OK)

        assert self.ended == []


class SecretTests(Watched):
    def test_no_recipient_payload_or_known_secret_is_in_any_span(self) -> None:
        token = "EAAsecret" * 5
        self.redactor.know(token)
        self.receive(
            BODY.replace(b"m-1", token.encode()), routing_key=f"outbound.processed.{token}", headers={}
        )
        fault = MetaError(131000, message=f"{PHONE} {token}", details=f"to {PHONE}", fbtrace_id="fb")
        retry = self.try_it(Answer(500, error=fault))
        assert isinstance(retry, Retry)
        self.observer.retrying(self.jobs[-1], retry.fault, 1.0)
        self.try_it(Answer(400, error=MetaError(131026, message=f"{PHONE} {token}")))
        self.receive()
        self.try_it(OK)

        everything = " ".join(span.to_json() for span in self.ended)
        assert everything.count("outbound-processed") == 4  # two names, and two destinations
        for secret in (token, PHONE, PHONE[-10:], WAMID, WAMID.partition(".")[2], "hello", "100000001"):
            assert secret not in everything


class PortTests(SynchronousTestCase):
    def test_the_port_is_the_one_of_the_url_or_its_schemes(self) -> None:
        tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
        for url, port in (("http://127.0.0.1", 80), ("http://127.0.0.1:8443/x", 8443), ("https://a", 443)):
            spans = Spans.of(tracer, "q", url, "v25.0", str)
            assert spans._to_meta["server.port"] == port
