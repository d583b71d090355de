"""What metrics and health of a whole gateway say, while things go well and while they don't."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.web.client import Agent, HTTPConnectionPool

from tests.integration.rabbit import PATIENCE, Publisher
from tests.integration.world import World, message
from whatsapp_egress.clients.broker import consumer
from whatsapp_egress.service import Egress

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


class WithMetrics(World):
    async def setUp(self) -> None:
        await super().setUp()
        self.patch(consumer, "LOOK_SECONDS", 0.3)
        self.http = HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False)))

    async def get(self, port: int, path: str) -> tuple[int, bytes]:
        response = await self.http.get(f"http://127.0.0.1:{port}{path}")
        return response.code, await response.content()

    async def samples(self, gateway: Egress) -> Samples:
        status, page = await self.get(gateway.metrics.port, "/metrics")
        assert status == 200
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(page.decode())
            for sample in family.samples
        }

    async def health(self, gateway: Egress) -> tuple[int, dict[str, Any]]:
        status, body = await self.get(gateway.health.port, "/health")
        document: dict[str, Any] = json.loads(body)
        return status, document

    async def until_so(self, holds: Callable[[], Awaitable[bool]], what: str) -> None:
        """Until a question that takes time to be answered is answered with yes."""
        give_up_at = reactor.seconds() + PATIENCE
        while not await holds():
            assert reactor.seconds() < give_up_at, what
            await deferLater(reactor, 0.05)


def value(samples: Samples, name: str, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


class MetricsTests(WithMetrics):
    async def test_messages_and_what_was_asked_for_them(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        gateway = await self.start_gateway()
        for number in range(3):
            self.upstream.publish(message(tenant, f"1555000{number}", f"m-{number}"))
        self.upstream.publish(b"no message")
        await self.until_settled()
        samples = await self.samples(gateway)

        assert value(samples, "messages_consumed_total", tenant="t1", status="consumed") == 3
        assert value(samples, "messages_consumed_total", tenant="t1", status="success") == 3
        assert value(samples, "messages_delivered_total", tenant="t1") == 3
        assert value(samples, "messages_consumed_total", tenant="unknown", status="failed") == 1
        assert (
            value(
                samples,
                "messages_failed_total",
                tenant="unknown",
                error_code="invalid_message",
                retryable="false",
            )
            == 1
        )
        assert value(samples, "meta_api_requests_total", tenant="t1", status_code="200", method="POST") == 3
        assert value(samples, "meta_api_request_duration_seconds_count", tenant="t1") == 3
        assert value(samples, "message_processing_duration_seconds_count", tenant="t1") == 3
        assert value(samples, "credential_fetch_duration_seconds_count", tenant="t1", cached="false") == 1
        assert value(samples, "credential_fetch_duration_seconds_count", tenant="t1", cached="true") >= 2
        assert value(samples, "tenant_circuit_breaker_state", tenant="t1", state="closed") == 1
        assert value(samples, "whatsapp_egress_consuming") == 1
        assert value(samples, "whatsapp_egress_rabbitmq_connected", connection="publish") == 1

    async def test_the_depths_of_the_queues(self) -> None:
        gateway = await self.start_gateway()
        self.upstream.publish(b"no message")
        await self.until_settled()

        async def seen() -> bool:
            return value(await self.samples(gateway), "rabbitmq_queue_depth", queue="outbound-failed") == 1

        await self.until_so(seen, "the dead letter is seen")
        assert value(await self.samples(gateway), "rabbitmq_queue_depth", queue="outbound-processed") == 0


class HealthTests(WithMetrics):
    """Each of the three is taken away for real, and read."""

    async def status(self, gateway: Egress, check: str) -> tuple[int, str, str]:
        code, document = await self.health(gateway)
        return code, document["status"], document["checks"][check]["status"]

    async def until_status(self, gateway: Egress, check: str, *wanted: object) -> None:
        async def seen() -> bool:
            return await self.status(gateway, check) == wanted

        await self.until_so(seen, f"{check} is {wanted}")

    async def readiness(self, gateway: Egress) -> int:
        return (await self.get(gateway.health.port, "/health/ready"))[0]

    async def test_all_is_well(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        gateway = await self.start_gateway()
        self.upstream.publish(message(tenant))
        await self.until_settled()
        await self.until_status(gateway, "rabbitmq", 200, "healthy", "healthy")
        _, document = await self.health(gateway)

        assert {name: check["status"] for name, check in document["checks"].items()} == {
            "rabbitmq": "healthy",
            "tenantService": "healthy",
            "metaApi": "healthy",
        }
        assert all(check["latency"] > 0 for check in document["checks"].values())
        assert document["metrics"]["messagesProcessedLast1Min"] == 1

    async def test_without_the_broker_it_is_unhealthy_and_not_ready(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        gateway = await self.start_gateway()
        self.upstream.publish(message(tenant))
        await self.until_settled()
        self.upstream.close()
        await deferToThread(self.broker.stop)
        await self.until_status(gateway, "rabbitmq", 503, "unhealthy", "unhealthy")
        assert await self.readiness(gateway) == 503
        assert (await self.get(gateway.health.port, "/health/live"))[0] == 200

        await deferToThread(self.broker.start_again)
        self.upstream = Publisher(self.broker)
        await self.until(gateway.ready, "it consumes again")
        await self.until_status(gateway, "rabbitmq", 200, "healthy", "healthy")
        samples = await self.samples(gateway)
        assert value(samples, "whatsapp_egress_rabbitmq_reconnects_total", connection="consume") == 1

    async def test_without_the_tenant_service_it_is_degraded_and_ready(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        gateway = await self.start_gateway()
        port = self.sandbox.tenants_port
        await self.sandbox.stop_tenants()
        self.upstream.publish(message(tenant))
        await self.until_status(gateway, "tenantService", 200, "degraded", "unhealthy")
        assert await self.readiness(gateway) == 200

        self.sandbox.start_tenants(port)
        await self.until_settled()
        assert await self.status(gateway, "tenantService") == (200, "healthy", "healthy")
        samples = await self.samples(gateway)
        assert (value(samples, "tenant_service_errors_total", tenant="t1", reason="connect") or 0) >= 3

    async def test_without_meta_it_is_degraded_and_ready(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        gateway = await self.start_gateway()
        port = self.sandbox.graph_port
        await self.sandbox.stop_graph()
        self.upstream.publish(message(tenant))
        await self.until_status(gateway, "metaApi", 200, "degraded", "unhealthy")
        assert await self.readiness(gateway) == 200
        self.sandbox.start_graph(port)
