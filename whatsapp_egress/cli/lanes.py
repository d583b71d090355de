"""`lanes` and `why`: what is the matter with tenants and with one message."""

from __future__ import annotations

from typing import Any

import click

from whatsapp_egress.cli.durations import lasting, when
from whatsapp_egress.cli.gateway import Gateway
from whatsapp_egress.cli.reach import TENANT, Reach, asks_gateway
from whatsapp_egress.cli.tables import coloured, columns, counted, pairs, put, put_json
from whatsapp_egress.cli.trouble import Exit

_WHERE = {
    "in_flight": "is being sent to Meta now",
    "in_hand": "waits in the gateway",
    "sent": "was sent",
    "dead_lettered": "failed and is in the dead-letter queue",
    "deferred": "waits in its tenant's deferred queue at the broker",
}

_AT = {"sent": "sent", "dead_lettered": "failed", "deferred": "put aside"}


@click.command(short_help="Show how each tenant is doing.")
@click.argument("tenant", type=TENANT, required=False)
@click.option("--limit", type=click.IntRange(min=1), help="Show so many tenants at most.")
@asks_gateway
def lanes(reach: Reach, tenant: str | None, limit: int | None, as_json: bool) -> None:
    """Show how each tenant is doing, the one with the most trouble first, or TENANT in detail."""
    if tenant is not None:
        show_lane(reach.run(lambda gateway: gateway.get("lanes", tenant)), as_json)
        return
    document = reach.run(lambda gateway: gateway.get("lanes"))
    found = sorted(document["lanes"], key=lambda lane: (-_number(lane, "trouble"), str(lane.get("tenantId"))))
    shown = found[:limit]
    if as_json:
        put_json({**document, "lanes": shown})
        return
    if not found:
        put("No tenant has a lane: nothing waits and nothing was sent lately.")
        return
    put(_table(shown))
    if len(shown) < len(found):
        put(f"... and {counted(len(found) - len(shown), 'tenant')} with less trouble.")


@click.command(short_help="Say what a message waits for.")
@click.argument("internal_id")
@click.option("--tenant", type=TENANT, help="Look in this tenant's lane only.")
@asks_gateway
def why(reach: Reach, internal_id: str, tenant: str | None, as_json: bool) -> None:
    """Say where the message INTERNAL_ID is, what it waits for and until when.

    Exit status 1 when the gateway knows no such message.
    """

    async def ask(gateway: Gateway) -> Any:
        return await gateway.get("messages", internalId=internal_id, tenantId=tenant)

    document = reach.run(ask)
    found = document.get("messages") or []
    if as_json:
        put_json(document)
    else:
        for message in found:
            put(_message(message))
        if document.get("hint"):
            put(str(document["hint"]))
        elif not found:
            put(f"The gateway knows no message {internal_id}.")
    if not found:
        raise SystemExit(Exit.FAILED)


def show_lane(lane: dict[str, Any], as_json: bool) -> None:
    """Show one tenant's lane."""
    put_json(lane) if as_json else put(_details(lane))


def _table(found: list[dict[str, Any]]) -> str:
    heads = ["tenant", "state", "waits", ">in flight", ">in hand", ">deferred", ">oldest", ">sent/min"]
    heads += [">failed/min", "last error"]
    return columns(heads, [_row(lane) for lane in found])


def _row(lane: dict[str, Any]) -> list[str]:
    oldest = lane.get("oldestSeconds")
    return [
        str(lane.get("tenantId")),
        coloured(str(lane.get("state"))),
        _waits_for(lane.get("waitsFor")),
        *(str(lane.get(name, 0)) for name in ("inFlight", "active", "deferred")),
        "-" if oldest is None else lasting(float(oldest)),
        str(lane.get("sentLastMinute", 0)),
        str(lane.get("failedLastMinute", 0)),
        _error_in_short(lane.get("lastError")),
    ]


def _waits_for(gate: dict[str, Any] | None) -> str:
    if not gate:
        return "-"
    words = str(gate.get("inWords") or gate.get("cause")).removeprefix("waits ")
    return f"{words}, until {when(gate['until'])}" if gate.get("until") else words


