"""The wire format: bytes from the queue to a `Message`, and outcomes to events and dead-letter headers."""

from __future__ import annotations

import re
import sys
from datetime import datetime, timezone
from typing import Annotated, Any

import msgspec
from attrs import evolve, frozen

from whatsapp_egress.policy.verdict import NO_FAULT, Dead, Sent

if sys.version_info < (3, 11):
    # Python 3.10's own fromisoformat knows neither "Z" nor the basic format.
    from backports.datetime_fromisoformat import MonkeyPatch

    MonkeyPatch.patch_fromisoformat()

DEFAULT_PRIORITY = 5

# \Z and not $: a trailing line break must not slip into a URL, a header or a routing key.
TENANT_ID = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
_PHONE_NUMBER_ID = r"^[0-9]{1,32}\Z"
_INTERNAL_ID_LENGTH = 128

_TenantId = Annotated[str, msgspec.Meta(pattern=TENANT_ID)]
_PhoneNumberId = Annotated[str, msgspec.Meta(pattern=_PHONE_NUMBER_ID)]
_InternalId = Annotated[str, msgspec.Meta(min_length=1, max_length=_INTERNAL_ID_LENGTH)]
_Priority = Annotated[int, msgspec.Meta(ge=0, le=10)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


@frozen
class Identity:
    """Whom a message belongs to; a part that could not be read is None."""

    tenant_id: str | None = None
    phone_number_id: str | None = None
    internal_id: str | None = None


class InvalidMessage(Exception):
    """The body is not a message. `detail` names the field in one line; `identity` is what could be read."""

    def __init__(self, detail: str, identity: Identity | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.identity = identity or Identity()


@frozen
class Message:
    """One WhatsApp message to send, checked.

    `payload` is the JSON text of `wabaPayload`, byte for byte as it came. `recipient` is None where there
    is nobody to keep in order (mark as read). `expires_at`, and `created` (the `timestamp` upstream gave it),
    are in seconds since the epoch.
    """

    tenant_id: str
    phone_number_id: str
    internal_id: str
    payload: bytes
    recipient: str | None = None
    priority: int = DEFAULT_PRIORITY
    retry_count: int = 0
    expires_at: float | None = None
    created: float | None = None

    @property
    def identity(self) -> Identity:
        """The three ids that name this message to people."""
        return Identity(self.tenant_id, self.phone_number_id, self.internal_id)

    def expired(self, now: float) -> bool:
        """Whether `expiresAt` has passed at `now` (seconds since the epoch)."""
        return self.expires_at is not None and now >= self.expires_at


class _Metadata(msgspec.Struct):
    tenantId: _TenantId
    phoneNumberId: _PhoneNumberId
    internalId: _InternalId
    timestamp: str | None = None
    priority: _Priority | None = None
    retryCount: _Count | None = None
    expiresAt: str | None = None


class _Envelope(msgspec.Struct):
    metadata: _Metadata
    wabaPayload: msgspec.Raw


class _LooseMetadata(msgspec.Struct):
    tenantId: Any = None
    phoneNumberId: Any = None
    internalId: Any = None


class _LooseEnvelope(msgspec.Struct):
    metadata: _LooseMetadata


_envelope = msgspec.json.Decoder(_Envelope)
_loose_envelope = msgspec.json.Decoder(_LooseEnvelope)
_payload = msgspec.json.Decoder(dict[str, Any])
_encoder = msgspec.json.Encoder()


def decode(body: bytes, max_bytes: int, *, track_callback_data: bool = False) -> Message:
    """Read and check one body (contract: the message in).

    `track_callback_data` adds `biz_opaque_callback_data` = internalId to a payload that has none; nothing
    else of the payload is ever touched. Raises `InvalidMessage`.
    """
    if len(body) > max_bytes:
        raise InvalidMessage(f"body: {len(body)} bytes, at most {max_bytes} are taken")
    try:
        # msgspec does not look into strings it skips, and the payload's raw text is such a string.
        body.decode("utf-8")
        envelope = _envelope.decode(body)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise InvalidMessage(_explain(error), _salvage(body)) from error
    metadata = envelope.metadata
    identity = Identity(metadata.tenantId, metadata.phoneNumberId, metadata.internalId)
    if not metadata.internalId.isprintable():
        readable = evolve(identity, internal_id=None)
        raise InvalidMessage("metadata.internalId: expected printable characters only", readable)
    created = _time("timestamp", metadata.timestamp, identity)
    raw = bytes(envelope.wabaPayload)
    payload = _checked_payload(raw, identity)
    if track_callback_data and "biz_opaque_callback_data" not in payload:
        tag = _encoder.encode(metadata.internalId)
        raw = raw[:-1] + b',"biz_opaque_callback_data":' + tag + b"}"
    return Message(
        tenant_id=metadata.tenantId,
        phone_number_id=metadata.phoneNumberId,
        internal_id=metadata.internalId,
        payload=raw,
        recipient=_recipient(payload),
        priority=DEFAULT_PRIORITY if metadata.priority is None else metadata.priority,
        retry_count=metadata.retryCount or 0,
        expires_at=_time("expiresAt", metadata.expiresAt, identity),
        created=created,
    )


def dead_letter_headers(dead: Dead, attempts: int, now: float) -> dict[str, str | int]:
    """The headers that a dead letter carries besides its own; what is not known is left out.

    `now` is in seconds since the epoch.
    """
    fault = dead.fault or NO_FAULT
    headers: dict[str, str | int | None] = {
        "x-egress-reason": dead.reason.value,
        "x-egress-detail": dead.detail,
        "x-egress-error-code": fault.code,
        "x-egress-error-subcode": fault.subcode,
        "x-egress-fbtrace-id": fault.fbtrace_id,
        "x-egress-http-status": fault.http_status,
        "x-egress-attempts": attempts,
        "x-egress-failed-at": iso_utc(now),
    }
    return {name: value for name, value in headers.items() if value is not None}


def event(identity: Identity, verdict: Sent | Dead, attempts: int, now: float) -> tuple[str, bytes]:
    """Routing key and body of the event that tells the systems before us how a message ended.

    A failed message whose tenant could not be read goes to the key `outbound.failed.unknown`.
    """
    about: dict[str, object] = {
        "event": "sent" if isinstance(verdict, Sent) else "failed",
        "tenantId": identity.tenant_id,
        "phoneNumberId": identity.phone_number_id,
        "internalId": identity.internal_id,
    }
    if isinstance(verdict, Sent):
        about |= {
            "wamid": verdict.wamid,
            "waId": verdict.wa_id,
            "messageStatus": verdict.message_status or "accepted",
        }
    else:
        fault = verdict.fault or NO_FAULT
        about |= {
            "reason": verdict.reason.value,
            "errorCode": fault.code,
            "errorSubcode": fault.subcode,
            "fbtraceId": fault.fbtrace_id,
            "detail": verdict.detail,
        }
    about |= {"attempts": attempts, "timestamp": iso_utc(now)}
    return f"outbound.{about['event']}.{identity.tenant_id or 'unknown'}", _encoder.encode(about)


def iso_utc(now: float) -> str:
    """ISO 8601 in UTC with milliseconds, of seconds since the epoch."""
    moment = datetime.fromtimestamp(now, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _checked_payload(raw: bytes, identity: Identity) -> dict[str, Any]:
    try:
        payload = _payload.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidMessage(_explain(error, "wabaPayload"), identity) from error
    if payload.get("messaging_product") != "whatsapp":
        raise InvalidMessage('wabaPayload.messaging_product: expected "whatsapp"', identity)
    addressed = [field for field in ("to", "recipient") if payload.get(field) is not None]
    if not addressed and payload.get("status") == "read":
        addressed = ["message_id"]
    if not addressed:
        expected = '`to` or `recipient`, or status "read" with `message_id`'
        raise InvalidMessage(f"wabaPayload.to: expected {expected}", identity)
    for field in addressed:
        _filled(field, payload, identity)
    return payload


def _filled(field: str, payload: dict[str, Any], identity: Identity) -> None:
    value = payload.get(field)
    if not isinstance(value, str) or not value.strip():
        raise InvalidMessage(f"wabaPayload.{field}: expected a string that is not empty", identity)


_PUNCTUATION = re.compile(r"[+\s().-]+")


def _recipient(payload: dict[str, Any]) -> str | None:
    """Who the conversation is with; `+1 650…` and `1650…` are the same phone."""
    recipient: str | None = payload.get("to") or payload.get("recipient")
    if recipient is None:
        return None
    digits = _PUNCTUATION.sub("", recipient)
    return digits if digits.isdigit() else recipient


def seconds_of(iso_time: str) -> float:
    """Seconds since the epoch of an ISO 8601 time; one without an offset is UTC. Raises `ValueError`."""
    moment = datetime.fromisoformat(iso_time.upper())  # RFC 3339 allows t and z
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.timestamp()


def _time(field: str, value: str | None, identity: Identity) -> float | None:
    if value is None:
        return None
    try:
        return seconds_of(value)
    except (ValueError, OverflowError) as error:
        raise InvalidMessage(f"metadata.{field}: expected an ISO 8601 time", identity) from error


_AT = re.compile(r" - at `\$\.?(.*)`\Z")


def _explain(error: Exception, within: str = "") -> str:
    """One line that begins with the field, made from msgspec's message (which never quotes values)."""
    if isinstance(error, RecursionError):
        return f"{within or 'body'}: nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"{within or 'body'}: not UTF-8 (byte {error.start})"
    text = str(error)
    found = _AT.search(text)
    path = ".".join(part for part in (within, found.group(1) if found else "") if part)
    reason = text[: found.start()] if found else text
    if "missing required field" in reason:
        name = reason.split("`")[-2]
        return f"{'.'.join(part for part in (path, name) if part)}: missing"
    return f"{path or 'body'}: {reason if reason.startswith('JSON') else reason[:1].lower() + reason[1:]}"


def _salvage(body: bytes) -> Identity:
    """The ids that can still be read from a body that is not a message, so that its failure can be told."""
    try:
        metadata = _loose_envelope.decode(body).metadata
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return Identity()
    internal_id = metadata.internalId
    return Identity(
        _matching(TENANT_ID, metadata.tenantId),
        _matching(_PHONE_NUMBER_ID, metadata.phoneNumberId),
        internal_id
        if isinstance(internal_id, str)
        and 0 < len(internal_id) <= _INTERNAL_ID_LENGTH
        and internal_id.isprintable()
        else None,
    )


def _matching(pattern: str, value: object) -> str | None:
    return value if isinstance(value, str) and re.match(pattern, value) else None
