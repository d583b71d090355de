"""The directory of tenants: its defaults, its tokens and its modes."""

import pytest
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.sandbox.tenants import (
    TenantError,
    Tenants,
    UnknownTenantError,
    expired,
    settings_of,
    tenant,
)


class TenantsTests(SynchronousTestCase):
    def setUp(self):
        self.tenants = Tenants()

    def test_the_default_tenants_are_always_the_same(self):
        first = tenant(1)

        assert (first.id, first.phone_number_id, first.token) == ("acme", "100000001", "EAAsandbox000001ZD")
        assert tenant(9).id == "tenant-9"

    def test_tenants_that_are_added_without_a_word_are_the_default_ones(self):
        assert [self.tenants.add(), self.tenants.add()] == [tenant(1), tenant(2)]

    def test_an_added_tenant_has_what_was_said_of_it(self):
        added = self.tenants.add("t1", phone_number_id="777", token="secret", messages_per_second=5)

        assert (added.id, added.phone_number_id, added.token, added.messages_per_second) == (
            "t1",
            "777",
            "secret",
            5,
        )

    def test_a_rotated_token_is_known_as_an_old_one(self):
        old = self.tenants.add("t1").token
        new = self.tenants.rotate("t1").token

        assert self.tenants.by_token(new) == self.tenants.get("t1")
        assert (self.tenants.by_token(old), self.tenants.had_token(old)) == (None, "t1")

    def test_a_removed_tenant_is_unknown_and_so_is_its_token(self):
        token = self.tenants.add("t1").token
        self.tenants.remove("t1")

        assert self.tenants.by_token(token) is None
        with pytest.raises(UnknownTenantError):
            self.tenants.get("t1")

    def test_a_mode_ends_after_its_count(self):
        self.tenants.add("t1", mode="500", until=2)

        assert [self.tenants.next_mode("t1")[0] for _ in range(3)] == ["500", "500", "ok"]

    def test_an_outage_goes_before_a_tenants_own_mode_and_ends_after_its_count(self):
        self.tenants.add("t1", mode="404")
        self.tenants.outage("503", until=1)

        assert [self.tenants.next_mode("t1")[0] for _ in range(2)] == ["503", "404"]

    def test_a_token_runs_out(self):
        limited = Tenants().add("t1", expires_at="1970-01-01T00:01:00Z")

        assert (expired(limited, 59), expired(limited, 60)) == (False, True)

    def test_a_tenant_that_makes_no_sense_is_refused(self):
        for wrong in [
            {"mode": "odd"},
            {"mode": "200"},
            {"token": 5},
            {"expires_at": "tomorrow"},
            {"until": "x"},
        ]:
            with pytest.raises(TenantError):
                self.tenants.add("t1", **wrong)

    def test_json_names_become_the_names_of_python(self):
        document = {"phoneNumberId": "1", "rateLimits": {"messagesPerSecond": 5}, "servedToken": "x"}

        assert settings_of(document) == {
            "phone_number_id": "1",
            "messages_per_second": 5,
            "messages_per_day": None,
            "served_token": "x",
        }

    def test_an_unknown_json_name_is_refused(self):
        with pytest.raises(TenantError, match="unknown: phone"):
            settings_of({"phone": "1"})
