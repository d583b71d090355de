from __future__ import annotations

from typing import Any

from tests.cli.stand_in import WithStandIn

SOON, EARLIER = "2999-01-01T00:00:00.000Z", "2020-01-01T00:00:00.000Z"


def lane(tenant: str, state: str = "idle", trouble: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "tenantId": tenant,
        "state": state,
        "waitsFor": None,
        "inFlight": 0,
        "active": 0,
        "deferred": 0,
        "oldestSeconds": None,
        "sentLastMinute": 0,
        "failedLastMinute": 0,
        "rate": 80.0,
        "limit": 80.0,
        "breaker": {"state": "closed", "failures": 0, "until": None},
        "pause": None,
        "numbers": [],
        "lastError": None,
        "trouble": trouble,
        **more,
    }


STUCK = lane(
    "stuck",
    "paused",
    90,
    waitsFor={"cause": "pause", "until": SOON, "inWords": "the tenant is paused"},
    active=12,
    deferred=340,
    oldestSeconds=7230.0,
    failedLastMinute=3,
    pause={"reason": "wrong template", "actor": "ann@ops", "since": EARLIER, "until": SOON},
    breaker={"state": "open", "failures": 5, "until": SOON},
    numbers=[
        {"phoneNumberId": "106540352242922", "active": 12, "inFlight": 0, "rate": 20, "throttledUntil": SOON}
    ],
    lastError={
        "at": EARLIER,
        "code": 131056,
        "subcode": None,
        "title": "Pair rate limit",
        "detail": "too many to one",
        "advice": "Send less often.",
        "reason": None,
    },
)


class Lanes(WithStandIn):
    async def test_all_are_shown_the_one_with_the_most_trouble_first(self) -> None:
        self.on(
            "GET", "/lanes", {"lanes": [lane("quiet"), lane("busy", "sending", 5, sentLastMinute=70), STUCK]}
        )
        ended = await self.cli("lanes")
        head, *rows = [line.split() for line in ended.out.splitlines()]
        assert head[:3] == ["tenant", "state", "waits"]
        assert [row[0] for row in rows] == ["stuck", "busy", "quiet"]
        assert "the tenant is paused, until 2999-01-01T00:00:00Z (in " in ended.out
        assert "131056 Pair rate limit" in ended.out
        assert "340" in rows[0]
        assert "\x1b" not in ended.out

    async def test_as_json_in_the_same_order(self) -> None:
        self.on("GET", "/lanes", {"lanes": [lane("quiet"), STUCK]})
        ended = await self.cli("lanes", "--json")
        assert ended.document == {"lanes": [STUCK, lane("quiet")]}

    async def test_only_so_many(self) -> None:
        self.on("GET", "/lanes", {"lanes": [lane("quiet"), STUCK, lane("busy", "sending", 5)]})
        ended = await self.cli("lanes", "--limit", "1")
        assert "stuck" in ended.out
        assert "busy" not in ended.out
        assert "and 2 tenants with less trouble" in ended.out
        limited = await self.cli("lanes", "--limit", "1", "--json")
        assert [each["tenantId"] for each in limited.document["lanes"]] == ["stuck"]

    async def test_none(self) -> None:
        self.on("GET", "/lanes", {"lanes": []})
        assert "No tenant has a lane" in (await self.cli("lanes")).out

    async def test_one_in_detail(self) -> None:
        self.on("GET", "/lanes/stuck", STUCK)
        ended = await self.cli("lanes", "stuck")
        for part in (
            "wrong template, by ann@ops",
            "0 in flight, 12 in hand, 340 deferred",
            "2 h",
            "open, 5 failures in a row",
            "106540352242922: 0 in flight, 12 in hand, 20 messages/s, throttled until",
            "131056 Pair rate limit",
            "Send less often.",
        ):
            assert part in ended.out, part
        assert (await self.cli("lanes", "stuck", "--json")).document == STUCK

    async def test_an_error_that_has_no_title(self) -> None:
        error = {"at": EARLIER, "code": None, "title": "", "detail": "HTTP 503", "advice": "", "reason": None}
        told = lane("t1", lastError=error)
        self.on("GET", "/lanes", {"lanes": [told]})
        self.on("GET", "/lanes/t1", told)
        assert "HTTP 503" in (await self.cli("lanes")).out
        (line,) = [each for each in (await self.cli("lanes", "t1")).out.splitlines() if "last error" in each]
        assert line.split(maxsplit=2)[2].startswith("2")
        assert line.endswith(". HTTP 503.")

    async def test_one_that_there_is_not(self) -> None:
        self.refuse("GET", "/lanes/nobody", 404, "not_found", "No lane of that name.")
        ended = await self.cli("lanes", "nobody")
        assert (ended.status, ended.out) == (1, "")
        assert "No lane of that name." in ended.err

    async def test_what_can_be_no_tenant_is_not_asked_for(self) -> None:
        for tenant in ("../x", "a b", "-x", "a/b", "x" * 65):
            assert (await self.cli("lanes", "--", tenant)).status == 2
        assert self.gateway.calls == []


