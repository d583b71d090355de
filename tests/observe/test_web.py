"""The probes, over a socket."""

from __future__ import annotations

import json

import pytest
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.error import CannotListenError
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from whatsapp_egress.observe.web import HealthService


class ProbeTests(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.ready = False
        self.service = HealthService(reactor, 0, "127.0.0.1", lambda: self.ready)
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

    def test_a_port_that_is_taken_is_an_error(self) -> None:
        with pytest.raises(CannotListenError):
            HealthService(reactor, self.service.port, "127.0.0.1", lambda: True).startService()
