"""What holds for every call: tokens, paths, methods, bodies, and what is on record of it."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.control.served import TOKEN, Served
from whatsapp_egress.control import lanes
from whatsapp_egress.control.call import Answer, Call
from whatsapp_egress.observe.web import MOST_BODY, BoundedRequest

ORDER = {"actor": "ops"}
PAUSE = {"actor": "ops", "reason": "they asked"}


class TokenTests(Served):
    async def assert_shut(self, *authorization: str) -> None:
        for method, path, body in (
            ("GET", "/lanes", None),
            ("POST", "/lanes/t1/pause", PAUSE),
            ("GET", "/no/such/path", None),
            ("DELETE", "/lanes", None),
            ("POST", "/openapi.json", None),
        ):
            reply = await self.ask(method, path, body, authorization=list(authorization))
            assert (reply.status, reply.document["error"]) == (401, "unauthorized"), (path, authorization)
            assert reply.headers["www-authenticate"] == ['Bearer realm="whatsapp-egress"']
            assert TOKEN not in str(reply)
        assert len(self.stage.lanes) == 0

    async def test_without_the_token_nothing_is_said_or_done(self) -> None:
        await self.assert_shut()
        for value in (
            "",
            "Bearer",
            "Bearer ",
            TOKEN,
            f"Basic {TOKEN}",
            "Bearer wrong",
            f"Bearer {TOKEN[:-1]}",
        ):
            await self.assert_shut(value)
        await self.assert_shut(f"Bearer {TOKEN}x")
        await self.assert_shut(f"Bearer {'x' * 8000}")
        await self.assert_shut(f"Bearer {TOKEN}", f"Bearer {TOKEN}")

    async def test_a_header_that_is_longer_than_any_is_not_even_read(self) -> None:
        said = await self.say(b"GET /api/v1/lanes HTTP/1.1\r\nAuthorization: Bearer ", b"x" * 10_000)

        # The no may be lost with the connection, which is closed while more comes.
        assert said.startswith(b"HTTP/1.1 400 ") or said == b""
        assert self.calls == []

    async def test_the_description_needs_none(self) -> None:
        reply = await self.ask("GET", "/openapi.json", authorization=[])

        assert (reply.status, reply.document["openapi"]) == (200, "3.1.0")

    async def test_who_was_refused_is_on_record_without_what_he_showed(self) -> None:
        await self.ask("POST", "/lanes/t1/pause?x=hunter2", PAUSE, authorization=["Bearer hunter2"])

        (call,) = self.calls
        assert call == {
            "method": "POST",
            "path": "/api/v1/lanes/t1/pause",
            "status": 401,
            "error": "unauthorized",
        }
        assert "hunter2" not in str([event for event in self.log if event.get("log_format")])

    async def test_what_he_writes_there_can_not_be_long_or_break_a_line(self) -> None:
        await self.ask("GET", "/" + "x" * 5000 + "%0A", authorization=[])

        assert len(self.calls[0]["path"]) == 200


class OffTests(Served):
    token = None

    async def test_without_a_token_in_the_settings_all_is_off(self) -> None:
        for path in ("/lanes", "/openapi.json", "/no/such/path", "/lanes/t1/pause"):
            for method in ("GET", "POST"):
                reply = await self.ask(method, path, PAUSE, authorization=["Bearer None"])
                assert (reply.status, reply.document["error"]) == (404, "not_enabled")
        assert len(self.stage.lanes) == 0


class PathTests(Served):
    async def test_what_is_not_there_is_not_found(self) -> None:
        for path in (
            "/",
            "/lane",
            "/lanes/",
            "/lanes/t1/",
            "//lanes",
            "/lanes/t1/stop",
            "/lanes/%FF",
            "/../lanes",
        ):
            await self.assert_refused(404, "not_found", "GET", path)

    async def test_nor_is_another_version(self) -> None:
        response = await self.client.get(
            f"{self.url}/api/v2/lanes", headers={"Authorization": f"Bearer {TOKEN}"}
        )

        assert response.code == 404
        assert json.loads(await response.content())["error"] == "not_found"

    async def test_other_methods_are_told_which_there_are(self) -> None:
        for method, path, allowed in (
            ("POST", "/lanes", "GET, HEAD"),
            ("GET", "/lanes/t1/pause", "POST"),
            ("OPTIONS", "/messages", "GET, HEAD"),
            ("PATCH", "/openapi.json", "GET, HEAD"),
            ("FROB", "/lanes", "GET, HEAD"),
        ):
            reply = await self.assert_refused(405, "method_not_allowed", method, path)
            assert reply.headers["allow"] == [allowed]

    async def test_what_is_refused_is_on_record(self) -> None:
        await self.ask("GET", "/lanes/nobody")
        await self.ask("FROB", "/lanes")

        assert [(call["method"], call["status"]) for call in self.calls] == [("GET", 404), ("FROB", 405)]


class BodyTests(Served):
    async def test_json_alone_is_taken(self) -> None:
        for content_type in (None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
            reply = await self.ask("POST", "/lanes/t1/pause", PAUSE, content_type=content_type)
            assert (reply.status, reply.document["error"]) == (415, "unsupported_media_type"), content_type

    async def test_a_body_has_an_end(self) -> None:
        room = MOST_BODY - len(json.dumps(PAUSE))
        fits = json.dumps(PAUSE).encode() + b" " * room
        assert (await self.ask("POST", "/lanes/t1/pause", fits)).status == 200

        await self.assert_refused(413, "too_large", "POST", "/lanes/t1/pause", fits + b" ")
        await self.assert_refused(413, "too_large", "POST", "/lanes/t1/pause", b" " * 900_000)

    async def test_one_that_goes_on_is_cut_off(self) -> None:
        head = f"POST /api/v1/lanes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
        said = await self.say(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n", chunk)

        assert said == b""
        assert self.calls == []


class FaultTests(Served):
    async def test_a_fault_of_ours_is_told_without_its_inside(self) -> None:
        async def broken(_: Any, call: Call) -> Answer:
            raise ZeroDivisionError("hunter2")

        self.patch(lanes.LaneCalls, "all", broken)
        self.serve()
        reply = await self.assert_refused(500, "internal", "GET", "/lanes")

        assert "hunter2" not in str(reply)
        assert len(self.flushLoggedErrors(ZeroDivisionError)) == 1
        assert self.calls[0]["status"] == 500

    async def test_so_is_what_no_json_can_be_made_of(self) -> None:
        async def odd(_: Any, call: Call) -> Answer:
            return Answer({"lanes": object()})

        self.patch(lanes.LaneCalls, "all", odd)
        self.serve()
        await self.assert_refused(500, "internal", "GET", "/lanes")

        assert len(self.flushLoggedErrors(TypeError)) == 1
        assert self.calls[0]["status"] == 500

    async def test_what_is_being_answered_is_broken_off_at_the_end(self) -> None:
        asked: Deferred[None] = Deferred()

        async def slow(_: Any, call: Call) -> Answer:
            reactor.callLater(0, asked.callback, None)
            await Deferred()
            raise AssertionError

        self.patch(lanes.LaneCalls, "all", slow)
        self.serve()
        asking = Deferred.fromCoroutine(self.ask("GET", "/lanes"))
        await asked
        self.resource.stop()
        reply = await asking

        assert (reply.status, reply.document["error"]) == (503, "stopping")

    async def test_who_has_gone_gets_no_answer(self) -> None:
        asked: Deferred[None] = Deferred()
        goes_on: Deferred[None] = Deferred()
        gone: Deferred[None] = Deferred()

        async def slow(_: Any, call: Call) -> Answer:
            reactor.callLater(0, asked.callback, None)
            await goes_on
            return Answer({})

        def lost(request: BoundedRequest, reason: Any) -> None:
            connection_lost(request, reason)
            gone.callback(None)

        connection_lost = BoundedRequest.connectionLost
        self.patch(BoundedRequest, "connectionLost", lost)
        self.patch(BoundedRequest, "write", lambda _request, _data: self.fail("it was answered"))
        self.patch(lanes.LaneCalls, "all", slow)
        self.serve()
        asking = Deferred.fromCoroutine(self.ask("GET", "/lanes"))
        asking.addErrback(lambda _: None)
        await asked
        asking.cancel()
        await gone
        goes_on.callback(None)

        assert len(self.resource._tasks) == 0


class SecretTests(Served):
    async def test_no_answer_has_a_secret_that_is_known(self) -> None:
        await self.ask("POST", "/lanes/t1/pause", {"actor": "ops", "reason": "it said a-secret"})
        reply = await self.ask("GET", "/lanes/t1")

        assert reply.document["pause"]["reason"] == "it said [REDACTED]"

    async def test_an_answer_is_kept_by_nobody(self) -> None:
        reply = await self.ask("GET", "/lanes")

        assert reply.headers["cache-control"] == ["no-store"]
        assert reply.headers["x-content-type-options"] == ["nosniff"]
        assert reply.headers["content-type"] == ["application/json"]
