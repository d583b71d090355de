"""Moving messages into a deferred queue: in order, each settled when its copy is safe, none after a stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import FakeBroker, FakeDelivery, Witness, a_job
from tests.pipeline.queues import FakeQueues
from whatsapp_egress.deferred import ATTEMPTS_HEADER, GRANTED_HEADER, SPAN_HEADER, Place
from whatsapp_egress.errors import QueueTrouble, Unpublished
from whatsapp_egress.pipeline.job import Delivery, Job, Parcel
from whatsapp_egress.pipeline.outcome import Outcome
from whatsapp_egress.pipeline.recent import Recent, digest
from whatsapp_egress.pipeline.store import Store
from whatsapp_egress.policy.trace import TraceContext

PLACE = Place("t1")


@define(eq=False)
class Shelf(FakeQueues):
    """A queue whose confirms a test gives."""

    begun: list[str] = field(factory=list)
    headers: list[dict[str, Any]] = field(factory=list)
    open: dict[str, Deferred[None]] = field(factory=dict)

    def publish(self, place: Place, delivery: Delivery, headers: Mapping[str, Any]) -> Deferred[None]:
        name = delivery.body.decode()
        self.begun.append(name)
        self.headers.append(dict(headers))
        self.open[name] = Deferred()
        return self.open[name]

    def confirm(self, *names: str) -> None:
        for name in names:
            self.open.pop(name).callback(None)

    def refuse(self, *names: str) -> None:
        for name in names:
            self.open.pop(name).errback(Unpublished("no connection"))


class _Storing(SynchronousTestCase):
    def setUp(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        self.clock = Clock()
        self.witness = Witness()
        self.recent = Recent(self.clock)
        self.outcome = Outcome(
            FakeBroker(), self.recent, self.witness, self.clock, self.clock.seconds, events=False
        )
        self.shelf = Shelf(lambda delivery: None, lambda lease: None)
        self.jobs: dict[str, Job] = {}
        self.given_up: list[str] = []
        self.prepared: list[bool] = []
        self.preparing: Deferred[None] | None = None
        self.trouble: Exception | None = None
        self.store = Store(
            PLACE, self.shelf.publish, self.prepare, self.outcome, self.recent, self.give_up, self.clock
        )

    async def prepare(self, again: bool) -> None:
        self.prepared.append(again)
        if self.preparing is not None:
            await self.preparing
        if self.trouble is not None:
            raise self.trouble

    def give_up(self, job: Job) -> None:
        self.given_up.append(job.message.internal_id)
        self.recent.forget(job, job.history)

    def put(self, *names: str, redelivered: bool = False) -> None:
        for name in names:
            delivery = FakeDelivery(name.encode(), redelivered=redelivered)
            self.jobs[name] = a_job(name, delivery=delivery)
            self.recent.begin(self.jobs[name])
            self.store.put(self.jobs[name])

    def delivery(self, name: str) -> FakeDelivery:
        delivery = self.jobs[name].delivery
        assert isinstance(delivery, FakeDelivery)
        return delivery

    def lose(self, *names: str) -> None:
        for name in names:
            self.delivery(name).alive = False

    @property
    def acked(self) -> list[str]:
        return [name for name in self.jobs if self.delivery(name).acks]


class PutTests(_Storing):
    def test_the_queue_is_prepared_before_the_first_is_published(self) -> None:
        self.preparing = Deferred()
        self.put("1", "2")
        assert (self.prepared, self.shelf.begun) == ([False], [])

        self.preparing.callback(None)
        assert self.shelf.begun == ["1", "2"]

    def test_it_is_prepared_once(self) -> None:
        self.put("1", "2")
        self.shelf.confirm("1", "2")
        self.put("3")

        assert self.prepared == [False]

    def test_none_waits_for_the_confirm_of_the_one_before(self) -> None:
        self.put("1", "2", "3")

        assert self.shelf.begun == ["1", "2", "3"]
        assert self.acked == []

    def test_each_is_settled_when_its_own_confirm_has_come(self) -> None:
        self.put("1", "2", "3")
        self.shelf.confirm("2")
        assert self.acked == ["2"]

        self.shelf.confirm("1", "3")
        assert self.acked == ["1", "2", "3"]
        assert self.clock.getDelayedCalls() == []

    def test_what_was_tried_goes_with_it(self) -> None:
        job = a_job("1", delivery=FakeDelivery(b"1"), retry_count=2)
        job.repeated = True
        self.recent.begin(job)
        self.store.put(job)

        assert self.shelf.headers == [{ATTEMPTS_HEADER: 2, GRANTED_HEADER: "repeated"}]

    def test_the_span_that_ends_goes_with_it(self) -> None:
        job = a_job("1", delivery=FakeDelivery(b"1"))
        job.span = TraceContext("1" * 32, "2" * 16, sampled=True)
        self.recent.begin(job)
        self.store.put(job)

        (headers,) = self.shelf.headers
        assert headers[SPAN_HEADER] == f"00-{'1' * 32}-{'2' * 16}-01"

    def test_what_is_not_in_the_queue_for_sure_is_counted(self) -> None:
        self.preparing = Deferred()
        self.put("1", "2")
        assert len(self.store) == 2

        self.preparing.callback(None)
        assert len(self.store) == 2
        self.shelf.confirm("1")
        assert len(self.store) == 1

    def test_it_is_told_when_all_are_settled(self) -> None:
        self.put("1", "2")
        emptied, too = self.store.emptied(), self.store.emptied()
        self.shelf.confirm("1")
        assert not emptied.called

        self.shelf.confirm("2")
        assert emptied.called
        assert too.called

    def test_it_is_told_at_once_when_there_is_nothing(self) -> None:
        assert self.store.emptied().called

    def test_a_fault_of_ours_with_one_does_not_stop_the_others(self) -> None:
        self.put("1", "2")
        self.recent.forget(self.jobs["1"], self.jobs["1"].history)  # nobody else may
        self.shelf.confirm("1")
        assert len(self.flushLoggedErrors(KeyError)) == 1  # type: ignore[no-untyped-call]

        self.shelf.refuse("2")
        self.clock.advance(1)
        self.shelf.confirm("2")
        assert (len(self.store), self.jobs["2"].alive) == (0, True)
        assert "2" in self.acked


class TroubleTests(_Storing):
    def test_what_can_not_be_prepared_is_tried_again_each_second(self) -> None:
        for trouble in (QueueTrouble("away"), Unpublished("no connection")):
            self.begin_anew()
            self.trouble = trouble
            self.put("1")
            self.clock.advance(1)
            assert (len(self.prepared), self.shelf.begun) == (2, [])

            self.trouble = None
            self.clock.advance(1)
            assert (len(self.prepared), self.shelf.begun) == (3, ["1"])

    def test_that_is_told_once(self) -> None:
        self.trouble = QueueTrouble("away")
        with capturedLogs() as logs:
            self.put("1")
            self.put("2")
            for _ in range(3):
                self.clock.advance(1)

        assert [(event["log_format"], event["tenantId"], event["detail"]) for event in logs] == [
            ("deferral_failed", "t1", "away")
        ]

    def test_a_publish_that_failed_is_made_again_after_a_second(self) -> None:
        self.put("1")
        self.shelf.refuse("1")
        self.clock.advance(0.9)
        assert self.shelf.begun == ["1"]

        self.clock.advance(0.1)
        assert self.shelf.begun == ["1", "1"]
        self.shelf.confirm("1")
        assert self.acked == ["1"]

    def test_the_queue_is_prepared_anew_and_told_why(self) -> None:
        self.put("1")
        self.shelf.refuse("1")
        self.clock.advance(1)

        assert self.prepared == [False, True]

    def test_it_is_told_once_for_each_failure(self) -> None:
        self.put("1")
        self.shelf.refuse("1")
        self.trouble = QueueTrouble("away")
        for _ in range(3):
            self.clock.advance(1)

        assert self.prepared == [False, True, False, False]

    def test_while_others_are_under_way_nothing_is_begun(self) -> None:
        self.put("1", "2")
        self.shelf.refuse("1")
        self.put("3")
        self.clock.advance(10)
        assert self.shelf.begun == ["1", "2"]

        self.shelf.confirm("2")
        self.clock.advance(1)
        assert self.shelf.begun == ["1", "2", "1", "3"]

    def test_what_failed_goes_again_in_its_old_order_and_before_the_rest(self) -> None:
        self.put("1", "2", "3", "4")
        self.shelf.confirm("3")
        self.shelf.refuse("4", "1")
        self.put("5")
        self.shelf.refuse("2")
        self.clock.advance(1)

        assert self.shelf.begun[4:] == ["1", "2", "4", "5"]

    def test_of_many_that_fail_one_is_told(self) -> None:
        self.put("1", "2", "3")
        with capturedLogs() as logs:
            self.shelf.refuse("1", "2", "3")

        assert [(event["log_format"], event["detail"]) for event in logs] == [
            ("deferral_failed", "no connection")
        ]

    def test_what_is_not_confirmed_yet_is_not_empty(self) -> None:
        self.put("1")
        emptied = self.store.emptied()
        self.shelf.refuse("1")
        assert not emptied.called

        self.clock.advance(1)
        self.shelf.confirm("1")
        assert emptied.called

    @settings(derandomize=True, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(["put", "confirm", "refuse", "wait"]), st.integers(0, 9))))
    def test_nothing_is_overtaken_by_what_came_later_and_nothing_is_lost(
        self, steps: list[tuple[str, int]]
    ) -> None:
        self.begin_anew()
        for step, which in steps:
            begun = len(self.shelf.begun)
            under_way = list(self.shelf.open)
            if step == "put":
                self.put(f"{len(self.jobs):03}")
            elif step == "wait":
                self.clock.advance(1)
            elif under_way:
                end = self.shelf.confirm if step == "confirm" else self.shelf.refuse
                end(under_way[which % len(under_way)])
            left = [name for name in self.jobs if name not in self.acked and name not in self.shelf.open]
            new = self.shelf.begun[begun:]

            assert new == sorted(new)
            assert not left or not new or max(new) < min(left)
        while len(self.store):
            self.clock.advance(1)
            self.shelf.confirm(*self.shelf.open)

        assert [self.delivery(name).acks for name in self.jobs] == [1] * len(self.jobs)


class LostConnectionTests(_Storing):
    """What came on a channel that is gone can't be settled."""

    def test_what_waits_is_left_with_the_broker(self) -> None:
        self.trouble = QueueTrouble("away")
        self.put("1", "2", "3")
        self.lose("1", "3")
        self.store.abandon()

        assert (self.given_up, len(self.store)) == (["1", "3"], 1)

    def test_what_is_under_way_is_known_to_be_safe_when_it_comes_again(self) -> None:
        self.put("1")
        self.lose("1")
        self.store.abandon()
        self.shelf.confirm("1")

        assert (self.given_up, self.acked, self.witness.names) == ([], [], ["unsettled"])
        assert not isinstance(self.recent.recall(digest(b"1")), Parcel)

    def test_what_failed_is_left_with_the_broker(self) -> None:
        self.put("1", "2")
        self.lose("1")
        self.shelf.refuse("1", "2")
        assert self.given_up == ["1"]

        self.clock.advance(1)
        assert self.shelf.begun == ["1", "2", "2"]

    def test_what_was_lost_before_its_turn_came_is_not_published(self) -> None:
        self.preparing = Deferred()
        self.put("1", "2")
        self.lose("1")
        self.preparing.callback(None)

        assert (self.given_up, self.shelf.begun) == (["1"], ["2"])

    def test_it_is_told_when_nothing_is_left(self) -> None:
        self.trouble = QueueTrouble("away")
        self.put("1")
        emptied = self.store.emptied()
        self.lose("1")
        self.store.abandon()

        assert emptied.called

    def test_it_is_told_too_when_the_last_is_found_lost(self) -> None:
        self.preparing = Deferred()
        self.put("1")
        emptied = self.store.emptied()
        self.lose("1")
        self.preparing.callback(None)

        assert emptied.called


