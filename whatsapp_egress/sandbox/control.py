"""The control endpoint: sets what the sandbox does and tells what it saw, as JSON over HTTP."""

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec
from attrs import asdict, define, frozen
from twisted.web.resource import Resource

from .behaviour import EVERY, Behaviours, SettingError
from .graph import GraphApi
from .record import Record
from .tenants import TenantError, Tenants, UnknownTenantError, settings_of
from .tenants_web import Fetches
from .wire import Untyped

_PAGE = 1000


class ControlError(Exception):
    """The request to the control endpoint cannot be carried out."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@frozen
class Connections:
    """How many connections were opened and how many of them are open."""

    opened: int
    open: int


@define
class Controls:
    """Everything the control endpoint reaches."""

    tenants: Tenants
    behaviours: Behaviours
    record: Record
    fetches: Fetches
    api: GraphApi
    connections: Callable[[], dict[str, Connections]]

    def summary(self) -> dict[str, object]:
        """Return the counts since the start or the last reset."""
        record = self.record
        return {
            "requests": record.by_wire.total(),
            "accepted": record.accepted,
            "kept": len(record),
            "last_number": record.count,
            "by_status": record.by_status,
            "by_error_code": record.by_error_code,
            "by_tenant": record.by_tenant,
            "accepted_by_tenant": record.accepted_by_tenant,
            "by_phone_number_id": record.by_phone_number_id,
            "by_wire": record.by_wire,
            "connections": {name: asdict(each) for name, each in self.connections().items()},
            "tenant_service": asdict(self.fetches),
        }

    def state(self) -> dict[str, object]:
        """Return behaviours and tenants; tokens are shown by their ends only."""
        return {
            "behaviours": {number: asdict(each) for number, each in self.behaviours.all().items()},
            "tenants": {each.id: _shown(asdict(each)) for each in self.tenants},
            "tenant_service": {"mode": self.tenants.mode, "until": self.tenants.until},
        }

    def reset(self) -> None:
        """Forget behaviours, record, counts and the modes of the Tenant Service; tenants stay."""
        self.behaviours.clear()
        self.record.clear()
        self.fetches.clear()
        self.api.reset_counts()
        self.tenants.outage("ok")
        for each in list(self.tenants):
            self.tenants.change(each.id, mode="ok", until=None)


class ControlResource(Resource):
    """Serves ``/_control``."""

    isLeaf = True

    def __init__(self, controls: Controls) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._controls = controls

    def render(self, request: Untyped) -> bytes:
        """Carry one request out."""
        path, _, query = request.uri.decode("latin-1").partition("?")
        words = [unquote(word) for word in path.split("/")[2:] if word]
        method = request.method.decode("latin-1")
        try:
            status, document = 200, self._carry_out(method, words, _Question(query, request.content.read()))
        except ControlError as refused:
            status, document = refused.status, {"error": str(refused)}
        except UnknownTenantError as unknown:
            status, document = 404, {"error": f"tenant {unknown.args[0]} is unknown"}
        except (SettingError, TenantError, TypeError, msgspec.MsgspecError, ValueError) as wrong:
            status, document = 400, {"error": str(wrong)}
        request.setResponseCode(status)
        request.setHeader(b"content-type", b"application/json")
        return msgspec.json.encode(document) + b"\n"

    def _carry_out(self, method: str, words: list[str], asked: "_Question") -> object:
        match words:
            case ["behaviour", *rest]:
                return self._behaviour(method, rest, asked)
            case ["tenants", word] if word == EVERY:
                return self._tenant_service(method, asked)
            case ["tenants", *rest]:
                return self._tenant(method, rest, asked)
            case _:
                return self._whole(method, words, asked)

    def _whole(self, method: str, words: list[str], asked: "_Question") -> object:
        controls = self._controls
        match method, words:
            case "GET", [] | ["state"]:
                return controls.state()
            case "GET", ["summary"]:
                return controls.summary()
            case "GET", ["requests"]:
                return _arrivals(controls.record, asked)
            case "DELETE", ["requests"]:
                controls.record.clear()
            case "DELETE", ["state"]:
                controls.reset()
            case _:
                raise ControlError(404, f"{method} /_control/{'/'.join(words)} is not known")
        return {}

    def _behaviour(self, method: str, words: list[str], asked: "_Question") -> object:
        behaviours = self._controls.behaviours
        match method, words:
            case "GET", []:
                return {number: asdict(each) for number, each in behaviours.all().items()}
            case "GET", [number]:
                return asdict(behaviours.peek(number))
            case "PUT", [number]:
                return asdict(behaviours.put(number, **asked.document()))
            case "PATCH", [number]:
                return asdict(behaviours.patch(number, **asked.document()))
            case "PUT" | "PATCH", []:
                # One document for several numbers: {"100000001": {...}, "*": {...}}
                change = behaviours.put if method == "PUT" else behaviours.patch
                return {number: asdict(change(number, **each)) for number, each in asked.document().items()}
            case "DELETE", []:
                behaviours.clear()
            case "DELETE", [number]:
                behaviours.clear(number)
            case _:
                raise ControlError(405, f"{method} is not possible here")
        return {}

    def _tenant(self, method: str, words: list[str], asked: "_Question") -> object:
        tenants = self._controls.tenants
        match method, words:
            case "GET", []:
                return [_shown(asdict(each)) for each in tenants]
            case "GET", [name]:
                tenant = tenants.get(name)
            case "PUT", [name]:
                tenant = tenants.add(name, **settings_of(asked.document()))
            case "PATCH", [name]:
                tenant = tenants.change(name, **settings_of(asked.document()))
            case "POST", [name, "rotate"]:
                tenant = tenants.rotate(name, asked.document().get("token"))
            case "DELETE", [name]:
                tenants.remove(name)
                return {}
            case _:
                raise ControlError(405, f"{method} is not possible here")
        return _shown(asdict(tenant))

    def _tenant_service(self, method: str, asked: "_Question") -> object:
        tenants = self._controls.tenants
        match method:
            case "PUT" | "PATCH":
                tenants.outage(**{"mode": "ok", **settings_of(asked.document())})
            case "DELETE":
                tenants.outage("ok")
            case _:
                raise ControlError(405, f"{method} is not possible here")
        return {"mode": tenants.mode, "until": tenants.until}


@frozen
class _Question:
    query: str
    body: bytes

    def document(self) -> dict[str, Any]:
        if not self.body:
            return {}
        return msgspec.json.decode(self.body, type=dict[str, Any])

    def words(self) -> dict[str, str]:
        return dict(parse_qsl(self.query))


def _arrivals(record: Record, asked: _Question) -> dict[str, object]:
    words = asked.words()
    known = {"since", "phone_number_id", "to", "limit"}
    if unknown := sorted(set(words) - known):
        raise ControlError(400, f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    limit = int(words.get("limit", _PAGE))
    chosen = record.select(
        since=int(words.get("since", "0")),
        phone_number_id=words.get("phone_number_id"),
        to=words.get("to"),
    )
    page = chosen[:limit]
    following = page[-1].number if len(chosen) > limit and page else None
    return {"requests": [arrival.document() for arrival in page], "next_since": following}


def _shown(tenant: dict[str, Any]) -> dict[str, Any]:
    hidden = {name: f"…{tenant[name][-4:]}" for name in ("token", "served_token") if tenant[name]}
    return {**tenant, **hidden}
