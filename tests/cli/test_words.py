from __future__ import annotations

import click
import pytest
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.cli.durations import Duration, Moment, lasting, when
from whatsapp_egress.cli.privacy import without_numbers
from whatsapp_egress.cli.tables import columns, counted, pairs
from whatsapp_egress.cli.trouble import plain

NOW = 1_764_000_000.0  # 2025-11-24T16:00:00Z


class Durations(SynchronousTestCase):
    def test_are_read_with_their_units(self) -> None:
        expected = {
            "90s": 90.0,
            "15m": 900.0,
            "2h": 7200.0,
            "1d": 86_400.0,
            "1h30m": 5400.0,
            "0.5s": 0.5,
            "1.5h": 5400.0,
        }
        assert {text: Duration().convert(text, None, None) for text in expected} == expected

    def test_without_a_unit_or_with_another_they_are_refused(self) -> None:
        for text in ("90", "", "m", "1w", "1h 30m", "-5m", "1h,", "1e3s", "٣s"):
            with pytest.raises(click.BadParameter):
                Duration().convert(text, None, None)

    def test_are_told_in_two_units(self) -> None:
        expected = {
            0: "0 ms",
            0.44: "440 ms",
            2.46: "2.5 s",
            12.4: "12 s",
            59.4: "59 s",
            60: "1 min",
            125: "2 min 5 s",
            3599: "59 min 59 s",
            3600: "1 h",
            11_100: "3 h 5 min",
            86_400: "1 d",
            190_000: "2 d 4 h",
        }
        assert {seconds: lasting(seconds) for seconds in expected} == expected


class Moments(SynchronousTestCase):
    def test_are_utc_unless_they_say_otherwise(self) -> None:
        for text in ("2025-11-24T16:00:00Z", "2025-11-24T16:00:00", "2025-11-24T17:00:00+01:00"):
            assert Moment().convert(text, None, None) == "2025-11-24T16:00:00.000Z"

    def test_what_is_no_time_is_refused(self) -> None:
        for text in ("tomorrow", "", "2025-13-01", "9999-99-99T00:00:00Z"):
            with pytest.raises(click.BadParameter):
                Moment().convert(text, None, None)

    def test_are_told_with_their_age(self) -> None:
        assert when("2025-11-24T15:48:00.500Z", NOW) == "15:48:00Z (12 min ago)"
        assert when("2025-11-24T17:00:00+01:00", NOW) == "16:00:00Z (in 0 ms)"
        assert when("2025-11-24T16:30:00Z", NOW) == "16:30:00Z (in 30 min)"
        assert when("2025-11-22T16:00:00Z", NOW) == "2025-11-22T16:00:00Z (2 d ago)"

    def test_what_the_gateway_did_not_say_is_a_dash_and_what_is_no_time_stays(self) -> None:
        assert when(None, NOW) == "-"
        assert when("soon", NOW) == "soon"


class Tables(SynchronousTestCase):
    def test_are_aligned_also_with_colours_in_them(self) -> None:
        table = columns(["tenant", ">sent"], [["acme", "5"], [click.style("b", fg="red"), "1234"]])
        assert click.unstyle(table) == "tenant  sent\nacme       5\nb       1234"

    def test_lists_leave_out_what_is_empty(self) -> None:
        assert click.unstyle(pairs([("a", "1"), ("long", ""), ("bc", "2")])) == "a   1\nbc  2"

    def test_counts_have_their_plural(self) -> None:
        assert [counted(1, "lane"), counted(2, "lane"), counted(0, "ox", "oxen")] == [
            "1 lane",
            "2 lanes",
            "0 oxen",
        ]


class Privacy(SynchronousTestCase):
    def test_numbers_are_cut_and_ids_stay(self) -> None:
        document = {
            "id": "0" * 32,
            "tenantId": "15551234567",
            "phoneNumberId": "106540352242922",
            "internalId": "20251124001",
            "detail": "Recipient 15551234567 is not on WhatsApp",
            "body": {
                "metadata": {"phoneNumberId": "106540352242922"},
                "wabaPayload": {
                    "to": "+1 555 123 4567",
                    "text": {"body": "call 15557654321"},
                    "recipient": "x",
                },
            },
            "list": [{"wa_id": "15551234567"}],
            "to": "***4567",
        }
        assert without_numbers(document) == {
            **document,
            "detail": "Recipient ***4567 is not on WhatsApp",
            "body": {
                "metadata": {"phoneNumberId": "106540352242922"},
                "wabaPayload": {"to": "***4567", "text": {"body": "call ***4321"}, "recipient": "***"},
            },
            "list": [{"wa_id": "***4567"}],
        }


class Errors(SynchronousTestCase):
    def test_are_told_without_class_names(self) -> None:
        assert plain("ConnectionRefusedError: Connection refused.") == "Connection refused"
        assert plain(ValueError("TLS handshake: expired")) == "TLS handshake: expired"
