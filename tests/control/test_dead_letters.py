"""The calls about dead letters, over a socket; the queue behind them is in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.control.letters import letter
from tests.control.served import Served
from tests.pipeline.doubles import EPOCH
from whatsapp_egress.message import iso_utc
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.policy.verdict import Sent

OPS = {"actor": "ops"}


def second(moment: float) -> str:
    return iso_utc(moment)[:-5] + "Z"


class Lettered(Served):
    def put(self, *names: str, **about: Any) -> None:
        self.queue.letters += [letter(name, **about) for name in names]

    async def listed(self, query: str = "") -> list[str]:
        reply = await self.ask("GET", f"/dead-letters{query}")
        assert reply.status == 200, reply
        return [each["internalId"] for each in reply.document["deadLetters"]]


class ListTests(Lettered):
    async def test_the_newest_come_first(self) -> None:
        self.put("m-1", "m-2", "m-3")
        reply = await self.ask("GET", "/dead-letters?limit=2")

        assert [each["internalId"] for each in reply.document["deadLetters"]] == ["m-3", "m-2"]
        del reply.document["deadLetters"]
        assert reply.document == {"depth": 3, "looked": 3, "matching": 3, "complete": True}

    async def test_each_says_what_it_is_and_what_would_become_of_it(self) -> None:
        self.put("m-1", code=131047)
        (found,) = (await self.ask("GET", "/dead-letters")).document["deadLetters"]

        assert len(found.pop("id")) == 32
        assert found.pop("title") == "Re-engagement message"
        assert found.pop("advice")
        assert found.pop("forecast")["would"] == "fail"
        assert found == {
            "tenantId": "t1",
            "phoneNumberId": "100000001",
            "internalId": "m-1",
            "reason": "rejected",
            "detail": "it failed",
            "errorCode": 131047,
            "errorSubcode": None,
            "httpStatus": None,
            "fbtraceId": None,
            "attempts": 1,
            "failedAt": second(EPOCH - 60),
            "ageSeconds": 60.0,
            "replays": 0,
        }

    async def test_they_can_be_chosen(self) -> None:
        self.put("old", age=3600.0)
        self.put("theirs", tenant="t2")
        self.put("doubtful", reason="in_doubt")
        self.put("coded", code=131026)

        assert await self.listed("?tenantId=t2") == ["theirs"]
        assert await self.listed("?reason=in_doubt") == ["doubtful"]
        assert await self.listed("?code=131026") == ["coded"]
        assert await self.listed("?olderThan=600") == ["old"]
        assert await self.listed("?youngerThan=600&tenantId=t1&reason=rejected") == ["coded"]
        assert await self.listed(f"?id={self.queue.letters[1].facts.id}") == ["theirs"]
        assert await self.listed("?tenantId=t3") == []

    async def test_what_can_not_be_chosen_by_is_refused(self) -> None:
        for query in (
            "limit=0", "limit=201", "limit=1.5", "code=x", "code=1.5", "olderThan=-1", "olderThan=nan",
            "olderThan=inf", "youngerThan=null", "id=x", "id=" + "A" * 32, "reason=No", "tenantId=", "age=5",
        ):  # fmt: skip
            await self.assert_refused(400, "bad_request", "GET", f"/dead-letters?{query}")

    async def test_what_rabbitmq_gave_up_has_words_too(self) -> None:
        for reason in ("broker_expired", "broker_rejected", "broker_maxlen", "broker_delivery_limit"):
            self.put(reason, reason=reason)
        found = (await self.ask("GET", "/dead-letters")).document["deadLetters"]

        assert all(each["title"] and each["advice"] for each in found)

    async def test_what_nobody_knows_is_left_open(self) -> None:
        self.queue.letters.append(letter(body=b"\xff", reason=None, **{"x-egress-failed-at": None}))
        self.put("never", **{"x-egress-failed-at": "9999-12-31T23:59:59-23:59"})
        late, odd = (await self.ask("GET", "/dead-letters")).document["deadLetters"]

        assert (odd["reason"], odd["tenantId"], odd["failedAt"], odd["ageSeconds"]) == (
            "unknown",
            None,
            None,
            None,
        )
        assert (late["internalId"], late["failedAt"]) == ("never", None)

    async def test_a_reason_that_somebody_else_wrote_shows_no_phone_number(self) -> None:
        self.put("m-1", reason="call 919876543210")
        (found,) = (await self.ask("GET", "/dead-letters")).document["deadLetters"]

        assert found["reason"] == "call ***3210"

    async def test_a_broker_that_is_away_is_no_fault_of_ours(self) -> None:
        self.queue.away = "no connection"
        for path in ("/dead-letters", f"/dead-letters/{'0' * 32}"):
            await self.assert_refused(503, "broker_away", "GET", path)
        for path in ("/dead-letters/replays", "/dead-letters/drops"):
            for how in ({"dryRun": True}, {"expected": 0}):
                await self.assert_refused(503, "broker_away", "POST", path, {**OPS, "filter": {}, **how})


class ForecastTests(Lettered):
    async def would(self) -> dict[str, str]:
        found = (await self.ask("GET", "/dead-letters")).document["deadLetters"]
        return {each["internalId"]: each["forecast"]["would"] for each in found}

    async def test_it_knows_who_waits_and_what_was_sent_since(self) -> None:
        self.stage.offer("sent since")
        self.stage.end("sent since", Sent("wamid.1"))
        self.stage.offer("x", tenant_id="broken")
        self.stage.lanes._lanes["broken"].standing.breaker.trip()
        self.stage.lanes.pause("paused", Pause("they asked", "ops", EPOCH))
        self.put("sent since", "fine")
        self.put("m-1", tenant="paused")
        self.put("m-2", tenant="broken")

        assert await self.would() == {"sent since": "sent", "fine": "send", "m-1": "wait", "m-2": "wait"}
        self.stage.end("x", Sent("wamid.2"))
        self.stage.pass_time(5, step=1)
        assert len(self.stage.lanes) == 1  # `broken` has none any more
        found = (await self.ask("GET", "/dead-letters?tenantId=broken")).document["deadLetters"]
        assert "circuit breaker is open until 2026-" in found[0]["forecast"]["why"]

    async def test_what_passes_in_moments_holds_nobody(self) -> None:
        self.stage.turns.window.troubled()
        for number in range(2000):
            self.stage.offer(f"{number}", f"{number}")
        assert self.stage.lanes.waits_for("t1") is not None
        self.put("m-1")

        assert await self.would() == {"m-1": "send"}


class ShowTests(Lettered):
    async def show(self, index: int = 0) -> dict[str, Any]:
        reply = await self.ask("GET", f"/dead-letters/{self.queue.letters[index].facts.id}")
        assert reply.status == 200, reply
        return dict(reply.document)

    async def test_it_has_message_and_headers_without_numbers_and_secrets(self) -> None:
        self.put("m-1", traceparent="00-abc", authorization="Bearer hunter2")
        found = await self.show()

        assert found["internalId"] == "m-1"
        assert found["body"]["metadata"]["internalId"] == "m-1"
        assert found["body"]["wabaPayload"]["type"] == "text"
        assert found["headers"]["traceparent"] == "00-abc"
        said = str(found)
        for hidden in ("919876543210", "a-secret", "hunter2"):
            assert hidden not in said
        assert "3210" in str(found["body"]["wabaPayload"]["to"])

    async def test_one_that_is_no_message_is_shown_as_it_is(self) -> None:
        self.queue.letters += [letter(body=b"call 919876543210 \xff"), letter(body=b"[919876543210]")]

        assert (await self.show())["body"].startswith("call ")
        assert isinstance((await self.show(1))["body"], list)
        assert "9198765" not in str(await self.show())

    async def test_one_that_is_not_there_is_not_found(self) -> None:
        self.put("m-1")
        await self.assert_refused(404, "not_found", "GET", f"/dead-letters/{'0' * 32}")


class ReplayTests(Lettered):
    async def order(self, kind: str = "replays", **order: Any) -> Any:
        reply = await self.ask("POST", f"/dead-letters/{kind}", {**OPS, "filter": {}, **order})
        assert reply.status == (200 if order.get("dryRun") else 202), reply
        return reply.document

    async def test_a_dry_run_counts_foretells_and_does_nothing(self) -> None:
        self.put("m-1", "m-2", code=131026)
        self.put("m-3", reason="in_doubt")
        self.put("theirs", tenant="t2")
        plan = await self.order(dryRun=True, filter={"tenantId": "t1"})

        assert plan == {
            "id": None,
            "state": "done",
            "actor": "ops",
            "counted": 3,
            "replayed": 0,
            "skipped": {"doubt": 1},
            "left": 2,
            "detail": "",
            "would": {"fail": 2, "doubt": 1},
        }
        assert len(self.queue.letters) == 4

    async def test_it_says_so_where_not_all_were_seen(self) -> None:
        self.put("m-1")
        self.queue.complete = False

        assert (await self.order(dryRun=True))["detail"] == "only the first 1 dead letters were looked at"

    async def test_those_that_are_meant_are_sent_again(self) -> None:
        self.put("m-1", "m-2")
        self.put("m-3", reason="in_doubt")
        begun = await self.order(expected=3, rate=7)
        reply = await self.ask("GET", f"/dead-letters/replays/{begun['id']}")

        assert reply.document == {
            "id": begun["id"],
            "state": "done",
            "actor": "ops",
            "counted": 3,
            "replayed": 2,
            "skipped": {"doubt": 1},
            "left": 0,
            "detail": "",
            "would": {},
        }
        assert (self.queue.replayed, self.queue.rates) == (["m-1", "m-2"], [7.0])

    async def test_force_holds_none_back(self) -> None:
        self.put("m-1", reason="in_doubt")
        await self.order(expected=1, force=True)

        assert self.queue.replayed == ["m-1"]

    async def test_nothing_is_done_where_there_are_not_as_many_as_expected(self) -> None:
        self.put("m-1", "m-2")
        for kind in ("replays", "drops"):
            order = {**OPS, "filter": {}, "expected": 1}
            await self.assert_refused(409, "count_changed", "POST", f"/dead-letters/{kind}", order)

        assert len(self.queue.letters) == 2

    async def test_nor_where_nobody_says_how_many_or_which_or_who(self) -> None:
        for order in (
            {**OPS, "filter": {}}, {**OPS, "filter": {}, "dryRun": False}, {**OPS, "expected": 0},
            {"filter": {}, "expected": 0}, {**OPS, "filter": {"name": "x"}, "expected": 0},
            {**OPS, "filter": {}, "expected": -1}, {**OPS, "filter": {}, "expected": 1.5},
            {**OPS, "filter": {}, "expected": 0, "rate": 0}, {**OPS, "filter": {}, "expected": 0, "force": 1},
        ):  # fmt: skip
            await self.assert_refused(400, "bad_request", "POST", "/dead-letters/replays", order)

    async def test_one_errand_at_a_time(self) -> None:
        self.put("m-1")
        self.queue.waits = Deferred()
        begun = await self.order(expected=1)
        order = {**OPS, "filter": {}, "expected": 1}
        await self.assert_refused(409, "under_way", "POST", "/dead-letters/drops", order)
        self.queue.waits.callback(None)
        reply = await self.ask("GET", f"/dead-letters/replays/{begun['id']}")

        assert reply.document["state"] == "done"

    async def test_it_can_be_stopped(self) -> None:
        self.put("m-1", "m-2")
        self.queue.waits = Deferred()
        begun = await self.order(expected=2)
        assert begun["state"] == "running"
        path = f"/dead-letters/replays/{begun['id']}"
        reply = await self.ask("DELETE", f"{path}?actor=somebody%20else")
        assert (reply.status, reply.document["state"]) == (202, "running")
        self.queue.waits.callback(None)
        reply = await self.ask("GET", path)

        assert (reply.document["state"], reply.document["left"]) == ("stopped", 2)
        assert self.queue.replayed == []
        assert self.calls[-1]["actor"] == "somebody else"

    async def test_an_errand_that_nobody_knows_is_not_found(self) -> None:
        self.put("m-1")
        begun = await self.order("drops", expected=1)
        for path in (
            "/dead-letters/replays/x",
            f"/dead-letters/replays/{begun['id']}",
            "/dead-letters/drops/x",
        ):
            for method in ("GET", "DELETE"):
                await self.assert_refused(404, "not_found", method, path)

    async def test_what_is_dropped_is_gone(self) -> None:
        self.put("m-1", "m-2")
        self.put("m-3", reason="in_doubt")
        plan = await self.order("drops", dryRun=True)
        assert (plan["counted"], plan["dropped"], plan["left"], plan["would"]) == (3, 0, 3, {})
        begun = await self.order("drops", expected=3)
        reply = await self.ask("GET", f"/dead-letters/drops/{begun['id']}")

        assert (reply.document["state"], reply.document["dropped"]) == ("done", 3)
        assert self.queue.dropped == ["m-1", "m-2", "m-3"]

    async def test_it_is_on_record(self) -> None:
        self.put("m-1")
        await self.order(dryRun=True)
        await self.order("drops", expected=1, filter={"code": None, "tenantId": "t1"})

        about = {"method": "POST", "actor": "ops"}
        assert self.calls == [
            {**about, "path": "/api/v1/dead-letters/replays", "status": 200, "filter": {}, "dryRun": True},
            {
                **about,
                "path": "/api/v1/dead-letters/drops",
                "status": 202,
                "filter": {"tenantId": "t1"},
                "dryRun": False,
                "expected": 1,
            },
        ]
