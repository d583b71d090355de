"""What exceeds a lane or must wait too long: deferred in order, taken back in order, and over in the end."""

from __future__ import annotations

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import (
    EPOCH,
    NUMBER_THROTTLE,
    PAIR_THROTTLE,
    RETRY,
    FakeDelivery,
    Stage,
)
from tests.pipeline.queues import Queue
from whatsapp_egress.deferred import Lease, Place, read_lease, write_lease
from whatsapp_egress.errors import Unpublished
from whatsapp_egress.pipeline.deferral import LINGER_SECONDS
from whatsapp_egress.pipeline.leasehold import RENEW_SECONDS, RENEWED_SECONDS, UNOWNED_SECONDS
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.policy.verdict import Dead, Reason, Sent

SENT = Sent("wamid.1")
BACK, FIRST = Place("t1"), Place("t1", first=True)
LONG_THROTTLE = evolve(NUMBER_THROTTLE, floor=600.0)
PAUSE = Pause("they asked for it", "ops", EPOCH)


class Deferring(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = Stage(most_active=3)
        self.queues = self.stage.queues

    def offer(self, *names: str, to: str | None = None) -> None:
        for name in names:
            self.stage.offer(name, to or name)

    def end(self, *names: str) -> None:
        for name in names:
            self.stage.end(name, SENT)

    def queue(self, place: Place = BACK) -> Queue:
        return self.queues.queues[place]

    def ready(self, place: Place = BACK) -> list[str]:
        return [copy.body.decode() for copy in self.queue(place).ready]

    def in_hand(self) -> list[str]:
        return [delivery.body.decode() for delivery in self.queue().unacked]

    def acks(self, name: str) -> int:
        return sum(
            job.delivery.acks
            for job in self.stage.jobs
            if isinstance(job.delivery, FakeDelivery)
            and job.place is None
            and job.message.internal_id == name
        )

    def told(self, name: str) -> int:
        return self.stage.witness.names.count(name)


class ExceedingTests(Deferring):
    def test_what_exceeds_the_lane_goes_to_the_queue_and_is_acked(self) -> None:
        self.offer("1", "2", "3", "4", "5")

        assert self.stage.in_flight == ["1", "2", "3"]
        assert self.ready() == ["4", "5"]
        assert [self.acks(name) for name in "12345"] == [0, 0, 0, 1, 1]

    def test_a_lease_is_written_and_the_queues_are_there_before_the_first(self) -> None:
        published: list[int] = []

        def note() -> Deferred[None]:
            published.append(len(self.queues.leases))
            return Deferred()

        self.queues.on_publish = note
        self.offer("1", "2", "3", "4")

        assert published == [1]
        assert [read_lease(body) for body in self.queues.held] == [Lease("t1", None, "me")]

    def test_it_is_acked_only_when_the_copy_is_confirmed(self) -> None:
        confirm: Deferred[None] = Deferred()
        self.queues.on_publish = lambda: confirm
        self.offer("1", "2", "3", "4")
        assert self.acks("4") == 0

        confirm.callback(None)
        assert self.acks("4") == 1

    def test_it_says_how_many_wait(self) -> None:
        confirm: Deferred[None] = Deferred()
        self.offer("1", "2", "3", "4", "5")
        self.stage.pass_time(1.5)
        self.queues.on_publish = lambda: confirm
        self.offer("6")

        assert self.stage.lanes._deferrals["t1"].waiting == 3

    def test_they_come_back_in_order_as_room_comes(self) -> None:
        self.offer("1", "2", "3", "4", "5", "6", "7")
        self.stage.pass_time(2)
        assert self.in_hand() == []

        self.end("1")
        self.stage.pass_time(1.5)
        assert self.stage.in_flight == ["2", "3", "4"]

        self.end("2", "3")
        self.stage.pass_time(1.5)
        assert self.stage.in_flight == ["4", "5", "6"]
        self.end("4")
        assert self.stage.in_flight == ["5", "6", "7"]

    def test_new_ones_queue_up_behind_them(self) -> None:
        self.offer("1", "2", "3", "4")
        self.end("1", "2")
        self.offer("new")

        assert self.stage.in_flight == ["3"]
        assert self.ready() == ["4", "new"]

    def test_other_tenants_notice_nothing(self) -> None:
        self.offer("1", "2", "3", "4")
        self.stage.offer("other", tenant_id="t2")

        assert self.stage.in_flight == ["1", "2", "3", "other"]

    def test_what_was_tried_is_not_forgotten(self) -> None:
        self.offer("1", "2", "3")
        self.stage.offer("4", "4", retry_count=2)
        self.end("1", "2", "3")
        self.stage.pass_time(2)

        assert [job.attempts for job in self.stage.jobs if job.place] == [3]

    def test_no_more_are_taken_than_the_rate_is_worth_in_a_quarter_of_the_time(self) -> None:
        self.stage = Stage(rate=1.0, most_active=50)
        self.queues = self.stage.queues
        self.stage.attempts.verdict = SENT
        self.offer(*[str(number) for number in range(80)])
        self.stage.pass_time(45)

        assert 10 < max(self.queue().consumed) <= 15


class OverTests(Deferring):
    def empty(self) -> None:
        """Defer, and send everything."""
        self.offer("1", "2", "3", "4")
        self.end("1", "2", "3")
        self.stage.pass_time(2)
        self.end("4")
        self.stage.pass_time(2.5)

    def test_it_is_over_when_the_queues_are_empty_and_nothing_is_in_hand(self) -> None:
        self.empty()
        self.offer("5")

        assert self.stage.in_flight == ["5"]
        assert self.told("deferred_over") == 1

    def test_it_is_not_while_one_is_in_hand(self) -> None:
        self.offer("1", "2", "3", "4")
        self.end("1", "2", "3")
        self.stage.pass_time(5)
        self.offer("5")

        assert self.ready() == []
        assert self.in_hand() == ["4", "5"]

    def test_the_queues_stay_for_a_while_and_then_they_go_with_the_lease(self) -> None:
        self.empty()
        self.stage.pass_time(LINGER_SECONDS - 5, step=0.5)
        assert self.queues.deleted == []

        self.stage.pass_time(10, step=0.5)
        assert self.queues.deleted == [FIRST, BACK]
        assert self.queues.held == []
        assert self.stage.quiet

    def test_a_queue_that_got_a_message_meanwhile_stays(self) -> None:
        self.empty()
        self.queue().ready.append(self.queues.copy(b"2"))
        self.stage.pass_time(LINGER_SECONDS + 10, step=0.5)

        assert BACK not in self.queues.deleted
        assert len(self.queues.held) == 1
        assert self.stage.in_flight == ["2"]

    def test_one_that_comes_in_the_last_moment_keeps_the_queue(self) -> None:
        self.empty()
        cancel = self.queues.cancel

        def cancel_late(place: Place) -> Deferred[None]:
            self.queue().ready.append(self.queues.copy(b"2"))
            self.queue().deliver()
            return cancel(place)

        self.queues.cancel = cancel_late  # type: ignore[method-assign]
        self.stage.pass_time(LINGER_SECONDS + 5, step=0.5)

        assert self.queues.deleted == []
        assert "2" in self.stage.in_flight

    def test_a_pause_in_the_last_moment_keeps_the_lease(self) -> None:
        self.empty()
        delete = self.queues.delete

        def delete_late(place: Place) -> Deferred[bool]:
            self.stage.lanes.pause("t1", PAUSE)
            return delete(place)

        self.queues.delete = delete_late  # type: ignore[method-assign]
        self.stage.pass_time(LINGER_SECONDS + 5, step=0.5)

        assert [read_lease(body).pause for body in self.queues.held] == [PAUSE]
        assert self.stage.lanes.deferring == 1

    def test_a_pause_meanwhile_keeps_everything(self) -> None:
        self.empty()
        self.stage.lanes.pause("t1", PAUSE)
        self.stage.pass_time(LINGER_SECONDS + 5, step=0.5)

        assert self.queues.deleted == []
        assert [read_lease(body).pause for body in self.queues.held] == [PAUSE]

    def test_what_comes_after_it_begins_anew(self) -> None:
        self.empty()
        self.stage.pass_time(LINGER_SECONDS + 10, step=0.5)
        self.offer("a", "b", "c", "d")

        assert self.ready() == ["d"]
        assert len(self.queues.held) == 1

    def test_it_falls_behind_again_when_it_is_exceeded_in_between(self) -> None:
        self.empty()
        self.offer("a", "b", "c", "d")

        assert self.told("deferring") == 2
        assert self.ready() + self.in_hand() == ["d"]

    def test_a_message_of_another_workers_in_its_queue_puts_it_behind_again(self) -> None:
        self.empty()
        self.queue().ready.append(self.queues.copy(b"1"))
        self.queue().deliver()
        self.offer("5")

        assert self.acks("5") == 1
        assert self.told("deferring") == 2


class WaitingTests(Deferring):
    def test_everything_goes_when_the_wait_is_long(self) -> None:
        self.offer("1", "2")
        self.stage.end("1", LONG_THROTTLE)
        self.stage.end("2", SENT)
        self.stage.pass_time(1.5)
        self.offer("3")

        assert (self.ready(FIRST), self.ready()) == (["1"], ["3"])
        assert self.acks("1") == 1

    def test_it_comes_back_when_the_wait_is_nearly_over_and_goes_on_from_one(self) -> None:
        self.offer("1", "2", "3")
        for name in "123":
            self.stage.end(name, LONG_THROTTLE)
        self.stage.pass_time(2)
        self.offer("4")
        self.stage.pass_time(597, step=0.5)
        assert self.stage.in_flight == []

        self.stage.pass_time(4)
        assert self.stage.in_flight == ["1"]
        self.end("1")
        assert self.stage.in_flight == ["2", "3"]
        self.end("2", "3")
        self.stage.pass_time(3)
        assert self.stage.in_flight == ["4"]

    def test_nothing_is_held_longer_than_defer_after(self) -> None:
        self.offer("1", to="alice")
        self.stage.end("1", PAIR_THROTTLE)
        self.stage.pass_time(6.5)
        self.stage.end("1", evolve(PAIR_THROTTLE, floor=300.0))
        self.offer("2", to="alice")
        self.stage.pass_time(50, step=0.5)
        assert (self.acks("1"), self.acks("2")) == (0, 0)

        self.stage.pass_time(4, step=0.5)
        assert (self.acks("1"), self.acks("2")) == (1, 1)

    def test_a_conversation_that_was_put_aside_has_the_rest_of_its_time_to_wait(self) -> None:
        self.offer("1", to="alice")
        self.stage.end("1", evolve(PAIR_THROTTLE, floor=300.0))
        self.stage.pass_time(299, step=0.5)
        assert self.stage.in_flight == []

        self.stage.pass_time(2)
        assert self.stage.in_flight == ["1"]

    def test_others_go_on_meanwhile(self) -> None:
        self.offer("1", to="alice")
        self.stage.end("1", evolve(PAIR_THROTTLE, floor=300.0))
        self.stage.pass_time(70, step=0.5)
        self.offer("2", to="bob")
        self.stage.pass_time(4)

        assert self.stage.in_flight == ["2"]

    def test_what_came_directly_stays_before_what_was_deferred(self) -> None:
        self.offer("1", "2", to="alice")
        self.offer("x")
        self.offer("3", to="alice")
        self.stage.end("1", evolve(PAIR_THROTTLE, floor=100.0))
        self.end("x")
        self.stage.pass_time(99, step=0.5)
        self.stage.pass_time(4)
        self.end("1")
        self.stage.pass_time(2)
        self.end("2")
        self.stage.pass_time(2)
        self.end("3")

        assert [name for name, _ in self.stage.settled] == ["x", "1", "2", "3"]

    def test_one_in_flight_is_never_put_aside(self) -> None:
        self.offer("1", "2", to="alice")
        self.stage.pass_time(200, step=0.5)

        assert (self.acks("1"), self.acks("2"), self.stage.in_flight) == (0, 0, ["1"])


class PauseTests(Deferring):
    def test_its_messages_wait_in_the_queue(self) -> None:
        self.stage.lanes.pause("t1", PAUSE)
        self.offer("1", "2")
        self.stage.pass_time(100, step=0.5)

        assert (self.stage.in_flight, self.ready()) == ([], ["1", "2"])
        assert self.told("paused") == 1

    def test_what_is_in_flight_ends_and_the_rest_is_put_aside(self) -> None:
        self.stage = Stage(most_active=3, most_per_tenant=1)
        self.queues = self.stage.queues
        self.offer("1", "2")
        self.stage.lanes.pause("t1", PAUSE)
        self.stage.pass_time(1.5)

        assert (self.stage.in_flight, self.ready(FIRST)) == (["1"], ["2"])

    def test_it_is_in_the_lease(self) -> None:
        self.stage.lanes.pause("t1", PAUSE)

        assert [read_lease(body).pause for body in self.queues.held] == [PAUSE]

    def test_it_is_written_into_the_lease_of_a_tenant_that_has_one(self) -> None:
        self.offer("1", "2", "3", "4")
        self.stage.lanes.pause("t1", PAUSE)

        assert [read_lease(body).pause for body in self.queues.held] == [PAUSE]

    def test_a_lease_that_can_not_be_written_is_written_later(self) -> None:
        self.offer("1", "2", "3", "4")
        self.queues.away = True
        self.stage.lanes.pause("t1", PAUSE)
        self.queues.away = False
        self.stage.pass_time(2)

        assert [read_lease(body).pause for body in self.queues.held] == [PAUSE]

    def test_it_goes_on_from_one_message_when_it_is_resumed(self) -> None:
        self.stage.lanes.pause("t1", PAUSE)
        self.offer("1", "2", "3")
        assert self.stage.lanes.resume("t1")
        self.stage.pass_time(2)

        assert self.stage.in_flight == ["1"]
        self.end("1")
        self.stage.pass_time(2)
        assert self.stage.in_flight == ["2", "3"]
        assert [read_lease(body).pause for body in self.queues.held] == [None]

    def test_it_ends_by_itself_where_it_has_an_end(self) -> None:
        self.stage.lanes.pause("t1", evolve(PAUSE, until=EPOCH + 100))
        self.offer("1")
        self.stage.pass_time(99, step=0.5)
        assert self.stage.in_flight == []

        self.stage.pass_time(4)
        assert self.stage.in_flight == ["1"]

    def test_it_lasts_though_nothing_comes(self) -> None:
        self.stage.lanes.pause("t1", PAUSE)
        self.stage.pass_time(LINGER_SECONDS * 3, step=0.5)

        assert [read_lease(body).pause for body in self.queues.held] == [PAUSE]
        assert self.stage.lanes.resume("t1")

    def test_after_it_the_queues_go(self) -> None:
        self.stage.lanes.pause("t1", PAUSE)
        self.stage.lanes.resume("t1")
        self.stage.pass_time(LINGER_SECONDS + 10, step=0.5)

        assert self.queues.held == []
        assert self.stage.quiet

    def test_who_is_not_paused_can_not_be_resumed(self) -> None:
        self.offer("1")

        assert not self.stage.lanes.resume("t1")
        assert not self.stage.lanes.resume("nobody")


class LeaseTests(Deferring):
    def leave_behind(self, *names: str, pause: Pause | None = None, writer: str = "another") -> FakeDelivery:
        """What another process has left: messages in the queue, and a lease."""
        self.queues.declare("t1")
        for name in names:
            self.stage.remember(name)
            self.queue().ready.append(self.queues.copy(name.encode()))
        lease = FakeDelivery(write_lease(Lease("t1", pause, writer)))
        self.stage.lanes.lease(lease)
        return lease

    def test_the_messages_of_one_that_comes_are_taken(self) -> None:
        self.leave_behind("1", "2")
        self.offer("new")
        self.stage.pass_time(3)

        assert self.stage.in_flight == ["1", "2", "new"]

    def test_they_are_taken_at_once_when_an_operator_closes_the_breaker(self) -> None:
        self.stage.offer("0")
        standing = self.stage.standings.find("t1")
        assert standing is not None
        standing.breaker.trip()
        self.leave_behind("1")
        assert self.queue(FIRST).prefetch == 0

        assert self.stage.lanes.reset_breaker("t1")
        assert self.queue(FIRST).prefetch > 0

    def test_its_pause_holds(self) -> None:
        self.leave_behind("1", pause=PAUSE)
        self.stage.pass_time(3)

        assert self.stage.in_flight == []
        assert self.stage.lanes.resume("t1")

    def test_a_pause_that_is_over_does_not(self) -> None:
        self.leave_behind("1", pause=evolve(PAUSE, until=EPOCH - 1))
        self.stage.pass_time(3)

        assert self.stage.in_flight == ["1"]

    def test_the_pause_in_an_older_lease_of_ours_does_not(self) -> None:
        self.leave_behind("1")
        self.leave_behind(pause=PAUSE, writer="me")
        self.stage.pass_time(3)

        assert self.stage.in_flight == ["1"]

    def test_the_later_of_one_writers_says_whether_it_is_paused(self) -> None:
        self.leave_behind("1", pause=PAUSE)
        self.leave_behind()
        self.stage.pass_time(3)

        assert self.stage.in_flight == ["1"]

    def test_anothers_lease_does_not_end_a_pause(self) -> None:
        self.leave_behind("1", pause=PAUSE)
        self.leave_behind(writer="a third")
        self.stage.pass_time(3)

        assert self.stage.in_flight == []

    def test_nor_does_a_lease_end_what_an_operator_has_paused_since(self) -> None:
        self.leave_behind("1", pause=PAUSE)
        self.stage.lanes.pause("t1", PAUSE)
        self.leave_behind()
        self.stage.pass_time(3)

        assert self.stage.in_flight == []

    def test_of_two_the_older_is_acked(self) -> None:
        older, newer = self.leave_behind("1"), self.leave_behind()

        assert (older.acks, newer.acks) == (1, 0)

    def test_what_is_no_lease_is_acked_and_told(self) -> None:
        junk = FakeDelivery(b"junk")
        self.stage.lanes.lease(junk)

        assert junk.acks == 1

    def test_none_is_taken_once_it_is_stopped(self) -> None:
        self.stage.lanes.stop()
        lease = self.leave_behind("1")

        assert (lease.acks, len(self.stage.lanes)) == (0, 0)

    def test_it_is_written_anew_in_time(self) -> None:
        self.offer("1", "2", "3", "4")
        self.stage.pass_time(RENEW_SECONDS + 10, step=1)

        assert [lease.acks for lease in self.queues.leases] == [1, 0]

    def test_when_another_worker_gets_the_new_one_it_takes_over(self) -> None:
        self.offer("1", "2", "3", "4")
        self.stage.pass_time(2)
        self.queues.hands_leases_on = False
        self.stage.pass_time(RENEW_SECONDS + RENEWED_SECONDS + 10, step=1)

        assert [lease.acks for lease in self.queues.leases] == [1, 0]
        assert self.queue().prefetch == 0

    def test_without_one_nothing_is_taken_and_it_is_over_when_the_queues_are_empty(self) -> None:
        self.queues.hands_leases_on = False
        self.offer("1", "2", "3", "4")
        self.stage.pass_time(5)
        assert self.queue().consumed == []

        self.queue().ready.clear()  # by the worker that has the lease
        self.stage.pass_time(3)
        self.offer("5")
        assert self.stage.in_flight == ["1", "2", "3"]  # the lane is full, and 5 is deferred anew
        self.end("1", "2", "3")
        self.queue().ready.clear()
        self.stage.pass_time(3)
        assert self.queues.deleted == []
        assert self.stage.quiet

    def test_where_nobody_seems_to_have_it_another_is_written(self) -> None:
        self.queues.hands_leases_on = False
        self.offer("1", "2", "3", "4")
        self.stage.pass_time(UNOWNED_SECONDS - 5, step=0.5)
        assert len(self.queues.leases) == 1

        self.stage.pass_time(10, step=0.5)
        assert len(self.queues.leases) == 2


class TroubleTests(Deferring):
    def test_while_the_broker_is_away_the_messages_stay_with_it(self) -> None:
        self.queues.away = True
        self.offer("1", "2", "3", "4")
        self.stage.pass_time(5)
        assert self.acks("4") == 0

        self.queues.away = False
        self.stage.pass_time(2)
        assert self.acks("4") == 1

    def test_a_queue_that_was_deleted_is_declared_again(self) -> None:
        self.offer("1", "2", "3", "4")
        self.end("1", "2", "3")
        self.stage.pass_time(2)
        self.end("4")
        self.queues.queues.clear()
        self.stage.lanes.cancelled(BACK)
        self.offer("5")
        self.stage.pass_time(5)

        assert self.in_hand() == ["5"]

    def test_a_publish_that_failed_is_tried_again(self) -> None:
        failed: Deferred[None] = Deferred()
        well, self.queues.on_publish = self.queues.on_publish, lambda: failed
        self.offer("1", "2", "3", "4")
        self.queues.on_publish = well
        failed.errback(Unpublished("lost"))
        self.stage.pass_time(2)

        assert self.acks("4") == 1

    def test_when_the_channel_is_lost_it_goes_on_with_the_next_lease(self) -> None:
        self.offer("1", "2", "3", "4", "5")
        self.end("1", "2", "3")
        self.stage.pass_time(2)
        lease = self.queues.leases[0]
        self.queues.lose()
        self.stage.lanes.deferred_lost()
        self.stage.lanes.abandon()
        self.stage.pass_time(2)
        assert self.queue().prefetch == 0

        self.stage.lanes.lease(lease)
        self.stage.pass_time(2)
        assert self.in_hand() == ["4", "5"]

    def test_a_queue_that_can_not_be_consumed_is_tried_again(self) -> None:
        self.offer("1", "2", "3", "4")
        self.end("1", "2", "3")
        self.queues.refuses = True
        self.stage.pass_time(3)
        self.queues.refuses = False
        self.stage.pass_time(2)

        assert self.in_hand() == ["4"]

    def test_news_of_a_tenant_that_defers_nothing_are_none(self) -> None:
        self.stage.lanes.cancelled(BACK)

        assert len(self.stage.lanes) == 0


class StopTests(Deferring):
    def test_what_is_being_deferred_is_waited_for_and_acked(self) -> None:
        confirm: Deferred[None] = Deferred()
        self.queues.on_publish = lambda: confirm
        self.offer("1", "2", "3", "4")
        self.end("1", "2", "3")
        stopped = self.stage.lanes.stop()
        self.assertNoResult(stopped)

        confirm.callback(None)
        self.successResultOf(stopped)
        assert self.acks("4") == 1

    def test_what_is_not_begun_stays_with_the_broker(self) -> None:
        self.queues.away = True
        self.offer("1", "2", "3", "4")
        self.end("1", "2", "3")

        self.successResultOf(self.stage.lanes.stop())
        assert (self.acks("4"), self.stage.given_up) == (0, ["4"])
        assert self.stage.clock.getDelayedCalls() == []

    def test_what_comes_from_the_queue_after_it_stays_there(self) -> None:
        self.offer("1", "2", "3", "4")
        self.end("1", "2", "3")
        self.stage.pass_time(2)
        self.end("4")
        self.stage.lanes.stop()
        self.queue().ready.append(self.queues.copy(b"1"))
        self.queue().deliver()

        assert self.in_hand() == ["1"]


class AppThrottleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stage = Stage(rate=100.0)
        for tenant in ("t1", "t2", "t3"):
            self.stage.offer(f"{tenant} 1", tenant_id=tenant)

    def rate(self, tenant_id: str) -> float:
        standing = self.stage.standings.find(tenant_id)
        assert standing is not None
        return standing.rate("100000001").current

    def test_two_tenants_have_the_same_app_and_all_slow_down_once(self) -> None:
        self.stage.lanes.app_throttled("t1")
        assert self.rate("t3") == 100

        self.stage.lanes.app_throttled("t2")
        assert self.rate("t3") == 50
        self.stage.lanes.app_throttled("t3")
        assert self.rate("t1") == 100  # its own throttle has slowed it down already

    def test_two_that_are_far_apart_say_nothing(self) -> None:
        self.stage.lanes.app_throttled("t1")
        self.stage.pass_time(11, step=0.5)
        self.stage.lanes.app_throttled("t2")

        assert self.rate("t3") == 100
        assert self.stage.settled == []


class DeadTests(Deferring):
    def test_a_deferred_message_ends_as_any_other(self) -> None:
        self.offer("1", "2", "3", "4")
        self.end("1", "2", "3")
        self.stage.pass_time(2)
        self.stage.end("4", RETRY)
        self.stage.pass_time(3)
        self.stage.end("4", Dead(Reason.REJECTED, ""))

        assert self.stage.settled[-1] == ("4", Dead(Reason.REJECTED, ""))
        assert self.in_hand() == []


class PriorityTests(SynchronousTestCase):
    def test_what_others_go_before_again_and_again_is_put_aside_in_time(self) -> None:
        stage = Stage(rate=1.0, most_active=10)
        stage.attempts.verdict = SENT
        stage.offer("warm", "alice", priority=9)
        stage.offer("low", "alice", priority=0)
        for number in range(90):
            stage.offer(f"high {number}", "alice", priority=9)
            stage.pass_time(1)
        (low,) = [job for job in stage.jobs if job.message.internal_id == "low" and job.place is None]
        assert isinstance(low.delivery, FakeDelivery)

        assert low.delivery.acks == 1


class ConversationTests(SynchronousTestCase):
    """A backlog to one recipient, of which one message is in flight at every look."""

    def setUp(self) -> None:
        self.stage = Stage(most_active=50)
        for number in range(40):
            self.stage.offer(f"{number}", "alice")

    def play(self, seconds: int) -> float:
        """Answer each request after 2 s; returns the greatest age at which one was in hand."""
        oldest = 0.0
        for _ in range(seconds // 2):
            self.stage.pass_time(2, step=0.5)
            for name in list(self.stage.in_flight):
                self.stage.end(name, SENT)
            now = self.stage.clock.seconds()
            in_hand = [job for jobs in self.stage.recent._in_hand.values() for job in jobs]
            oldest = max(oldest, *(now - job.received for job in in_hand), 0.0)
        return oldest

    def test_none_is_held_longer_than_it_may_be_and_they_stay_in_order(self) -> None:
        oldest = self.play(120)

        assert oldest <= 60 + 2 + 2
        names = [name for name, _ in self.stage.settled]
        assert names == [f"{number}" for number in range(40)]

    def test_where_nothing_can_be_deferred_they_are_sent_all_the_same(self) -> None:
        self.stage.queues.away = True
        self.play(140)

        assert len(self.stage.settled) == 40
