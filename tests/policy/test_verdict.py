"""What each answer of Meta's means for the message, entry by entry of the table."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.policy.meta import DOCUMENT, ENTRIES, TABLE, codes_of
from whatsapp_egress.policy.table import ErrorClass, ErrorTable
from whatsapp_egress.policy.verdict import (
    Answer,
    Dead,
    Exchange,
    Fault,
    History,
    MetaError,
    Patience,
    Reason,
    Retry,
    Scope,
    Sent,
    Unanswered,
    Unsent,
    Verdict,
    Wait,
    classify,
    judge,
)

MISLEADING = "Rate limit hit, token expired, temporarily unavailable: please try again"
STATUSES = (302, 400, 401, 403, 404, 408, 422, 429, 500, 502, 503)
SENT = Answer(200, wamid="wamid.1", wa_id="15550001111", message_status="accepted")


FIRST, USUAL = History(), Patience()


def judged(exchange: Exchange, history: History = FIRST, patience: Patience = USUAL) -> Verdict:
    return judge(exchange, TABLE, history, patience)


def statuses_of(entry: dict[str, Any]) -> set[int]:
    own = entry["http_status"]
    return {*STATUSES, *(own if isinstance(own, list) else [own] if own else [])}


def answers_of(entry: dict[str, Any]) -> list[Answer]:
    """The entry's error with every status it may come with, and with others."""
    return [
        Answer(status, error=MetaError(code, entry["subcode"], entry.get("match_message", MISLEADING)))
        for code in codes_of(entry)
        for status in sorted(statuses_of(entry))
    ]


def entry_of(code: int) -> dict[str, Any]:
    return next(entry for entry in ENTRIES if entry["code"] == code)


def answer_with(code: int | None, status: int = 400, **fields: Any) -> Answer:
    return Answer(status, error=MetaError(code, **fields))


def fate(verdict: Verdict) -> str:
    """A verdict in a word, the way the contract's table of classes speaks of it."""
    if isinstance(verdict, Retry):
        return "fresh credentials" if verdict.reauthorize else "again"
    if isinstance(verdict, Wait):
        return f"{verdict.scope.value} waits"
    return verdict.reason.value if isinstance(verdict, Dead) else "sent"


FATES = {
    "transient": "again",
    "throttle_phone_number": "sender waits",
    "throttle_waba_or_app": "tenant waits",
    "throttle_pair": "recipient waits",
    "auth": "fresh credentials",
    "tenant_account": "rejected",
    "permanent_recipient": "rejected",
    "permanent_payload": "rejected",
    "permanent_policy": "rejected",
    "template": "rejected",
}
FATES_OF_A_SECOND_TIME = {**FATES, "auth": "auth_failed"}


