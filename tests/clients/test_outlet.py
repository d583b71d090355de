"""Publishing with confirms: what is confirmed, refused, given back, and given up by who waited."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import define, field
from pika import BasicProperties
from pika.exceptions import ChannelClosedByBroker, UnroutableError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.clients.broker import publisher
from whatsapp_egress.clients.broker.publisher import Outlet
from whatsapp_egress.errors import Unpublished


@define(eq=False)
class FakeChannel:
    """pika's, as far as publishing goes: each publish waits to be confirmed."""

    waiting: list[Deferred[Any]] = field(factory=list)
    fault: Exception | None = None

    def basic_publish(self, *_: object, mandatory: bool) -> Deferred[Any]:
        if self.fault is not None:
            raise self.fault
        self.waiting.append(Deferred())
        return self.waiting[-1]


@define(eq=False)
class FakeConnection:
    is_open: bool


async def nothing_to_declare(_connection: Any) -> None:
    pass


class OutletTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.mended: list[Any] = []
        self.outlet = Outlet("whatsapp-dlx", True, nothing_to_declare, self.mend, Clock())
        self.channel = FakeChannel()
        channel: Any = self.channel
        self.outlet._channel = channel

    async def mend(self, connection: Any) -> None:
        self.mended.append(connection)

    def publish(self, body: bytes = b"body") -> Deferred[None]:
        return self.outlet.publish("outbound.failed", body, BasicProperties())

    def test_it_is_published_when_it_is_confirmed(self) -> None:
        published = self.publish()
        self.assertNoResult(published)
        self.channel.waiting[0].callback(None)

        self.successResultOf(published)

    def test_without_a_channel_it_is_not(self) -> None:
        self.outlet.down()

        self.failureResultOf(self.publish(), Unpublished)

    def test_what_closes_the_channel_is_said(self) -> None:
        published = self.publish()
        self.channel.waiting[0].errback(ChannelClosedByBroker(403, "ACCESS_REFUSED"))

        assert "403 ACCESS_REFUSED" in str(self.failureResultOf(published, Unpublished).value)

    def test_what_can_not_be_written_is_unpublished_and_leaves_nothing_behind(self) -> None:
        self.channel.fault = OverflowError("too large")

        assert "too large" in str(self.failureResultOf(self.publish(), Unpublished).value)
        assert self.outlet._unconfirmed == {}

    def test_who_gives_up_hears_so_and_the_confirm_may_come_later(self) -> None:
        for confirm in (lambda one: one.callback(None), lambda one: one.errback(UnroutableError([]))):
            published = self.publish()
            published.cancel()
            self.failureResultOf(published, CancelledError)
            confirm(self.channel.waiting[-1])

            assert self.outlet._unconfirmed == {}

    def test_only_so_many_wait_in_memory_for_their_confirm_whether_or_not_somebody_waits_for_it(self) -> None:
        self.patch(publisher, "MOST_UNCONFIRMED", 2)
        for _ in range(2):
            self.failureResultOf(self.given_up(), CancelledError)
        self.failureResultOf(self.publish(), Unpublished)

        self.channel.waiting[0].callback(None)
        self.assertNoResult(self.publish())

    def given_up(self) -> Deferred[None]:
        published = self.publish()
        published.cancel()
        return published

    def test_one_that_was_given_back_is_unpublished_whatever_pika_says(self) -> None:
        given_back, fine = self.publish(b"1"), self.publish(b"2")
        self.outlet._returned(returned(b"1"))
        # pika fails the oldest publish of the next confirm, here of both.
        self.channel.waiting[0].callback(None)
        self.channel.waiting[1].errback(UnroutableError([]))

        with pytest.raises(Unpublished, match=r"no queue takes outbound\.failed"):
            self.failureResultOf(given_back).raiseException()
        self.successResultOf(fine)

    def test_after_one_was_given_back_what_it_needs_is_seen_to_on_an_open_connection(self) -> None:
        for is_open in (False, True):
            connection: Any = FakeConnection(is_open)
            self.outlet._connection = connection
            given_back = self.publish()
            self.outlet._returned(returned(b"body"))
            self.channel.waiting[-1].callback(None)
            self.failureResultOf(given_back, Unpublished)

        assert self.mended == [connection]

    def test_of_two_alike_each_is_given_back_once(self) -> None:
        first, second = self.publish(), self.publish()
        self.outlet._returned(returned(b"body"))
        self.outlet._returned(returned(b"body"))
        self.outlet._returned(returned(b"of somebody else"))
        for one in self.channel.waiting:
            one.callback(None)

        self.failureResultOf(first, Unpublished)
        self.failureResultOf(second, Unpublished)


@define
class _Method:
    routing_key: str


@define
class _Returned:
    method: _Method
    body: bytes


def returned(body: bytes) -> _Returned:
    return _Returned(_Method("outbound.failed"), body)
