"""Which call a path and a method name."""

from __future__ import annotations

import pytest
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.control.call import Answer, Call
from whatsapp_egress.control.refusal import Refusal
from whatsapp_egress.control.routes import Route, Routes, joined


async def one(_: Call) -> Answer:
    return Answer("one")


async def other(_: Call) -> Answer:
    return Answer("other")


ROUTES = joined(
    (
        [Route("GET", "/letters", one), Route("GET", "/letters/{id}", one)],
        [Route("POST", "/letters/replays", other), Route("DELETE", "/letters/replays/{id}", other)],
    )
)


class RouteTests(SynchronousTestCase):
    def refused(self, method: str, *parts: str, routes: Routes = ROUTES) -> Refusal:
        with pytest.raises(Refusal) as caught:
            routes.find(method, parts)
        return caught.value

    def test_a_path_names_a_call_and_what_it_is_about(self) -> None:
        assert ROUTES.find("GET", ("letters",)) == (one, {})
        assert ROUTES.find("GET", ("letters", "a/b")) == (one, {"id": "a/b"})
        assert ROUTES.find("DELETE", ("letters", "replays", "7")) == (other, {"id": "7"})

    def test_a_head_is_a_get(self) -> None:
        assert ROUTES.find("HEAD", ("letters",)) == (one, {})

    def test_a_path_that_is_not_there_is_not_found(self) -> None:
        for parts in ((), ("letter",), ("letters", ""), ("letters", "1", "2"), ("", "letters")):
            assert self.refused("GET", *parts).status == 404, parts

    def test_another_method_is_told_which_there_are(self) -> None:
        assert self.refused("POST", "letters").headers == {"Allow": "GET, HEAD"}

    def test_a_path_in_full_goes_before_one_that_can_be_anything(self) -> None:
        refusal = self.refused("GET", "letters", "replays")

        assert (refusal.status, refusal.headers) == (405, {"Allow": "POST"})
        assert ROUTES.find("POST", ("letters", "replays"))[0] is other
