"""The probes, over a socket."""

from __future__ import annotations

import json

import pytest
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.resource import Resource

from whatsapp_egress.observe.web import PortTaken, WebService, health_resource


class ProbeTests(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.ready = self.healthy = False
        root = Resource()
        root.putChild(
            b"health",
            health_resource(lambda: self.healthy, lambda: b'{"status": "so"}', lambda: self.ready),
        )
        self.service = WebService(reactor, "HEALTH_CHECK_PORT", 0, "127.0.0.1", root)
        self.service.startService()
        self.addCleanup(self.service.stopService)
        pool = HTTPConnectionPool(reactor, persistent=False)
        self.client = HTTPClient(Agent(reactor, pool=pool))

    async def asked(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        response = await self.client.request(method, f"http://127.0.0.1:{self.service.port}{path}")
        return response.code, await response.content()

    async def test_it_is_alive_whether_or_not_it_is_ready(self) -> None:
        status, body = await self.asked("/health/live")

        assert (status, json.loads(body)) == (200, {"status": "alive"})

    async def test_how_all_is_comes_with_a_status_that_a_load_balancer_understands(self) -> None:
        assert await self.asked("/health") == (503, b'{"status": "so"}\n')

        self.healthy = True
        assert await self.asked("/health") == (200, b'{"status": "so"}\n')

    async def test_it_is_ready_while_it_consumes(self) -> None:
        self.ready = True
        status, body = await self.asked("/health/ready")

        assert (status, json.loads(body)) == (200, {"status": "ready"})

    async def test_and_not_ready_else(self) -> None:
        status, body = await self.asked("/health/ready")

        assert (status, json.loads(body)) == (503, {"status": "not ready"})

    async def test_a_probe_may_ask_for_the_status_alone(self) -> None:
        assert await self.asked("/health/ready", "HEAD") == (503, b"")

    async def test_what_is_not_there_is_not_found(self) -> None:
        for path in ("/", "/live", "/health/other", "/ready/health"):
            status, _ = await self.asked(path)
            assert status == 404, path

    async def test_nothing_can_be_posted(self) -> None:
        status, _ = await self.asked("/health/live", "POST")

        assert status == 405

    async def test_the_end_hangs_up_on_who_keeps_a_connection(self) -> None:
        pool = HTTPConnectionPool(reactor)
        self.addCleanup(pool.closeCachedConnections)
        client = HTTPClient(Agent(reactor, pool=pool))
        response = await client.get(f"http://127.0.0.1:{self.service.port}/health/live")
        await response.content()
        assert len(self.service._factory.protocols) == 1
        await self.service.stopService()
        while self.service._factory.protocols:
            await deferLater(reactor, 0.01)

    def test_a_port_that_is_taken_is_an_error_that_names_the_setting(self) -> None:
        second = WebService(reactor, "PROMETHEUS_PORT", self.service.port, "127.0.0.1", Resource())
        with pytest.raises(PortTaken) as caught:
            second.startService()
        assert caught.value.setting == "PROMETHEUS_PORT"
        self.successResultOf(second.stopService())
