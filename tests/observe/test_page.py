"""The files of the page, over a socket, and the examples that its tests show."""

from __future__ import annotations

import hashlib
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, HTTPConnectionPool

from tests.observe.served_page import ServedPage, example
from whatsapp_egress.observe.chronicle import Series
from whatsapp_egress.observe.lane_view import TROUBLE
from whatsapp_egress.observe.overview import Snapshot

FOLDER = files("whatsapp_egress.observe.page")
DEPENDENCIES = Path(__file__).parents[2] / "docs" / "dependencies.md"


class FilesTests(TestCase):
    timeout = 20

    def setUp(self) -> None:
        self.page = ServedPage()
        self.addCleanup(self.page.stop)
        self.http = HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False)))

    async def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[Any, bytes]:
        response = await self.http.request(method, self.page.url + path, headers=headers)
        return response, await response.content()

    async def test_the_page_and_all_that_it_names_are_there_with_their_types(self) -> None:
        response, body = await self.ask("")
        assert response.headers.getRawHeaders("Content-Type") == ["text/html; charset=utf-8"]
        named = re.findall(r'(?:href|src)="(page/[^"]+)"', body.decode())
        types = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
        assert len(named) == 5
        for path in named:
            response, content = await self.ask(path)
            (content_type,) = response.headers.getRawHeaders("Content-Type")
            assert response.code == 200
            assert content == FOLDER.joinpath(path.removeprefix("page/")).read_bytes()
            assert content_type.startswith(types[path[path.rfind(".") :]])

    async def test_nothing_comes_from_elsewhere_or_is_inline(self) -> None:
        response, body = await self.ask("")
        (policy,) = response.headers.getRawHeaders("Content-Security-Policy")
        rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
        assert rules["default-src"] == "'none'"
        assert {rules[f"{kind}-src"] for kind in ("script", "style", "img", "connect")} == {"'self'"}
        assert rules["frame-ancestors"] == "'none'"
        assert response.headers.getRawHeaders("X-Content-Type-Options") == ["nosniff"]
        assert response.headers.getRawHeaders("Referrer-Policy") == ["no-referrer"]
        assert not re.search(rb"<style|<script>|\son\w+=|style=|//", body.replace(b"<!doctype", b""))

    async def test_who_has_it_is_not_sent_it_again(self) -> None:
        response, _ = await self.ask("page/page.css")
        (etag,) = response.headers.getRawHeaders("ETag")
        assert response.headers.getRawHeaders("Cache-Control") == ["no-cache"]
        response, body = await self.ask("page/page.css", **{"If-None-Match": etag})
        assert (response.code, body) == (304, b"")
        response, _ = await self.ask("page/page.css", **{"If-None-Match": '"another"'})
        assert response.code == 200

    async def test_the_headers_alone(self) -> None:
        response, body = await self.ask("", "HEAD")
        assert (response.code, body) == (200, b"")
        assert response.headers.hasHeader("ETag")

    async def test_nothing_else_is_there(self) -> None:
        for path in (
            "page",
            "page/",
            "page/index.html",
            "page/resource.py",
            "page/../web.py",
            "page/%2e%2e/web.py",
        ):
            response, _ = await self.ask(path)
            assert response.code == 404, path
        response, _ = await self.ask("", "POST")
        assert response.code == 405


class SourceTests(SynchronousTestCase):
    def test_text_is_never_made_markup(self) -> None:
        ours = [file for file in FOLDER.iterdir() if file.name.endswith(".js") and "uplot" not in file.name]
        assert len(ours) > 5
        for file in ours:
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|http",
                file.read_text().replace("http_", ""),
            ), file.name

    def test_the_plotting_library_is_the_one_that_was_looked_at(self) -> None:
        written = DEPENDENCIES.read_text()
        for name in ("uplot.min.js", "uplot.min.css"):
            assert hashlib.sha256(FOLDER.joinpath(name).read_bytes()).hexdigest() in written, name


class ExampleTests(SynchronousTestCase):
    """What the page is tested with has the shape of what it is told in earnest."""

    def test_the_overview(self) -> None:
        document = example("overview")
        snapshot = msgspec.json.decode(json.dumps(document), type=Snapshot)
        assert json.loads(msgspec.json.encode(snapshot)) == document

    def test_the_series(self) -> None:
        document = example("series")
        series = msgspec.json.decode(json.dumps(document), type=Series)
        assert json.loads(msgspec.json.encode(series)) == document

    def test_every_state_is_shown(self) -> None:
        assert {lane["state"] for lane in example("overview")["lanes"]} == set(TROUBLE)
        states = FOLDER.joinpath("states.js").read_text()
        assert set(re.findall(r"^  (\w+): \{ name", states, re.MULTILINE)) == set(TROUBLE)
