"""`GET /metrics`, over a socket."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path
from threading import Event
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource

from tests.observe.events import EXHAUSTED, REJECTED, job_of
from tests.observe.seen import Seen
from tests.pipeline.doubles import NUMBER_THROTTLE
from tests.policy.meta import TABLE
from whatsapp_egress.observe.exposition import Exposition
from whatsapp_egress.observe.gauges import Reading
from whatsapp_egress.observe.metrics import Metrics
from whatsapp_egress.observe.web import WebService
from whatsapp_egress.policy.verdict import Answer, Sent

METRICS_PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


class Slow(Collector):
    """Renders when it is told to."""

    def __init__(self) -> None:
        self.go = Event()
        self.times = 0
        self.trouble: Exception | None = None

    def collect(self) -> Any:
        self.go.wait(10)
        self.times += 1
        if self.trouble is not None:
            raise self.trouble
        return iter(())


class Exposing(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.seen = Seen()
        self.registry = self.seen.registry
        self.reads = 0
        shelf = self.seen.shelf
        self.registry.register(shelf)
        root = Resource()
        self.exposition = Exposition(reactor, self.registry, shelf, self.read)
        root.putChild(b"metrics", self.exposition)
        self.service = WebService(reactor, "PROMETHEUS_PORT", 0, "127.0.0.1", root)
        self.service.startService()
        self.addCleanup(self.service.stopService)
        self.client = HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False)))

    async def read(self) -> Reading:
        self.reads += 1
        return await self.seen.gauges.read()

    def ask(self, **headers: str) -> Deferred[Any]:
        return self.client.get(
            f"http://127.0.0.1:{self.service.port}/metrics",
            headers={name.replace("_", "-"): value for name, value in headers.items()},
            unbuffered=True,
        )


class PageTests(Exposing):
    def setUp(self) -> None:
        super().setUp()
        metrics = Metrics(
            self.registry,
            self.seen.stage.clock,
            self.seen.labels,
            lambda code: TABLE.by_code(code, None, "") is not None,
        )
        metrics.credentials("t1", 0.1, cached=False, known=True)
        metrics.consumed(job_of())
        metrics.asked("t1", "connect", 1.0)
        metrics.answered(job_of(), Answer(200, "wamid"), 0.2)
        metrics.delivered(job_of(), Sent("wamid"))
        metrics.dead_lettered(job_of(), REJECTED)
        metrics.dead_lettered(job_of(), EXHAUSTED)
        metrics.waiting(job_of(), NUMBER_THROTTLE, 10.0)
        self.seen.stage.offer("m-1")
        self.seen.health.looked(3, 4, 0.1)

    async def test_it_has_the_contracts_metrics_with_their_labels(self) -> None:
        page = (await (await self.ask()).content()).decode()
        labels = {
            family.name: set().union(*(sample.labels for sample in family.samples)) - {"le"}
            for family in parse_text(page)
        }
        for name, wanted in {
            "messages_consumed": {"tenant", "status"},
            "messages_delivered": {"tenant"},
            "messages_failed": {"tenant", "error_code", "retryable"},
            "meta_api_requests": {"tenant", "status_code", "method"},
            "tenant_service_errors": {"tenant", "reason"},
            "message_processing_duration_seconds": {"tenant"},
            "meta_api_request_duration_seconds": {"tenant"},
            "credential_fetch_duration_seconds": {"tenant", "cached"},
            "rabbitmq_queue_depth": {"queue"},
            "tenant_circuit_breaker_state": {"tenant", "state"},
            "tenant_rate_limit_available": {"tenant"},
        }.items():
            assert labels[name] == wanted, name

    async def test_the_documentation_has_each_metric_with_its_type_and_labels_and_no_other(self) -> None:
        page = (await (await self.ask()).content()).decode()
        there = {}
        for family in parse_text(page):
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = set().union(*(sample.labels for sample in family.samples)) - {"le"}
            there[name] = (family.type, labels)
        documented = {}
        for line in METRICS_PAGE.read_text().splitlines():
            if line.startswith("| `"):
                name, kind, labels_cell = (cell.strip() for cell in line.split("|")[1:4])
                documented[name.strip("`")] = (
                    kind,
                    {each.strip(" `") for each in labels_cell.split(",")} - {""},
                )

        assert documented == there

    async def test_prometheus_own_checker_has_nothing_against_it(self) -> None:
        promtool = shutil.which("promtool")
        assert promtool, "promtool is not there: apt-get install prometheus"
        page = await (await self.ask()).content()
        checked = subprocess.run([promtool, "check", "metrics"], input=page, capture_output=True, check=False)

        assert (checked.returncode, checked.stderr) == (0, b"")

    async def test_who_wants_open_metrics_gets_them(self) -> None:
        response = await self.ask(Accept="application/openmetrics-text; version=1.0.0")
        page = (await response.content()).decode()

        assert "openmetrics" in response.headers.getRawHeaders("content-type")[0]
        assert {family.name for family in parse_openmetrics(page)} >= {"messages_consumed"}

    async def test_who_can_unpack_it_gets_it_packed(self) -> None:
        url = f"http://127.0.0.1:{self.service.port}/metrics".encode()
        agent = Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False))
        response = await agent.request(b"GET", url, Headers({"Accept-Encoding": ["br, gzip"]}))

        assert response.headers.getRawHeaders("content-encoding") == ["gzip"]
        assert b"messages_consumed_total" in gzip.decompress(await readBody(response))

    async def test_a_probe_may_ask_whether_it_is_there(self) -> None:
        response = await self.client.head(f"http://127.0.0.1:{self.service.port}/metrics")
        assert response.code == 200
        assert await response.content() == b""


class RenderingTests(Exposing):
    def setUp(self) -> None:
        super().setUp()
        self.slow = Slow()
        self.registry.register(self.slow)
        self.slow.times = 0
        self.slow.go.clear()
        self.addCleanup(self.slow.go.set)

    async def asked(self, count: int) -> list[Deferred[Any]]:
        """So many requests that have arrived."""
        asking = [self.ask() for _ in range(count)]
        while sum(len(each) for each in self.exposition._waiting.values()) < count:
            await deferLater(reactor, 0.01)
        return asking

    async def test_those_who_come_together_cost_one_rendering(self) -> None:
        asking = await self.asked(3)
        self.slow.go.set()
        pages = [await response.content() for response in await gatherResults(asking)]

        assert len(set(pages)) == 1
        assert (self.reads, self.slow.times) == (1, 1)

    async def test_one_that_goes_away_hurts_nobody(self) -> None:
        asking = await self.asked(2)
        asking[0].addErrback(lambda _: None)
        asking[0].cancel()
        while sum(len(each) for each in self.exposition._waiting.values()) == 2:
            await deferLater(reactor, 0.01)
        self.slow.go.set()

        assert (await asking[1]).code == 200

    async def test_what_can_not_be_rendered_is_an_error_and_the_next_one_may_do_better(self) -> None:
        self.slow.trouble = ValueError("odd")
        self.slow.go.set()
        assert (await self.ask()).code == 500
        assert len(self.flushLoggedErrors(ValueError)) == 1

        self.slow.trouble = None
        assert (await self.ask()).code == 200