class DoubtTests(_Storing):
    """A copy of the message may be in the queue already."""

    def copies_expected(self, name: str) -> bool:
        """Whether the second of two copies that come is one too many."""
        known = digest(name.encode(), PLACE)
        return not self.recent.surplus(known) and self.recent.surplus(known)

    def begin_copy(self, name: str) -> None:
        delivery = FakeDelivery(name.encode(), place=PLACE)
        copy = Job.of(delivery, digest(delivery.body, PLACE), self.jobs[name].message, 0.0)
        self.recent.begin(copy)

    def test_what_was_never_delivered_before_has_no_other_copy(self) -> None:
        self.put("1")

        assert not self.copies_expected("1")

    def test_what_was_delivered_before_may_have_one(self) -> None:
        self.put("1", redelivered=True)

        assert self.shelf.begun == ["1"]
        assert self.copies_expected("1")

    def test_what_failed_may_have_one(self) -> None:
        self.put("1")
        self.shelf.refuse("1")
        self.clock.advance(1)

        assert self.copies_expected("1")

    def test_what_was_delivered_before_and_has_come_from_the_queue_is_settled(self) -> None:
        self.trouble = QueueTrouble("away")
        self.put("1", redelivered=True)
        self.begin_copy("1")
        self.trouble = None
        self.clock.advance(1)

        assert (self.shelf.begun, self.acked) == ([], ["1"])

    def test_what_failed_and_has_come_from_the_queue_is_settled(self) -> None:
        self.put("1", "2")
        self.begin_copy("1")
        self.shelf.refuse("1", "2")
        self.clock.advance(1)

        assert (self.shelf.begun, self.acked) == (["1", "2", "2"], ["1"])

    def test_what_is_published_anew_after_it_came_is_none_too_many(self) -> None:
        known = digest(b"1", PLACE)
        self.put("1", redelivered=True)
        self.recent.surplus(known)
        self.clock.advance(3600)
        self.put("1")

        assert self.copies_expected("1")

    def test_nor_when_the_connection_is_lost_meanwhile(self) -> None:
        known = digest(b"1", PLACE)
        self.put("1", redelivered=True)
        self.recent.surplus(known)
        self.clock.advance(3600)
        self.put("1", redelivered=True)

        assert self.shelf.begun == ["1", "1"]
        assert self.copies_expected("1")

    def test_the_copy_in_the_other_queue_is_another_one(self) -> None:
        self.put("1", redelivered=True)
        other = digest(b"1", Place("t1", first=True))

        assert not self.recent.surplus(other)
        assert not self.recent.surplus(other)

    def test_it_is_told_when_the_last_was_there_already(self) -> None:
        self.put("1")
        emptied = self.store.emptied()
        self.begin_copy("1")
        self.shelf.refuse("1")

        assert emptied.called


