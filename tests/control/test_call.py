"""How bodies and queries are read."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.control.call import Call, NoParameters, Order
from whatsapp_egress.control.lanes import PauseOrder
from whatsapp_egress.control.messages import MessageQuery
from whatsapp_egress.control.refusal import Refusal


def call(body: bytes = b"", query: bytes = b"", content_type: str = "application/json", **more: Any) -> Call:
    return Call("POST", query, content_type, body, **more)


class OrderTests(SynchronousTestCase):
    def refused(self, kind: type[Order] = Order, **fields: Any) -> Refusal:
        with pytest.raises(Refusal) as caught:
            call(**fields).order(kind)
        return caught.value

    def test_the_body_is_read_and_the_actor_noted(self) -> None:
        one = call(b'{"actor": "ops", "reason": "they asked", "seconds": 60}')
        read = one.order(PauseOrder)

        assert (read.actor, read.reason, read.seconds, read.until) == ("ops", "they asked", 60.0, None)
        assert one.actor == "ops"

    def test_json_may_say_more_of_itself(self) -> None:
        for content_type in ("application/json; charset=utf-8", "Application/JSON"):
            assert call(b'{"actor": "ops"}', content_type=content_type).order(Order).actor == "ops"

    def test_another_type_is_not_taken(self) -> None:
        for content_type in ("", "text/plain", "application/x-www-form-urlencoded", "application/jsonx"):
            assert self.refused(body=b'{"actor": "ops"}', content_type=content_type).status == 415

    def test_one_that_is_too_large_is_not_read(self) -> None:
        assert self.refused(body=b'{"actor": "ops"}', too_large=True).status == 413

    def test_what_is_not_as_it_must_be_is_refused_without_being_shown(self) -> None:
        for body in (
            b"", b"hunter2", b"[]", b"{}", b'{"actor": 5}', b'{"actor": ""}', b'{"actor": null}',
            b'{"actor": "hunter2\\n"}', b'{"actor": "hunter2\\u001b[2J"}', b'{"actor": "\\u2028hunter2"}',
            b'{"actor": "\\ud800"}', b'{"actor": "' + b"x" * 101 + b'"}', b'{"actor": "ops", "hunter": 2}',
            b'{"actor": "\xff"}', b"[" * 50_000,
        ):  # fmt: skip
            refusal = self.refused(body=body)
            assert (refusal.status, refusal.error) == (400, "bad_request"), body
            assert "hunter2" not in refusal.detail
            assert len(refusal.detail) < 200
            assert refusal.detail.isprintable()

    def test_it_is_said_what_is_wrong(self) -> None:
        assert "`actor`" in self.refused(body=b"{}").detail
        assert "openapi.json" in self.refused(body=b'{"actor": "a\\n"}').detail
        assert "UTF-8" in self.refused(body=b'{"actor": "\xff"}').detail


class QueryTests(SynchronousTestCase):
    def refused(self, query: bytes, kind: type = MessageQuery) -> str:
        with pytest.raises(Refusal) as caught:
            call(query=query).asked(kind)
        assert caught.value.status == 400
        return caught.value.detail

    def test_it_is_decoded(self) -> None:
        read = call(query=b"internalId=a%20%C3%A9%2B+b&tenantId=t1").asked(MessageQuery)

        assert (read.internalId, read.tenantId) == ("a \u00e9+ b", "t1")

    def test_text_stays_text(self) -> None:
        read = call(query=b"internalId=5&tenantId=null").asked(MessageQuery)

        assert (read.internalId, read.tenantId) == ("5", "null")

    def test_nothing_may_be_missing_unknown_or_twice(self) -> None:
        assert "internalId" in self.refused(b"")
        assert "limit" in self.refused(b"internalId=1&limit=3")
        assert "twice" in self.refused(b"internalId=1&internalId=2")
        assert "limit" in self.refused(b"limit=3", NoParameters)

    def test_what_is_not_as_it_must_be_is_refused(self) -> None:
        for query in (
            b"internalId=", b"internalId=%0a", b"internalId=%ff", b"internalId=\xff",
            b"internalId=1&tenantId=", b"internalId=1&tenantId=..", b"internalId=1&tenantId=a%0a",
            b"internalId=" + b"x" * 129,
            b"&".join(b"p%d=1" % n for n in range(100)),
        ):  # fmt: skip
            self.refused(query)
