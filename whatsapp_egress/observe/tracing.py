"""Whether spans are made, and where they go: what the OTEL_* environment says.

OpenTelemetry is an extra. Its SDK exports in a thread of its own; nothing here waits for it but the end.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from whatsapp_egress import __version__
from whatsapp_egress.observe.logs import SERVICE
from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.pipeline.observer import Observer
from whatsapp_egress.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from whatsapp_egress.observe.spans import Spans

log = Logger()

_PROTOCOL = "http/protobuf"
_OTLP = "OTEL_EXPORTER_OTLP"


@define(eq=False)
class Tracing:
    """The SDK, with where it sends spans to."""

    _provider: TracerProvider
    _redactor: Redactor
    _spans: Spans | None = field(default=None, init=False)

    def observer(self, settings: Settings) -> Observer:
        """What makes the spans."""
        from whatsapp_egress.observe.spans import Spans  # noqa: PLC0415

        self._spans = Spans.of(
            self._provider.get_tracer("whatsapp_egress", __version__),
            settings.rabbitmq_queue,
            settings.meta_api_base_url,
            settings.meta_api_version,
            self._redactor.known,
        )
        return self._spans

    def stop(self, reactor: Any) -> Deferred[None]:
        """End all spans and send them. Fires when they are sent, or given up; who waits no longer cancels.

        In a thread that the process does not wait for when it ends: a collector that hangs would hold it up,
        in the SDK's own care for up to half a minute.
        """
        if self._spans is not None:
            self._spans.close()
        flushed: Deferred[None] = Deferred(lambda _: None)

        def fire() -> None:
            if not flushed.called:
                flushed.callback(None)

        def shutdown() -> None:
            try:
                self._provider.shutdown()
            except Exception:  # noqa: BLE001 - an exporter's fault, and the service is to end all the same
                log.failure("spans_lost")
            finally:
                reactor.callFromThread(fire)

        threading.Thread(target=shutdown, name="spans-flush", daemon=True).start()
        return flushed


def tracing(environment: Mapping[str, str], redactor: Redactor) -> Tracing | None:
    """What makes spans, where `environment` asks for them and OpenTelemetry is installed.

    What stands in the way is logged: the variables may have been meant for others in the same container, and
    a message is worth more than its trace. `redactor` is told the headers for the collector: they may hold a
    secret.
    """
    if not _asked_for(environment):
        return None
    trouble = _unfit(environment)
    if trouble is None:
        try:
            made = Tracing(_provider(), redactor)
        except ImportError as error:
            trouble = f"OpenTelemetry is not installed ({error}): pip install 'whatsapp-egress[otel]'"
        except Exception as error:  # noqa: BLE001 - what the SDK makes of the other OTEL_ variables
            trouble = f"OpenTelemetry refuses the OTEL_ variables: {error}"
        else:
            for secret in _header_values(environment):
                redactor.know(secret)
            log.info("traces_exported", exporter="otlp")
            return made
    log.warn("traces_not_exported", detail=trouble)
    return None


def _asked_for(environment: Mapping[str, str]) -> bool:
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = _exporters(environment)
    if exporters:
        return exporters != ["none"]
    return any(environment.get(f"{_OTLP}{which}_ENDPOINT") for which in ("", "_TRACES"))


def _exporters(environment: Mapping[str, str]) -> list[str]:
    named = environment.get("OTEL_TRACES_EXPORTER", "").split(",")
    return [name for each in named if (name := each.strip().lower())]


def _unfit(environment: Mapping[str, str]) -> str | None:
    """What is asked for and can't be had."""
    exporters = _exporters(environment)
    if exporters not in ([], ["otlp"]):
        return f"OTEL_TRACES_EXPORTER: expected otlp or none, got {','.join(exporters)}"
    for name in (f"{_OTLP}_TRACES_PROTOCOL", f"{_OTLP}_PROTOCOL"):
        if protocol := environment.get(name, "").strip():
            return None if protocol == _PROTOCOL else f"{name}: expected {_PROTOCOL}, got {protocol}"
    return None


def _header_values(environment: Mapping[str, str]) -> list[str]:
    pairs = [
        pair
        for which in ("", "_TRACES")
        for pair in environment.get(f"{_OTLP}{which}_HEADERS", "").split(",")
    ]
    return [value for pair in pairs if (value := unquote(pair.partition("=")[2].strip()))]


def _provider() -> TracerProvider:
    # Here and not above: it is an extra, and costs half a second to import.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    we = Resource({"service.name": SERVICE, "service.version": __version__})
    # Not at exit, where it would wait for the collector: `stop` sees to it.
    provider = TracerProvider(
        resource=Resource.create().merge(we).merge(OTELResourceDetector().detect()), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
