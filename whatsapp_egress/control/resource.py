"""The control API as a resource of the health port: lets in, routes, answers, keeps the record."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from whatsapp_egress.control import audit
from whatsapp_egress.control.access import Access
from whatsapp_egress.control.call import Answer, Call
from whatsapp_egress.control.refusal import Refusal, not_found
from whatsapp_egress.control.routes import Routes
from whatsapp_egress.observe.web import BoundedRequest
from whatsapp_egress.tasks import Tasks

log = Logger()

_DESCRIPTION = ("v1", "openapi.json")


@define(eq=False)
class ControlResource(Resource):
    """Everything under /api. Without `access` it is off. `encode` makes JSON of a document, with no known
    secret in it."""

    isLeaf = True
    _access: Access | None
    _routes: Routes
    _encode: Callable[[Any], bytes]
    _tasks: Tasks = field(factory=Tasks, init=False)
    _openapi: bytes = field(init=False)

    def __attrs_post_init__(self) -> None:
        Resource.__init__(self)
        self._openapi = files("whatsapp_egress.control").joinpath("openapi.json").read_bytes()

    def stop(self) -> None:
        """Break off what is being answered."""
        self._tasks.cancel()

    def render(self, request: Request) -> int:
        """Answer, now or later."""
        self._tasks.own(self._serve(request))
        return NOT_DONE_YET

    async def _serve(self, request: Request) -> None:
        gone: list[object] = []
        request.notifyFinish().addBoth(gone.append)
        call = _call(request)
        error: str | None = None
        try:
            answer = self._encoded(await self._answer(request, call))
        except Refusal as refusal:
            error = refusal.error
            answer = _refused(refusal)
        except CancelledError:
            error = "stopping"
            answer = _refused(Refusal(503, error, "The gateway is being stopped."))
        except Exception:  # noqa: BLE001 - a fault of ours, and who asked is to hear of it
            log.failure("control_call_failed")
            error = "internal"
            answer = _refused(Refusal(500, error, "A fault of the gateway's; its log says more."))
        audit.record(
            call.method,
            request.path.decode("ascii", "backslashreplace"),
            _remote(request),
            answer.status,
            error=error,
            actor=call.actor,
            tenantId=call.where.get("tenantId"),
            **call.told,
        )
        if not gone:
            self._write(request, answer)

    async def _answer(self, request: Request, call: Call) -> Answer:
        if self._access is None:
            raise Refusal(
                404, "not_enabled", "The control API is off. Set ADMIN_TOKEN and start the gateway again."
            )
        parts = _parts(request)
        if parts == _DESCRIPTION and call.method in ("GET", "HEAD"):
            return Answer(self._openapi)
        if not self._access.admits(request.requestHeaders.getRawHeaders(b"authorization", [])):
            raise Refusal(
                401,
                "unauthorized",
                "Show the token: Authorization: Bearer ADMIN_TOKEN.",
                headers={"WWW-Authenticate": 'Bearer realm="whatsapp-egress"'},
            )
        if parts[:1] != ("v1",):
            raise not_found("The control API is at /api/v1.")
        if parts == _DESCRIPTION:
            raise Refusal(
                405, "method_not_allowed", "This path takes GET, HEAD.", headers={"Allow": "GET, HEAD"}
            )
        handler, call.where = self._routes.find(call.method, parts[1:])
        return await handler(call)

    def _encoded(self, answer: Answer) -> Answer:
        """The same, ready to be written: what can't be made JSON of is a fault that is still to be told."""
        document = answer.document
        if isinstance(document, bytes):
            return answer
        return evolve(answer, document=self._encode(document) + b"\n")

    def _write(self, request: Request, answer: Answer) -> None:
        body = self._encoded(answer).document
        request.setResponseCode(answer.status)
        request.setHeader("Content-Type", "application/json")
        request.setHeader("Cache-Control", "no-store")
        request.setHeader("X-Content-Type-Options", "nosniff")
        for name, value in answer.headers.items():
            request.setHeader(name, value)
        request.setHeader("Content-Length", str(len(body)))
        if request.method != b"HEAD":
            request.write(body)
        request.finish()


def _refused(refusal: Refusal) -> Answer:
    return Answer({"error": refusal.error, "detail": refusal.detail}, refusal.status, refusal.headers)


def _call(request: Request) -> Call:
    return Call(
        method=request.method.decode("ascii", "backslashreplace"),
        query=request.uri.partition(b"?")[2],
        content_type=request.getHeader("content-type") or "",
        body=b"" if request.content is None else request.content.read(),
        too_large=isinstance(request, BoundedRequest) and request.too_large,
    )


def _parts(request: Request) -> tuple[str, ...]:
    """The path behind /api, percent-decoded. Raises `Refusal`."""
    try:
        return tuple(part.decode("utf-8") for part in request.postpath or ())
    except UnicodeDecodeError:
        raise not_found("The path is not UTF-8.") from None


def _remote(request: Request) -> str:
    """Where it came from."""
    return str(getattr(request.getClientAddress(), "host", "unknown"))
