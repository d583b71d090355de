"""Which call a path and a method name."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred

from whatsapp_egress.control.call import Answer, Call
from whatsapp_egress.control.refusal import Refusal, not_found

Handler = Callable[[Call], Coroutine[Deferred[Any], Any, Answer]]


@frozen
class Route:
    """A call: its method and its path, in which what stands in braces can be anything but nothing."""

    method: str
    path: str
    handler: Handler

    @property
    def parts(self) -> tuple[str, ...]:
        """The path, taken apart."""
        return tuple(self.path.strip("/").split("/"))

    @property
    def vague(self) -> int:
        """How many of its parts can be anything."""
        return sum(map(_is_free, self.parts))

    def match(self, parts: tuple[str, ...]) -> dict[str, str] | None:
        """What the path names; None where it is another one."""
        if len(parts) != len(self.parts):
            return None
        pairs = list(zip(self.parts, parts, strict=True))
        if any(not part or (not _is_free(own) and own != part) for own, part in pairs):
            return None
        return {own[1:-1]: part for own, part in pairs if _is_free(own)}


@frozen
class Routes:
    """All calls there are."""

    routes: tuple[Route, ...]

    def find(self, method: str, parts: tuple[str, ...]) -> tuple[Handler, dict[str, str]]:
        """What to call, and what the path names. Raises `Refusal`."""
        found = [(route, where) for route in self.routes if (where := route.match(parts)) is not None]
        if not found:
            raise not_found("There is no such path; GET /api/v1/openapi.json lists those that there are.")
        least = min(route.vague for route, _ in found)
        methods = {route.method: (route.handler, where) for route, where in found if route.vague == least}
        if "GET" in methods:
            methods["HEAD"] = methods["GET"]
        if method not in methods:
            allowed = ", ".join(sorted(methods))
            raise Refusal(
                405, "method_not_allowed", f"This path takes {allowed}.", headers={"Allow": allowed}
            )
        return methods[method]


def joined(routes: Iterable[Iterable[Route]]) -> Routes:
    """The calls of several parts."""
    return Routes(tuple(route for some in routes for route in some))


def _is_free(part: str) -> bool:
    return part.startswith("{")