def _error_in_short(error: dict[str, Any] | None) -> str:
    if not error:
        return "-"
    code, title = error.get("code"), _title(error) or error.get("detail") or ""
    return f"{code} {title}".strip() if code is not None else str(title)


def _details(lane: dict[str, Any]) -> str:
    pause, breaker, error = lane.get("pause"), lane.get("breaker"), lane.get("lastError")
    rate, oldest = lane.get("rate"), lane.get("oldestSeconds")
    lines = [
        ("tenant", str(lane.get("tenantId"))),
        ("state", coloured(str(lane.get("state")))),
        ("waits", _waits_for(lane.get("waitsFor")) if lane.get("waitsFor") else ""),
        ("paused", _pause(pause) if pause else ""),
        ("breaker", _breaker(breaker) if breaker else ""),
        (
            "messages",
            f"{lane.get('inFlight', 0)} in flight, {lane.get('active', 0)} in hand,"
            f" {lane.get('deferred', 0)} deferred",
        ),
        ("oldest", "" if oldest is None else lasting(float(oldest))),
        (
            "last minute",
            f"{lane.get('sentLastMinute', 0)} sent, {lane.get('failedLastMinute', 0)} failed",
        ),
        ("rate", "" if rate is None else f"{float(rate):g} messages/s"),
        ("last error", _error(error) if error else ""),
        *(("number", _phone(number)) for number in lane.get("numbers") or []),
    ]
    return pairs(lines)


def _pause(pause: dict[str, Any]) -> str:
    ends = f"until {when(pause['until'])}" if pause.get("until") else "until somebody resumes it"
    return f"{pause.get('reason')}, by {pause.get('actor')}, since {when(pause.get('since'))}, {ends}"


def _breaker(breaker: dict[str, Any]) -> str:
    text, failures = str(breaker.get("state")), _number(breaker, "failures")
    text += f", {counted(failures, 'failure')} in a row" if failures else ""
    return f"{text}, until {when(breaker['until'])}" if breaker.get("until") else text


def _title(error: dict[str, Any]) -> str:
    return str(error.get("title") or error.get("reason") or "")


def _error(error: dict[str, Any]) -> str:
    codes = "/".join(str(error[name]) for name in ("code", "subcode") if error.get(name) is not None)
    title = f"{codes} {_title(error)}".strip()
    at = when(error.get("at"))
    sentences = [f"{title}, {at}" if title else at, error.get("detail"), error.get("advice")]
    return " ".join(f"{str(sentence).rstrip('.')}." for sentence in sentences if sentence)


def _phone(number: dict[str, Any]) -> str:
    text = f"{number.get('phoneNumberId')}: {number.get('inFlight', 0)} in flight,"
    text += f" {number.get('active', 0)} in hand, {float(number.get('rate') or 0):g} messages/s"
    return (
        f"{text}, throttled until {when(number['throttledUntil'])}" if number.get("throttledUntil") else text
    )


def _message(message: dict[str, Any]) -> str:
    where = str(message.get("where"))
    gate, ahead = message.get("gate"), _number(message, "ahead")
    lines = [
        ("message", f"{message.get('internalId')} of tenant {message.get('tenantId')}"),
        ("where", _WHERE.get(where, where)),
        ("waits", _waits_for(gate) if gate else ""),
        (_AT.get(where, "ended"), when(message["at"]) if message.get("at") else ""),
        ("ahead of it", f"{counted(ahead, 'message')} of the same conversation" if ahead else ""),
        ("attempts", str(message.get("attempts", 0))),
        ("wamid", str(message.get("wamid") or "")),
        ("reason", str(message.get("reason") or "")),
        ("sent by", str(message.get("phoneNumberId") or "")),
    ]
    return pairs(lines)


def _number(document: dict[str, Any], name: str) -> int:
    value = document.get(name)
    return int(value) if isinstance(value, (int, float)) else 0
