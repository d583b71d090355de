"""The control API on a real port, over real lanes whose clock a test moves."""

from __future__ import annotations

import json
from typing import Any

from attrs import define, field, frozen
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol
from twisted.internet.task import LoopingCall
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from zope.interface import implementer

from tests.control.letters import FakeQueue
from tests.observe.seen import Seen
from tests.pipeline.doubles import Stage
from tests.policy.meta import TABLE
from whatsapp_egress.control.api import Controlled, control_resource
from whatsapp_egress.control.known import Known
from whatsapp_egress.control.replays import Replays
from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.observe.values import Presenter
from whatsapp_egress.observe.web import WebService

TOKEN = "correct-horse-battery-staple"


@define(eq=False)
class FakeCredentials:
    """Notes whose are to be forgotten."""

    forgotten: list[str] = field(factory=list)

    def forget(self, tenant_id: str) -> None:
        self.forgotten.append(tenant_id)


@frozen
class Reply:
    status: int
    document: Any
    headers: dict[str, list[str]]


@implementer(IPushProducer)
class Speaker(Protocol):
    """Says the same without end."""

    def __init__(self, head: bytes, then: bytes) -> None:
        self.heard = b""
        self.lost: Deferred[bytes] = Deferred()
        self._head = head
        self._then = then
        self._speaking = LoopingCall(self._speak)

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._head)
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def _speak(self) -> None:
        assert self.transport is not None
        self.transport.write(self._then)

    def resumeProducing(self) -> None:
        if not self._speaking.running:
            self._speaking.start(0)

    def pauseProducing(self) -> None:
        if self._speaking.running:
            self._speaking.stop()

    def stopProducing(self) -> None:
        self.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Any = None) -> None:
        self.stopProducing()
        self.lost.callback(self.heard)


class Served(TestCase):
    """`ask` asks, `calls` is what the audit has."""

    timeout = 60
    token: str | None = TOKEN

    def setUp(self) -> None:
        self.stage = Stage()
        self.seen = Seen(self.stage)
        self.credentials = FakeCredentials()
        self.queue = FakeQueue()
        self.serve()
        self.log: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.log.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.log.append)
        self.client = HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False)))

    def serve(self) -> None:
        times, lanes = self.seen.overview.times, self.stage.lanes
        known = Known(lanes, times)
        self.replays = Replays(
            self.queue,  # type: ignore[arg-type]
            TABLE,
            known.hold,
            self.stage.recent.sent,
            self.stage.clock,
            times.now,
        )
        controlled = Controlled(
            lanes,
            self.stage.recent,
            self.credentials,
            self.seen.overview,
            self.replays,
            Presenter(Redactor(["a-secret"])),
        )
        self.resource = control_resource(self.token, controlled)
        root = Resource()
        root.putChild(b"api", self.resource)
        self.service = WebService(reactor, "HEALTH_CHECK_PORT", 0, "127.0.0.1", root)
        self.service.startService()
        self.addCleanup(self.service.stopService)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.service.port}"

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        authorization: list[str] | None = None,
        content_type: str | None = "application/json",
    ) -> Reply:
        """`body` is sent as JSON, unless it is bytes already. Without `authorization` the token is shown."""
        headers = Headers()
        for value in [f"Bearer {self.token}"] if authorization is None else authorization:
            headers.addRawHeader("Authorization", value)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        if data is not None and content_type is not None:
            headers.addRawHeader("Content-Type", content_type)
        response = await self.client.request(method, f"{self.url}/api/v1{path}", headers=headers, data=data)
        content = await response.content()
        found = {
            name.decode().lower(): [value.decode() for value in values]
            for name, values in response.headers.getAllRawHeaders()
        }
        return Reply(response.code, json.loads(content) if content else None, found)

    async def say(self, head: bytes, then: bytes) -> bytes:
        """Send `head`, and `then` over and over until the connection is closed; returns what was answered."""
        speaker = Speaker(head, then)
        await connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", self.service.port), speaker)
        return await speaker.lost

    async def assert_refused(self, status: int, error: str, method: str, path: str, *body: object) -> Reply:
        reply = await self.ask(method, path, *body)
        assert (reply.status, reply.document["error"]) == (status, error), reply
        assert set(reply.document) == {"error", "detail"}
        return reply

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What the audit has, without what every event has."""
        names = (
            *("method", "path", "status", "actor", "tenantId", "reason", "until", "changed", "error"),
            *("filter", "dryRun", "expected"),
        )
        return [
            {name: event[name] for name in names if name in event}
            for event in self.log
            if event.get("log_format") == "control_call"
        ]
