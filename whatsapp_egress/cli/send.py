"""`send`: publishes one message as the systems before the gateway do, and follows it to its outcome."""

from __future__ import annotations

import os
import time
from shlex import quote
from typing import IO, Any
from uuid import uuid4

import click
import msgspec
from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, TimeoutError

from whatsapp_egress import parts
from whatsapp_egress.cli.durations import Duration, lasting
from whatsapp_egress.cli.reach import TENANT, json_option
from whatsapp_egress.cli.running import on_reactor
from whatsapp_egress.cli.tables import coloured, pairs, put, put_json
from whatsapp_egress.cli.trouble import Exit, Interrupted, Trouble, Unreachable, plain
from whatsapp_egress.clients.broker.courier import EventStream, publish
from whatsapp_egress.clients.broker.errors import BrokerUnreachable
from whatsapp_egress.clients.broker.visit import visiting
from whatsapp_egress.errors import QueueTrouble, Unpublished
from whatsapp_egress.message import InvalidMessage, Message, decode, iso_utc
from whatsapp_egress.observe.numbers import masked, masked_in
from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.observe.words import Words
from whatsapp_egress.policy.verdict import Fault, Reason
from whatsapp_egress.settings import BadSettings, Settings

NO_OUTCOME = 2
"""Exit status when nobody said in time what became of it."""


@frozen
class _Outcome:
    """What became of it: `sent`, `failed`, or `unknown` with the reason in `event`'s place."""

    word: str
    event: dict[str, Any]
    seconds: float
    why: str = ""

    @property
    def status(self) -> int:
        return {"sent": Exit.DONE, "failed": Exit.FAILED}.get(self.word, NO_OUTCOME)


