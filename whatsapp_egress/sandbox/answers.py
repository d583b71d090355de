"""What the Graph API answers, apart from how it goes over the wire."""

import os
import struct
import zlib
from base64 import b64encode
from enum import Enum
from functools import lru_cache

import msgspec
from attrs import evolve, field, frozen

from .errors import GraphError

JSON = b"application/json; charset=UTF-8"
_BOMB_MEBIBYTES = 200


class Wire(Enum):
    """How an answer goes over the wire."""

    WHOLE = "whole"
    HANG = "hang"
    RESET = "reset"
    RESET_EARLY = "reset_early"
    CLOSE = "close"
    TRUNCATED = "truncated"
    STALLED = "stalled"
    SLOW = "slow"
    CLOSE_AFTER = "close_after"


@frozen
class Answer:
    """One answer: its status, body and headers, how it is delivered, and what the record keeps of it."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    wire: Wire = field(default=Wire.WHOLE, kw_only=True)
    slow_s: float = field(default=0.0, kw_only=True)  # how long a SLOW body takes
    delay_s: float = field(default=0.0, kw_only=True)  # before the first byte
    wamid: str | None = field(default=None, kw_only=True)
    error_code: int | None = field(default=None, kw_only=True)
    error_subcode: int | None = field(default=None, kw_only=True)

    def over(self, wire: Wire, *, slow_s: float = 0.0) -> "Answer":
        """Return the same answer, delivered another way."""
        return evolve(self, wire=wire, slow_s=slow_s)

    def after(self, seconds: float) -> "Answer":
        """Return the same answer, *seconds* later than it would be."""
        return evolve(self, delay_s=self.delay_s + seconds) if seconds else self


def trace_id() -> str:
    """Return an id such as Meta puts into ``fbtrace_id`` and ``x-fb-trace-id``."""
    return "A" + b64encode(os.urandom(16), b"-_").decode()[:22]


def message_id(recipient: str) -> str:
    """Return a new wamid for *recipient*, built as Meta builds them."""
    name = recipient.encode()[:100]
    unique = os.urandom(9).hex().upper().encode()
    raw = b"\x1c\x18" + bytes([len(name)]) + name + b"\x15\x02\x00\x11\x18\x12" + unique + b"\x00"
    return "wamid." + b64encode(raw).decode()


def accepted(contact: dict[str, str], *, status: int = 200, message_status: str | None = None) -> Answer:
    """Return the answer for a message that Meta took."""
    wamid = message_id(contact.get("wa_id") or contact.get("user_id") or contact["input"])
    message = {"id": wamid}
    if message_status is not None:
        message["message_status"] = message_status
    body = {"messaging_product": "whatsapp", "contacts": [contact], "messages": [message]}
    return Answer(status, msgspec.json.encode(body), wamid=wamid)


def marked_read() -> Answer:
    """Return the answer to a read receipt or typing indicator."""
    return Answer(200, b'{"success":true}')


def refused(error: GraphError) -> Answer:
    """Return the answer that carries *error*."""
    trace = trace_id()
    headers: list[tuple[bytes, bytes]] = [(b"x-fb-trace-id", trace[1:12].encode())]
    if error.http_status == 401:
        challenge = f'OAuth "Facebook Platform" "invalid_token" "{error.message}"'
        headers.append((b"www-authenticate", challenge.encode()))
    if error.retry_after is not None:
        headers.append((b"retry-after", f"{error.retry_after:g}".encode()))
    return Answer(
        error.http_status,
        error.body(trace),
        headers=tuple(headers),
        error_code=error.code,
        error_subcode=error.subcode,
    )


def page(status: int) -> Answer:
    """Return the HTML page of a proxy in front of the API."""
    text = f"<!DOCTYPE html>\n<html><head><title>{status}</title></head><body>Error {status}</body></html>\n"
    return Answer(status, text.encode(), b"text/html; charset=utf-8")


def redirect(status: int, location: str) -> Answer:
    """Return a redirect to *location*."""
    return Answer(status, b"", b"text/html", ((b"location", location.encode()),))


def without_id(answer: Answer) -> Answer:
    """Return *answer* without its message id."""
    body = msgspec.json.decode(answer.body)
    return evolve(answer, body=msgspec.json.encode({**body, "messages": []}))


def large(answer: Answer, mebibytes: int) -> Answer:
    """Return *answer* with so many MiB of blanks before its end."""
    return evolve(answer, body=answer.body[:-1] + b" " * (mebibytes << 20) + answer.body[-1:])


def bomb(answer: Answer) -> Answer:
    """Return *answer* as a small gzip body that unpacks to 200 MiB."""
    headers = (*answer.headers, (b"content-encoding", b"gzip"))
    return evolve(answer, body=_packed_blanks(), headers=headers)


@lru_cache(maxsize=1)
def _packed_blanks() -> bytes:
    # One MiB is packed once and repeated: after a full flush the same bytes mean the same again.
    blanks = b" " * (1 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(blanks) + packer.flush(zlib.Z_FULL_FLUSH)
    check = 0
    for _ in range(_BOMB_MEBIBYTES):
        check = zlib.crc32(blanks, check)
    head = b"\x1f\x8b\x08" + b"\x00" * 6 + b"\x03"
    return head + block * _BOMB_MEBIBYTES + b"\x03\x00" + struct.pack("<II", check, _BOMB_MEBIBYTES << 20)
