"""The calls about lanes, over a socket: what they answer, what they change, what the audit has."""

from __future__ import annotations

from tests.control.served import Served
from tests.pipeline.doubles import EPOCH, RETRY
from whatsapp_egress.message import iso_utc
from whatsapp_egress.policy.breaker import State
from whatsapp_egress.policy.verdict import Sent

OPS = {"actor": "ops"}


class LookingTests(Served):
    async def test_there_are_none_to_begin_with(self) -> None:
        assert (await self.ask("GET", "/lanes")).document == {"lanes": []}

    async def test_those_in_most_trouble_come_first(self) -> None:
        self.stage.offer("1", tenant_id="well")
        self.stage.offer("2", tenant_id="broken")
        self.stage.lanes._lanes["broken"].standing.breaker.trip()
        reply = await self.ask("GET", "/lanes")

        assert [lane["tenantId"] for lane in reply.document["lanes"]] == ["broken", "well"]

    async def test_one_is_as_it_is_on_the_page(self) -> None:
        self.stage.offer("1")
        reply = await self.ask("GET", "/lanes/t1")

        assert reply.document["state"] == "sending"
        assert reply.document["inFlight"] == 1

    async def test_one_that_is_not_there_is_not_found(self) -> None:
        await self.assert_refused(404, "not_found", "GET", "/lanes/nobody")

    async def test_a_tenant_id_that_is_none_is_refused(self) -> None:
        for tenant in ("..", "a%2Fb", "a%0A", "%00", "a" * 65, "-a"):
            await self.assert_refused(400, "bad_request", "GET", f"/lanes/{tenant}")
            await self.assert_refused(400, "bad_request", "POST", f"/lanes/{tenant}/resume", OPS)

    async def test_to_look_is_nothing_for_the_audit(self) -> None:
        await self.ask("GET", "/lanes")
        await self.ask("HEAD", "/lanes")

        assert self.calls == []


class PauseTests(Served):
    async def pause(self, **order: object) -> None:
        reply = await self.ask("POST", "/lanes/t1/pause", {**OPS, "reason": "they asked", **order})
        assert reply.status == 200, reply
        assert reply.document["state"] == "paused"
        self.pause_view = reply.document["pause"]

    async def test_it_holds_until_somebody_resumes_it(self) -> None:
        await self.pause()
        self.stage.offer("1")
        self.stage.pass_time(100, step=1)
        assert self.stage.begun == []

        reply = await self.ask("POST", "/lanes/t1/resume", OPS)
        assert (reply.status, reply.document["pause"]) == (200, None)
        self.stage.pass_time(3)
        assert self.stage.begun == ["1"]

    async def test_it_says_who_why_and_since_when(self) -> None:
        await self.pause()

        assert self.pause_view == {
            "reason": "they asked",
            "actor": "ops",
            "since": iso_utc(EPOCH)[:-5] + "Z",
            "until": None,
        }

    async def test_with_seconds_it_ends_by_itself(self) -> None:
        await self.pause(seconds=120)
        self.stage.offer("1")
        self.stage.pass_time(119, step=1)
        assert self.stage.begun == []

        self.stage.pass_time(4, step=1)
        assert self.stage.begun == ["1"]
        await self.assert_refused(409, "not_paused", "POST", "/lanes/t1/resume", OPS)

    async def test_with_an_end_too(self) -> None:
        await self.pause(until=iso_utc(EPOCH + 60))
        self.stage.offer("1")
        self.stage.pass_time(59, step=1)
        assert self.stage.begun == []

        self.stage.pass_time(4, step=1)
        assert self.stage.begun == ["1"]

    async def test_an_end_that_has_passed_or_is_far_away_is_refused(self) -> None:
        for until in (iso_utc(EPOCH - 1), iso_utc(EPOCH), iso_utc(EPOCH + 400 * 86_400)):
            order = {**OPS, "reason": "they asked", "until": until}
            await self.assert_refused(409, "until_out_of_range", "POST", "/lanes/t1/pause", order)
        assert len(self.stage.lanes) == 0

    async def test_an_end_that_is_no_time_or_two_of_them_are_refused(self) -> None:
        for more in (
            {"until": "tomorrow"}, {"until": "9999-99-99"}, {"until": 5}, {"seconds": 0}, {"seconds": -1},
            {"seconds": 1e9}, {"seconds": "5"}, {"seconds": 5, "until": iso_utc(EPOCH + 5)},
        ):  # fmt: skip
            order = {**OPS, "reason": "they asked", **more}
            await self.assert_refused(400, "bad_request", "POST", "/lanes/t1/pause", order)
        assert len(self.stage.lanes) == 0

    async def test_it_must_be_said_who_and_why(self) -> None:
        for order in (
            {"actor": "ops"},
            {"reason": "they asked"},
            {**OPS, "reason": ""},
            {**OPS, "reason": "a\n"},
        ):
            await self.assert_refused(400, "bad_request", "POST", "/lanes/t1/pause", order)

    async def test_it_is_on_record(self) -> None:
        await self.pause(seconds=60)
        await self.ask("POST", "/lanes/t1/resume", {**OPS, "reason": "all is well"})
        await self.ask("POST", "/lanes/t1/resume", OPS)

        about = {"method": "POST", "actor": "ops", "tenantId": "t1"}
        assert self.calls == [
            {
                **about,
                "path": "/api/v1/lanes/t1/pause",
                "status": 200,
                "reason": "they asked",
                "until": EPOCH + 60,
            },
            {**about, "path": "/api/v1/lanes/t1/resume", "status": 200, "reason": "all is well"},
            {**about, "path": "/api/v1/lanes/t1/resume", "status": 409, "error": "not_paused"},
        ]
        (call, *_) = [event for event in self.log if event.get("log_format") == "control_call"]
        assert call["remote"] == "127.0.0.1"


