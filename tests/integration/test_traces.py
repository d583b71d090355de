"""A trace that comes with a message is found again in all that comes of it, on a real broker."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import pika
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.integration.test_process import Process
from tests.integration.world import World, message
from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.observe.tracing import Tracing
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.sandbox import cards

TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {"traceparent": f"00-{TRACE_ID}-{SPAN_ID}-01", "tracestate": "vendor=1"}


def traced(headers: dict[str, Any] | None = None) -> pika.BasicProperties:
    return pika.BasicProperties(delivery_mode=2, headers=headers or HEADERS)


class InTheTrace(World):
    async def setUp(self) -> None:
        await super().setUp()
        self.told = self.upstream.listen_to_events()
        self.tenant = self.sandbox.tenants.add("t1")

    async def event_headers(self, count: int) -> list[dict[str, Any] | None]:
        await self.until(lambda: self.upstream.depth(self.told) == count, f"{count} events are there")
        return [event.properties.headers for _, event in self.upstream.take(self.told)]

    async def defer(self, headers: dict[str, Any] | None = None) -> None:
        """One message goes into the deferred queue and comes back, with its headers looked at in between."""
        assert self.gateway is not None
        lanes = self.gateway.parts.lanes
        lanes.pause("t1", Pause("looked at", "a test", time.time()))
        self.upstream.publish(message(self.tenant), traced(headers))
        queue = "outbound-deferred.t1"

        def there() -> bool:
            with contextlib.suppress(pika.exceptions.ChannelClosedByBroker):
                return self.upstream.depth(queue) == 1
            self.upstream.channel = self.upstream.connection.channel()
            return False

        await self.until(there, "deferred")
        method, copy, _ = self.upstream.channel.basic_get(queue)
        self.upstream.channel.basic_nack(method.delivery_tag)
        self.copied = dict(copy.headers)
        lanes.resume("t1")
        await self.until(lambda: len(self.sent()) == 1, "sent")


class Passed(InTheTrace):
    async def test_the_log_and_the_events_name_it(self) -> None:
        await self.start_gateway()
        self.upstream.publish(message(self.tenant, internal_id="good"), traced())
        self.upstream.publish(message(self.tenant, cards.always(131026), internal_id="bad"), traced())
        self.upstream.publish(b"junk", traced({"traceparent": HEADERS["traceparent"].encode()}))
        self.upstream.publish(message(self.tenant, internal_id="untraced"))
        await self.until_settled()

        told = await self.event_headers(4)
        assert sorted(map(str, told)) == sorted(
            map(str, [HEADERS, HEADERS, {"traceparent": HEADERS["traceparent"]}, None])
        )
        names = {"message_consumed", "message_delivered", "message_dead_lettered", "meta_api_error"}
        lines = [line for line in self.events() if line["log_format"] in names]
        assert {line["log_format"] for line in lines} == names
        for line in lines:
            if line["internalId"] == "untraced":
                assert "traceId" not in line
            else:
                assert (line["traceId"], line["spanId"]) == (TRACE_ID, SPAN_ID)
        letters = [letter.properties.headers for letter in self.dead_letters()]
        assert len(letters) == 2
        for headers in letters:
            assert headers["traceparent"] in (HEADERS["traceparent"], HEADERS["traceparent"].encode())

    async def test_a_deferred_message_stays_in_it(self) -> None:
        await self.start_gateway()
        await self.defer()

        assert self.copied.items() >= HEADERS.items()
        assert "x-egress-span" not in self.copied
        assert await self.event_headers(1) == [HEADERS]

    async def test_hostile_headers_change_nothing(self) -> None:
        await self.start_gateway()
        hostile: list[Any] = ["00-" + "0" * 32, b"\xff" * 55, 7, None, ["x"], {"a": 1}, "x" * 50_000]
        for n, value in enumerate(hostile):
            headers = {"traceparent": value, "tracestate": value}
            self.upstream.publish(message(self.tenant, internal_id=f"m-{n}"), traced(headers))
        await self.until_settled()

        assert len(self.sent()) == len(hostile)
        assert await self.event_headers(len(hostile)) == [None] * len(hostile)

    async def test_meta_is_told_nothing_of_it(self) -> None:
        await self.start_gateway()
        self.upstream.publish(message(self.tenant), traced())
        await self.until_settled()

        (arrival,) = self.sent()
        assert TRACE_ID not in repr(arrival)


class Spanned(InTheTrace):
    async def setUp(self) -> None:
        await super().setUp()
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(provider, Redactor())

    def spans(self, kind: SpanKind) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.kind is kind]

    def outcomes(self) -> dict[Any, Any]:
        ended = [span.attributes or {} for span in self.spans(SpanKind.CONSUMER)]
        return {about.get("messaging.message.id"): about["whatsapp.outcome"] for about in ended}

    async def test_each_message_has_a_span_and_each_exchange_one_in_it(self) -> None:
        await self.start_gateway()
        self.upstream.publish(message(self.tenant, internal_id="sent"), traced())
        self.upstream.publish(message(self.tenant, cards.times(2, 131000), internal_id="retried"), traced())
        self.upstream.publish(message(self.tenant, cards.always(131026), internal_id="dead"), traced())
        self.upstream.publish(b"junk", traced())
        await self.until_settled()
        await self.until(lambda: len(self.spans(SpanKind.CONSUMER)) == 4, "all spans have ended")

        dead = "dead_lettered"
        assert self.outcomes() == {"sent": "sent", "retried": "sent", "dead": dead, None: dead}
        spans = self.spans(SpanKind.CONSUMER)
        by_id = {(span.attributes or {}).get("messaging.message.id"): span for span in spans}
        for span in by_id.values():
            assert span.parent is not None
            assert f"{span.context.trace_id:032x}" == TRACE_ID
            assert f"{span.parent.span_id:016x}" == SPAN_ID
        assert [event.name for event in by_id["retried"].events] == ["retry", "retry"]
        assert by_id["dead"].status.status_code is StatusCode.ERROR
        exchanges = [span.parent.span_id for span in self.spans(SpanKind.CLIENT) if span.parent is not None]
        assert [exchanges.count(by_id[name].context.span_id) for name in ("sent", "retried", "dead")] == [
            1,
            3,
            1,
        ]
        own = {f"{span.context.span_id:016x}" for span in by_id.values()}
        told = {(headers or {})["traceparent"].split("-")[2] for headers in await self.event_headers(4)}
        assert told == own
        (delivered,) = (e for e in self.events("message_delivered") if e["internalId"] == "sent")
        assert delivered["spanId"] == f"{by_id['sent'].context.span_id:016x}"

    async def test_a_deferred_message_has_two_and_the_second_is_linked_to_the_first(self) -> None:
        await self.start_gateway()
        await self.defer()
        await self.until(lambda: "sent" in self.outcomes().values(), "its span has ended")

        spans = self.spans(SpanKind.CONSUMER)
        ended = [(span.attributes or {})["whatsapp.outcome"] for span in spans]
        # Looking at the copy delivered it once more, but to the test alone.
        assert ended == ["deferred", "sent"]
        first, second = spans
        assert first.links == ()
        assert [link.context.span_id for link in second.links] == [first.context.span_id]
        assert first.context.trace_id == second.context.trace_id == int(TRACE_ID, 16)
        assert self.copied.items() >= HEADERS.items()
        assert self.copied["x-egress-span"].split("-")[2] == f"{first.context.span_id:016x}"

    async def test_what_is_given_back_at_the_end_has_its_spans_ended(self) -> None:
        await self.start_gateway()
        for n in range(3):
            body = message(self.tenant, cards.always(130429), internal_id=f"m-{n}")
            self.upstream.publish(body, traced())
        await self.until(lambda: len(self.events("rate_limit_exceeded")) >= 1, "they wait")
        await self.until(lambda: len(self.events("message_consumed")) == 3, "all are in hand")
        assert self.spans(SpanKind.CONSUMER) == []
        await self.stop_gateway()

        assert self.outcomes() == {"m-0": "left", "m-1": "left", "m-2": "left"}


class Collector:
    """Takes spans as an OTLP collector does; `hang` until told."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        self.go_on = Event()
        self.go_on.set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.headers.append(dict(self.headers))
                collector.requests.append(ExportTraceServiceRequest.FromString(body))
                collector.go_on.wait(60)
                with contextlib.suppress(OSError):
                    self.send_response(200)
                    self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    def names(self) -> list[str]:
        return [
            span.name
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class Exported(Process):
    async def setUp(self) -> None:
        await super().setUp()
        self.collector = Collector()
        self.addCleanup(self.collector.close)
        self.tenant = self.sandbox.tenants.add("t1")

    async def send_one(self, *options: str, **settings: object) -> None:
        self.start(
            *options,
            OTEL_TRACES_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_ENDPOINT=self.collector.url,
            OTEL_EXPORTER_OTLP_HEADERS="api-key=s3cret-of-the-collector",
            OTEL_BSP_SCHEDULE_DELAY="60000",
            **settings,
        )
        if options:
            assert await self.until_ended() == 0  # the daemon lives on
            self.log_file = self.folder / "its.log"
        await self.until_logged("rabbitmq_consuming")
        self.upstream.publish(message(self.tenant), traced())
        await self.until_logged("message_delivered")

    async def test_spans_reach_a_collector_at_the_latest_when_it_stops(self) -> None:
        await self.send_one()
        assert self.collector.names() == []  # the batch thread's time has not come
        assert self.process is not None
        self.process.terminate()
        assert await self.until_ended() == 0

        names = ["POST /v25.0/{phoneNumberId}/messages", "process outbound-processed"]
        assert sorted(self.collector.names()) == names
        assert self.collector.headers[0]["api-key"] == "s3cret-of-the-collector"
        assert self.lines("traces_exported")
        assert self.lines("message_delivered")[0]["traceId"] == TRACE_ID

    async def test_a_collector_that_hangs_does_not_hold_up_the_end(self) -> None:
        self.collector.go_on.clear()
        await self.send_one()
        assert self.process is not None
        began = time.monotonic()
        self.process.terminate()
        assert await self.until_ended() == 0

        assert time.monotonic() - began < 12
        assert [line["level"] for line in self.lines("spans_lost")] == ["WARNING"]
        assert json.dumps(self.lines()).count("s3cret-of-the-collector") == 0

    async def test_a_collector_that_is_away_costs_lines_of_log_alone(self) -> None:
        self.collector.close()
        await self.send_one(OTEL_EXPORTER_OTLP_TIMEOUT="1")
        assert self.process is not None
        self.process.terminate()
        assert await self.until_ended() == 0
        assert len(self.sent()) == 1

    async def test_a_daemon_sends_them_too(self) -> None:
        pidfile = self.folder / "pid"

        def end() -> None:
            if pidfile.exists():
                os.kill(int(pidfile.read_text()), signal.SIGKILL)

        self.addCleanup(end)
        await self.send_one(f"--pidfile={pidfile}", "--logfile=its.log")
        os.kill(int(pidfile.read_text()), signal.SIGTERM)
        await self.until_logged("service_stopped")

        assert len(self.collector.names()) == 2
        await self.until(lambda: not pidfile.exists(), "it ended")
