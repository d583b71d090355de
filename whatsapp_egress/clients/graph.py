"""Meta's Graph API: one POST to send a message, and what its answer says."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
from attrs import define, frozen
from hyperlink import URL, EncodedURL
from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers

from whatsapp_egress.clients.http import HttpClient, Reply
from whatsapp_egress.errors import NoReply, NotConnected
from whatsapp_egress.policy.verdict import Answer, Exchange, MetaError, Unanswered, Unsent

_json = msgspec.json.Decoder()


@frozen
class Destination:
    """Where Meta is: META_API_BASE_URL, META_API_VERSION, and META_APP_SECRET to sign tokens with."""

    base: EncodedURL
    version: str
    app_secret: str | None = None

    @classmethod
    def parse(cls, base_url: str, version: str, app_secret: str | None = None) -> Destination:
        """From the settings' texts, which are checked there."""
        return cls(URL.from_text(base_url.rstrip("/")), version, app_secret)

    def messages(self, phone_number_id: str, token: str) -> EncodedURL:
        """The URL that takes messages of `phone_number_id`.

        Raises `ValueError` on an id that is not all digits: in a path, `..`, `?` or `#` would reach another
        resource, with the tenant's token.
        """
        if not (phone_number_id.isascii() and phone_number_id.isdigit()):
            raise ValueError(f"not a phone number id: {phone_number_id!r}")
        url = self.base.child(self.version, phone_number_id, "messages")
        if self.app_secret is None:
            return url
        return url.set("appsecret_proof", appsecret_proof(token, self.app_secret))


def appsecret_proof(token: str, app_secret: str) -> str:
    """Meta: HMAC-SHA256 of the access token with the app secret as key, in hex."""
    return hmac.new(app_secret.encode(), token.encode(), "sha256").hexdigest()


@define
class GraphApi:
    """Sends messages.

    `now` gives seconds since the epoch, for a `Retry-After` that is a date. `redact` takes the secrets that
    are known out of a text: some of Meta's refusals quote the token, and go into dead letters and events.
    """

    _http: HttpClient
    _destination: Destination
    _user_agent: str
    _now: Callable[[], float]
    _redact: Callable[[str], str]

    def send(self, phone_number_id: str, token: str, payload: bytes) -> Deferred[Exchange]:
        """One POST; every way the exchange can end is an `Exchange`."""
        return Deferred.fromCoroutine(self._send(phone_number_id, token, payload))

    async def _send(self, phone_number_id: str, token: str, payload: bytes) -> Exchange:
        headers = Headers(
            {
                "Authorization": [f"Bearer {token}"],
                "Content-Type": ["application/json"],
                "User-Agent": [self._user_agent],
            }
        )
        url = self._destination.messages(phone_number_id, token)
        try:
            reply = await self._http.exchange("POST", url, headers, payload)
        except NotConnected as error:
            return Unsent(str(error))
        except NoReply as error:
            return Unanswered(str(error))
        return read_answer(reply, self._now(), self._redact)


def read_answer(reply: Reply, now: float, redact: Callable[[str], str]) -> Answer:
    """What an answer says. Nothing in it is trusted to be there, or to be of the right type.

    What an error says to people goes through `redact`.
    """
    document = _document(reply)
    messages = _list_of_objects(document.get("messages"))
    contacts = _list_of_objects(document.get("contacts"))
    error = document.get("error")
    return Answer(
        status=reply.status,
        wamid=_text(messages[0].get("id")) if messages else None,
        wa_id=_text(contacts[0].get("wa_id")) if contacts else None,
        message_status=_text(messages[0].get("message_status")) if messages else None,
        success=document.get("success") is True,
        error=_error(error, reply, redact) if isinstance(error, dict) else None,
        retry_after=_retry_after(reply.headers, now),
        complete=reply.complete,
    )


def _document(reply: Reply) -> dict[str, Any]:
    if not reply.complete:
        return {}
    try:
        document = _json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _error(error: dict[str, Any], reply: Reply, redact: Callable[[str], str]) -> MetaError:
    data = error.get("error_data")
    trace = _text(error.get("fbtrace_id")) or _header(reply.headers, b"x-fb-trace-id")
    return MetaError(
        code=_number(error.get("code")),
        subcode=_number(error.get("error_subcode")),
        message=redact(_text(error.get("message")) or ""),
        details=redact((_text(data.get("details")) if isinstance(data, dict) else None) or ""),
        is_transient=error.get("is_transient") is True,
        fbtrace_id=redact(trace) if trace else None,
    )


_LONGEST_CODE = 18  # digits; Meta's have up to 7, and a header of AMQP's holds no more than 64 bits


def _number(value: object) -> int | None:
    """A code: an int, or the text of one, as some of Meta's edges write it."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _LONGEST_CODE:
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**_LONGEST_CODE:
        return value
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _list_of_objects(value: object) -> list[dict[str, Any]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def _header(headers: Headers, name: bytes) -> str | None:
    # By bytes, for asked by text Twisted decodes UTF-8, and raises on what is none.
    values = headers.getRawHeaders(name)
    return values[-1].decode("latin-1") if values else None


def _retry_after(headers: Headers, now: float) -> float | None:
    """Seconds; RFC 9110 allows a number of them or a date."""
    value = (_header(headers, b"retry-after") or "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None
