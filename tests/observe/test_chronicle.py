"""What is remembered of the last quarter of an hour."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.observe.events import EXHAUSTED, REJECTED, TRANSIENT, WINDOW, job_of, parcel_of
from tests.pipeline.doubles import EPOCH, NUMBER_THROTTLE, TENANT_WAIT
from whatsapp_egress.observe import chronicle as module
from whatsapp_egress.observe.chronicle import POINTS, STEP, Chronicle
from whatsapp_egress.policy.verdict import Dead, Reason, Sent

SENT = Sent("wamid")


class Remembering(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.chronicle = Chronicle(self.clock, lambda: EPOCH + self.clock.seconds())

    def send(self, count: int = 1, tenant: str = "t1", took: float = 0.0) -> None:
        for _ in range(count):
            self.chronicle.delivered(job_of(tenant, received=self.clock.seconds() - took), SENT)


class SeriesTests(Remembering):
    def test_each_step_has_what_happened_in_it(self) -> None:
        self.send(2)
        self.chronicle.dead_lettered(job_of(), REJECTED)
        self.clock.advance(2 * STEP)
        self.send(1)
        self.chronicle.retrying(job_of(), TRANSIENT, 1.0)
        self.chronicle.waiting(job_of(), NUMBER_THROTTLE, 10.0)

        series = self.chronicle.series()
        assert series.sent[-3:] == [2, 0, 1]
        assert series.failed[-3:] == [1, 0, 0]
        assert series.retried[-3:] == [0, 0, 1]
        assert series.throttled[-3:] == [0, 0, 1]
        assert series.until == EPOCH + 3 * STEP

    def test_it_is_a_quarter_of_an_hour_long_also_when_nothing_has_happened(self) -> None:
        series = self.chronicle.series()
        assert [len(each) for each in (series.sent, series.failed, series.p50Ms)] == [POINTS] * 3
        assert len(series.sent) * series.step == 15 * 60

        self.send()
        self.clock.advance(POINTS * STEP)
        assert sum(self.chronicle.series().sent) == 0

    def test_latencies_are_off_by_a_quarter_at_the_most(self) -> None:
        for took in [0.1] * 90 + [4.0] * 10:
            self.send(took=took)

        series = self.chronicle.series()
        assert 100 <= (series.p50Ms[-1] or 0) <= 125
        assert 4000 <= (series.p95Ms[-1] or 0) <= 5000
        assert series.p50Ms[-2] is None

    def test_one_that_took_longer_than_any_class_is_in_the_last(self) -> None:
        self.clock.advance(10**6)
        self.send(took=10**6)
        assert (self.chronicle.series().p50Ms[-1] or 0) > 5_000_000

    def test_to_wait_for_credentials_is_no_throttle(self) -> None:
        self.chronicle.waiting(job_of(), TENANT_WAIT, 5.0)
        assert sum(self.chronicle.series().throttled) == 0


class MinuteTests(Remembering):
    def test_the_last_minute_goes_on(self) -> None:
        self.send(3)
        self.chronicle.dead_lettered(job_of("t2"), REJECTED)
        assert self.chronicle.last_minute() == (3, 1)
        assert self.chronicle.of("t1")[:2] == (3, 0)
        assert dict(self.chronicle.busy()) == {"t1": 3, "t2": 1}

        self.clock.advance(60)
        assert self.chronicle.last_minute() == (3, 1)
        self.clock.advance(STEP)
        assert self.chronicle.last_minute() == (0, 0)
        assert self.chronicle.of("t1")[:2] == (0, 0)
        assert not dict(self.chronicle.busy())

    def test_who_had_trouble_only_is_not_busy(self) -> None:
        self.chronicle.retrying(job_of("t1"), TRANSIENT, 1.0)
        self.send(1, "t2")
        assert dict(self.chronicle.busy()) == {"t2": 1}

    def test_what_nobody_has_heard_of_did_nothing(self) -> None:
        assert self.chronicle.of("nobody") == (0, 0, None)

    def test_what_goes_on_for_long_is_counted_by_the_minute(self) -> None:
        for _ in range(30):
            self.send()
            self.clock.advance(STEP)
        assert self.chronicle.of("t1")[0] == 12

    def test_only_so_many_tenants_are_remembered(self) -> None:
        self.patch(module, "MOST_TENANTS", 2)
        for tenant in ("a", "b", "a", "c"):
            self.send(1, tenant)
            self.chronicle.retrying(job_of(tenant), TRANSIENT, 1.0)

        assert self.chronicle.of("b") == (0, 0, None)
        assert self.chronicle.of("a")[0] == 2
        assert self.chronicle.of("a")[2]

    def test_quiet_tenants_that_had_no_trouble_cost_nothing(self) -> None:
        for number in range(50):
            self.send(1, f"t{number}")
        self.clock.advance(60 + STEP)
        self.send(1, "another")
        assert list(self.chronicle._minutes) == ["another"]


class TroubleTests(Remembering):
    def test_the_last_one_stays_until_the_next(self) -> None:
        self.chronicle.retrying(job_of(), TRANSIENT, 1.0)
        trouble = self.chronicle.of("t1")[2]
        assert trouble is not None
        assert (trouble.fault, trouble.reason, trouble.at) == (TRANSIENT, None, EPOCH)

        self.send()
        self.chronicle.dead_lettered(job_of(), REJECTED)
        trouble = self.chronicle.of("t1")[2]
        assert trouble is not None
        assert (trouble.fault, trouble.reason) == (WINDOW, Reason.REJECTED)

    def test_a_dead_letter_without_a_fault_says_its_detail(self) -> None:
        self.chronicle.dead_lettered(job_of(), Dead(Reason.EXPIRED, "expiresAt has passed"))
        trouble = self.chronicle.of("t1")[2]
        assert trouble is not None
        assert trouble.fault.detail == "expiresAt has passed"

    def test_the_latest_dead_letters_are_kept_newest_first(self) -> None:
        for number in range(module.MOST_DEAD_LETTERS):
            self.chronicle.dead_lettered(job_of(f"t{number}"), EXHAUSTED)
        self.chronicle.dead_lettered(parcel_of(None), Dead(Reason.INVALID_MESSAGE, "no"))

        letters = list(self.chronicle.dead_letters)
        assert len(letters) == module.MOST_DEAD_LETTERS
        assert letters[0].identity.tenant_id is None
        assert letters[-1].identity.tenant_id == "t1"
