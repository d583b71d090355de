"""What the end of an attempt says: of the tenant and its road, or of nobody but the message."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.policy.meta import ENTRIES, TABLE, codes_of
from whatsapp_egress.policy.blame import Word, answered, kind, word
from whatsapp_egress.policy.table import ErrorClass
from whatsapp_egress.policy.verdict import (
    EXPIRED,
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
    judge,
)


def verdict_on(exchange: Exchange, *, last: bool = True) -> Verdict:
    """What is made of it; `last`: no attempt is left, be it with fresh credentials."""
    return judge(exchange, TABLE, History(100 if last else 1, reauthorized=last, repeated=last), Patience())


def refusal(code: int, *, status: int = 400, subcode: int | None = None) -> Answer:
    return Answer(status, error=MetaError(code, subcode))


class WordTests(SynchronousTestCase):
    def test_what_was_sent_says_that_all_is_well(self) -> None:
        assert word(Sent("wamid.1")) is Word.WELL

    def test_what_was_cut_off_says_nothing(self) -> None:
        assert word(None) is Word.NOTHING

    def test_transient_failures_are_trouble_whether_tried_again_or_not(self) -> None:
        for exchange in (Unsent("refused"), Unanswered("timeout"), Answer(503), refusal(131000)):
            for last in (False, True):
                with self.subTest(exchange=exchange, last=last):
                    assert word(verdict_on(exchange, last=last)) is Word.TROUBLE

    def test_an_answer_that_nobody_can_make_sense_of_is_trouble(self) -> None:
        assert word(verdict_on(Answer(200))) is Word.TROUBLE

    def test_the_first_refusal_of_a_token_says_nothing_yet(self) -> None:
        assert word(verdict_on(refusal(190, status=401), last=False)) is Word.NOTHING

    def test_the_refusal_of_fresh_credentials_is_trouble(self) -> None:
        assert word(verdict_on(refusal(190, status=401))) is Word.TROUBLE

    def test_a_throttle_is_no_trouble(self) -> None:
        for code in (130429, 131048, 131056, 80007, 4):
            assert word(verdict_on(refusal(code))) is Word.NOTHING, code

    def test_credentials_that_cannot_be_had_say_nothing_of_meta(self) -> None:
        assert word(Wait(Fault("no credentials"), Scope.TENANT)) is Word.NOTHING

    def test_what_never_went_to_meta_says_nothing(self) -> None:
        for dead in (EXPIRED, Dead(Reason.TENANT_NOT_FOUND, "not known")):
            assert word(dead) is Word.NOTHING

    def test_of_all_errors_only_those_of_the_tenant_or_its_road_are_trouble(self) -> None:
        for entry in ENTRIES:
            of_the_road = entry["our_class"] in ("transient", "auth", "tenant_account")
            for code in codes_of(entry):
                message = entry.get("match_message", "")
                error = MetaError(code, entry["subcode"], message)
                with self.subTest(code=code, subcode=entry["subcode"], message=message):
                    said = word(verdict_on(Answer(400, error=error)))
                    assert said is (Word.TROUBLE if of_the_road else Word.NOTHING)


class AnsweredTests(SynchronousTestCase):
    def test_a_yes_is_an_answer(self) -> None:
        assert answered(Sent("wamid.1"))

    def test_a_no_for_the_message_is_one_too(self) -> None:
        for code in (131026, 132001, 100):
            assert answered(verdict_on(refusal(code))), code

    def test_a_no_that_grants_one_more_attempt_is_one_too(self) -> None:
        for code in (131053, 190):
            assert answered(verdict_on(refusal(code), last=False)), code

    def test_trouble_is_none(self) -> None:
        for exchange in (Unsent("refused"), Unanswered("timeout"), Answer(503), refusal(131031)):
            for last in (False, True):
                assert not answered(verdict_on(exchange, last=last)), exchange

    def test_a_throttle_is_none(self) -> None:
        assert not answered(verdict_on(refusal(130429)))

    def test_where_meta_was_not_asked_there_is_none(self) -> None:
        for verdict in (None, EXPIRED, Wait(Fault("no credentials"), Scope.TENANT)):
            assert not answered(verdict)


class KindTests(SynchronousTestCase):
    def test_troubles_with_the_same_cause_are_the_same(self) -> None:
        first, second = (
            Answer(500, error=MetaError(131000, message=text, fbtrace_id=text)) for text in ("one", "two")
        )

        assert kind(verdict_on(first)) == kind(verdict_on(second))

    def test_they_are_the_same_whether_tried_again_or_not(self) -> None:
        assert kind(verdict_on(Answer(503))) == kind(verdict_on(Answer(503), last=False))

    def test_different_codes_statuses_and_classes_are_different(self) -> None:
        kinds = {
            kind(verdict_on(exchange))
            for exchange in (
                Answer(502),
                Answer(503),
                refusal(131000, status=500),
                refusal(131016, status=500),
                refusal(131016, status=503),
                refusal(190, status=401),
                Unsent("refused"),
            )
        }

        assert len(kinds) == 7

    def test_a_throttle_has_a_kind(self) -> None:
        throttle = Fault("slow down", ErrorClass.THROTTLE_PHONE_NUMBER, code=130429)

        assert kind(Wait(throttle, Scope.SENDER)) != kind(Sent())

    def test_what_had_no_fault_is_all_of_one_kind(self) -> None:
        assert kind(None) == kind(Sent("wamid.1")) == kind(EXPIRED)

    def test_an_attempt_with_a_fault_of_another_class_is_another_kind(self) -> None:
        transient = Retry(Fault("", ErrorClass.TRANSIENT, http_status=400))
        account = Dead(Reason.REJECTED, "", Fault("", ErrorClass.TENANT_ACCOUNT, http_status=400))

        assert kind(transient) != kind(account)