class StopTests(_Storing):
    def test_with_nothing_under_way_it_is_stopped_at_once(self) -> None:
        self.put("1")
        self.shelf.confirm("1")

        assert self.store.stop().called

    def test_what_is_under_way_is_settled(self) -> None:
        self.put("1", "2")
        stopped = self.store.stop()
        self.shelf.confirm("1")
        assert not stopped.called

        self.shelf.confirm("2")
        assert stopped.called
        assert (self.acked, self.given_up) == (["1", "2"], [])

    def test_what_fails_is_left_with_the_broker(self) -> None:
        self.put("1", "2")
        stopped = self.store.stop()
        with capturedLogs() as logs:
            self.shelf.refuse("1")
            self.shelf.confirm("2")

        assert stopped.called
        assert (self.acked, self.given_up, logs) == (["2"], ["1"], [])
        assert self.clock.getDelayedCalls() == []

    def test_what_waits_for_the_queue_is_left_with_the_broker(self) -> None:
        self.preparing = Deferred()
        self.put("1", "2")
        stopped = self.store.stop()
        assert stopped.called
        assert self.given_up == ["1", "2"]

        self.preparing.callback(None)
        assert self.shelf.begun == []

    def test_a_queue_that_can_not_be_prepared_is_not_tried_again(self) -> None:
        self.preparing = Deferred()
        self.trouble = QueueTrouble("away")
        self.put("1")
        self.store.stop()
        self.preparing.callback(None)

        assert self.prepared == [False]
        assert self.clock.getDelayedCalls() == []

    def test_what_waits_for_another_try_is_left_with_the_broker(self) -> None:
        self.put("1")
        self.shelf.refuse("1")
        self.put("2")

        assert self.store.stop().called
        assert self.given_up == ["1", "2"]
        assert self.clock.getDelayedCalls() == []

    def test_what_comes_later_is_left_with_the_broker(self) -> None:
        for ready in (True, False):
            self.begin_anew()
            if ready:
                self.put("1")
                self.shelf.confirm("1")
            self.store.stop()
            self.put("2")

            assert "2" not in self.shelf.begun
            assert self.given_up == ["2"]
            assert self.store.emptied().called
