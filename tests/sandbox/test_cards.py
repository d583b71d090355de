"""Cards: what a builder writes is what is read back, and ordinary numbers are no cards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.sandbox import cards
from whatsapp_egress.sandbox.cards import Card, Kind
from whatsapp_egress.sandbox.errors import entries

CODES = st.integers(0, 9_999_999)
WHO = st.integers(0, 9999)


BUILT = [
    (cards.hang(), Kind.HANG, 0),
    (cards.reset(), Kind.RESET, 0),
    (cards.close(), Kind.CLOSE, 0),
    (cards.truncated(), Kind.TRUNCATED, 0),
    (cards.stalled(), Kind.STALLED, 0),
    (cards.slow_body(7), Kind.SLOW_BODY, 7),
    (cards.delayed(8), Kind.DELAYED, 8),
    (cards.close_after(), Kind.CLOSE_AFTER, 0),
    (cards.without_id(), Kind.WITHOUT_ID, 0),
    (cards.not_json(), Kind.NOT_JSON, 0),
    (cards.empty(), Kind.EMPTY, 0),
    (cards.html(504), Kind.HTML, 504),
    (cards.redirect(307), Kind.REDIRECT, 307),
    (cards.gzip_bomb(), Kind.GZIP_BOMB, 0),
    (cards.large(3), Kind.LARGE, 3),
    (cards.cookie(), Kind.COOKIE, 0),
    (cards.held(), Kind.HELD, 0),
    (cards.paused(), Kind.PAUSED, 0),
    (cards.status(202), Kind.STATUS, 202),
    (cards.retry_after(30, first=None), Kind.RETRY_AFTER, 30),
    (cards.without_code(503), Kind.WITHOUT_CODE, 503),
    (cards.unknown_transient(500), Kind.UNKNOWN_TRANSIENT, 500),
    (cards.secret_proof(), Kind.SECRET_PROOF, 0),
]


class CardTests(SynchronousTestCase):
    @given(code=CODES, who=WHO)
    def test_an_error_card_names_its_code(self, code, who):
        assert cards.read(cards.always(code, who=who)) == Card(Kind.ERROR, code)

    @given(code=CODES, subcode=CODES)
    def test_an_error_card_can_name_a_subcode(self, code, subcode):
        assert cards.read(cards.always(code, subcode)) == Card(Kind.ERROR, code, subcode)

    @given(n=st.integers(1, 9), code=CODES, who=WHO)
    def test_a_counting_card_names_how_often(self, n, code, who):
        assert cards.read(cards.times(n, code, who=who)) == Card(Kind.ERROR, code, times=n)

    @given(who=st.integers(0, 99_999_999))
    def test_an_ordinary_number_is_no_card(self, who):
        assert cards.read(cards.ordinary(who)) is None

    def test_numbers_of_metas_examples_are_no_cards(self):
        for number in ["16505551234", "15555551234", "16315552222", "919876543210", "", "1555"]:
            assert cards.read(number) is None, number

    def test_an_unknown_behaviour_is_no_card(self):
        assert cards.read("1555999000") is None

    def test_each_builder_names_its_behaviour(self):
        for number, kind, parameter in BUILT:
            assert cards.read(number) == Card(kind, parameter=parameter), kind

    def test_every_kind_has_a_builder(self):
        assert {kind.name.lower() for kind in Kind} - {"error"} <= set(dir(cards))

    def test_a_behaviour_can_be_for_the_first_requests_only(self):
        assert cards.read(cards.hang(first=2, who=5)) == Card(Kind.HANG, times=2)

    def test_more_than_nine_times_cannot_be_said(self):
        with pytest.raises(ValueError, match="1 to 9"):
            cards.times(10, 131000)

    def test_every_row_of_the_table_can_be_named(self):
        for row in entries():
            code = int(str(row.code).partition("-")[0])
            assert cards.read(cards.always(code, row.subcode)) == Card(Kind.ERROR, code, row.subcode)
