"""Error bodies: worded as Meta words them, for every row of the table."""

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.sandbox.errors import entries, error_for


def body(*code):
    return msgspec.json.decode(error_for(*code).body("TRACE"))["error"]


class ErrorTests(SynchronousTestCase):
    def test_a_whatsapp_error_has_the_fields_of_metas(self):
        error = body(131026)

        details = error.pop("error_data")
        assert error == {
            "message": "(#131026) Message undeliverable",
            "type": "OAuthException",
            "code": 131026,
            "fbtrace_id": "TRACE",
        }
        assert details["messaging_product"] == "whatsapp"
        assert details["details"].startswith("Not a WhatsApp number")

    def test_a_graph_error_has_no_error_data(self):
        assert "error_data" not in body(4)

    def test_each_row_gives_its_code_subcode_and_status(self):
        for row in [row for row in entries() if row.match_message is None]:
            code = int(str(row.code).partition("-")[0])
            listed = row.http_status if isinstance(row.http_status, list) else [row.http_status or 400]

            error = error_for(code, row.subcode)

            assert (error.code, error.subcode, error.http_status) == (code, row.subcode, listed[0])

    def test_a_code_within_a_range_is_found(self):
        assert error_for(299).http_status == 403

    def test_a_subcode_that_the_table_lacks_falls_back_to_its_code(self):
        error = error_for(130429, 2494055)

        assert (error.message, error.subcode) == ("(#130429) Rate limit hit", 2494055)

    def test_a_code_that_no_table_has_comes_with_400(self):
        error = error_for(999999)

        assert (error.code, error.http_status) == (999999, 400)

    def test_code_100_never_speaks_of_the_secret_proof_by_chance(self):
        assert "appsecret_proof" not in error_for(100).message
