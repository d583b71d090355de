"""The control endpoint: all that Python can set and see, over HTTP."""

from base64 import b64decode

import msgspec

from tests.sandbox.served import SandboxTestCase
from whatsapp_egress.sandbox import cards

NUMBER = "100000001"


class BehaviourTests(SandboxTestCase):
    async def test_a_behaviour_is_put_and_then_holds(self):
        status, body = await self.control(
            "PUT", f"behaviour/{NUMBER}", {"mode": "error", "error_code": 131016}
        )

        assert (status, body["mode"]) == (200, "error")
        assert (await self.send("1"))[1]["error"]["code"] == 131016

    async def test_a_behaviour_of_all_is_put_under_the_asterisk(self):
        await self.control("PUT", "behaviour/*", {"mode": "error"})

        assert (await self.send("1"))[0] == 500

    async def test_a_patch_keeps_the_rest(self):
        await self.control("PUT", f"behaviour/{NUMBER}", {"failure_code": 4})
        await self.control("PATCH", f"behaviour/{NUMBER}", {"failure_rate": 1})

        assert (await self.send("1"))[1]["error"]["code"] == 4

    async def test_several_behaviours_are_put_at_once(self):
        await self.control("PUT", "behaviour", {NUMBER: {"mode": "error"}, "*": {"latency_ms": [0, 1]}})

        assert set(self.sandbox.behaviours.all()) == {NUMBER, "*"}

    async def test_behaviours_are_told(self):
        self.sandbox.behaviours.put(NUMBER, pair_interval_s=6)

        assert (await self.control("GET", "behaviour"))[1][NUMBER]["pair_interval_s"] == 6
        assert (await self.control("GET", f"behaviour/{NUMBER}"))[1]["pair_interval_s"] == 6

    async def test_delete_ends_one_behaviour(self):
        self.sandbox.behaviours.put(NUMBER, mode="error")
        self.sandbox.behaviours.put("2", mode="error")
        await self.control("DELETE", f"behaviour/{NUMBER}")

        assert set(self.sandbox.behaviours.all()) == {"2"}

    async def test_delete_without_a_number_ends_all(self):
        self.sandbox.behaviours.put(NUMBER, mode="error")
        await self.control("DELETE", "behaviour")

        assert self.sandbox.behaviours.all() == {}

    async def test_what_makes_no_sense_is_400_and_says_why(self):
        for document, why in [
            ({"mood": "bad"}, "unknown: mood"),
            ({"mode": "bad"}, "$.mode"),
            ([], "object"),
        ]:
            status, body = await self.control("PUT", f"behaviour/{NUMBER}", document)

            assert (status, why in body["error"]) == (400, True), body


class TenantTests(SandboxTestCase):
    async def test_a_tenant_is_added(self):
        document = {"phoneNumberId": "55", "token": "tok5", "rateLimits": {"messagesPerSecond": 3}}
        status, _ = await self.control("PUT", "tenants/t5", document)

        assert status == 200
        assert (await self.fetch("t5"))[1]["credentials"]["rateLimits"] == {"messagesPerSecond": 3}

    async def test_a_tenant_is_changed(self):
        await self.control("PATCH", "tenants/acme", {"mode": "404", "until": 1})

        assert [(await self.fetch())[0] for _ in range(2)] == [404, 200]

    async def test_a_token_is_rotated_and_the_old_one_refused(self):
        await self.control("POST", "tenants/acme/rotate", {"token": "newer"})

        assert (await self.send("1"))[1]["error"]["code"] == 190
        assert (await self.send("1", headers={"Authorization": "Bearer newer"}))[0] == 200

    async def test_a_tenant_is_removed(self):
        await self.control("DELETE", "tenants/acme")

        assert (await self.fetch())[0] == 404

    async def test_tokens_are_never_told_whole(self):
        for path in ("tenants", "tenants/acme", "state"):
            _, body = await self.control("GET", path)

            assert self.acme.token not in msgspec.json.encode(body).decode()

    async def test_the_whole_service_can_be_put_out(self):
        await self.control("PUT", "tenants/*", {"mode": "503", "until": 1})

        assert [(await self.fetch())[0] for _ in range(2)] == [503, 200]

    async def test_the_whole_service_can_be_put_back(self):
        self.sandbox.tenants.outage("503")
        await self.control("DELETE", "tenants/*")

        assert (await self.fetch())[0] == 200

    async def test_an_unknown_tenant_is_404(self):
        for method in ("GET", "PATCH", "DELETE"):
            assert (await self.control(method, "tenants/nobody", {}))[0] == 404

    async def test_a_bad_tenant_is_400(self):
        assert (await self.control("PATCH", "tenants/acme", {"mode": "odd"}))[0] == 400


