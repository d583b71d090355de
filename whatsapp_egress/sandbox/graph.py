"""What the Graph API makes of a request: token, phone number, limits, shape, then the recipient's card."""

import hashlib
import hmac
import re
from collections import Counter
from typing import Any

import msgspec
from attrs import define, evolve, field, frozen
from twisted.internet.interfaces import IReactorTime

from . import answers, cards
from .answers import Answer, Wire
from .behaviour import Behaviour, Behaviours
from .cards import Card
from .errors import (
    EXPIRED_TOKEN,
    INVALID_PROOF,
    MALFORMED_TOKEN,
    MISSING_PROOF,
    MISSING_TOKEN,
    ROTATED_TOKEN,
    GraphError,
    error_for,
    invalid_parameter,
    no_such_object,
    unknown_path,
)
from .play import play
from .tenants import Tenant, Tenants, expired

_PATH = re.compile(r"/(v[0-9]{1,3}\.[0-9]{1,2})/([^/]+)/messages")
#: Types whose object is a list; every other type's is a JSON object.
_LISTS = frozenset({"contacts"})
#: What a message without a type may be.
_KINDS = ("text", "interactive", "template", "image", "video", "audio", "document", "contacts", "location")
_MODES = {
    "hang": Wire.HANG,
    "reset": Wire.RESET,
    "reset_early": Wire.RESET_EARLY,
    "close": Wire.CLOSE,
    "truncated": Wire.TRUNCATED,
    "stalled": Wire.STALLED,
    "slow_body": Wire.SLOW,
}
#: Wires over which no status ever goes.
SILENT = frozenset({Wire.HANG, Wire.RESET, Wire.RESET_EARLY, Wire.CLOSE})
_decoder = msgspec.json.Decoder()


class RefusalError(Exception):
    """The request is answered with an error."""

    def __init__(self, error: GraphError) -> None:
        super().__init__(error.message)
        self.error = error


@frozen
class Call:
    """A request as it was read from the wire."""

    method: str
    path: str
    query: dict[str, str]
    content_type: str
    authorization: str | None
    body: bytes

    @property
    def token(self) -> str | None:
        """The bearer token, if there is one."""
        scheme, _, token = (self.authorization or "").partition(" ")
        return token.strip() or None if scheme.lower() in {"bearer", "oauth"} else None


@frozen
class Decision:
    """An answer, and what was understood of the request on the way to it."""

    answer: Answer
    phone_number_id: str | None
    tenant: str | None
    to: str | None


def phone_number_of(path: str) -> str | None:
    """Return the phone number id in *path*, if it is the path of a phone number's messages."""
    match = _PATH.fullmatch(path)
    return None if match is None else match[2]


def version_of(path: str) -> str | None:
    """Return the API's version in *path*, if it is the path of a phone number's messages."""
    match = _PATH.fullmatch(path)
    return None if match is None else match[1]


@define
class GraphApi:
    """Decides what each request is answered; knows nothing of sockets."""

    tenants: Tenants
    behaviours: Behaviours
    clock: IReactorTime
    app_secret: str | None = None
    _used: Counter[str] = field(factory=Counter, init=False)  # how often a counting card was played

    def reset_counts(self) -> None:
        """Let the cards that count begin anew."""
        self._used.clear()

    def decide(self, call: Call) -> Decision:
        """Return the answer to *call*."""
        number = phone_number_of(call.path)
        owner = None if call.token is None else self.tenants.by_token(call.token)
        tenant = None if owner is None else owner.id
        behaviour = self.behaviours.next(number or "")
        to: str | None = None
        try:
            self._admit(call, number, owner, behaviour)
            payload = read_payload(call)
            to = recipient_of(payload)
            answer = self._answer(payload, to, number or "", behaviour)
        except RefusalError as refusal:
            answer = answers.refused(_adjusted(refusal.error, behaviour))
        wire = _MODES.get(behaviour.mode)
        if wire in SILENT:
            answer = evolve(answer, wamid=None, error_code=None, error_subcode=None)
        if wire is not None:
            answer = answer.over(wire, slow_s=2.0)
        return Decision(answer.after(self.behaviours.latency(behaviour)), number, tenant, to)

    def _admit(self, call: Call, number: str | None, owner: Tenant | None, behaviour: Behaviour) -> None:
        if behaviour.mode == "error":
            raise RefusalError(error_for(behaviour.error_code, behaviour.error_subcode))
        if number is None or call.method != "POST":
            raise RefusalError(unknown_path(call.path))
        self._authenticate(call, owner)
        if owner is None or number not in owner.phone_number_ids:
            raise RefusalError(no_such_object(number))
        if self.behaviours.fails(behaviour):
            raise RefusalError(error_for(behaviour.failure_code))
        if self.behaviours.too_fast(number, behaviour):
            raise RefusalError(error_for(130429, None, "Cloud API message throughput has been reached."))

    def _authenticate(self, call: Call, owner: Tenant | None) -> None:
        token = call.token
        if token is None:
            raise RefusalError(MISSING_TOKEN)
        if owner is None:
            raise RefusalError(MALFORMED_TOKEN if self.tenants.had_token(token) is None else ROTATED_TOKEN)
        if expired(owner, self.clock.seconds()):
            raise RefusalError(EXPIRED_TOKEN)
        if self.app_secret is not None:
            proof = call.query.get("appsecret_proof")
            if proof is None:
                raise RefusalError(MISSING_PROOF)
            wanted = hmac.new(self.app_secret.encode(), token.encode(), hashlib.sha256).hexdigest()
            if not hmac.compare_digest(wanted.encode(), proof.encode()):
                raise RefusalError(INVALID_PROOF)

    def _answer(self, payload: dict[str, Any], to: str | None, number: str, behaviour: Behaviour) -> Answer:
        if behaviour.mode == "html":
            return answers.page(behaviour.http_status or 502)
        if to is None:
            return answers.marked_read()
        if self.behaviours.too_soon(number, to, behaviour):
            raise RefusalError(error_for(131056))
        by_phone = "to" in payload
        digits = "".join(filter(str.isdecimal, to))
        card = cards.read(digits) if by_phone else None
        contact = {"input": to, "wa_id": digits or to} if by_phone else {"input": to, "user_id": to}
        if card is None or not self._in_force(card, digits):
            return answers.accepted(contact)
        return play(card, contact)

    def _in_force(self, card: Card, digits: str) -> bool:
        if card.times is None:
            return True
        self._used[digits] += 1
        return self._used[digits] <= card.times


