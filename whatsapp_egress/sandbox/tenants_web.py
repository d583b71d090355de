"""The Tenant Service as a resource of twisted.web."""

import re
from collections import Counter
from hmac import compare_digest
from urllib.parse import parse_qsl, unquote

import msgspec
from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from .answers import Answer, Wire
from .tenants import Tenants, UnknownTenantError
from .wire import Deliveries, Untyped

_PATH = re.compile(r"/api/v1/tenants/([^/]+)/credentials")
_JSON = b"application/json"


@define
class Fetches:
    """How often credentials were asked for."""

    count: int = 0
    by_tenant: Counter[str] = field(factory=Counter)
    by_status: Counter[str] = field(factory=Counter)

    def clear(self) -> None:
        """Count from nothing again."""
        self.count = 0
        self.by_tenant.clear()
        self.by_status.clear()


class TenantsResource(Resource):
    """Answers every path of the Tenant Service."""

    isLeaf = True

    def __init__(
        self,
        tenants: Tenants,
        fetches: Fetches,
        deliveries: Deliveries,
        clock: IReactorTime,
        service_token: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._tenants = tenants
        self._fetches = fetches
        self._deliveries = deliveries
        self._clock = clock
        self._service_token = service_token

    def render(self, request: Untyped) -> int:
        """Have one request answered."""
        answer = self._decide(request)
        self._fetches.by_status["none" if answer.wire is not Wire.WHOLE else str(answer.status)] += 1
        self._deliveries.start(request, answer, _nothing)
        return NOT_DONE_YET

    def _decide(self, request: Untyped) -> Answer:
        path, _, query = request.uri.decode("latin-1").partition("?")
        match = _PATH.fullmatch(path)
        if match is None:
            return _problem(404, "no such path")
        tenant_id = unquote(match[1])
        self._fetches.count += 1
        self._fetches.by_tenant[tenant_id] += 1
        if not self._admitted(request.getHeader("authorization")):
            return _problem(401, "a valid bearer token is required")
        if request.method != b"GET":
            return _problem(405, "only GET is possible")
        if dict(parse_qsl(query)).get("type") != "whatsapp":
            return _problem(400, "type must be whatsapp")
        mode, slow_ms = self._tenants.next_mode(tenant_id)
        return _spoilt(mode) or self._credentials(tenant_id, mode).after(
            slow_ms / 1000 if mode == "slow" else 0.0
        )

    def _admitted(self, authorization: str | None) -> bool:
        if self._service_token is None:
            return True
        wanted = f"Bearer {self._service_token}"
        return compare_digest((authorization or "").encode("latin-1", "replace"), wanted.encode())

    def _credentials(self, tenant_id: str, mode: str) -> Answer:
        try:
            tenant = self._tenants.get(tenant_id)
        except UnknownTenantError:
            return _problem(404, f"tenant {tenant_id} is unknown")
        return Answer(200, msgspec.json.encode(tenant.credentials(self._clock.seconds(), mode)), _JSON)


def _spoilt(mode: str) -> Answer | None:
    if mode.isdigit():
        return _problem(int(mode), "as the sandbox was told")
    if mode == "junk":
        return Answer(200, b"<html>It works!</html>", b"text/html")
    if mode == "empty":
        return Answer(200, b"{}", _JSON)
    if mode in {"hang", "reset"}:
        return Answer(200, b"", wire=Wire(mode))
    return None


def _problem(status: int, message: str) -> Answer:
    return Answer(status, msgspec.json.encode({"error": message}), _JSON)


def _nothing() -> None:
    pass
