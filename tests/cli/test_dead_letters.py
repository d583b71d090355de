from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.cli.stand_in import Answer, Call, WithStandIn

ID = "0123456789abcdef" * 2


def letter(**more: Any) -> dict[str, Any]:
    return {
        "id": ID,
        "tenantId": "acme",
        "phoneNumberId": "106540352242922",
        "internalId": "order-1",
        "reason": "rejected",
        "detail": "Recipient 15551234567 is not on WhatsApp",
        "errorCode": 131026,
        "errorSubcode": None,
        "httpStatus": 400,
        "fbtraceId": "Axyz",
        "attempts": 1,
        "failedAt": "2020-01-01T00:00:00.000Z",
        "ageSeconds": 4000.0,
        "replays": 0,
        "title": "Message undeliverable",
        "advice": "Reach them another way.",
        "forecast": {"would": "fail", "why": "Meta refuses it for good"},
        **more,
    }


def listing(*letters: dict[str, Any], **more: Any) -> dict[str, Any]:
    count = len(letters)
    return {
        "depth": count,
        "looked": count,
        "matching": count,
        "complete": True,
        "deadLetters": list(letters),
        **more,
    }


class Listing(WithStandIn):
    async def test_each_with_what_would_become_of_it(self) -> None:
        self.on(
            "GET", "/dead-letters", listing(letter(), letter(id="f" * 32, errorCode=None, reason="expired"))
        )
        ended = await self.cli("dead-letters", "list")
        head, first, second = ended.out.splitlines()
        assert head.split()[:3] == ["id", "failed", "tenant"]
        for part in (ID, "1 h 6 min ago", "acme", "rejected", "131026", "fail", "Message undeliverable"):
            assert part in first
        assert second.split()[0] == "f" * 32
        assert self.gateway.calls[0].query == {"limit": "50"}

    async def test_chosen_by_every_filter(self) -> None:
        self.on("GET", "/dead-letters", listing())
        options = [
            "--tenant",
            "acme",
            "--reason",
            "rejected",
            "--code",
            "131026",
            "--older-than",
            "1h",
            "--younger-than",
            "2d",
        ]
        ended = await self.cli("dead-letters", "list", *options, "--id", ID, "--limit", "7")
        assert ended.status == 0
        assert self.gateway.calls[0].query == {
            "tenantId": "acme",
            "reason": "rejected",
            "code": "131026",
            "olderThan": "3600.0",
            "youngerThan": "172800.0",
            "id": ID,
            "limit": "7",
        }

    async def test_more_than_are_shown(self) -> None:
        self.on(
            "GET", "/dead-letters", listing(letter(), depth=9000, looked=5000, matching=31, complete=False)
        )
        ended = await self.cli("dead-letters", "list")
        assert "and 30 more that match" in ended.out
        assert "Only 5000 of 9000 were looked at" in ended.out

    async def test_says_where_others_may_be_in_somebodys_hands(self) -> None:
        self.on("GET", "/dead-letters", listing(complete=False))
        ended = await self.cli("dead-letters", "list")
        assert "There are no dead letters" not in ended.out
        assert "look again later" in ended.out

    async def test_none(self) -> None:
        self.on("GET", "/dead-letters", listing())
        assert "There are no dead letters." in (await self.cli("dead-letters", "list")).out
        self.on("GET", "/dead-letters", listing(depth=12))
        assert "No dead letter matches; the queue holds 12." in (await self.cli("dead-letters", "list")).out

    async def test_as_json(self) -> None:
        self.on("GET", "/dead-letters", listing(letter()))
        document = (await self.cli("dead-letters", "list", "--json")).document
        assert document["deadLetters"][0]["id"] == ID

    async def test_what_makes_no_sense_is_not_asked_for(self) -> None:
        for options in (
            ("--reason", "nonsense"),
            ("--code", "x"),
            ("--older-than", "1"),
            ("--limit", "0"),
            ("--limit", "201"),
            ("--id", "../lanes"),
        ):
            assert (await self.cli("dead-letters", "list", *options)).status == 2, options
        assert self.gateway.calls == []