def read_payload(call: Call) -> dict[str, Any]:
    """Return the message in *call*.

    Raises:
        RefusalError: it is no message that the Cloud API would take.
    """
    # A body of another type is form data to the Graph API, in which it finds no parameter.
    if call.content_type.partition(";")[0].strip().lower() != "application/json":
        raise RefusalError(invalid_parameter("The parameter messaging_product is required."))
    try:
        payload = _decoder.decode(call.body)
    except msgspec.DecodeError as error:
        raise RefusalError(invalid_parameter(f"Invalid JSON: {error}")) from error
    except RecursionError as error:
        raise RefusalError(invalid_parameter("Invalid JSON: nested too deeply")) from error
    if not isinstance(payload, dict):
        raise RefusalError(invalid_parameter("The body must be a JSON object."))
    product = payload.get("messaging_product")
    if product is None:
        raise RefusalError(invalid_parameter("The parameter messaging_product is required."))
    if product != "whatsapp":
        raise RefusalError(invalid_parameter("Param messaging_product must be one of {WHATSAPP}"))
    if "status" in payload:
        _check_receipt(payload)
    else:
        _check_message(payload)
    return payload


def recipient_of(payload: dict[str, Any]) -> str | None:
    """Return whom the message is for (``to`` goes before ``recipient``), None for a read receipt."""
    if "status" in payload:
        return None
    recipient: str = payload["to"] if "to" in payload else payload["recipient"]
    return recipient


def _check_receipt(payload: dict[str, Any]) -> None:
    if payload["status"] != "read":
        raise RefusalError(error_for(131009, None, "Parameter status must be read"))
    message_id = payload.get("message_id")
    if message_id is None:
        raise RefusalError(error_for(131008, None, "Parameter message_id is required"))
    if not isinstance(message_id, str) or not message_id:
        raise RefusalError(error_for(131009, None, "Parameter message_id is not a message id"))


def _check_message(payload: dict[str, Any]) -> None:
    if "to" not in payload and "recipient" not in payload:
        raise RefusalError(invalid_parameter("The parameter to is required."))
    name = "to" if "to" in payload else "recipient"
    if not isinstance(payload[name], str) or not payload[name].strip():
        raise RefusalError(invalid_parameter(f"Param {name} must be a non-empty string"))
    kind = payload.get("type", _kind_without_type(payload))
    if not isinstance(kind, str) or not kind:
        raise RefusalError(invalid_parameter("Param type must be a string"))
    content = payload.get(kind)
    if content is None:
        raise RefusalError(error_for(131008, None, f"Parameter {kind} is required for type {kind}"))
    if not isinstance(content, list if kind in _LISTS else dict):
        raise RefusalError(error_for(131009, None, f"Parameter {kind} is not of the right JSON type"))


def _kind_without_type(payload: dict[str, Any]) -> str:
    # One of Meta's own examples, the reply to a list message, names no type.
    return next((kind for kind in _KINDS if kind in payload), "text")


def _adjusted(error: GraphError, behaviour: Behaviour) -> GraphError:
    if behaviour.http_status is not None:
        error = evolve(error, http_status=behaviour.http_status)
    if behaviour.retry_after is not None:
        error = evolve(error, retry_after=behaviour.retry_after)
    return error
