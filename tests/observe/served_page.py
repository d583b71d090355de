"""The page on a port, telling what a test wants it to tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.web.resource import Resource

from whatsapp_egress.observe.page.resource import page_resources
from whatsapp_egress.observe.stream import EventStream
from whatsapp_egress.observe.web import WebService

EXAMPLES = Path(__file__).parent


def example(name: str) -> Any:
    """`overview` or `series`, as an object of one's own."""
    return json.loads((EXAMPLES / f"{name}_example.json").read_text())


class ServedPage:
    """`overview` and `series` are told from the next second on. It can be stopped, and started again on the
    same port."""

    def __init__(self) -> None:
        self.overview = example("overview")
        self.series = example("series")
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    def start(self) -> None:
        root = Resource()
        index, files = page_resources()
        self.stream = EventStream(reactor, lambda: encode(self.overview), lambda: encode(self.series))
        for name, resource in {b"": index, b"page": files, b"events": self.stream}.items():
            root.putChild(name, resource)
        self._service = WebService(reactor, "HEALTH_CHECK_PORT", self._port, "127.0.0.1", root)
        self._service.startService()
        self._port = self._service.port

    async def stop(self) -> None:
        """As when the worker stops."""
        self.stream.stop()
        await self._service.stopService()

    def lane(self, tenant_id: str) -> Any:
        return next(lane for lane in self.overview["lanes"] if lane["tenantId"] == tenant_id)

    def all_well(self) -> None:
        """Tell of nothing but good."""
        overview = self.overview
        overview["status"] = "healthy"
        overview["lanes"] = [each for each in overview["lanes"] if each["state"] in ("sending", "idle")]
        for check in overview["checks"].values():
            check.update(status="healthy", detail=None)
        overview["totals"].update(queueDepth=0, failedLastMinute=0, errorRate=0.0, sentLastMinute=1352)
        for lane in overview["lanes"]:
            lane["failedLastMinute"] = 0


def encode(document: Any) -> bytes:
    return json.dumps(document).encode()
