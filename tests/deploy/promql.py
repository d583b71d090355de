"""What a PromQL expression names: metrics, the labels it matches and the labels it groups by."""

from __future__ import annotations

import re

from attrs import frozen

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_RANGE = re.compile(r"\[[^\]]*\]")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"\b([a-zA-Z_:][a-zA-Z0-9_:]*)\b\s*(?:\{([^}]*)\})?(?!\s*\()")
_MATCHER = re.compile(r'([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_WORDS = {
    "and",
    "or",
    "unless",
    "by",
    "without",
    "on",
    "ignoring",
    "bool",
    "offset",
    "group_left",
    "group_right",
}


@frozen
class Selector:
    """A metric, and for each label that is matched how, and with what."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]


def selectors(expression: str) -> list[Selector]:
    """All metrics that the expression reads."""
    bare = _GROUPING.sub(" ", _outside_strings(_RANGE, expression))
    found = []
    for match in _SELECTOR.finditer(bare):
        metric, matchers = match.groups()
        if metric not in _WORDS and not _inside_braces_or_string(bare, match.start()):
            found.append(Selector(metric, tuple(_MATCHER.findall(matchers or ""))))
    return found


def grouped_by(expression: str) -> set[str]:
    """All labels that the expression groups or joins by."""
    lists = _GROUPING.findall(_STRING.sub('""', expression))
    return {label.strip() for each in lists for label in each.split(",") if label.strip()}


def _outside_strings(pattern: re.Pattern[str], text: str) -> str:
    """`text` without what matches `pattern`, but for what stands in strings."""
    parts = re.split(f"({_STRING.pattern})", text)
    return "".join(part if part.startswith('"') else pattern.sub(" ", part) for part in parts)


def _inside_braces_or_string(text: str, position: int) -> bool:
    before = _STRING.sub(lambda match: " " * len(match.group()), text)[:position]
    return before.count("{") > before.count("}") or before.count('"') % 2 == 1
