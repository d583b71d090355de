"""Meta's error table, as it is installed, for tests to walk through."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from whatsapp_egress.policy.table import ErrorTable

RAW = files("whatsapp_egress.data").joinpath("errors.json").read_bytes()
DOCUMENT: dict[str, Any] = json.loads(RAW)
ENTRIES: list[dict[str, Any]] = DOCUMENT["entries"]
TABLE = ErrorTable.parse(RAW)


def codes_of(entry: dict[str, Any]) -> list[int]:
    """The codes an entry speaks of: its own, or the ends and the middle of its range."""
    if isinstance(entry["code"], int):
        return [entry["code"]]
    first, last = map(int, entry["code"].split("-"))
    return [first, (first + last) // 2, last]
