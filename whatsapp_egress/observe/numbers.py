"""Masks phone numbers down to their last 4 digits."""

from __future__ import annotations

import re

_DIGITS = re.compile(r"[^0-9]")
_SHOWN = 4
_LEAST = 7
"""Digits that make a phone number; fewer are masked whole."""

_PERHAPS = re.compile(r"[0-9](?:[ ().-]{0,3}[0-9]){7}")
_IN_TEXT = re.compile(
    # What only looks like a phone number is stepped over ...
    r"wamid\.[A-Za-z0-9+/=_-]+"
    r"|\b[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}\b"
    r"|\b0x[0-9A-Fa-f]+"
    # ... 8 to 15 digits in a row are one, but for a fraction, ...
    r"|(?P<plain>\+?(?<![0-9])(?<![0-9]\.)[0-9]{8,15}(?![0-9]))"
    # ... and so are groups of them behind a plus.
    r"|(?P<grouped>\+[0-9](?:[ ().-]{0,3}[0-9]){7,14}(?![0-9]))"
)


def masked(number: str) -> str:
    """Return what may be shown of a phone number or another address of a person."""
    digits = _DIGITS.sub("", number)
    if len(digits) >= _LEAST:
        return f"***{digits[-_SHOWN:]}"
    return f"***{number[-_SHOWN:]}" if len(number) > 2 * _SHOWN else "***"


def masked_in(text: str) -> str:
    """Return `text` with the phone numbers in it masked.

    UUIDs, wamids and memory addresses stay, and so do longer runs of digits: E.164 ends at 15.
    """
    # Most texts have no such number, and to see that is quicker.
    return _IN_TEXT.sub(_mask, text) if _PERHAPS.search(text) else text


def _mask(match: re.Match[str]) -> str:
    return masked(match[0]) if match.lastgroup else match[0]
