"""Meta's error table as rules to look up: what an error code, a status or a broken exchange means."""

from __future__ import annotations

from enum import Enum
from typing import Any

import msgspec
from attrs import define, field, frozen


class ErrorClass(str, Enum):
    """The classes of the table (`our_class`); what happens to each is in `verdict`."""

    TRANSIENT = "transient"
    THROTTLE_PHONE_NUMBER = "throttle_phone_number"
    THROTTLE_WABA_OR_APP = "throttle_waba_or_app"
    THROTTLE_PAIR = "throttle_pair"
    AUTH = "auth"
    TENANT_ACCOUNT = "tenant_account"
    PERMANENT_RECIPIENT = "permanent_recipient"
    PERMANENT_PAYLOAD = "permanent_payload"
    PERMANENT_POLICY = "permanent_policy"
    TEMPLATE = "template"


@frozen
class Rule:
    """What the table says of one error: `min_delay` in seconds, `once` where one more attempt is worth it."""

    error_class: ErrorClass
    title: str
    advice: str = ""
    scope: str = "message"
    once: bool = False
    ambiguous: bool = False
    min_delay: float = 0.0


class Case(str, Enum):
    """The table's `transport` cases that need a rule, by their wording there."""

    UNSENT = "dns/connect/TLS failure before any request byte was written"
    UNANSWERED = "read timeout / connection lost after the request was fully written"
    SERVER_ERROR = "HTTP 5xx with non-JSON or without error.code (502/503/504 proxies)"
    TOO_MANY = "HTTP 429 with unknown or missing code"
    UNAUTHORIZED = "HTTP 401 with unknown or missing code"
    FORBIDDEN = "HTTP 403 with unknown or missing code"
    NOT_FOUND = "HTTP 404 with unknown or missing code"
    CLIENT_ERROR = "other HTTP 4xx with unknown code"
    FLAGGED_TRANSIENT = "unknown code with is_transient:true"
    UNIDENTIFIED = "HTTP 2xx without messages[0].id and without success:true"


# Redirects are not followed and 1xx/3xx never end an exchange with Meta itself, so the table has no row:
# something stands in front of Meta, it did not take the message, and it may go away.
_ELSEWHERE = Rule(ErrorClass.TRANSIENT, "Answer that is not Meta's", "Check META_API_BASE_URL.", scope="app")
# A 4xx whose body was cut off or refused for its size is a no whose reason is lost: it may as well have
# been a throttle (130429 comes with 400), so the message is not failed for it.
_CUT_OFF = Rule(ErrorClass.TRANSIENT, "Error answer that broke off", "", scope="app")

_BY_STATUS = {
    401: Case.UNAUTHORIZED,
    403: Case.FORBIDDEN,
    404: Case.NOT_FOUND,
    429: Case.TOO_MANY,
}


@define
class ErrorTable:
    """The rules of `errors.json`, most specific first: (code, subcode), message, code, range of codes."""

    _by_subcode: dict[tuple[int, int], Rule] = field(factory=dict)
    _by_message: dict[int, list[tuple[str, Rule]]] = field(factory=dict)
    _by_code: dict[int, Rule] = field(factory=dict)
    _ranges: list[tuple[range, Rule]] = field(factory=list)
    _cases: dict[Case, Rule] = field(factory=dict)

    @classmethod
    def parse(cls, data: bytes) -> ErrorTable:
        """Read the table from `errors.json`. Raises `ValueError` when it lacks a transport case."""
        document = msgspec.json.decode(data)
        table = cls()
        for entry in document["entries"]:
            table._add(entry)
        known = {case.value: case for case in Case}
        for entry in document["transport"]:
            if case := known.get(entry["case"]):
                table._cases[case] = _rule(entry, entry["case"])
        if missing := [case.value for case in Case if case not in table._cases]:
            raise ValueError(f"errors.json: no transport case {missing[0]!r}")
        return table

    def _add(self, entry: dict[str, Any]) -> None:
        code, subcode, rule = entry["code"], entry["subcode"], _rule(entry, entry["title"])
        if isinstance(code, str):
            first, last = code.split("-")
            self._ranges.append((range(int(first), int(last) + 1), rule))
        elif subcode is not None:
            self._by_subcode[code, subcode] = rule
        elif "match_message" in entry:
            self._by_message.setdefault(code, []).append((entry["match_message"].lower(), rule))
        else:
            self._by_code[code] = rule

    def case(self, case: Case) -> Rule:
        """The rule of one transport case."""
        return self._cases[case]

    def by_code(self, code: int | None, subcode: int | None, message: str) -> Rule | None:
        """The most specific rule for an error code, None when the table does not know the code.

        `message` decides only where an entry says `match_message`.
        """
        if code is None:
            return None
        if subcode is not None and (rule := self._by_subcode.get((code, subcode))):
            return rule
        lowered = message.lower()
        for wanted, rule in self._by_message.get(code, ()):
            if wanted in lowered:
                return rule
        if found := self._by_code.get(code):
            return found
        return next((rule for codes, rule in self._ranges if code in codes), None)

    def by_status(self, status: int, *, complete: bool = True) -> Rule:
        """The rule for an HTTP status whose error code is missing or unknown; 2xx means nobody can know.

        `complete` is False when the body broke off or was refused for its size.
        """
        if 200 <= status < 300:
            return self._cases[Case.UNIDENTIFIED]
        if status >= 500:
            return self._cases[Case.SERVER_ERROR]
        if status < 400:
            return _ELSEWHERE
        if case := _BY_STATUS.get(status):
            return self._cases[case]
        return self._cases[Case.CLIENT_ERROR] if complete else _CUT_OFF


def _rule(entry: dict[str, Any], title: str) -> Rule:
    return Rule(
        error_class=ErrorClass(entry["our_class"]),
        title=title,
        advice=entry.get("advice", ""),
        scope=entry["scope"],
        once=entry["retry"] == "once",
        ambiguous=entry["ambiguous_delivery"],
        min_delay=float(entry.get("min_delay_s", 0)),
    )
