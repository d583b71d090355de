"""Which dead letters are meant, and what is foretold of them."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.policy.meta import TABLE
from whatsapp_egress.policy.replay import (
    MOST_REPLAYS,
    Circumstances,
    DeadLetter,
    Filter,
    Forecast,
    Hold,
    Would,
    forecast,
    held_back,
    rule_of,
)
from whatsapp_egress.policy.verdict import Reason

NOW = 1_700_000_000.0

letters = st.builds(
    DeadLetter,
    id=st.sampled_from(["a", "b"]),
    reason=st.sampled_from([*(reason.value for reason in Reason), "broker_expired", "unknown"]),
    tenant_id=st.sampled_from([None, "t1", "t2"]),
    internal_id=st.sampled_from([None, "m1"]),
    error_code=st.sampled_from([None, 131047, 131026, 130429, 190, 999_999]),
    failed_at=st.none() | st.floats(NOW - 1000, NOW),
    replays=st.integers(0, 5),
    expires_at=st.none() | st.floats(NOW - 1000, NOW + 1000),
)


def letter(**facts: Any) -> DeadLetter:
    given = {"id": "a", "reason": "rejected", "tenant_id": "t1", "internal_id": "m1", "failed_at": NOW - 60}
    return DeadLetter(**(given | facts))


def known(**facts: Any) -> Circumstances:
    return Circumstances(**({"now": NOW, "table": TABLE, "hold": lambda _tenant: None, "sent": {}} | facts))


class FilterTests(SynchronousTestCase):
    @given(letters)
    def test_an_empty_one_means_all(self, one: DeadLetter) -> None:
        assert Filter().takes(one, NOW)

    def test_each_part_counts(self) -> None:
        for right, wrong in [
            ({"tenant_id": "t1"}, {"tenant_id": "t2"}),
            ({"reason": "rejected"}, {"reason": "expired"}),
            ({"code": 131047}, {"code": 131026}),
            ({"id": "a"}, {"id": "b"}),
            ({"older_than": 59.0}, {"older_than": 60.0}),
            ({"younger_than": 61.0}, {"younger_than": 60.0}),
            ({"older_than": 10.0, "younger_than": 61.0}, {"older_than": 10.0, "younger_than": 20.0}),
        ]:
            one = letter(error_code=131047)
            assert Filter(**right).takes(one, NOW)
            assert not Filter(**wrong).takes(one, NOW)
            assert not Filter(**({"tenant_id": "t1", "code": 131047, "id": "a"} | wrong)).takes(one, NOW)

    def test_what_does_not_say_when_is_neither_old_nor_young(self) -> None:
        for bound in [{"older_than": 0.0}, {"younger_than": 1e9}]:
            assert not Filter(**bound).takes(letter(failed_at=None), NOW)

    @given(letters, st.floats(0, 2000))
    def test_none_is_older_and_younger_than_the_same(self, one: DeadLetter, seconds: float) -> None:
        assert not Filter(older_than=seconds, younger_than=seconds).takes(one, NOW)


class ForecastTests(SynchronousTestCase):
    def test_sends_what_nothing_speaks_against(self) -> None:
        assert forecast(letter(reason="retries_exhausted", error_code=131000), known()).would is Would.SEND

    def test_its_time_passes_in_the_moment_it_says(self) -> None:
        for expires_at, would in [(NOW, Would.EXPIRE), (NOW + 0.5, Would.SEND), (None, Would.SEND)]:
            assert forecast(letter(expires_at=expires_at), known()).would is would

    def test_reasons_that_stay(self) -> None:
        for reason in ["invalid_message", "tenant_not_found"]:
            assert forecast(letter(reason=reason), known()).would is Would.FAIL

    def test_what_is_no_message_fails_whatever_reason_is_given(self) -> None:
        for reason in ["unknown", "broker_rejected"]:
            assert forecast(letter(reason=reason, no_message=True), known()).would is Would.FAIL

    def test_codes_that_never_succeed(self) -> None:
        for code, would in [
            (131047, Would.FAIL),
            (132001, Would.FAIL),
            (131026, Would.FAIL),
            (190, Would.SEND),
            (None, Would.SEND),
        ]:
            assert forecast(letter(error_code=code), known()).would is would

    def test_a_refusal_for_good_comes_with_title_and_advice(self) -> None:
        rule = TABLE.by_code(131047, None, "")
        assert rule is not None
        why = forecast(letter(error_code=131047), known()).why
        assert "131047" in why
        assert rule.title in why
        assert rule.advice in why

    def test_a_tenant_that_waits(self) -> None:
        for until, why in [
            (None, "the tenant is paused"),
            (NOW, "the tenant is paused until 2023-11-14T22:13:20Z"),
        ]:
            holds = {"t1": Hold("the tenant is paused", until)}
            assert forecast(letter(), known(hold=holds.get)) == Forecast(Would.WAIT, why)
            assert forecast(letter(tenant_id="t2"), known(hold=holds.get)).would is Would.SEND

    def test_a_time_beyond_the_calendar_is_told_all_the_same(self) -> None:
        forever = known(hold=lambda _tenant: Hold("the breaker is open", 1e300))
        assert forecast(letter(), forever).why == "the breaker is open until 9999-12-31T23:59:59Z"

    def test_nobody_is_asked_about_no_tenant(self) -> None:
        asked: list[str] = []
        assert forecast(letter(tenant_id=None), known(hold=asked.append)).would is Would.SEND
        assert asked == []

    def test_a_replay_that_was_broken_off(self) -> None:
        assert forecast(letter(broken_off=True), known()).would is Would.DOUBT

    def test_what_meta_may_have(self) -> None:
        assert forecast(letter(reason="in_doubt"), known()).would is Would.DOUBT

    def test_what_was_sent_after_it_failed(self) -> None:
        for sent, would in [
            ({("t1", "m1"): NOW - 59}, Would.SENT),
            ({("t1", "m1"): NOW - 61}, Would.SEND),
            ({("t2", "m1"): NOW}, Would.SEND),
        ]:
            assert forecast(letter(), known(sent=sent)).would is would

    def test_what_has_no_name_is_not_known_as_sent(self) -> None:
        for missing in ["tenant_id", "internal_id"]:
            assert forecast(letter(**{missing: None}), known(sent={("t1", "m1"): NOW})).would is Would.SEND

    def test_what_failed_nobody_knows_when_may_have_been_sent_since(self) -> None:
        assert forecast(letter(failed_at=None), known(sent={("t1", "m1"): 1.0})).would is Would.SENT

    @given(letters)
    def test_what_would_double_it_comes_first(self, one: DeadLetter) -> None:
        one = evolve(one, tenant_id="t1", internal_id="m1", failed_at=NOW, broken_off=True)
        assert forecast(one, known()).would is Would.DOUBT
        assert forecast(one, known(sent={("t1", "m1"): NOW})).would is Would.SENT


class HeldBackTests(SynchronousTestCase):
    @given(letters, st.sampled_from(Would))
    def test_force_holds_nothing_back(self, one: DeadLetter, would: Would) -> None:
        assert held_back(one, Forecast(would, ""), force=True) is None

    def test_what_could_be_doubled_is(self) -> None:
        for would, why in [
            (Would.SEND, None),
            (Would.WAIT, None),
            (Would.EXPIRE, None),
            (Would.FAIL, None),
            (Would.DOUBT, "doubt"),
            (Would.SENT, "sent"),
        ]:
            assert held_back(letter(), Forecast(would, ""), force=False) == why

    def test_what_was_replayed_often_is(self) -> None:
        for replays, why in [
            (MOST_REPLAYS - 1, None),
            (MOST_REPLAYS, "replayed_often"),
            (9, "replayed_often"),
        ]:
            assert held_back(letter(replays=replays), Forecast(Would.SEND, ""), force=False) == why


class RuleTests(SynchronousTestCase):
    def test_the_rule_of_its_code(self) -> None:
        found = rule_of(letter(error_code=131047), TABLE)
        assert found is not None
        assert found == TABLE.by_code(131047, None, "")
        assert rule_of(letter(), TABLE) is None
