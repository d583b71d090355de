"""A control API that does what a test tells it, on a real socket; it stands in for a gateway."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from tests.cli.terminal import Ended, Typed, run

TOKEN = "correct-horse-battery-staple"
PATIENCE = 20.0


@frozen
class Call:
    """What the gateway was asked."""

    method: str
    path: str
    query: dict[str, str]
    document: Any
    headers: dict[str, str]


Answer = tuple[int, Any]


class StandIn(Resource):
    """Answers with what `answers` has for method and path: a status and a document, or what makes them."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.answers: dict[tuple[str, str], Any] = {}

    def render(self, request: Request) -> Any:
        body = request.content.read()
        call = Call(
            request.method.decode(),
            request.path.decode(),
            {name.decode(): values[0].decode() for name, values in request.args.items()},
            json.loads(body) if body else None,
            {
                name.decode().lower(): values[0].decode()
                for name, values in request.requestHeaders.getAllRawHeaders()
            },
        )
        self.calls.append(call)
        answer = self._answer(call)
        if isinstance(answer, Deferred):
            answer.addCallback(lambda came: request.write(self._written(request, came)))
            answer.addCallback(lambda _: request.finish())
            return NOT_DONE_YET
        return self._written(request, answer)

    def _written(self, request: Request, answer: Answer) -> bytes:
        status, document = answer
        request.setResponseCode(status)
        request.setHeader(b"Content-Type", b"application/json")
        return document if isinstance(document, bytes) else json.dumps(document).encode()

    def _answer(self, call: Call) -> Any:
        if call.headers.get("authorization") != f"Bearer {TOKEN}":
            return 401, {"error": "unauthorized", "detail": "Send the token."}
        answer = self.answers.get((call.method, call.path.removeprefix("/api/v1")))
        if answer is None:
            return 404, {"error": "not_found", "detail": f"There is no {call.path}."}
        return answer(call) if callable(answer) else answer


class WithStandIn(TestCase):
    """A stand-in, and `cli` to run commands that ask it."""

    timeout = 120

    def setUp(self) -> None:
        self.gateway = StandIn()
        port = reactor.listenTCP(0, Site(self.gateway), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.url = f"http://127.0.0.1:{port.getHost().port}"

    def on(self, method: str, path: str, answer: Any, status: int = 200) -> None:
        """Have the gateway answer so."""
        self.gateway.answers[method, path] = answer if callable(answer) else (status, answer)

    def refuse(self, method: str, path: str, status: int, error: str, detail: str) -> None:
        self.on(method, path, {"error": error, "detail": detail}, status)

    def asked(self) -> list[tuple[str, str]]:
        return [(call.method, call.path.removeprefix("/api/v1")) for call in self.gateway.calls]

    async def cli(self, *arguments: str, given: str = "", **settings: object) -> Ended:
        return await run(
            *arguments, given=given, **{"EGRESS_URL": self.url, "ADMIN_TOKEN": TOKEN, **settings}
        )

    def typed(self, *arguments: str, **settings: object) -> Typed:
        typed = Typed(*arguments, **{"EGRESS_URL": self.url, "ADMIN_TOKEN": TOKEN, **settings})
        self.addCleanup(typed.kill)
        return typed

    async def until(self, holds: Callable[[], bool], what: str) -> None:
        give_up = reactor.seconds() + PATIENCE
        while not holds():
            if reactor.seconds() > give_up:
                self.fail(f"never came true: {what}")
            await deferLater(reactor, 0.01)
