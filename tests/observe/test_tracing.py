"""When spans are made and where they go; and that nobody waits for long for whoever takes them."""

from __future__ import annotations

import os
import sys
from threading import Event
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from opentelemetry.sdk.trace import TracerProvider
from twisted.internet import reactor
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.threads import deferToThread
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.pipeline.doubles import a_job
from whatsapp_egress.observe.redaction import REDACTED, Redactor
from whatsapp_egress.observe.tracing import Tracing, tracing
from whatsapp_egress.settings import Settings

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
ASKED = {"OTEL_TRACES_EXPORTER": "otlp", **ENDPOINT}


class AskingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.redactor = Redactor()

    def made(self, environment: dict[str, str]) -> tuple[Tracing | None, list[dict[str, Any]]]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        # The SDK reads the rest of it for itself.
        with patch.dict(os.environ, kept | environment, clear=True), capturedLogs() as logs:
            made = tracing(environment, self.redactor)
        if made is not None:
            self.addCleanup(made._provider.shutdown)
        return made, list(logs)

    def test_nobody_asks_and_nothing_is_made_imported_or_logged(self) -> None:
        for environment in (
            {},
            {"OTEL_SERVICE_NAME": "x"},
            {"OTEL_TRACES_EXPORTER": "", "OTEL_EXPORTER_OTLP_ENDPOINT": ""},
            {"OTEL_TRACES_EXPORTER": "none", **ENDPOINT},
            {"OTEL_SDK_DISABLED": "true", **ASKED},
            {"OTEL_SDK_DISABLED": " TRUE ", **ASKED},
        ):
            with self.subTest(environment=environment):
                assert self.made(environment) == (None, [])

    def test_an_exporter_or_an_endpoint_asks(self) -> None:
        for environment in (
            ASKED,
            {"OTEL_TRACES_EXPORTER": " OTLP "},
            ENDPOINT,
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"},
            {"OTEL_SDK_DISABLED": "false", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", **ASKED},
        ):
            with self.subTest(environment=environment):
                made, (told,) = self.made(environment)
                assert made is not None
                assert told["log_format"] == "traces_exported"

    def test_the_resource_is_us_unless_the_environment_says_otherwise(self) -> None:
        made, _ = self.made(ASKED)
        assert made is not None
        assert made._provider.resource.attributes["service.name"] == "whatsapp-egress"

        named = {"OTEL_SERVICE_NAME": "egress-eu", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=prod"}
        made, _ = self.made(ASKED | named)
        assert made is not None
        attributes = made._provider.resource.attributes
        assert (attributes["service.name"], attributes["deployment.environment"]) == ("egress-eu", "prod")

    def refused(self, environment: dict[str, str]) -> str:
        made, (told,) = self.made(environment)
        assert made is None
        assert (told["log_format"], told["log_level"].name) == ("traces_not_exported", "warn")
        return str(told["detail"])

    def test_what_is_asked_for_and_can_not_be_had_is_one_line(self) -> None:
        for environment, said in (
            ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER: expected otlp or none, got console"),
            ({"OTEL_TRACES_EXPORTER": "otlp,zipkin"}, "got otlp,zipkin"),
            ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf"),
            ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "got http/json"),
            ({"OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "-1"}, "OpenTelemetry refuses the OTEL_ variables"),
        ):
            with self.subTest(environment=environment):
                assert said in self.refused(ASKED | environment)

    def test_without_opentelemetry_the_line_says_how_to_get_it(self) -> None:
        with patch.dict(sys.modules, {"opentelemetry.sdk.resources": None}):
            assert "pip install 'whatsapp-egress[otel]'" in self.refused(ASKED)

    def test_headers_for_the_collector_are_secrets(self) -> None:
        headers = {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=s3cret%20one,b="}
        headers |= {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "x=two-2"}
        self.made(ASKED | headers)
        assert self.redactor.text("a s3cret one and two-2") == f"a {REDACTED} and {REDACTED}"


class StoppingTests(TestCase):
    def tracing(self, provider: Any) -> Tracing:
        return Tracing(provider, Redactor())

    async def test_what_is_open_is_ended_and_sent(self) -> None:
        provider = TracerProvider(shutdown_on_exit=False)
        tracing = self.tracing(provider)
        settings = Settings.from_environment({"TENANT_SERVICE_URL": "http://t"})
        observer: Any = tracing.observer(settings)
        observer.consumed(a_job())
        assert len(observer) == 1

        await tracing.stop(reactor)
        assert len(observer) == 0

    async def test_a_collector_that_hangs_is_given_up_and_may_answer_later(self) -> None:
        hanging, done = Event(), Event()

        def shutdown() -> None:
            hanging.wait(30)
            done.set()

        stopping = self.tracing(SimpleNamespace(shutdown=shutdown)).stop(reactor)
        given_up: Deferred[None] = stopping.addTimeout(0.05, reactor)
        await self.assertFailure(given_up, TimeoutError)

        hanging.set()
        assert await deferToThread(done.wait, 30)

    async def test_an_exporter_that_fails_holds_nobody_up(self) -> None:
        def shutdown() -> None:
            raise KeyError("x")

        await self.tracing(SimpleNamespace(shutdown=shutdown)).stop(reactor)
        assert len(self.flushLoggedErrors(KeyError)) == 1
