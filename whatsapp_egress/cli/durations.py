"""Durations and moments, as people type them and read them."""

from __future__ import annotations

import re
import time

import click

from whatsapp_egress.message import iso_utc, seconds_of

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd])")
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400


class Duration(click.ParamType[float]):
    """A duration such as 90s, 15m, 2h, 1d or 1h30m, as seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it."""
        if isinstance(value, float):
            return value
        text = str(value)
        parts = _PART.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            self.fail(f"{text!r} is no duration: expected one such as 90s, 15m, 2h, 1d or 1h30m.", param, ctx)
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
        if seconds <= 0:
            self.fail("expected a duration above 0.", param, ctx)
        return seconds


class Moment(click.ParamType[str]):
    """An ISO 8601 time, as ISO 8601 in UTC."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read it; a time without an offset is UTC."""
        try:
            return iso_utc(seconds_of(str(value)))
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no time: expected ISO 8601, such as 2026-11-25T18:00:00Z or"
                " 2026-11-25T19:00:00+01:00.",
                param,
                ctx,
            )


def lasting(seconds: float) -> str:
    """A duration in two units at most."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return _two(whole, _MINUTE, "min", 1, "s")
    if whole < _DAY:
        return _two(whole, _HOUR, "h", _MINUTE, "min")
    return _two(whole, _DAY, "d", _HOUR, "h")


def when(iso_time: str | None, now: float | None = None) -> str:
    """A moment with how far away it is: `16:20:05Z (12 min ago)`; with its date if it isn't today's."""
    if not iso_time:
        return "-"
    try:
        moment = seconds_of(iso_time)
    except (ValueError, OverflowError):
        return iso_time
    now = time.time() if now is None else now
    told = iso_utc(moment)
    clock = told[11:19] + "Z" if told[:10] == iso_utc(now)[:10] else told[:19] + "Z"
    return f"{clock} ({away(moment - now)})"


def away(seconds: float) -> str:
    """How far a moment is away that lies `seconds` ahead, or behind if they are negative."""
    return f"in {lasting(seconds)}" if seconds >= 0 else f"{lasting(-seconds)} ago"


def _two(whole: int, large: int, large_name: str, small: int, small_name: str) -> str:
    many, rest = divmod(whole, large)
    few = rest // small
    return f"{many} {large_name} {few} {small_name}" if few else f"{many} {large_name}"
