"""Makes any value fit for a line of JSON: bounded, without secrets, with phone numbers masked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from datetime import date, datetime
from enum import Enum
from functools import lru_cache
from typing import Any

import attrs
from attrs import define, frozen
from twisted.python.failure import Failure
from twisted.python.reflect import safe_repr, safe_str

from whatsapp_egress.observe.numbers import masked, masked_in
from whatsapp_egress.observe.redaction import REDACTED, Redactor, is_secret_name

LONGEST_TEXT = 16_000
"""Characters of one text; what is longer is cut."""

_DEEPEST = 6
_MOST_VALUES = 300
"""Values in one field, with all that is nested in it; `_A_VALUE` characters of text count as one more."""

_A_VALUE = 200
_LARGEST_INTEGER = 2**63
_MORE = "…"


class Rule(Enum):
    """What a field may show, by its name."""

    ANYTHING = "text, in which phone numbers are masked"
    IDENTIFIER = "as it is, but for secrets"
    PERSON = "the end of a phone number"
    COUNT = "numbers only"
    SECRET = "nothing"  # noqa: S105 - what the rule says


_IDENTIFIERS = frozenset(
    [
        "internalid",
        "tenantid",
        "phonenumberid",
        "businessaccountid",
        "wamid",
        "fbtrace",
        "fbtraceid",
        "traceid",
        "spanid",
        "timestamp",
        "time",
        "logger",
        "version",
        "queue",
        "exchange",
        "routingkey",
    ]
)
_PERSONS = frozenset(
    [
        "to",
        "from",
        "recipient",
        "recipients",
        "recipientid",
        "waid",
        "waids",
        "input",
        "phone",
        "phonenumber",
        "phonenumbers",
        "displayphonenumber",
        "msisdn",
    ]
)


@lru_cache(maxsize=4096)
def rule_of(name: str) -> Rule:
    """Return what a field called `name`, in camel or snake case, may show."""
    bare = name.lower().replace("_", "").replace("-", "")
    if bare in _IDENTIFIERS:
        return Rule.IDENTIFIER
    if bare in _PERSONS:
        return Rule.PERSON
    if is_secret_name(name):
        return Rule.COUNT if "tokens" in bare else Rule.SECRET
    return Rule.ANYTHING


@define
class _Room:
    """What is left of `_MOST_VALUES`."""

    values: int = _MOST_VALUES

    def take(self, values: int = 1) -> bool:
        self.values -= values
        return self.values >= 0


@frozen
class Presenter:
    """Shows values as the rules of their names allow. With `pii`, phone numbers are shown in full."""

    _redactor: Redactor
    _pii: bool = False

    def field(self, name: str, value: object) -> object:
        """Return `value`, of a field called `name`, as something JSON has."""
        rule = rule_of(name)
        if type(value) is str and rule is not Rule.SECRET and rule is not Rule.COUNT:
            return self._text(value, rule)
        return self._value(value, rule, 0, _Room())

    def text(self, text: str) -> str:
        """Return free text without secrets and phone numbers, cut to `LONGEST_TEXT`."""
        return self._text(text, Rule.ANYTHING)

    def _text(self, text: str, rule: Rule) -> str:
        cut = len(text) > LONGEST_TEXT
        if cut:
            # A secret across the cut must be seen whole to be recognised.
            text = text[: LONGEST_TEXT + self._redactor.reach()]
        if not text.isascii():
            # Lone surrogates have no UTF-8.
            text = text.encode("utf-8", "backslashreplace").decode("utf-8")
        text = self._redactor.known(text) if rule is Rule.IDENTIFIER else self._redactor.text(text)
        if not self._pii:
            if rule is Rule.PERSON:
                text = masked(text)
            elif rule is not Rule.IDENTIFIER:
                text = masked_in(text)
        return text[:LONGEST_TEXT] + _MORE if cut else text

    def _value(self, value: object, rule: Rule, depth: int, room: _Room) -> object:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, (int, float)) and not isinstance(value, Enum):
            return self._number(value, rule)
        if rule is Rule.SECRET or rule is Rule.COUNT:
            return REDACTED
        if depth > _DEEPEST or not room.take():
            return _MORE
        if isinstance(value, Mapping):
            return self._mapping(value.items(), depth, room)
        if isinstance(value, (list, tuple, Set)):
            return self._list(value, rule, depth, room)
        if attrs.has(type(value)) and not isinstance(value, BaseException):
            return self._mapping(_fields(value), depth, room)
        return self._scalar(value, rule, room)

    def _number(self, value: float, rule: Rule) -> object:
        if rule is Rule.SECRET:
            return REDACTED
        if isinstance(value, int) and abs(value) >= _LARGEST_INTEGER:
            return f"<an integer of {value.bit_length()} bits>"
        if not math.isfinite(value):
            return repr(float(value))
        if rule is Rule.PERSON and not self._pii:
            return masked(str(value))
        # Subclasses may have a repr of their own.
        return int(value) if isinstance(value, int) else float(value)

    def _mapping(self, items: Iterable[tuple[Any, Any]], depth: int, room: _Room) -> dict[str, object]:
        shown: dict[str, object] = {}
        for key, value in items:
            name = key if isinstance(key, str) else safe_str(key)
            if not room.take(1 + len(name) // _A_VALUE):
                shown[_MORE] = _MORE
                break
            shown[self.text(name)] = self._value(value, rule_of(name[:_A_VALUE]), depth + 1, room)
        return shown

    def _list(self, values: Iterable[object], rule: Rule, depth: int, room: _Room) -> list[object]:
        shown: list[object] = []
        for value in values:
            if room.values <= 0:
                shown.append(_MORE)
                break
            room.take()
            shown.append(self._value(value, rule, depth + 1, room))
        return shown

    def _scalar(self, value: object, rule: Rule, room: _Room) -> str:
        if isinstance(value, str):
            text = str(value)
        elif isinstance(value, (bytes, bytearray)):
            text = bytes(value[: 4 * LONGEST_TEXT]).decode("utf-8", "backslashreplace")
        elif isinstance(value, Enum):
            text = str(value.name)
        elif isinstance(value, (datetime, date)):
            text = value.isoformat()
        elif isinstance(value, Failure):
            text = described(value.value)
        elif isinstance(value, BaseException):
            text = described(value)
        else:
            text = safe_repr(value)
        shown = self._text(text, rule)
        room.take(len(shown) // _A_VALUE)
        return shown


def described(error: object) -> str:
    """Return the name of an exception's class with its message."""
    message = safe_str(error)
    return f"{kind_of(error)}: {message}" if message else kind_of(error)


def kind_of(error: object) -> str:
    """Return the full name of an exception's class, without `builtins`."""
    cls = type(error)
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def _fields(record: Any) -> Iterable[tuple[str, object]]:
    """Return what the repr of an attrs record would show."""
    return [
        (attribute.name.lstrip("_"), getattr(record, attribute.name, None))
        for attribute in attrs.fields(type(record))
        if attribute.repr
    ]