class Showing(WithStandIn):
    async def test_all_that_is_known_but_no_number_in_full(self) -> None:
        body = {"wabaPayload": {"to": "15551234567", "text": {"body": "call 15557654321"}}}
        self.on("GET", f"/dead-letters/{ID}", letter(body=body, headers={"x-egress-reason": "rejected"}))
        ended = await self.cli("dead-letters", "show", ID)
        for part in (
            "order-1 of tenant acme",
            "131026 Message undeliverable",
            "Reach them another way.",
            "would fail again: Meta refuses it for good",
            "x-egress-reason",
            "***4567",
            "106540352242922",
        ):
            assert part in ended.out, part
        as_json = await self.cli("dead-letters", "show", ID, "--json")
        assert as_json.document["body"]["wabaPayload"] == {"to": "***4567", "text": {"body": "call ***4321"}}
        for out in (ended.out, as_json.out):
            assert "15551234567" not in out
            assert "15557654321" not in out

    async def test_one_that_is_gone(self) -> None:
        self.refuse("GET", f"/dead-letters/{ID}", 404, "not_found", "No dead letter has that id.")
        ended = await self.cli("dead-letters", "show", ID)
        assert ended.status == 1
        assert "No dead letter has that id." in ended.err


NOTHING = {"would": "send", "why": "nothing is known that would keep it from being sent"}
EXPIRED = {"would": "expire", "why": "its expiresAt has passed"}


class Errands(WithStandIn):
    """A gateway that replays, or drops, some of its dead letters at each look."""

    matching, each_look, word = 6, 3, "replayed"
    counted: int | None = None
    all_stay = False

    def setUp(self) -> None:
        super().setUp()
        self.done = 0
        self.state = "running"
        for kind in ("replays", "drops"):
            self.on("POST", f"/dead-letters/{kind}", self.begin)
            self.on("GET", f"/dead-letters/{kind}/r-1", self.look)
            self.on("GET", "/dead-letters", listing(letter(forecast=NOTHING), letter(forecast=EXPIRED)))
            self.on("DELETE", f"/dead-letters/{kind}/r-1", self.stop)

    def plan(self) -> dict[str, Any]:
        why, stays = ("doubt", self.matching) if self.all_stay else ("replayed_often", 1)
        return {
            "id": None,
            "state": "done",
            "counted": self.counted or self.matching,
            self.word: 0,
            "skipped": {why: stays} if self.matching else {},
            "left": max(0, self.matching - stays),
            "detail": "",
            "would": {"expire": 2, "send": 4} if self.matching else {},
        }

    def begin(self, call: Call) -> Answer:
        if call.document["dryRun"]:
            return 200, self.plan()
        if call.document["expected"] != self.matching:
            return 409, {"error": "count_changed", "detail": "They are more by now; count again."}
        return 202, self.report()

    def report(self) -> dict[str, Any]:
        return {
            "id": "r-1",
            "state": self.state,
            "counted": self.matching,
            self.word: self.done,
            "skipped": {"replayed_often": 1} if self.state == "done" else {},
            "left": self.matching - self.done - (self.state == "done"),
            "detail": "",
        }

    def look(self, call: Call) -> Answer:
        if self.state == "running":
            self.done = min(self.matching - 1, self.done + self.each_look)
            self.state = "done" if self.done == self.matching - 1 else "running"
        return 200, self.report()

    def stop(self, call: Call) -> Answer:
        self.state = "stopped"
        return 200, self.report()

    def begun(self) -> list[Any]:
        return [call.document for call in self.gateway.calls if call.method == "POST"]


