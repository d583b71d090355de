"""Looking up Meta's error table."""

import json

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.policy.meta import DOCUMENT, ENTRIES, TABLE, codes_of
from whatsapp_egress.policy.table import Case, ErrorClass, ErrorTable


class EntryTests(SynchronousTestCase):
    def test_every_entry_is_found_by_what_it_names(self) -> None:
        for entry in ENTRIES:
            for code in codes_of(entry):
                rule = TABLE.by_code(code, entry["subcode"], entry.get("match_message", ""))

                assert rule is not None
                assert rule.title == entry["title"]
                assert rule.error_class == entry["our_class"]
                assert rule.once == (entry["retry"] == "once")
                assert rule.ambiguous == entry["ambiguous_delivery"]
                assert rule.min_delay == entry.get("min_delay_s", 0)
                assert (rule.scope, rule.advice) == (entry["scope"], entry["advice"])

    def test_an_unknown_subcode_falls_back_to_its_code(self) -> None:
        for entry in ENTRIES:
            if entry["subcode"] is None:
                for code in codes_of(entry):
                    message = entry.get("match_message", "")
                    assert TABLE.by_code(code, 987654321, message) == TABLE.by_code(code, None, message)

    def test_a_subcode_goes_before_its_code(self) -> None:
        rule = TABLE.by_code(100, 33, "")

        assert rule is not None
        assert rule.error_class is ErrorClass.TENANT_ACCOUNT

    def test_a_subcode_goes_before_the_message(self) -> None:
        rule = TABLE.by_code(100, 33, "appsecret_proof is required")

        assert rule is not None
        assert rule.error_class is ErrorClass.TENANT_ACCOUNT

    def test_the_message_decides_where_an_entry_says_so_however_it_is_written(self) -> None:
        rule = TABLE.by_code(100, None, "Invalid AppSecret_Proof provided")

        assert rule is not None
        assert rule.error_class is ErrorClass.AUTH

    def test_the_message_decides_nothing_else(self) -> None:
        assert TABLE.by_code(131000, None, "appsecret_proof") == TABLE.by_code(131000, None, "")

    def test_a_range_ends_where_it_says(self) -> None:
        assert [TABLE.by_code(code, None, "") for code in (199, 300)] == [None, None]

    def test_an_unknown_code_has_no_rule(self) -> None:
        assert TABLE.by_code(999_999_999, None, "") is None

    def test_no_code_has_no_rule(self) -> None:
        assert TABLE.by_code(None, 33, "appsecret_proof") is None


class StatusTests(SynchronousTestCase):
    def test_each_status_has_its_case(self) -> None:
        expected = {
            200: Case.UNIDENTIFIED,
            299: Case.UNIDENTIFIED,
            400: Case.CLIENT_ERROR,
            401: Case.UNAUTHORIZED,
            403: Case.FORBIDDEN,
            404: Case.NOT_FOUND,
            418: Case.CLIENT_ERROR,
            429: Case.TOO_MANY,
            500: Case.SERVER_ERROR,
            503: Case.SERVER_ERROR,
            599: Case.SERVER_ERROR,
        }

        for status, case in expected.items():
            assert TABLE.by_status(status) == TABLE.case(case), status

    def test_a_redirect_is_not_metas_and_passes(self) -> None:
        for status in (101, 301, 302, 307, 399):
            rule = TABLE.by_status(status)
            assert rule.error_class is ErrorClass.TRANSIENT, status
            assert not rule.ambiguous

    def test_a_no_whose_reason_was_cut_off_passes(self) -> None:
        rule = TABLE.by_status(400, complete=False)

        assert rule.error_class is ErrorClass.TRANSIENT
        assert not rule.ambiguous

    def test_a_status_that_says_enough_needs_no_body(self) -> None:
        for status in (200, 401, 403, 404, 429, 502):
            assert TABLE.by_status(status, complete=False) == TABLE.by_status(status), status


class ParsingTests(SynchronousTestCase):
    def test_every_transport_case_that_needs_a_rule_has_the_tables(self) -> None:
        rows = {row["case"]: row for row in DOCUMENT["transport"]}

        for case in Case:
            row = rows[case.value]
            assert TABLE.case(case).error_class == row["our_class"]
            assert TABLE.case(case).ambiguous == row["ambiguous_delivery"]

    def test_a_table_without_a_transport_case_is_refused(self) -> None:
        rows = [row for row in DOCUMENT["transport"] if row["case"] != Case.UNANSWERED.value]

        with pytest.raises(ValueError, match="read timeout"):
            ErrorTable.parse(json.dumps({"entries": [], "transport": rows}).encode())

    def test_a_class_nobody_knows_is_refused(self) -> None:
        entry = {**ENTRIES[0], "our_class": "odd"}

        with pytest.raises(ValueError, match="odd"):
            ErrorTable.parse(json.dumps({"entries": [entry], "transport": []}).encode())