class EveryEntryTests(SynchronousTestCase):
    def test_the_code_decides_the_class_whatever_the_status(self) -> None:
        for entry in ENTRIES:
            for answer in answers_of(entry):
                assert classify(answer, TABLE).error_class == entry["our_class"], (entry, answer)
            assert classify(evolve(answer, status=200), TABLE).error_class == entry["our_class"]

    def test_the_class_decides_the_first_verdict(self) -> None:
        for entry in ENTRIES:
            if entry["retry"] == "once" and entry["our_class"] != "auth":
                continue
            for answer in answers_of(entry):
                assert fate(judged(answer)) == FATES[entry["our_class"]], (entry, answer)

    def test_the_class_decides_the_verdict_after_the_one_more_attempt(self) -> None:
        again = History(attempts=2, reauthorized=True, repeated=True)
        for entry in ENTRIES:
            for answer in answers_of(entry):
                expected = FATES_OF_A_SECOND_TIME[entry["our_class"]]
                assert fate(judged(answer, again)) == expected, (entry, answer)

    def test_once_grants_one_more_attempt(self) -> None:
        granted = {entry["code"] for entry in ENTRIES if entry["retry"] == "once"} - {0, 102, 104, 190}
        assert granted == {131014, 131053, 100}
        for entry in ENTRIES:
            if entry["retry"] == "once" and entry["our_class"] != "auth":
                verdict = judged(answers_of(entry)[0])
                assert isinstance(verdict, Retry)
                assert verdict.once

    def test_each_fault_says_what_the_answer_said(self) -> None:
        for entry in ENTRIES:
            for answer in answers_of(entry):
                verdict = judged(answer)
                assert not isinstance(verdict, Sent)
                fault, error = verdict.fault, answer.error
                assert fault is not None
                assert error is not None
                assert fault.error_class == entry["our_class"]
                assert (fault.code, fault.subcode) == (error.code, error.subcode)
                assert fault.http_status == answer.status

    def test_what_meta_may_have_sent_is_in_doubt_where_the_operator_wants_no_doubles(self) -> None:
        for entry in ENTRIES:
            for answer in answers_of(entry):
                verdict = judged(answer, patience=Patience(retry_ambiguous=False))
                in_doubt = isinstance(verdict, Dead) and verdict.reason is Reason.IN_DOUBT
                assert in_doubt == entry["ambiguous_delivery"], (entry, answer)

    def test_each_wait_is_as_long_as_the_table_says_at_the_least(self) -> None:
        for entry in ENTRIES:
            verdict = judged(answers_of(entry)[0])
            if isinstance(verdict, (Retry, Wait)):
                assert verdict.floor >= entry.get("min_delay_s", 0), entry

    def test_no_entry_overrules_a_2xx(self) -> None:
        for entry in ENTRIES:
            assert fate(judged(evolve(answers_of(entry)[0], status=200))) == "in_doubt", entry


class SentTests(SynchronousTestCase):
    def test_a_2xx_with_an_id_is_sent(self) -> None:
        assert judged(SENT) == Sent("wamid.1", "15550001111", "accepted")

    def test_any_2xx_will_do(self) -> None:
        assert [fate(judged(evolve(SENT, status=status))) for status in (201, 202, 299)] == ["sent"] * 3

    def test_held_or_paused_is_sent(self) -> None:
        verdict = judged(evolve(SENT, message_status="held_for_quality_assessment"))

        assert verdict == Sent("wamid.1", "15550001111", "held_for_quality_assessment")

    def test_a_mark_as_read_is_sent_without_an_id(self) -> None:
        assert judged(Answer(200, success=True)) == Sent()

    def test_an_id_with_another_status_is_not_sent(self) -> None:
        assert fate(judged(evolve(SENT, status=500))) == "again"


class InDoubtTests(SynchronousTestCase):
    def test_a_2xx_that_says_neither_is_never_sent_again(self) -> None:
        for exchange in (Answer(200), Answer(204), Answer(200, complete=False)):
            for history in (History(), History(attempts=2, reauthorized=True, repeated=True)):
                verdict = judged(exchange, history)
                assert fate(verdict) == "in_doubt", exchange

    def test_it_says_which_status_came_without_an_id(self) -> None:
        verdict = judged(Answer(202))

        assert isinstance(verdict, Dead)
        assert verdict.detail == "HTTP 202 without a message id"
        assert verdict.fault == Fault("HTTP 202", ErrorClass.TRANSIENT, http_status=202)

    def test_it_says_that_the_body_broke_off(self) -> None:
        verdict = judged(Answer(200, complete=False))

        assert isinstance(verdict, Dead)
        assert verdict.fault is not None
        assert verdict.fault.detail == "HTTP 200, broken off"

    def test_an_unanswered_request_is_tried_again_by_default(self) -> None:
        assert fate(judged(Unanswered("connection lost"))) == "again"

    def test_an_unanswered_request_is_in_doubt_where_the_operator_wants_no_doubles(self) -> None:
        verdict = judged(Unanswered("connection lost"), patience=Patience(retry_ambiguous=False))

        assert isinstance(verdict, Dead)
        assert (verdict.reason, verdict.detail) == (Reason.IN_DOUBT, "connection lost")

    def test_what_was_never_written_is_in_no_doubt(self) -> None:
        patience = Patience(retry_ambiguous=False)

        assert fate(judged(Unsent("connection refused"), patience=patience)) == "again"


