"""The road's watch: one tenant's trouble is not everybody's."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.policy.road import MEMORY_SECONDS, RoadWatch

DOWN, SLOW = "503", "slow"


class _Watching(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.watch = RoadWatch(4, self.clock)

    def heard(self, tenants: str, trouble: str | None) -> None:
        """One exchange of each tenant, whose ids are letters, ended so."""
        for tenant_id in tenants:
            self.watch.heard(tenant_id, trouble)


class AllFailAlikeTests(_Watching):
    def test_when_nobody_was_heard_all_is_well(self) -> None:
        assert not self.watch.all_fail_alike()

    def test_the_same_trouble_of_all_tenants_is_everybodys(self) -> None:
        self.heard("abab", DOWN)

        assert self.watch.all_fail_alike()

    def test_it_takes_as_many_exchanges_as_the_threshold(self) -> None:
        self.heard("aba", DOWN)

        assert not self.watch.all_fail_alike()

    def test_one_tenant_is_not_everybody(self) -> None:
        self.heard("aaaaaaaa", DOWN)

        assert not self.watch.all_fail_alike()

    def test_a_tenant_that_is_well_speaks_against_it(self) -> None:
        self.heard("c", None)
        self.heard("abababab", DOWN)

        assert not self.watch.all_fail_alike()

    def test_a_tenant_with_another_trouble_speaks_against_it(self) -> None:
        self.heard("c", SLOW)
        self.heard("abababab", DOWN)

        assert not self.watch.all_fail_alike()

    def test_a_tenants_latest_word_counts(self) -> None:
        self.heard("ab", None)
        self.heard("abab", DOWN)

        assert self.watch.all_fail_alike()

    def test_a_success_counts_the_exchanges_anew(self) -> None:
        self.heard("aba", DOWN)
        self.heard("b", None)
        self.heard("ab", DOWN)

        assert not self.watch.all_fail_alike()

    def test_so_does_another_trouble(self) -> None:
        self.heard("aba", DOWN)
        self.heard("b", SLOW)
        self.heard("ab", DOWN)

        assert not self.watch.all_fail_alike()

    def test_all_well_is_nobodys_trouble(self) -> None:
        self.heard("abab", None)

        assert not self.watch.all_fail_alike()

    def test_a_word_counts_for_ten_seconds(self) -> None:
        self.heard("c", None)
        self.clock.advance(MEMORY_SECONDS)
        self.heard("abab", DOWN)
        assert not self.watch.all_fail_alike()

        self.clock.advance(0.1)
        assert self.watch.all_fail_alike()

    def test_a_tenant_that_goes_on_is_remembered_by_its_latest_word(self) -> None:
        self.heard("ab", DOWN)
        self.clock.advance(MEMORY_SECONDS - 1)
        self.heard("ab", DOWN)
        self.clock.advance(MEMORY_SECONDS - 1)

        assert self.watch.all_fail_alike()

    def test_after_a_silence_nothing_is_known(self) -> None:
        self.heard("abab", DOWN)
        self.clock.advance(MEMORY_SECONDS + 1)

        assert not self.watch.all_fail_alike()

    def test_cleared_it_begins_anew(self) -> None:
        self.heard("abab", DOWN)
        self.watch.clear()
        self.heard("aba", DOWN)
        assert not self.watch.all_fail_alike()

        self.heard("b", DOWN)
        assert self.watch.all_fail_alike()

    def test_words_from_a_future_that_was_taken_back_are_forgotten(self) -> None:
        self.clock.advance(1000)
        self.heard("c", None)
        self.clock.rightNow = 0
        self.heard("abab", DOWN)

        assert self.watch.all_fail_alike()


class EverybodyTests(_Watching):
    def test_when_nobody_was_heard_nobody_is_in_trouble(self) -> None:
        assert not self.watch.everybody_in_trouble()

    def test_one_tenant_alone_is_not_everybody(self) -> None:
        self.heard("aaaaaaaaaa", DOWN)

        assert not self.watch.everybody_in_trouble()

    def test_two_of_two_are(self) -> None:
        self.heard("ab", DOWN)

        assert self.watch.everybody_in_trouble()

    def test_half_of_them_are_not(self) -> None:
        for troubled, well in (("a", "b"), ("ab", "cd")):
            self.watch.clear()
            self.heard(troubled, DOWN)
            self.heard(well, None)

            assert not self.watch.everybody_in_trouble(), troubled

    def test_more_than_half_are(self) -> None:
        self.heard("c", None)
        self.heard("ab", DOWN)

        assert self.watch.everybody_in_trouble()

    def test_each_tenant_counts_once(self) -> None:
        self.heard("aaaaaaaaaa", DOWN)
        self.heard("bc", None)

        assert not self.watch.everybody_in_trouble()

    def test_trouble_of_any_kind_counts(self) -> None:
        self.heard("a", DOWN)
        self.heard("b", SLOW)
        self.heard("c", None)

        assert self.watch.everybody_in_trouble()

    def test_a_tenants_latest_word_counts(self) -> None:
        self.heard("ab", DOWN)
        self.heard("b", None)

        assert not self.watch.everybody_in_trouble()

    def test_what_is_forgotten_does_not_count(self) -> None:
        self.heard("ab", DOWN)
        self.clock.advance(MEMORY_SECONDS + 1)
        self.heard("c", DOWN)

        assert not self.watch.everybody_in_trouble()

    def test_after_a_silence_nobody_is(self) -> None:
        self.heard("ab", DOWN)
        self.clock.advance(MEMORY_SECONDS + 1)

        assert not self.watch.everybody_in_trouble()

    def test_cleared_it_begins_anew(self) -> None:
        self.heard("ab", DOWN)
        self.watch.clear()
        self.heard("c", DOWN)

        assert not self.watch.everybody_in_trouble()

    def test_whom_nobody_asks_about_is_forgotten_all_the_same(self) -> None:
        for n in range(100):
            self.watch.heard(f"tenant-{n}", None)
            self.clock.advance(1)

        assert len(self.watch._words) <= MEMORY_SECONDS + 1

    @settings(derandomize=True, deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, DOWN, SLOW]), st.floats(0, 6))),
        st.integers(1, 4),
    )
    def test_it_is_as_counting_all_words_anew_says(
        self, words: list[tuple[str, str | None, float]], threshold: int
    ) -> None:
        clock = Clock()
        watch = RoadWatch(threshold, clock)
        latest: dict[str, tuple[float, str | None]] = {}
        for count, (tenant_id, trouble, pause) in enumerate(words, 1):
            watch.heard(tenant_id, trouble)
            latest[tenant_id] = (clock.seconds(), trouble)
            clock.advance(pause)
            counted = [said for at, said in latest.values() if clock.seconds() - at <= MEMORY_SECONDS]
            last = [said for _, said, _ in words[:count][-threshold:]]
            alike = trouble is not None and last == [trouble] * threshold
            assert watch.all_fail_alike() == (
                alike and len(counted) >= 2 and counted == [trouble] * len(counted)
            )
            troubled = sum(said is not None for said in counted)
            assert watch.everybody_in_trouble() == (troubled >= 2 and troubled > len(counted) / 2)
