"""How dead letters, and what is to become of them, look to people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from whatsapp_egress.cli.durations import lasting, when
from whatsapp_egress.cli.tables import coloured, columns, counted, pairs

_FATES = {
    "send": "would be sent",
    "wait": "would wait",
    "expire": "would expire",
    "fail": "would fail again",
    "doubt": "may have been sent already",
    "sent": "was sent since",
}


_STAYS = {
    "sent": "a message with the same ids was sent since",
    "doubt": "Meta may have sent it already",
    "replayed_often": "it was replayed three times already",
}


def listing(document: Mapping[str, Any]) -> str:
    """The table of a list, and how many there are besides."""
    letters: Sequence[Mapping[str, Any]] = document.get("deadLetters") or []
    depth, matching = int(document.get("depth") or 0), int(document.get("matching") or len(letters))
    looked, complete = int(document.get("looked") or 0), document.get("complete") is not False
    unseen = f"Only {looked} of {depth} were looked at; choose more narrowly to see others."
    if looked >= depth:
        unseen = (
            "Others may be in the hands of somebody who looks at them, replays or drops: look again later."
        )
    if not letters and not complete:
        return f"No dead letter that matches was seen. {unseen}"
    if not letters:
        return f"No dead letter matches; the queue holds {depth}." if depth else "There are no dead letters."
    heads = [
        "id",
        "failed",
        "tenant",
        "reason",
        ">code",
        ">attempts",
        ">replays",
        "if replayed",
        "what it was",
    ]
    lines = [columns(heads, [_row(letter) for letter in letters])]
    if matching > len(letters):
        lines.append(f"... and {counted(matching - len(letters), 'more that matches', 'more that match')}.")
    if not complete:
        lines.append(unseen)
    return "\n".join(lines)


def details(letter: Mapping[str, Any]) -> str:
    """All that is known of one."""
    codes = "/".join(
        str(letter[name]) for name in ("errorCode", "errorSubcode") if letter.get(name) is not None
    )
    body = letter.get("body")
    lines = [
        ("id", str(letter.get("id"))),
        ("message", f"{letter.get('internalId')} of tenant {letter.get('tenantId')}"),
        ("sent by", str(letter.get("phoneNumberId") or "")),
        ("failed", when(letter.get("failedAt"))),
        ("reason", str(letter.get("reason"))),
        ("detail", str(letter.get("detail") or "")),
        ("error", f"{codes} {letter.get('title') or ''}".strip()),
        ("advice", str(letter.get("advice") or "")),
        ("HTTP status", str(letter.get("httpStatus") or "")),
        ("Meta's trace", str(letter.get("fbtraceId") or "")),
        ("attempts", str(letter.get("attempts") or 0)),
        ("replays", str(letter.get("replays") or 0)),
        ("if replayed", _fate(letter.get("forecast"))),
        ("headers", _json_text(letter["headers"]) if letter.get("headers") else ""),
        ("body", _json_text(body) if body is not None else ""),
    ]
    return pairs(lines)


def foretold(plan: Mapping[str, Any], sample: Sequence[Mapping[str, Any]]) -> str:
    """What would become of the dead letters that a replay is about: how many of each fate, with the reason
    that most of its like in `sample` have."""
    counts: Mapping[str, int] = plan.get("would") or {}
    rows = [
        [str(counts[fate]), coloured(fate), _in_words(fate, sample)]
        for fate in sorted(counts, key=lambda fate: -counts[fate])
    ]
    lines = [columns([">dead letters", "would", "because"], rows)] if rows else []
    skipped: Mapping[str, int] = plan.get("skipped") or {}
    lines += [
        f"{counted(count, 'of them stays', 'of them stay')} unless --force is given: {_STAYS.get(why, why)}."
        for why, count in skipped.items()
    ]
    return "\n".join(lines)


def _in_words(fate: str, sample: Sequence[Mapping[str, Any]]) -> str:
    told = Counter(
        str(letter["forecast"].get("why"))
        for letter in sample
        if (letter.get("forecast") or {}).get("would") == fate
    )
    if not told:
        return _FATES.get(fate, "")
    (why, _), others = told.most_common(1)[0], len(told) - 1
    return f"{why} (or the like)" if others else why


def _row(letter: Mapping[str, Any]) -> list[str]:
    code, age = letter.get("errorCode"), letter.get("ageSeconds")
    return [
        str(letter.get("id")),
        when(letter.get("failedAt")) if age is None else f"{lasting(float(age))} ago",
        str(letter.get("tenantId") or "-"),
        str(letter.get("reason")),
        "-" if code is None else str(code),
        str(letter.get("attempts") or 0),
        str(letter.get("replays") or 0),
        coloured(str((letter.get("forecast") or {}).get("would") or "-")),
        str(letter.get("title") or letter.get("detail") or ""),
    ]


def _fate(forecast: Mapping[str, Any] | None) -> str:
    if not forecast:
        return ""
    fate = _FATES.get(str(forecast.get("would")), str(forecast.get("would")))
    return f"{fate}: {forecast['why']}" if forecast.get("why") else fate


def _json_text(document: Any) -> str:
    if isinstance(document, str):
        return document
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode().replace("\n", "\n  ")
