"""One call of the control API: what was asked for, read and checked, and what is answered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from attrs import define, field, frozen

from whatsapp_egress.control.refusal import Refusal, bad_request
from whatsapp_egress.message import TENANT_ID

MOST_PARAMETERS = 32

NO_CONTROLS = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z"
"""Text of one line: what would end a line of log, or move a terminal's cursor, is not in it."""

Actor = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=NO_CONTROLS)]
"""Who does it: a name for the log, not checked against anything."""

TenantId = Annotated[str, msgspec.Meta(pattern=TENANT_ID)]
InternalId = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=NO_CONTROLS)]


_PATTERN = re.compile(r"matching regex '.*'")


class Order(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a call that changes something: whoever makes it says who he is."""

    actor: Actor


class NoParameters(msgspec.Struct, forbid_unknown_fields=True):
    """A query that must be empty."""


AnOrder = TypeVar("AnOrder", bound=Order)
T = TypeVar("T")


@frozen
class Answer:
    """What is answered; `document` becomes JSON."""

    document: Any
    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)


@define
class Call:
    """A call, from somebody who was let in. `where` is what the path names.

    `actor` and `told` are for the audit: who makes it, and what else there is to be said of it.
    """

    method: str
    query: bytes
    content_type: str
    body: bytes
    too_large: bool = False
    where: dict[str, str] = field(factory=dict)
    actor: str | None = None
    told: dict[str, Any] = field(factory=dict)

    def order(self, kind: type[AnOrder]) -> AnOrder:
        """The body, read as `kind`. Raises `Refusal`."""
        if self.too_large:
            raise Refusal(413, "too_large", "The body is larger than anything that can be asked for.")
        if self.content_type.partition(";")[0].strip().lower() != "application/json":
            raise Refusal(415, "unsupported_media_type", "Send the body as application/json.")
        try:
            read = msgspec.json.decode(self.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # msgspec's sentences name fields and types, never values.
            raise bad_request(f"The body is not as it must be: {_explained(error)}.") from None
        self.actor = read.actor
        return read

    def asked(self, kind: type[T]) -> T:
        """The query, read as `kind`: each parameter once, and none that it does not have. Raises
        `Refusal`."""
        try:
            pairs = parse_qsl(
                self.query.decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=MOST_PARAMETERS,
            )
        except ValueError:  # a UnicodeDecodeError is one
            raise bad_request("The query can't be read: is it percent-encoded UTF-8?") from None
        given = dict(pairs)
        if len(given) != len(pairs):
            raise bad_request("A parameter of the query is given twice.")
        try:
            return msgspec.convert(given, kind, strict=False)
        except msgspec.ValidationError as error:
            raise bad_request(f"The query is not as it must be: {_explained(error)}.") from None

    @property
    def tenant_id(self) -> str:
        """The tenant in the path. Raises `Refusal`."""
        tenant_id = self.where["tenantId"]
        if not re.match(TENANT_ID, tenant_id):
            raise bad_request("The tenant id in the path is none: 1 to 64 letters, digits, and . _ - inside.")
        return tenant_id


def _explained(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is not UTF-8"
    text = _PATTERN.sub("of the form that openapi.json tells", str(error))
    return text.replace("$.", "").rstrip(".")