class SeenTests(SandboxTestCase):
    async def test_requests_are_told_with_their_bodies(self):
        payload = b'{"messaging_product": "whatsapp", "to": "1", "text": {}}'
        await self.send(payload=payload)
        _, body = await self.control("GET", "requests")

        (request,) = body["requests"]
        assert b64decode(request["body"]) == payload
        assert (request["number"], request["phone_number_id"], request["status"]) == (1, NUMBER, 200)

    async def test_requests_are_told_in_pages(self):
        for _ in range(3):
            await self.send("1")
        _, first = await self.control("GET", "requests?limit=2")
        _, second = await self.control("GET", f"requests?since={first['next_since']}")

        assert [each["number"] for each in first["requests"]] == [1, 2]
        assert ([each["number"] for each in second["requests"]], second["next_since"]) == ([3], None)

    async def test_requests_are_told_for_one_recipient(self):
        for to in ("1", "2"):
            await self.send(to)
        _, body = await self.control("GET", f"requests?to=2&phone_number_id={NUMBER}")

        assert [each["to"] for each in body["requests"]] == ["2"]

    async def test_the_summary_counts(self):
        for to in ("1", "2", cards.always(131026)):
            await self.send(to)
        await self.fetch()
        _, summary = await self.control("GET", "summary")

        assert (summary["requests"], summary["accepted"]) == (3, 2)
        assert summary["by_status"] == {"200": 2, "400": 1}
        assert summary["by_error_code"] == {"131026": 1}
        assert summary["by_phone_number_id"] == {NUMBER: 3}
        assert summary["accepted_by_tenant"] == {"acme": 2}
        assert summary["connections"]["graph"]["opened"] == 3
        assert summary["tenant_service"]["by_tenant"] == {"acme": 1}

    async def test_the_record_can_be_cleared(self):
        await self.send("1")
        await self.control("DELETE", "requests")

        assert (await self.control("GET", "summary"))[1]["requests"] == 0

    async def test_everything_can_be_put_back(self):
        self.sandbox.behaviours.put(mode="error")
        self.sandbox.tenants.outage("500")
        self.sandbox.tenants.change("acme", mode="404")
        await self.control("DELETE", "state")

        assert ((await self.send("1"))[0], (await self.fetch())[0]) == (200, 200)

    async def test_what_is_not_known_is_404(self):
        assert (await self.control("GET", "nothing"))[0] == 404

    async def test_an_unknown_filter_is_400(self):
        assert (await self.control("GET", "requests?form=1"))[0] == 400

    async def test_the_graph_port_has_the_endpoint_too(self):
        response = await self.client.get(f"{self.sandbox.graph_url}/_control/summary")

        assert (await response.json())["requests"] == 0

    async def test_a_method_that_makes_no_sense_is_405(self):
        for path in ("behaviour", "behaviour/1", "tenants", "tenants/acme", "tenants/*"):
            assert (await self.control("POST", path))[0] == 405, path

    async def test_an_empty_document_changes_nothing(self):
        assert (await self.control("PATCH", "tenants/acme"))[0] == 200
        assert self.sandbox.tenants.get("acme") == self.acme