class BreakerTests(Served):
    async def test_it_closes_and_one_message_finds_out(self) -> None:
        self.stage.offer("0")
        self.stage.end("0", RETRY)
        breaker = self.stage.lanes._lanes["t1"].standing.breaker
        breaker.trip()
        self.stage.offer("1", "bob")
        self.stage.offer("2", "carol")
        reply = await self.ask("POST", "/lanes/t1/breaker/reset", OPS)

        assert (reply.status, reply.document["breaker"]["state"]) == (200, "closed")
        assert breaker.state is State.CLOSED
        assert self.stage.in_flight == ["1"]

    async def test_it_is_on_record_whether_it_changed_anything(self) -> None:
        self.stage.offer("1")
        self.stage.lanes._lanes["t1"].standing.breaker.trip()
        for tenant in ("t1", "t1", "nobody"):
            reply = await self.ask("POST", f"/lanes/{tenant}/breaker/reset", OPS)
            assert reply.document["tenantId"] == tenant

        assert [(call["tenantId"], call["changed"]) for call in self.calls] == [
            ("t1", True),
            ("t1", False),
            ("nobody", False),
        ]


class CredentialsTests(Served):
    async def test_they_are_forgotten(self) -> None:
        reply = await self.ask("POST", "/lanes/t1/credentials/drop", OPS)

        assert (reply.status, reply.document["state"]) == (200, "idle")
        assert self.credentials.forgotten == ["t1"]
        assert self.calls == [
            {
                "method": "POST",
                "path": "/api/v1/lanes/t1/credentials/drop",
                "status": 200,
                "actor": "ops",
                "tenantId": "t1",
            }
        ]


class MessageTests(Served):
    async def test_why_one_waits(self) -> None:
        self.stage.offer("1", "alice")
        self.stage.offer("2", "alice")
        self.stage.end("1", RETRY)
        reply = await self.ask("GET", "/messages?internalId=2")

        assert reply.document == {
            "messages": [
                {
                    "tenantId": "t1",
                    "internalId": "2",
                    "phoneNumberId": "100000001",
                    "where": "in_hand",
                    "attempts": 0,
                    "gate": {
                        "cause": "retry",
                        "until": iso_utc(EPOCH + 1)[:-5] + "Z",
                        "inWords": "waits for its time to be tried again",
                    },
                    "ahead": 1,
                    "at": None,
                    "wamid": None,
                    "reason": None,
                }
            ],
            "hint": None,
        }

    async def test_how_one_ended(self) -> None:
        self.stage.offer("1")
        self.stage.end("1", Sent("wamid.1"))
        (found,) = (await self.ask("GET", "/messages?internalId=1&tenantId=t1")).document["messages"]

        assert (found["where"], found["wamid"], found["gate"]) == ("sent", "wamid.1", None)
        assert found["at"] == iso_utc(EPOCH)[:-5] + "Z"

    async def test_one_that_is_deferred_waits_for_what_its_tenant_waits_for(self) -> None:
        await self.ask("POST", "/lanes/t1/pause", {**OPS, "reason": "they asked"})
        self.stage.offer("1")
        (found,) = (await self.ask("GET", "/messages?internalId=1")).document["messages"]

        assert (found["where"], found["gate"]["cause"]) == ("deferred", "pause")

    async def hint(self, query: str) -> str:
        document = (await self.ask("GET", f"/messages?{query}")).document
        assert document["messages"] == []
        return str(document["hint"])

    async def test_what_can_be_said_of_one_that_is_not_here(self) -> None:
        self.stage.offer("1", tenant_id="t2")
        await self.ask("POST", "/lanes/t1/pause", {**OPS, "reason": "they asked", "seconds": 60})

        assert "With its tenantId more can be said." in await self.hint("internalId=x")
        assert "Nothing of its tenant waits here." in await self.hint("internalId=x&tenantId=t2")
        assert "waits for an operator, who has paused it, until 2026-" in await self.hint(
            "internalId=x&tenantId=t1"
        )
        await self.ask("POST", "/lanes/t1/pause", {**OPS, "reason": "they asked"})
        assert (await self.hint("internalId=x&tenantId=t1")).endswith("who has paused it.")

    async def test_what_is_asked_must_be_a_name(self) -> None:
        for query in ("", "?internalId=", "?internalId=1&tenantId=..", "?internalId=1&more=1"):
            await self.assert_refused(400, "bad_request", "GET", f"/messages{query}")