@click.command(short_help="Publish a message and follow it.")
@click.option("--tenant", type=TENANT, required=True, help="Whose message it is.")
@click.option("--from", "sender", required=True, metavar="ID", help="The phone number ID that sends it.")
@click.option("--to", metavar="NUMBER", help="Who gets it. May be left out where the payload says it.")
@click.option("--text", help="Send this text.")
@click.option(
    "--payload", type=click.File("rb"), help="Send this wabaPayload, a JSON object; - is standard input."
)
@click.option("--internal-id", help="Its internalId.  [default: a new one]")
@click.option("--timeout", type=Duration(), default="60s", show_default=True, help="How long to follow it.")
@json_option
def send(
    tenant: str,
    sender: str,
    to: str | None,
    text: str | None,
    payload: IO[bytes] | None,
    internal_id: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Publish one message to RabbitMQ and follow it until it is sent or has failed.

    Exit status 0 when it was sent, 1 when it failed, 2 when nobody said in time what became of it.
    """
    document = _payload(to, text, payload)
    body, message = _body(tenant, sender, internal_id or f"cli-{uuid4()}", document)
    settings = _settings()
    _whole(body, settings)

    async def main(reactor: Any) -> _Outcome:
        return await _send(reactor, settings, message, body, timeout, as_json)

    outcome = on_reactor(main, Redactor(settings.secrets()))
    put_json(_document(message, outcome)) if as_json else put(_told(message, outcome))
    if outcome.status:
        raise SystemExit(outcome.status)


def _payload(to: str | None, text: str | None, payload: IO[bytes] | None) -> dict[str, Any]:
    if (text is None) == (payload is None):
        raise click.UsageError("Give either --text or --payload.")
    if payload is None:
        if to is None:
            raise click.UsageError("--text goes to somebody: give --to.")
        return {"messaging_product": "whatsapp", "to": to, "type": "text", "text": {"body": text}}
    try:
        document = msgspec.json.decode(payload.read())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise click.BadParameter(f"is not JSON: {error}", param_hint="--payload") from error
    if not isinstance(document, dict):
        raise click.BadParameter("is no JSON object.", param_hint="--payload")
    if to is not None and document.setdefault("to", to) != to:
        raise click.UsageError("--to and the payload's `to` differ; give one of them.")
    document.setdefault("messaging_product", "whatsapp")
    return document


def _body(tenant: str, sender: str, internal_id: str, payload: dict[str, Any]) -> tuple[bytes, Message]:
    metadata = {
        "tenantId": tenant,
        "phoneNumberId": sender,
        "internalId": internal_id,
        "timestamp": iso_utc(time.time()),
    }
    body = msgspec.json.encode({"metadata": metadata, "wabaPayload": payload})
    try:
        return body, decode(body, len(body))
    except InvalidMessage as invalid:
        raise click.UsageError(f"The gateway would refuse this message: {invalid.detail}.") from invalid


def _settings() -> Settings:
    try:
        return Settings.from_environment(os.environ)
    except BadSettings as bad:
        raise Trouble(str(bad).replace("can't start", "can't send")) from bad


def _whole(body: bytes, settings: Settings) -> None:
    if len(body) > settings.message_max_bytes:
        raise Trouble(
            f"The message has {len(body)} bytes, and the gateway takes {settings.message_max_bytes} at most"
            " (MESSAGE_MAX_BYTES)."
        )


async def _send(
    reactor: Any, settings: Settings, message: Message, body: bytes, timeout: float, as_json: bool
) -> _Outcome:
    try:
        async with visiting(reactor, parts.address(settings), "whatsapp-egress send") as connection:
            events = await EventStream.of(connection, message.tenant_id)
            await publish(connection, settings.rabbitmq_exchange, message.tenant_id, body)
            began = time.monotonic()
            if not as_json:
                put(f"queued  {_in_short(message)}")
            about = Deferred.fromCoroutine(events.about(message.internal_id))
            try:
                event = await about.addTimeout(timeout, reactor)
            except TimeoutError:
                why = f"nobody said within {lasting(timeout)} what became of it"
                if not settings.events_enabled:
                    why += " (EVENTS_ENABLED=false: a gateway with these settings never does)"
                return _Outcome("unknown", {}, timeout, why)
            except CancelledError:
                raise Interrupted(f"Interrupted. The message stays queued; {_asking(message)}") from None
            except QueueTrouble as trouble:
                return _Outcome("unknown", {}, time.monotonic() - began, f"the broker went away: {trouble}")
            return _Outcome(str(event.get("event")), event, time.monotonic() - began)
    except BrokerUnreachable as error:
        raise Unreachable(
            f"RabbitMQ can't be reached: {plain(error)}. `whatsapp-egress check` looks closer."
        ) from error
    except QueueTrouble as trouble:
        raise Trouble(
            f"Nothing was sent, for the events can't be listened to: {plain(trouble)}. The gateway declares"
            " the exchange when it starts; the user needs all rights to amq.gen-.*, and the read right to"
            " whatsapp-events."
        ) from trouble
    except Unpublished as error:
        raise Trouble(
            f"The broker did not take the message: {plain(error)}. Has a gateway ever run with these"
            " settings? `whatsapp-egress check` looks closer."
        ) from error


def _in_short(message: Message) -> str:
    to = f" to {masked(message.recipient)}" if message.recipient else ""
    return f"{message.internal_id} of tenant {message.tenant_id}, from {message.phone_number_id}{to}"


def _asking(message: Message) -> str:
    command = f"whatsapp-egress why {quote(message.internal_id)} --tenant {message.tenant_id}"
    return f"ask the gateway where it is:\n  {command}"


def _told(message: Message, outcome: _Outcome) -> str:
    event, word = outcome.event, coloured(outcome.word)
    if outcome.word == "sent":
        return f"{word}    {event.get('wamid') or 'without a wamid'}, after {lasting(outcome.seconds)}"
    if outcome.word == "unknown":
        return f"It is queued, but {outcome.why}; {_asking(message)}"
    title, advice = _meaning(event)
    lines = [
        ("reason", str(event.get("reason"))),
        ("error", f"{_codes(event)} {title}".strip()),
        ("detail", masked_in(str(event.get("detail") or ""))),
        ("advice", advice),
        ("attempts", str(event.get("attempts", ""))),
    ]
    return f"{word}  after {lasting(outcome.seconds)}\n{pairs(lines)}"


def _codes(event: dict[str, Any]) -> str:
    return "/".join(str(event[name]) for name in ("errorCode", "errorSubcode") if event.get(name) is not None)


def _meaning(event: dict[str, Any]) -> tuple[str, str]:
    """Title and advice for its error or its reason, as far as they are known."""
    reason = event.get("reason")
    known = Reason(reason) if reason in set(Reason) else None
    fault = Fault(
        str(event.get("detail") or ""), code=event.get("errorCode"), subcode=event.get("errorSubcode")
    )
    return Words(parts.error_table()).of(fault, known)


def _document(message: Message, outcome: _Outcome) -> dict[str, Any]:
    event = outcome.event
    document: dict[str, Any] = {
        "outcome": outcome.word,
        "tenantId": message.tenant_id,
        "phoneNumberId": message.phone_number_id,
        "internalId": message.internal_id,
        "to": masked(message.recipient) if message.recipient else None,
        "seconds": round(outcome.seconds, 3),
    }
    if outcome.word == "unknown":
        return document | {"detail": outcome.why}
    if outcome.word == "sent":
        return document | {
            name: event.get(name) for name in ("wamid", "messageStatus", "attempts", "timestamp")
        }
    title, advice = _meaning(event)
    names = ("reason", "errorCode", "errorSubcode", "fbtraceId", "attempts", "timestamp")
    told = {name: event.get(name) for name in names}
    return (
        document
        | told
        | {
            "detail": masked_in(str(event.get("detail") or "")),
            "title": title or None,
            "advice": advice or None,
        }
    )