class StatusTests(SynchronousTestCase):
    """Answers whose code is missing or unknown."""

    def first(self, status: int, **fields: Any) -> list[str]:
        unknown = [MetaError(code, is_transient=False) for code in (None, 999_999)]
        return [fate(judged(Answer(status, error=error, **fields))) for error in (None, *unknown)]

    def test_5xx_is_tried_again(self) -> None:
        for status in (500, 502, 503, 504, 599):
            assert self.first(status) == ["again"] * 3

    def test_5xx_is_ambiguous(self) -> None:
        assert fate(judged(Answer(502), patience=Patience(retry_ambiguous=False))) == "in_doubt"

    def test_429_stops_the_number(self) -> None:
        assert self.first(429) == ["sender waits"] * 3

    def test_401_and_403_ask_for_fresh_credentials(self) -> None:
        assert self.first(401) == self.first(403) == ["fresh credentials"] * 3

    def test_404_and_the_other_4xx_are_rejected(self) -> None:
        for status in (400, 404, 408, 413, 422, 499):
            assert self.first(status) == ["rejected"] * 3

    def test_a_4xx_that_broke_off_is_tried_again(self) -> None:
        assert self.first(400, complete=False) == ["again"] * 3

    def test_a_redirect_is_tried_again(self) -> None:
        assert self.first(302) == ["again"] * 3

    def test_is_transient_decides_for_an_unknown_code(self) -> None:
        for status in (400, 403, 404, 429, 500):
            assert fate(judged(answer_with(999_999, status, is_transient=True))) == "again", status

    def test_is_transient_does_not_decide_for_a_known_code(self) -> None:
        assert fate(judged(answer_with(131026, is_transient=True))) == "rejected"


class RetryTests(SynchronousTestCase):
    def fates(self, exchange: Exchange, max_retries: int, already: int = 0) -> list[str]:
        patience = Patience(max_retries)
        attempts = range(already + 1, already + 6)
        return [fate(judged(exchange, History(attempts=n), patience)) for n in attempts]

    def test_there_are_as_many_more_attempts_as_the_operator_grants(self) -> None:
        assert self.fates(answer_with(131000), 3) == ["again"] * 3 + ["retries_exhausted"] * 2

    def test_none_where_the_operator_grants_none(self) -> None:
        assert self.fates(Unsent("refused"), 0) == ["retries_exhausted"] * 5

    def test_the_attempts_made_before_count(self) -> None:
        assert self.fates(Unsent("refused"), 3, already=2)[:2] == ["again", "retries_exhausted"]

    def test_fresh_credentials_are_tried_once(self) -> None:
        verdict = judged(answer_with(190, 401), History(attempts=2, reauthorized=True))

        assert isinstance(verdict, Dead)
        assert verdict.reason is Reason.AUTH_FAILED
        assert verdict.detail == "190: Access token has expired"

    def test_a_late_auth_error_still_gets_fresh_credentials(self) -> None:
        assert fate(judged(answer_with(190, 401), History(attempts=9))) == "fresh credentials"

    def test_the_one_more_attempt_does_not_depend_on_earlier_ones(self) -> None:
        assert fate(judged(answer_with(131053), History(attempts=9))) == "again"