class Replaying(Errands):
    async def test_a_dry_run_counts_and_foretells_and_stops_there(self) -> None:
        ended = await self.cli("dead-letters", "replay", "--tenant", "acme", "--dry-run", "--actor", "ann")
        assert ended.status == 0
        lines = [line.split() for line in ended.out.splitlines()]
        assert lines[0] == ["6", "dead", "letters", "match."]
        assert lines[2] == ["4", "send", *NOTHING["why"].split()]
        assert lines[3] == ["2", "expire", *EXPIRED["why"].split()]
        assert "1 of them stays unless --force is given: it was replayed three times already." in ended.out
        assert self.begun() == [
            {"filter": {"tenantId": "acme"}, "actor": "ann", "rate": 50.0, "force": False, "dryRun": True}
        ]
        document = (await self.cli("dead-letters", "replay", "--dry-run", "--json")).document
        assert document["would"] == {"expire": 2, "send": 4}

    async def test_with_yes_it_replays_what_was_counted(self) -> None:
        ended = await self.cli("dead-letters", "replay", "--yes", "--rate", "20", "--force")
        assert ended.status == 0
        plan, order = self.begun()
        assert plan["dryRun"]
        assert (order["expected"], order["rate"], order["force"]) == (6, 20.0, True)
        assert "Done: 5 dead letters replayed, 1 not (replayed_often)." in ended.out
        assert ended.err == ""

    async def test_as_json_the_end_alone_is_told(self) -> None:
        ended = await self.cli("dead-letters", "replay", "--yes", "--json")
        assert ended.document == self.report()

    async def test_without_a_terminal_somebody_must_have_said_yes(self) -> None:
        ended = await self.cli("dead-letters", "replay", given="y\n")
        assert ended.status == 2
        assert "--yes" in ended.err
        assert self.gateway.calls == []

    async def test_none_match(self) -> None:
        self.matching = 0
        ended = await self.cli("dead-letters", "replay", "--yes")
        assert ended.status == 0
        assert "No dead letter matches.\nThere is nothing to do." in ended.out
        assert len(self.begun()) == 1

    async def test_all_of_them_stay(self) -> None:
        self.all_stay = True
        ended = await self.cli("dead-letters", "replay", "--yes")
        assert ended.status == 0
        assert "6 of them stay unless --force is given: Meta may have sent it already." in ended.out
        assert "There is nothing to do." in ended.out
        assert len(self.begun()) == 1

    async def test_the_count_has_changed(self) -> None:
        self.counted = 7
        ended = await self.cli("dead-letters", "replay", "--yes")
        assert ended.status == 1
        assert "They are more by now; count again." in ended.err

    async def test_a_replay_that_fails(self) -> None:
        self.on(
            "GET",
            "/dead-letters/replays/r-1",
            {"id": "r-1", "state": "failed", "replayed": 2, "left": 4, "detail": "RabbitMQ went away."},
        )
        ended = await self.cli("dead-letters", "replay", "--yes")
        assert ended.status == 1
        assert (
            "Failed: 2 dead letters replayed, 4 left: run it again for them. RabbitMQ went away." in ended.out
        )

    async def test_a_count_that_fails(self) -> None:
        self.refuse("POST", "/dead-letters/replays", 503, "broker_away", "RabbitMQ went away.")
        ended = await self.cli("dead-letters", "replay", "--yes")
        assert ended.status == 3
        assert "RabbitMQ went away." in ended.err

    async def test_others_are_replaying(self) -> None:
        self.refuse("POST", "/dead-letters/replays", 409, "under_way", "Wait for its end.")
        ended = await self.cli("dead-letters", "replay", "--yes")
        assert ended.status == 1
        assert "Wait for its end." in ended.err

    async def test_a_gateway_that_is_away_for_a_moment_is_asked_again(self) -> None:
        looks: list[Call] = []

        def look(call: Call) -> Answer:
            looks.append(call)
            if len(looks) < 3:
                return 503, {"error": "broker_away", "detail": "Just now not."}
            return self.look(call)

        self.on("GET", "/dead-letters/replays/r-1", look)
        assert (await self.cli("dead-letters", "replay", "--yes")).status == 0


