"""`GET /metrics`: read on the reactor, rendered in a thread."""

from __future__ import annotations

import gc
import gzip
from collections.abc import Callable, Coroutine
from typing import Any

from attrs import define, field
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from whatsapp_egress.observe.gauges import Reading, Shelf

log = Logger()

GZIP_LEVEL = 1
"""A scrape of a thousand tenants is megabytes of text; the fastest level makes a tenth of it."""


@define(eq=False)
class Exposition(Resource):
    """Who asks while a page is being rendered in the same format gets that one: scrapers that come together
    cost one rendering. `read` reads what gauges are made
    of."""

    isLeaf = True
    _reactor: Any
    _registry: CollectorRegistry
    _shelf: Shelf
    _read: Callable[[], Coroutine[Deferred[Any], Any, Reading]]
    _waiting: dict[tuple[str, bool], list[Request]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        Resource.__init__(self)

    def render_GET(self, request: Request) -> int:
        """Answer when it is rendered."""
        accept = (request.getHeader(b"accept") or b"").decode("latin-1")
        zipped = b"gzip" in (request.getHeader(b"accept-encoding") or b"")
        encode, content_type = choose_encoder(accept)
        key = (content_type, zipped)
        gone = request.notifyFinish()
        gone.addErrback(lambda _failure: self._forget(key, request))
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(request)
            return NOT_DONE_YET
        self._waiting[key] = [request]
        rendering = Deferred.fromCoroutine(self._page(encode, zipped))
        rendering.addCallbacks(self._answer, self._fail, callbackArgs=(key,), errbackArgs=(key,))
        return NOT_DONE_YET

    async def _page(self, encode: Callable[[CollectorRegistry], bytes], zipped: bool) -> bytes:
        self._shelf.reading = await self._read()
        pool = self._reactor.getThreadPool()
        page: bytes = await deferToThreadPool(self._reactor, pool, _render, encode, self._registry, zipped)
        return page

    def _answer(self, page: bytes, key: tuple[str, bool]) -> None:
        content_type, zipped = key
        for request in self._waiting.pop(key):
            request.setHeader(b"Content-Type", content_type.encode())
            if zipped:
                request.setHeader(b"Content-Encoding", b"gzip")
            request.setHeader(b"Content-Length", str(len(page)).encode())
            request.write(page)
            request.finish()

    def _fail(self, failure: Failure, key: tuple[str, bool]) -> None:
        log.failure("metrics_not_rendered", failure)
        for request in self._waiting.pop(key):
            request.setResponseCode(500)
            request.finish()

    def _forget(self, key: tuple[str, bool], request: Request) -> None:
        waiting = self._waiting.get(key, [])
        if request in waiting:
            waiting.remove(request)


def _render(encode: Callable[[CollectorRegistry], bytes], registry: CollectorRegistry, zipped: bool) -> bytes:
    # A hundred thousand samples come and go, none of them in a cycle. They would have the collector look
    # through the whole heap several times, which stops the reactor, too (bench/metrics_page.py: 240 ms).
    collecting = gc.isenabled()
    gc.disable()
    try:
        page = encode(registry)
    finally:
        if collecting:
            gc.enable()
    return gzip.compress(page, GZIP_LEVEL) if zipped else page
