"""Serves the files of the page, and nothing else."""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files

from attrs import define
from twisted.web.http import CACHED
from twisted.web.pages import notFound
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

CONTENT_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".txt": b"text/plain; charset=utf-8",
}

INDEX = "index.html"

_HEADERS = {
    # Nothing from other hosts, nothing inline; and with trusted types no text can become markup by mistake.
    b"Content-Security-Policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    b"require-trusted-types-for 'script'; trusted-types 'none'",
    b"X-Content-Type-Options": b"nosniff",
    b"Referrer-Policy": b"no-referrer",
    b"Cross-Origin-Resource-Policy": b"same-origin",
    # Asked for again each time, and answered with 304: after an upgrade nobody has half of the old page.
    b"Cache-Control": b"no-cache",
}


@define(eq=False)
class _File(Resource):
    """One file, held in memory."""

    isLeaf = True
    _content: bytes
    _content_type: bytes
    _etag: bytes

    def __attrs_post_init__(self) -> None:
        Resource.__init__(self)

    def render_GET(self, request: Request) -> bytes:
        """The file, or 304 to who has it; HEAD too comes here."""
        for name, value in _HEADERS.items():
            request.setHeader(name, value)
        if request.setETag(self._etag) is CACHED:
            return b""
        request.setHeader(b"Content-Type", self._content_type)
        return self._content


def page_resources() -> tuple[IResource, IResource]:
    """The page itself, for `/`, and the folder of its files, for `/page`."""
    folder, served, index = files(__package__), notFound(), Resource()
    for file in sorted(folder.iterdir(), key=lambda each: each.name):
        suffix = file.name[file.name.rfind(".") :]
        content_type = CONTENT_TYPES.get(suffix)
        if content_type is None:
            continue
        content = file.read_bytes()
        leaf = _File(content, content_type, b'"%s"' % sha256(content).hexdigest()[:32].encode())
        if file.name == INDEX:
            index = leaf
        else:
            served.putChild(file.name.encode(), leaf)
    return index, served