class Colours(WithStandIn):
    async def test_on_a_terminal_states_have_colours_unless_nobody_wants_them(self) -> None:
        self.on("GET", "/lanes", {"lanes": [STUCK]})
        typed = self.typed("lanes")
        assert await typed.ended() == 0
        assert "\x1b[31mpaused" in typed.seen
        plain = self.typed("lanes", NO_COLOR="1")
        assert await plain.ended() == 0
        assert "paused" in plain.seen
        assert "\x1b[" not in plain.seen


class Why(WithStandIn):
    async def test_it_says_where_a_message_is_and_what_it_waits_for(self) -> None:
        message = {
            "tenantId": "stuck",
            "internalId": "order 1/2&a=%41",
            "phoneNumberId": "106540352242922",
            "where": "in_hand",
            "attempts": 2,
            "gate": {"cause": "pause", "until": SOON, "inWords": "the tenant is paused"},
            "ahead": 1,
        }
        self.on("GET", "/messages", {"messages": [message], "hint": ""})
        ended = await self.cli("why", "order 1/2&a=%41", "--tenant", "stuck")
        (call,) = self.gateway.calls
        assert call.query == {"internalId": "order 1/2&a=%41", "tenantId": "stuck"}
        assert ended.status == 0
        assert "waits in the gateway" in ended.out
        assert "the tenant is paused, until 2999-01-01T00:00:00Z" in ended.out
        assert "1 message of the same conversation" in ended.out
        assert (await self.cli("why", "x", "--json")).document["messages"] == [message]

    async def test_how_others_ended(self) -> None:
        sent = {
            "tenantId": "t",
            "internalId": "m",
            "where": "sent",
            "attempts": 1,
            "wamid": "wamid.X",
            "ahead": 0,
        }
        dead = {**sent, "where": "dead_lettered", "wamid": None, "reason": "expired"}
        self.on("GET", "/messages", {"messages": [sent, dead], "hint": "The last of them counts."})
        ended = await self.cli("why", "m")
        for part in (
            "was sent",
            "wamid.X",
            "in the dead-letter queue",
            "expired",
            "The last of them counts.",
        ):
            assert part in ended.out

    async def test_one_that_nobody_knows(self) -> None:
        self.on("GET", "/messages", {"messages": [], "hint": "Perhaps it is still in the queue."})
        ended = await self.cli("why", "m")
        assert ended.status == 1
        assert "Perhaps it is still in the queue." in ended.out
        as_json = await self.cli("why", "m", "--json")
        assert as_json.status == 1
        assert as_json.document["messages"] == []
        self.on("GET", "/messages", {"messages": []})
        assert "knows no message m" in (await self.cli("why", "m")).out
