"""What happens to messages, as spans of OpenTelemetry.

Only `observe.tracing` imports this module, for OpenTelemetry need not be installed. Names follow the semantic
conventions (https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/); what they have no name for
begins with `whatsapp.`. No attribute holds a payload, a token, or anything that names the recipient: the
wamid does, in base64.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from attrs import define, field
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)

from whatsapp_egress import deferred
from whatsapp_egress.observe.everyone import Deaf
from whatsapp_egress.pipeline.job import Job, Parcel
from whatsapp_egress.policy.trace import TraceContext
from whatsapp_egress.policy.verdict import Answer, Dead, Exchange, Fault, Sent, Unsent, Wait

Attributes = Mapping[str, str | int | float | bool]

_ERROR = Status(StatusCode.ERROR)
_FIRST_ERROR_STATUS = 400


@define(eq=False)
class Spans(Deaf):
    """An `Observer` that makes one span of each message in hand, and in it one of each exchange with Meta.

    A span is open from intake to outcome. The one of a message that is deferred ends with that, and when the
    message comes again the next one is linked to it. `clean` takes secrets out of what publishers chose.
    """

    _tracer: Tracer
    _queue: str
    _exchange_name: str
    _to_meta: Attributes
    _clean: Callable[[str], str]
    _now: Callable[[], int] = time.time_ns
    _open: dict[Parcel, Span] = field(factory=dict, init=False)

    @classmethod
    def of(
        cls, tracer: Tracer, queue: str, base_url: str, version: str, clean: Callable[[str], str]
    ) -> Spans:
        """Spans of the messages in `queue`, and of exchanges with the API at `base_url`."""
        url, template = urlsplit(base_url), f"/{version}/{{phoneNumberId}}/messages"
        port = url.port or (443 if url.scheme == "https" else 80)
        to_meta: Attributes = {
            "http.request.method": "POST",
            "server.address": url.hostname or "",
            "server.port": port,
            "url.template": template,
        }
        return cls(tracer, queue, f"POST {template}", to_meta, clean)

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)

    def close(self) -> None:
        """End what is open."""
        for parcel in list(self._open):
            self._end(parcel, "left")

    def consumed(self, parcel: Parcel) -> None:
        before = None if parcel.place is None else deferred.span(parcel.delivery.headers)
        span = self._tracer.start_span(
            f"process {self._queue}",
            Context() if parcel.trace is None else _within(_remote(parcel.trace)),
            SpanKind.CONSUMER,
            self._about(parcel),
            None if before is None else [Link(_remote(before))],
        )
        parcel.span = _ours(span.get_span_context())
        if span.is_recording():
            self._open[parcel] = span

    def answered(self, job: Job, exchange: Exchange, seconds: float) -> None:
        parent = self._open.get(job)
        if parent is None:
            return
        now = self._now()
        span = self._tracer.start_span(
            self._exchange_name,
            set_span_in_context(parent, Context()),
            SpanKind.CLIENT,
            self._to_meta,
            start_time=now - int(seconds * 1e9),
        )
        if isinstance(exchange, Answer):
            span.set_attribute("http.response.status_code", exchange.status)
        error = _error_type(exchange)
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(_ERROR)
        span.end(now)

    def retrying(self, job: Job, fault: Fault, delay: float) -> None:
        self._tell(job, "retry", {**_of(fault), "whatsapp.delay": delay, "whatsapp.attempts": job.attempts})

    def waiting(self, job: Job, wait: Wait, delay: float) -> None:
        about = {**_of(wait.fault), "whatsapp.delay": delay, "whatsapp.wait.scope": wait.scope.value}
        self._tell(job, "wait", about)

    def recalled(self, parcel: Parcel) -> None:
        self._tell(parcel, "redelivered", {})

    def delivered(self, parcel: Parcel, sent: Sent) -> None:
        self._end(parcel, "sent")

    def dead_lettered(self, parcel: Parcel, dead: Dead) -> None:
        span = self._open.get(parcel)
        if span is not None:
            span.set_attributes({"error.type": dead.reason.value, **(_of(dead.fault) if dead.fault else {})})
            span.set_status(_ERROR)
        self._end(parcel, "dead_lettered")

    def deferred(self, parcel: Parcel) -> None:
        self._end(parcel, "deferred")

    def unsettled(self, parcel: Parcel) -> None:
        self._end(parcel, "unsettled")

    def left(self, job: Job) -> None:
        self._end(job, "left")

    def _about(self, parcel: Parcel) -> Attributes:
        delivery, identity = parcel.delivery, parcel.identity
        # To a deferred queue messages are published by its name.
        queue = self._queue if parcel.place is None else delivery.routing_key
        about: dict[str, str | int | float | bool] = {
            "messaging.system": "rabbitmq",
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.destination.name": queue,
            "messaging.message.body.size": len(delivery.body),
        }
        if delivery.routing_key:
            about["messaging.rabbitmq.destination.routing_key"] = self._clean(delivery.routing_key)
        if identity.internal_id is not None:
            about["messaging.message.id"] = self._clean(identity.internal_id)
        if identity.tenant_id is not None:
            about["whatsapp.tenant.id"] = self._clean(identity.tenant_id)
        return about

    def _tell(self, parcel: Parcel, event: str, attributes: Attributes) -> None:
        span = self._open.get(parcel)
        if span is not None:
            span.add_event(event, attributes)

    def _end(self, parcel: Parcel, outcome: str) -> None:
        span = self._open.pop(parcel, None)
        if span is not None:
            span.set_attributes({"whatsapp.outcome": outcome, "whatsapp.attempts": parcel.attempts})
            span.end()


def _of(fault: Fault) -> Attributes:
    """What went wrong, without the text: Meta may quote the recipient in it."""
    fields = {
        "whatsapp.error.class": fault.error_class.value if fault.error_class else None,
        "whatsapp.error.code": fault.code,
        "whatsapp.error.subcode": fault.subcode,
        "whatsapp.error.fbtrace_id": fault.fbtrace_id,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _error_type(exchange: Exchange) -> str | None:
    if not isinstance(exchange, Answer):
        return "unsent" if isinstance(exchange, Unsent) else "unanswered"
    if exchange.status >= _FIRST_ERROR_STATUS:
        return str(exchange.status)
    return None if exchange.complete else "incomplete"


def _remote(context: TraceContext) -> SpanContext:
    return SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT),
        trace_state=TraceState.from_header([context.tracestate]),
    )


def _within(parent: SpanContext) -> Context:
    return set_span_in_context(NonRecordingSpan(parent), Context())


def _ours(context: SpanContext) -> TraceContext:
    return TraceContext(
        format_trace_id(context.trace_id),
        format_span_id(context.span_id),
        context.trace_flags.sampled,
        context.trace_state.to_header(),
    )
