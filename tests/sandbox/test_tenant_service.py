"""The Tenant Service over sockets."""

import pytest
from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.web.client import ResponseNeverReceived

from tests.sandbox.served import SandboxTestCase, eventually
from whatsapp_egress.sandbox.server import Sandbox


class CredentialsTests(SandboxTestCase):
    async def test_credentials_are_told_as_the_contract_has_them(self):
        status, body = await self.fetch()

        validated = body.pop("lastValidated")
        assert isinstance(body["credentials"]["rateLimits"]["messagesPerSecond"], int)
        assert validated.endswith("Z")
        assert (status, body) == (
            200,
            {
                "tenantId": "acme",
                "credentialType": "whatsapp",
                "status": "active",
                "expiresAt": None,
                "credentials": {
                    "systemUserAccessToken": "EAAsandbox000001ZD",
                    "phoneNumberId": "100000001",
                    "businessAccountId": "200000001",
                    "rateLimits": {"messagesPerSecond": 80, "messagesPerDay": 100_000},
                },
            },
        )

    async def test_an_unknown_tenant_is_404(self):
        assert (await self.fetch("nobody"))[0] == 404

    async def test_another_type_is_400(self):
        assert (await self.fetch(query="?type=sms"))[0] == 400

    async def test_another_path_is_404(self):
        assert (await self.fetch("acme/x"))[0] == 404

    async def test_limits_that_are_not_set_are_left_out(self):
        self.sandbox.tenants.change("acme", messages_per_second=None, messages_per_day=None)

        assert (await self.fetch())[1]["credentials"]["rateLimits"] == {}

    async def test_another_token_can_be_told_than_the_graph_api_takes(self):
        self.sandbox.tenants.change("acme", served_token="wrong")

        assert (await self.fetch())[1]["credentials"]["systemUserAccessToken"] == "wrong"
        assert (await self.send("1"))[0] == 200

    async def test_fetches_are_counted_for_each_tenant(self):
        for tenant in ("acme", "acme", "nobody"):
            await self.fetch(tenant)

        assert self.sandbox.fetches.count == 3
        assert self.sandbox.fetches.by_tenant == {"acme": 2, "nobody": 1}
        assert self.sandbox.fetches.by_status == {"200": 2, "404": 1}


class ModeTests(SandboxTestCase):
    async def test_a_mode_may_be_any_status_for_some_fetches(self):
        self.sandbox.tenants.change("acme", mode="503", until=2)

        assert [(await self.fetch())[0] for _ in range(3)] == [503, 503, 200]

    async def test_suspended_and_expired_are_told_as_status(self):
        for mode in ("suspended", "expired"):
            self.sandbox.tenants.change("acme", mode=mode)
            status, body = await self.fetch()

            assert (status, body["status"]) == (200, mode)

    async def test_junk_is_no_json(self):
        self.sandbox.tenants.change("acme", mode="junk")
        response = await self.credentials()

        assert (response.code, await response.text()) == (200, "<html>It works!</html>")

    async def test_empty_is_an_empty_object(self):
        self.sandbox.tenants.change("acme", mode="empty")

        assert await self.fetch() == (200, {})

    async def test_the_token_may_be_missing(self):
        self.sandbox.tenants.change("acme", mode="no_token")

        assert "systemUserAccessToken" not in (await self.fetch())[1]["credentials"]

    async def test_reset_breaks_the_connection(self):
        self.sandbox.tenants.change("acme", mode="reset")

        with pytest.raises(ResponseNeverReceived):
            await self.credentials()

    async def test_hang_never_answers(self):
        self.sandbox.tenants.change("acme", mode="hang")
        ends = []
        self.credentials().addBoth(ends.append)
        await eventually(lambda: self.sandbox.deliveries.in_flight)
        await self.fetch("bravo")
        before = list(ends)
        await self.sandbox.stopService()
        await eventually(lambda: ends)

        assert before == []
        assert ends[0].check(ResponseNeverReceived)

    async def test_an_outage_is_everyones(self):
        self.sandbox.tenants.outage("500")

        assert [(await self.fetch(tenant))[0] for tenant in ("acme", "bravo")] == [500, 500]


class SlowTests(SandboxTestCase):
    def make_sandbox(self):
        self.clock = Clock()
        return Sandbox(reactor, clock=self.clock)

    async def test_slow_answers_after_its_time(self):
        self.sandbox.tenants.change("acme", mode="slow", slow_ms=700)
        asked = self.credentials()
        await eventually(self.clock.getDelayedCalls)
        self.clock.advance(0.7)

        assert (await asked).code == 200


class ServiceTokenTests(SandboxTestCase):
    def make_sandbox(self):
        return Sandbox(reactor, tenant_service_token="t0p")

    async def test_without_the_token_there_is_no_answer(self):
        assert (await self.fetch())[0] == 401

    async def test_with_another_token_there_is_no_answer(self):
        assert (await self.fetch(headers={"Authorization": "Bearer other"}))[0] == 401

    async def test_with_the_token_there_is_one(self):
        assert (await self.fetch(headers={"Authorization": "Bearer t0p"}))[0] == 200