class DelayTests(SynchronousTestCase):
    def floor(self, answer: Answer) -> float:
        verdict = judged(answer)
        assert isinstance(verdict, (Retry, Wait))
        return verdict.floor

    def test_a_throttle_is_ten_seconds_at_the_least(self) -> None:
        assert [self.floor(answer_with(code)) for code in (4, 80007, 130429)] == [10, 10, 10]
        assert self.floor(Answer(429)) == 10

    def test_the_spam_throttle_is_ten_minutes_at_the_least(self) -> None:
        assert self.floor(answer_with(131048)) >= 600

    def test_it_is_so_even_where_the_table_names_no_delay(self) -> None:
        spam = {name: value for name, value in entry_of(131048).items() if name != "min_delay_s"}
        table = ErrorTable.parse(json.dumps({**DOCUMENT, "entries": [spam]}).encode())
        verdict = judge(answer_with(131048), table, FIRST, USUAL)

        assert isinstance(verdict, Wait)
        assert verdict.floor == 600

    def test_a_pair_throttle_begins_with_its_own_six_seconds(self) -> None:
        assert self.floor(answer_with(131056)) == 6

    def test_the_tables_delay_counts_for_a_retry(self) -> None:
        assert self.floor(answer_with(131057)) == 60

    def test_retry_after_lengthens_the_wait_of_a_throttle(self) -> None:
        for code in (4, 130429, 131048, 131056):
            assert self.floor(evolve(answer_with(code), retry_after=5000.0)) == 5000, code

    def test_a_retry_waits_no_longer_for_it_than_for_anything_else(self) -> None:
        for code in (131000, 190, 131053):
            floors = [self.floor(evolve(answer_with(code), retry_after=after)) for after in (30.0, 5000.0)]
            assert floors == [30, 60], code

    def test_retry_after_never_shortens_the_wait(self) -> None:
        for code in (4, 130429, 131048, 131056, 131057, 131000):
            answer = answer_with(code)
            assert self.floor(evolve(answer, retry_after=0.5)) == max(0.5, self.floor(answer)), code

    def test_a_retry_after_that_would_be_for_ever_is_a_day(self) -> None:
        assert self.floor(evolve(answer_with(130429), retry_after=1e17)) == 86_400

    def test_retry_after_does_not_revive_a_dead_message(self) -> None:
        assert fate(judged(evolve(answer_with(131026), retry_after=5.0))) == "rejected"

    def test_waits_say_who_waits(self) -> None:
        scopes = {}
        for code in (4, 80007, 130429, 131048, 131056):
            verdict = judged(answer_with(code))
            assert isinstance(verdict, Wait)
            scopes[code] = verdict.scope

        assert scopes == {
            4: Scope.TENANT,
            80007: Scope.TENANT,
            130429: Scope.SENDER,
            131048: Scope.SENDER,
            131056: Scope.RECIPIENT,
        }


class FaultTests(SynchronousTestCase):
    def detail(self, exchange: Exchange) -> str:
        verdict = judged(exchange, History(attempts=9))
        assert isinstance(verdict, Dead)
        assert verdict.fault is not None
        assert verdict.detail == verdict.fault.detail
        return verdict.detail

    def test_metas_details_go_before_its_message_and_that_before_the_title(self) -> None:
        assert self.detail(answer_with(131026, message="m", details="d")) == "131026: d"
        assert self.detail(answer_with(131026, message="m")) == "131026: m"
        assert self.detail(answer_with(131026)) == "131026: Message undeliverable"

    def test_an_error_without_a_code_says_so(self) -> None:
        assert self.detail(answer_with(None, message="strange")) == "no code: strange"

    def test_an_answer_without_an_error_says_its_status(self) -> None:
        assert self.detail(Answer(418)) == "HTTP 418"

    def test_a_broken_exchange_says_its_cause(self) -> None:
        assert self.detail(Unsent("connection\nrefused")) == "connection refused"

    def test_it_is_one_line_of_printable_characters(self) -> None:
        detail = self.detail(answer_with(131026, details="a\r\nb\x00c\u2028d   e\x1b[31m"))

        assert detail == "131026: a b c d e [31m"

    def test_it_is_of_bounded_length(self) -> None:
        assert len(self.detail(answer_with(131026, details="x" * 10_000))) == 500

    def test_a_trace_is_one_line_of_bounded_length(self) -> None:
        verdict = judged(answer_with(131026, fbtrace_id="A\n" * 10_000))

        assert isinstance(verdict, Dead)
        assert verdict.fault is not None
        assert verdict.fault.fbtrace_id == ("A " * 50)

    def test_it_carries_metas_trace(self) -> None:
        verdict = judged(answer_with(131026, fbtrace_id="Abc", subcode=7))

        assert isinstance(verdict, Dead)
        assert verdict.fault is not None
        assert (verdict.fault.fbtrace_id, verdict.fault.subcode) == ("Abc", 7)
