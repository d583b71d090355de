from __future__ import annotations

import getpass
import socket

from tests.cli.stand_in import WithStandIn
from tests.cli.test_lanes import EARLIER, SOON, STUCK, lane


class Pausing(WithStandIn):
    async def test_for_a_while(self) -> None:
        self.on("POST", "/lanes/stuck/pause", STUCK)
        ended = await self.cli(
            "pause", "stuck", "--reason", "wrong template", "--for", "30m", "--actor", "ann"
        )
        (call,) = self.gateway.calls
        assert call.document == {"reason": "wrong template", "actor": "ann", "seconds": 1800.0}
        assert ended.status == 0
        assert "stuck is paused until 2999-01-01T00:00:00Z" in ended.out

    async def test_until_a_moment(self) -> None:
        self.on("POST", "/lanes/stuck/pause", STUCK)
        ended = await self.cli(
            "pause", "stuck", "--reason", "x", "--until", "2999-01-01T01:00:00+01:00", "--json"
        )
        assert self.gateway.calls[0].document["until"] == SOON
        assert ended.document == STUCK

    async def test_until_somebody_resumes_it(self) -> None:
        endless = lane("t", "paused", pause={"reason": "x", "actor": "a", "since": EARLIER, "until": None})
        self.on("POST", "/lanes/t/pause", endless)
        ended = await self.cli("pause", "t", "--reason", "x")
        assert set(self.gateway.calls[0].document) == {"reason", "actor"}
        assert "until `whatsapp-egress resume t`" in ended.out

    async def test_who_does_it_is_user_and_host_if_nobody_says_otherwise(self) -> None:
        self.on("POST", "/lanes/stuck/pause", STUCK)
        await self.cli("pause", "stuck", "--reason", "x")
        assert self.gateway.calls[0].document["actor"] == f"{getpass.getuser()}@{socket.gethostname()}"

    async def test_what_makes_no_sense_is_not_asked_for(self) -> None:
        for options in (
            (),
            ("--reason", " "),
            ("--reason", "x", "--for", "30"),
            ("--reason", "x", "--for", "0s"),
            ("--reason", "x", "--for", "1h", "--until", SOON),
            ("--reason", "x", "--until", EARLIER),
            ("--reason", "x", "--until", "tomorrow"),
            ("--reason", "x", "--actor", "a\nb"),
        ):
            ended = await self.cli("pause", "t", *options)
            assert (ended.status, ended.out) == (2, ""), options
            assert "Error: " in ended.err
        assert self.gateway.calls == []


class Resuming(WithStandIn):
    async def test_it_sends_again(self) -> None:
        self.on("POST", "/lanes/t/resume", lane("t", "sending"))
        ended = await self.cli("resume", "t", "--actor", "ann")
        assert self.gateway.calls[0].document == {"actor": "ann"}
        assert ended.out.startswith("t sends again.\n")
        assert (await self.cli("resume", "t", "--json")).document["state"] == "sending"

    async def test_one_that_is_not_paused(self) -> None:
        self.refuse("POST", "/lanes/t/resume", 409, "not_paused", "t is not paused.")
        ended = await self.cli("resume", "t")
        assert (ended.status, ended.out) == (1, "")
        assert "t is not paused." in ended.err


class Resetting(WithStandIn):
    async def test_breaker_and_credentials(self) -> None:
        self.on("POST", "/lanes/t/breaker/reset", lane("t"))
        self.on("POST", "/lanes/t/credentials/drop", lane("t"))
        assert "breaker of t is closed" in (await self.cli("breaker-reset", "t")).out
        assert "credentials of t are forgotten" in (await self.cli("credentials-drop", "t")).out
        assert self.asked() == [("POST", "/lanes/t/breaker/reset"), ("POST", "/lanes/t/credentials/drop")]


class Help(WithStandIn):
    async def test_it_lists_every_command_and_exit_status(self) -> None:
        ended = await self.cli("--help")
        commands = [
            "check",
            "send",
            "lanes",
            "why",
            "pause",
            "resume",
            "breaker-reset",
            "credentials-drop",
            "dead-letters",
        ]
        for part in (*commands, "130  interrupted", "ADMIN_TOKEN_FILE"):
            assert part in ended.out
        assert "..." not in ended.out.replace("[ARGS]...", "")

    async def test_its_version(self) -> None:
        assert (await self.cli("--version")).out.startswith("whatsapp-egress ")
