"""The control API as its clients see it: one question, and an answer or a `Trouble` that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from attrs import define, field
from hyperlink import URL, EncodedURL
from twisted.internet.interfaces import IReactorTime
from twisted.web.http_headers import Headers

from whatsapp_egress.cli.trouble import Misunderstood, Refused, Trouble, Unreachable, plain
from whatsapp_egress.clients.http import HttpClient, Reply
from whatsapp_egress.clients.tls import trust
from whatsapp_egress.errors import NoReply, NotConnected
from whatsapp_egress.parts import USER_AGENT

TIMEOUT = 30.0
"""Seconds for one answer: a gateway that looks through its dead letters takes some."""

LARGEST_ANSWER = 64 << 20
"""Bytes; a gateway with ten thousand tenants tells of each."""


@define
class Gateway:
    """Asks the control API at one address."""

    reactor: IReactorTime
    url: str
    _http: HttpClient
    _token: str = field(repr=False)

    @classmethod
    def over(cls, reactor: Any, url: str, token: str, pem: bytes | None) -> Gateway:
        """`pem` are more trust roots than the platform's."""
        client = HttpClient.over(
            reactor, trust(pem, platform=True), timeout=TIMEOUT, most_idle=1, largest=LARGEST_ANSWER
        )
        return cls(reactor, url.rstrip("/"), client, token)

    async def close(self) -> None:
        """Hang up. It can be asked again after that."""
        await self._http.close()

    async def get(self, *path: str, **query: object) -> Any:
        """What the resource at /api/v1/… says."""
        return await self._ask("GET", path, query)

    async def post(self, *path: str, document: Mapping[str, object]) -> Any:
        """Have something done."""
        return await self._ask("POST", path, {}, document)

    async def delete(self, *path: str, **query: object) -> Any:
        """Have something stopped."""
        return await self._ask("DELETE", path, query)

    async def _ask(
        self,
        method: str,
        path: tuple[str, ...],
        query: Mapping[str, object],
        document: Mapping[str, object] | None = None,
    ) -> Any:
        headers = Headers(
            {
                "Authorization": [f"Bearer {self._token}"],
                "Accept": ["application/json"],
                "User-Agent": [USER_AGENT],
            }
        )
        body = None
        if document is not None:
            headers.setRawHeaders("Content-Type", ["application/json"])
            body = msgspec.json.encode(document)
        try:
            reply = await self._http.exchange(method, self._address(path, query), headers, body)
        except NotConnected as error:
            raise Unreachable(
                f"No gateway can be reached at {self.url}: {plain(error)}. Is it running, and is the"
                " address right (--url, EGRESS_URL or HEALTH_CHECK_PORT)?"
            ) from error
        except NoReply as error:
            raise Unreachable(
                f"{self.url} did not answer: {plain(error)}. What was asked for may have been done all the"
                " same: look before you ask again."
            ) from error
        return self._read(reply)

    def _address(self, path: tuple[str, ...], query: Mapping[str, object]) -> EncodedURL:
        # Quoted here, for hyperlink takes a `%` for the begin of something quoted.
        parts = [quote(part, safe="") for part in ("api", "v1", *path)]
        asked = [
            (name, quote(str(value), safe="")) for name, value in query.items() if value not in (None, "")
        ]
        return URL.from_text(self.url).child(*parts).replace(query=asked)

    def _read(self, reply: Reply) -> Any:
        document = _json(reply)
        if 200 <= reply.status < 300 and document is not None:
            return document
        said = document if isinstance(document, dict) else {}
        code = said.get("error")
        detail = str(said.get("detail") or "")
        if reply.status == 401:
            raise Refused(
                f"The gateway at {self.url} refused the token. ADMIN_TOKEN (or the file that ADMIN_TOKEN_FILE"
                " names) must be what the gateway was started with."
            )
        if code == "not_enabled":
            raise Refused(
                f"The control API is not enabled at {self.url}: start the gateway with ADMIN_TOKEN or"
                " ADMIN_TOKEN_FILE."
            )
        if not isinstance(code, str):
            raise Unreachable(
                f"What answers at {self.url} is no gateway with a control API (HTTP {reply.status}). Is the"
                " address right (--url, EGRESS_URL or HEALTH_CHECK_PORT)?"
            )
        raise _trouble(reply.status, code, detail)


def _trouble(status: int, code: str, detail: str) -> Trouble:
    kinds: dict[int, type[Trouble]] = {400: Misunderstood, 403: Refused, 503: Unreachable}
    return kinds.get(status, Trouble)(detail or code, code)


def _json(reply: Reply) -> Any:
    if not reply.complete:
        return None
    try:
        return msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