class Interrupting(Errands):
    each_look = 0

    async def test_ctrl_c_stops_it_at_the_gateway_and_says_what_is_left(self) -> None:
        self.done = 2
        typed = self.typed("dead-letters", "replay", "--yes", "--actor", "ann")
        await self.until(lambda: ("GET", "/dead-letters/replays/r-1") in self.asked(), "it is followed")
        typed.interrupt()
        assert await typed.ended() == 130
        stops = [call for call in self.gateway.calls if call.method == "DELETE"]
        assert [stop.query for stop in stops] == [{"actor": "ann"}]
        assert "Stopped: 2 dead letters replayed, 4 left" in typed.seen
        assert "Traceback" not in typed.seen

    async def test_while_it_counts_there_is_nothing_to_stop(self) -> None:
        held: Deferred[Any] = Deferred()
        self.on("POST", "/dead-letters/replays", lambda _call: held)
        typed = self.typed("dead-letters", "replay", "--yes")
        await self.until(lambda: bool(self.begun()), "it counts")
        typed.interrupt()
        assert await typed.ended() == 130
        assert len(self.begun()) == 1
        assert "Interrupted." in typed.seen


class Beginning(Errands):
    async def test_ctrl_c_while_it_begins_stops_it_too(self) -> None:
        held: list[Deferred[None]] = []
        begin = self.begin

        def slowly(call: Call) -> Any:
            if call.document["dryRun"]:
                return begin(call)
            held.append(Deferred())
            return held[0].addCallback(lambda _: begin(call))

        self.on("POST", "/dead-letters/replays", slowly)
        typed = self.typed("dead-letters", "replay", "--yes")
        await self.until(lambda: bool(held), "it begins")
        typed.interrupt()
        await self.until(lambda: "Stopping the replay" in typed.seen, "it was interrupted")
        held[0].callback(None)
        assert await typed.ended() == 130
        assert ("DELETE", "/dead-letters/replays/r-1") in self.asked()


class Asking(Errands):
    async def test_on_a_terminal_it_asks_and_shows_how_far_it_is(self) -> None:
        typed = self.typed("dead-letters", "replay")
        await self.until(lambda: "[y/N]" in typed.seen, "it asks")
        assert "6 dead letters match." in typed.seen
        assert len(self.begun()) == 1
        typed.type("y\n")
        assert await typed.ended() == 0
        assert len(self.begun()) == 2
        assert "Replaying" in typed.seen
        assert "6/6" in typed.seen
        assert "/s" in typed.seen
        assert "Done: 5 dead letters replayed" in typed.seen

    async def test_no_means_no(self) -> None:
        typed = self.typed("dead-letters", "replay")
        await self.until(lambda: "[y/N]" in typed.seen, "it asks")
        typed.type("n\n")
        assert await typed.ended() == 1
        assert len(self.begun()) == 1

    async def test_so_does_ctrl_c(self) -> None:
        typed = self.typed("dead-letters", "replay")
        await self.until(lambda: "[y/N]" in typed.seen, "it asks")
        typed.interrupt()
        assert await typed.ended() == 1
        assert len(self.begun()) == 1
        assert "Traceback" not in typed.seen


class Dropping(Errands):
    word = "dropped"

    async def test_what_is_chosen(self) -> None:
        ended = await self.cli("dead-letters", "drop", "--reason", "expired", "--yes", "--actor", "ann")
        assert ended.status == 0
        _, order = self.begun()
        assert order == {"filter": {"reason": "expired"}, "actor": "ann", "dryRun": False, "expected": 6}
        assert "Done: 5 dead letters dropped" in ended.out

    async def test_all_only_when_somebody_says_so(self) -> None:
        for options in ((), ("--all", "--tenant", "acme")):
            ended = await self.cli("dead-letters", "drop", "--yes", *options)
            assert ended.status == 2
            assert "--all" in ended.err
        assert self.gateway.calls == []
        assert (await self.cli("dead-letters", "drop", "--all", "--yes")).status == 0
