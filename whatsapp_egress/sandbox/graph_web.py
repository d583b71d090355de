"""The Graph API as a resource of twisted.web: reads each request, records it, has it answered."""

import os
from base64 import b64encode
from hashlib import sha256
from urllib.parse import parse_qsl, unquote

from attrs import define, evolve
from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from .answers import Answer
from .behaviour import Behaviours
from .graph import SILENT, Call, Decision, GraphApi, phone_number_of, version_of
from .record import Arrival, Record
from .wire import Deliveries, Untyped

#: What Meta sends with each answer, as its OpenAPI examples show it.
_HEADERS = (
    (b"access-control-allow-origin", b"*"),
    (b"cache-control", b"private, no-cache, no-store, must-revalidate"),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"expires", b"Sat, 01 Jan 2000 00:00:00 GMT"),
    (b"pragma", b"no-cache"),
    (b"strict-transport-security", b"max-age=15552000; preload"),
    (b"vary", b"Accept-Encoding"),
    (b"x-app-usage", b'{"call_count":0,"total_cputime":0,"total_time":0}'),
    (b"x-fb-rev", b"1019544279"),
    (b"x-fb-rlafr", b"0"),
)


class GraphResource(Resource):
    """Answers every path of the Graph API."""

    isLeaf = True

    def __init__(self, api: GraphApi, record: Record, deliveries: Deliveries, clock: IReactorTime) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._api = api
        self._deliveries = deliveries
        self._book = _Book(record, clock)
        self._clock = clock

    def render(self, request: Untyped) -> int:
        """Have one request answered."""
        call = read_call(request)
        decision = self._api.decide(call)
        arrival = self._book.write(call, request, decision)
        answer = _with_metas_headers(decision.answer, call.path)

        def finished() -> None:
            arrival.finished_at = self._clock.seconds()

        # Entered once the delivery is under way: who waits for the arrival may then move the clock.
        self._deliveries.start(request, answer, finished)
        self._book.record.add(arrival)
        return NOT_DONE_YET

    def refuses_early(self, behaviours: Behaviours, path: str, connection: int) -> bool:
        """Say whether the connection is to be reset before the body is read; if so, record it."""
        plain, _, query = path.partition("?")
        number = phone_number_of(unquote(plain)) or ""
        if behaviours.peek(number).mode != "reset_early":
            return False
        behaviours.next(number)
        self._book.enter_early(plain, query, number or None, connection)
        return True


def read_call(request: Untyped) -> Call:
    """Return what the Graph API looks at in *request*."""
    path, _, query = request.uri.decode("latin-1").partition("?")
    return Call(
        method=request.method.decode("latin-1"),
        path=unquote(path),
        query=dict(parse_qsl(query, keep_blank_values=True)),
        content_type=request.getHeader("content-type") or "",
        authorization=request.getHeader("authorization"),
        body=request.content.read(),
    )


def _with_metas_headers(answer: Answer, path: str) -> Answer:
    unique = os.urandom(24)
    own = (
        (b"facebook-api-version", (version_of(path) or "v25.0").encode()),
        (b"x-fb-request-id", b"A" + b64encode(unique[:17], b"-_")[:22]),
        (b"x-fb-debug", b64encode(unique * 2) + b"=="),
    )
    trace: tuple[tuple[bytes, bytes], ...] = ()
    if all(name != b"x-fb-trace-id" for name, _ in answer.headers):
        trace = ((b"x-fb-trace-id", b64encode(unique[17:], b"-_")[:11]),)
    return evolve(answer, headers=(*_HEADERS, *own, *trace, *answer.headers))


@define
class _Book:
    """Enters requests into the record."""

    record: Record
    clock: IReactorTime

    def write(self, call: Call, request: Untyped, decision: Decision) -> Arrival:
        answer = decision.answer
        silent = answer.wire in SILENT
        return Arrival(
            number=self.record.count + 1,
            time=self.clock.seconds(),
            connection=request.channel.number,
            method=call.method,
            path=call.path,
            query=request.uri.decode("latin-1").partition("?")[2],
            headers=_recorded(request, call.token, decision.tenant),
            body=call.body,
            phone_number_id=decision.phone_number_id,
            tenant=decision.tenant,
            to=decision.to,
            status=None if silent else answer.status,
            wamid=answer.wamid,
            error_code=answer.error_code,
            error_subcode=answer.error_subcode,
            wire=answer.wire.value,
        )

    def enter_early(self, path: str, query: str, number: str | None, connection: int) -> None:
        now = self.clock.seconds()
        self.record.add(
            Arrival(
                number=self.record.count + 1,
                time=now,
                connection=connection,
                method="",
                path=path,
                query=query,
                headers=(),
                body=b"",
                phone_number_id=number,
                tenant=None,
                to=None,
                status=None,
                wamid=None,
                error_code=None,
                error_subcode=None,
                wire="reset_early",
                finished_at=now,
            )
        )


def _recorded(request: Untyped, token: str | None, tenant: str | None) -> tuple[tuple[str, str], ...]:
    recorded = []
    for name, values in request.requestHeaders.getAllRawHeaders():
        for value in values:
            text = value.decode("latin-1")
            if name.lower() == b"authorization":
                digest = sha256((token or text).encode("latin-1", "replace")).hexdigest()[:12]
                text = f"sha256:{digest} ({tenant or 'no tenant'})"
            recorded.append((name.decode("latin-1"), text))
    return tuple(recorded)
