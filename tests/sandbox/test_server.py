"""The sandbox as a whole: its record, its connections, and how it stops and starts."""

from pathlib import Path

import msgspec
import pytest
from twisted.internet import reactor
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.web.client import ResponseNeverReceived

from tests.sandbox.served import SandboxTestCase
from whatsapp_egress.sandbox import cards
from whatsapp_egress.sandbox.server import Sandbox


class RecordTests(SandboxTestCase):
    async def test_a_request_is_recorded_as_it_came(self):
        body = b'{"messaging_product":"whatsapp", "to":"49151" ,"text":{"body":"\\u00e9"}}'
        _, answer = await self.send(payload=body, query="?appsecret_proof=ab", headers={"X-Odd": "yes"})

        (arrival,) = self.sandbox.record
        assert arrival.body == body
        assert (arrival.path, arrival.query) == ("/v25.0/100000001/messages", "appsecret_proof=ab")
        assert (arrival.phone_number_id, arrival.tenant, arrival.to) == ("100000001", "acme", "49151")
        assert (arrival.status, arrival.wamid) == (200, answer["messages"][0]["id"])
        assert arrival.header("x-odd") == "yes"

    async def test_the_record_has_no_token(self):
        await self.send("1")

        (arrival,) = self.sandbox.record
        assert arrival.header("Authorization").endswith("(acme)")
        assert self.acme.token not in repr(arrival)

    async def test_a_request_that_is_refused_is_recorded_with_its_code(self):
        await self.send("1", headers={"Authorization": "Bearer nobody"})

        (arrival,) = self.sandbox.record
        assert (arrival.tenant, arrival.status, arrival.error_code) == (None, 401, 190)

    async def test_a_request_to_another_path_is_recorded_too(self):
        await self.send("1", path="/elsewhere/../100000001")

        assert [arrival.path for arrival in self.sandbox.record] == ["/elsewhere/../100000001"]

    async def test_a_cookie_that_is_sent_back_is_seen_in_the_record(self):
        await self.send(cards.cookie())
        await self.send("1")

        # The client of these tests keeps cookies, which shows that the record would betray it.
        assert [arrival.header("Cookie") for arrival in self.sandbox.record] == [None, "sandbox=crumb"]

    async def test_a_reset_before_the_body_is_recorded_without_it(self):
        self.sandbox.behaviours.put("100000001", mode="reset_early", until=1)
        with pytest.raises(ResponseNeverReceived):
            await self.post("1")

        (arrival,) = self.sandbox.record
        assert (arrival.wire, arrival.phone_number_id, arrival.body) == ("reset_early", "100000001", b"")
        assert (await self.send("1"))[0] == 200


class LifeTests(SandboxTestCase):
    async def test_it_serves_the_same_ports_again_after_a_stop(self):
        before = (self.sandbox.graph_url, self.sandbox.tenants_url)
        await self.sandbox.stopService()
        self.sandbox.startService()

        assert before == (self.sandbox.graph_url, self.sandbox.tenants_url)
        assert (await self.send("1"))[0] == 200

    async def test_the_graph_api_can_be_away_while_the_tenant_service_is_there(self):
        await self.sandbox.stop_graph()

        with pytest.raises(Refused):
            await self.post("1")
        assert (await self.fetch())[0] == 200

    async def test_the_tenant_service_can_be_away_and_come_back(self):
        await self.sandbox.stop_tenants()
        with pytest.raises(Refused):
            await self.credentials()
        self.sandbox.start_tenants()

        assert (await self.fetch())[0] == 200


class PortsFileTests(SandboxTestCase):
    def make_sandbox(self):
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.ports_file = self.directory / "ports.json"
        return Sandbox(reactor, ports_file=self.ports_file)

    async def test_the_addresses_are_in_the_file_while_it_runs(self):
        ports = msgspec.json.decode(self.ports_file.read_bytes())

        assert ports == {"graph": self.sandbox.graph_url, "tenants": self.sandbox.tenants_url}
        assert [path.name for path in self.directory.iterdir()] == ["ports.json"]

    async def test_the_file_is_gone_once_it_has_stopped(self):
        await self.sandbox.stopService()

        assert not self.ports_file.exists()
