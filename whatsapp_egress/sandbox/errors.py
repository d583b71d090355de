"""Meta's error bodies, made from the table of error codes."""

from functools import lru_cache
from importlib.resources import files

import msgspec
from attrs import field, frozen

#: Graph codes whose bodies carry ``is_transient`` in the examples of Meta's OpenAPI description.
_MARKED_TRANSIENT = frozenset({2, 4})
#: From here up the codes are WhatsApp's own, which carry ``error_data``.
_FIRST_WHATSAPP_CODE = 130000
_INVALID_TOKEN = 190


@frozen
class Entry:
    """One row of the table, as far as an answer shows it."""

    code: int | str
    subcode: int | None
    title: str
    meaning: str
    http_status: int | list[int] | None
    match_message: str | None = None


@frozen
class _Table:
    entries: list[Entry]


@frozen
class GraphError:
    """An error as Meta words it: what goes into the body, and the HTTP status it comes with."""

    code: int | None
    message: str
    http_status: int = 400
    subcode: int | None = None
    kind: str = field(default="OAuthException", kw_only=True)
    details: str | None = field(default=None, kw_only=True)
    is_transient: bool | None = field(default=None, kw_only=True)
    retry_after: float | None = field(default=None, kw_only=True)

    def body(self, trace_id: str) -> bytes:
        """Return the JSON body that carries *trace_id*."""
        error: dict[str, object] = {"message": self.message, "type": self.kind}
        if self.code is not None:
            error["code"] = self.code
        if self.subcode is not None:
            error["error_subcode"] = self.subcode
        if self.is_transient is not None:
            error["is_transient"] = self.is_transient
        if self.details is not None:
            error["error_data"] = {"messaging_product": "whatsapp", "details": self.details}
        error["fbtrace_id"] = trace_id
        return msgspec.json.encode({"error": error})


@lru_cache(maxsize=1)
def entries() -> tuple[Entry, ...]:
    """Return the rows of the package's table."""
    text = files("whatsapp_egress.data").joinpath("errors.json").read_bytes()
    return tuple(msgspec.json.decode(text, type=_Table).entries)


@lru_cache(maxsize=4096)
def error_for(code: int, subcode: int | None = None, details: str | None = None) -> GraphError:
    """Return the error for *code* and *subcode* as the table describes it; unknown codes come with 400."""
    entry = _entry(code, subcode)
    if entry is None:
        return GraphError(code, f"(#{code}) Unknown error", 400, subcode, details=details)
    whatsapp = code >= _FIRST_WHATSAPP_CODE
    invalid_token = code == _INVALID_TOKEN
    return GraphError(
        code,
        f"Error validating access token: {entry.title}" if invalid_token else f"(#{code}) {entry.title}",
        _first_status(entry.http_status),
        subcode,
        details=details or (entry.meaning if whatsapp else None),
        is_transient=True if code in _MARKED_TRANSIENT else None,
    )


def _entry(code: int, subcode: int | None) -> Entry | None:
    rows = [row for row in entries() if _covers(row.code, code) and row.match_message is None]
    for wanted in (subcode, None):
        for row in rows:
            if row.subcode == wanted:
                return row
    return None


def _covers(code: int | str, wanted: int) -> bool:
    if isinstance(code, int):
        return code == wanted
    low, _, high = code.partition("-")
    return int(low) <= wanted <= int(high or low)


def _first_status(status: int | list[int] | None) -> int:
    if isinstance(status, list):
        return status[0]
    return 400 if status is None else status


MISSING_TOKEN = GraphError(104, "An access token is required to request this resource.", 401)
MALFORMED_TOKEN = GraphError(190, "Invalid OAuth access token - Cannot parse access token", 401)
ROTATED_TOKEN = GraphError(190, "Error validating access token: The token was replaced.", 401, 467)
EXPIRED_TOKEN = GraphError(190, "Error validating access token: Session has expired.", 401, 463)
MISSING_PROOF = GraphError(
    100, "API calls from the server require an appsecret_proof argument", 400, kind="GraphMethodException"
)
INVALID_PROOF = GraphError(
    100, "Invalid appsecret_proof provided in the API argument", 400, kind="GraphMethodException"
)


def no_such_object(object_id: str) -> GraphError:
    """Return the error for a phone number that the token may not use or that does not exist."""
    return GraphError(
        100,
        f"Unsupported post request. Object with ID '{object_id}' does not exist, cannot be loaded due to "
        "missing permissions, or does not support this operation. Please read the Graph API documentation at "
        "https://developers.facebook.com/docs/graph-api",
        400,
        33,
        kind="GraphMethodException",
    )


def unknown_path(path: str) -> GraphError:
    """Return the error for a path that is not a phone number's messages."""
    return GraphError(2500, f"Unknown path components: {path}", 400)


def invalid_parameter(what: str) -> GraphError:
    """Return error 100 with *what* is wrong as its message."""
    return GraphError(100, f"(#100) {what}", 400)
