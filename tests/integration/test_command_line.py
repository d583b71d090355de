"""The command line against a real broker, the sandbox and the gateway."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread

from tests.cli.terminal import Ended, Typed, run
from tests.integration.world import World, message
from whatsapp_egress.sandbox import cards
from whatsapp_egress.sandbox.rabbitmq import PrivateBroker, TlsFiles
from whatsapp_egress.sandbox.tls import Authority

TOKEN = "correct-horse-battery-staple"


class CommandLine(World):
    async def cli(self, *arguments: str, given: str = "", **settings: object) -> Ended:
        """Run a command with the gateway's settings."""
        environment = self.environment(**{"ADMIN_TOKEN": TOKEN, **settings})
        return await run(*arguments, given=given, **environment)

    def grades(self, ended: Ended) -> dict[str, str]:
        return {each["part"]: each["grade"] for each in ended.document["checks"]}

    def about(self, ended: Ended, part: str) -> str:
        (told,) = [
            f"{each['what']} -> {each['advice']}" for each in ended.document["checks"] if each["part"] == part
        ]
        return told


class Checking(CommandLine):
    async def check(self, *options: str, **settings: object) -> Ended:
        return await self.cli("check", "--json", *options, **settings)

    async def test_all_is_well_beside_a_gateway_that_runs(self) -> None:
        gateway = await self.start_gateway(ADMIN_TOKEN=TOKEN)
        ended = await self.check(HEALTH_CHECK_PORT=gateway.health.port, PROMETHEUS_PORT=gateway.metrics.port)
        assert ended.status == 0, ended
        assert ended.err == ""
        assert set(self.grades(ended).values()) == {"ok"}
        assert "1 consumer" in self.about(ended, "queue outbound-processed")
        for port in ("HEALTH_CHECK_PORT", "PROMETHEUS_PORT"):
            assert "served by a gateway already" in self.about(ended, port)
        assert "knows no tenant 00000000-" in self.about(ended, "Tenant Service")
        assert "HTTP 4" in self.about(ended, "Meta")

    async def test_for_people(self) -> None:
        await self.start_gateway()
        ended = await self.cli("check", ADMIN_TOKEN="")
        assert ended.status == 0
        assert "ok       queue outbound-processed: is there and may be consumed from" in ended.out
        assert "warning  ADMIN_TOKEN: is not set" in ended.out
        assert "0 checks failed, 1 warning." in ended.out
        assert "\x1b" not in ended.out

    async def test_on_a_new_broker_it_says_what_will_be_declared_and_declares_nothing(self) -> None:
        for _ in range(2):
            ended = await self.check()
            assert ended.status == 0
            for part in ("exchange whatsapp-exchange", "exchange whatsapp-dlx", "exchange whatsapp-events"):
                assert self.grades(ended)[part] == "warning"
            for part in ("queue outbound-processed", "queue outbound-failed", "queue outbound-lanes"):
                assert "not there yet -> The gateway declares it" in self.about(ended, part)

    async def test_it_takes_and_sends_nothing(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway()
        await self.stop_gateway()
        self.upstream.publish(message(tenant))
        ended = await self.check()
        assert "1 messages, 0 consumers" in self.about(ended, "queue outbound-processed")
        method, _, _ = self.upstream.channel.basic_get("outbound-processed", auto_ack=True)
        assert not method.redelivered
        assert self.sent() == []

    async def test_every_bad_setting_is_listed_and_nothing_is_connected(self) -> None:
        ended = await self.check(
            RABBITMQ_PORT="high", META_API_BASE_URL="http://example.com", RABBITMQ_PASSWORD=""
        )
        assert ended.status == 1
        told = [each["what"] for each in ended.document["checks"]]
        assert len(told) == 2
        assert "RABBITMQ_PORT is 'high'" in told[0]
        assert "META_API_BASE_URL" in told[1]

    async def test_a_broker_that_is_away(self) -> None:
        self.upstream.close()
        await deferToThread(self.broker.stop)
        ended = await self.check()
        await deferToThread(self.broker.start_again)
        assert ended.status == 1
        assert self.grades(ended)["RabbitMQ"] == "failed"
        assert "RABBITMQ_HOST and RABBITMQ_PORT" in self.about(ended, "RabbitMQ")
        assert self.grades(ended)["Meta"] == "ok"

    async def test_a_broker_that_does_not_let_us_in(self) -> None:
        ended = await self.check(RABBITMQ_PASSWORD="wrong-secret")
        assert "check RABBITMQ_USER, RABBITMQ_PASSWORD" in self.about(ended, "RabbitMQ")
        assert "wrong-secret" not in ended.out + ended.err
        ended = await self.check(RABBITMQ_VHOST="elsewhere")
        assert "RABBITMQ_VHOST" in self.about(ended, "RabbitMQ")
        assert ended.status == 1

    async def test_a_port_that_speaks_no_tls(self) -> None:
        ended = await self.check(RABBITMQ_TLS="true", RABBITMQ_PORT=self.broker.port)
        assert ended.status == 1
        assert "RABBITMQ_TLS=true" in self.about(ended, "RabbitMQ")

    async def test_a_broker_with_tls_is_verified(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        folder = Path(temporary.name)
        good, stranger = Authority.create().issue(), Authority.create("stranger").issue()
        files = TlsFiles(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")
        (folder / "ca.pem").write_bytes(good.ca_pem)
        (folder / "cert.pem").write_bytes(good.certificate_pem)
        (folder / "key.pem").write_bytes(good.key_pem)
        (folder / "other.pem").write_bytes(stranger.ca_pem)
        broker = await deferToThread(PrivateBroker.start, None, files)
        self.addCleanup(deferToThread, broker.close)
        settings = {"RABBITMQ_TLS": "true", "RABBITMQ_PORT": broker.tls_port, "RABBITMQ_HOST": "localhost"}
        ended = await self.check(**settings, RABBITMQ_CA_FILE=folder / "other.pem")
        assert ended.status == 1
        assert "RABBITMQ_CA_FILE must hold" in self.about(ended, "RabbitMQ")
        ended = await self.check(**settings, RABBITMQ_CA_FILE=folder / "ca.pem")
        assert ended.status == 0
        assert "TLS, verified" in self.about(ended, "RabbitMQ")

    async def test_rights_that_are_missing_are_told_one_by_one(self) -> None:
        await self.start_gateway()
        who = {"RABBITMQ_USER": "weak", "RABBITMQ_PASSWORD": "secret"}
        await deferToThread(
            self.broker.add_user, "weak", "secret", "^$", "whatsapp-(exchange|events)", "outbound-failed"
        )
        ended = await self.check(**who)
        assert ended.status == 1
        grades = self.grades(ended)
        assert grades["exchange whatsapp-exchange"] == "ok"
        assert grades["exchange whatsapp-dlx"] == "failed"
        assert "write right" in self.about(ended, "exchange whatsapp-dlx")
        assert grades["queue outbound-processed"] == "failed"
        assert "read right" in self.about(ended, "queue outbound-processed")
        assert grades["queue outbound-failed"] == "ok"
        assert grades["queue outbound-lanes"] == "warning"

    async def test_a_tenant_service_in_trouble(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        good = await self.check("--tenant", "t1")
        assert "has credentials for tenant t1" in self.about(good, "Tenant Service")
        assert tenant.token not in good.out
        unknown = await self.check("--tenant", "t2")
        assert (unknown.status, self.grades(unknown)["Tenant Service"]) == (1, "failed")
        self.sandbox.tenants.change("t1", mode="suspended")
        assert "suspended" in self.about(await self.check("--tenant", "t1"), "Tenant Service")
        self.sandbox.tenants.change("t1", mode="junk")
        assert "is it the Tenant Service?" in self.about(await self.check("--tenant", "t1"), "Tenant Service")
        self.sandbox.tenants.change("t1", mode="401")
        assert "TENANT_SERVICE_TOKEN" in self.about(await self.check("--tenant", "t1"), "Tenant Service")
        away = await self.check(TENANT_SERVICE_URL="http://127.0.0.1:1")
        assert (away.status, self.grades(away)["Tenant Service"]) == (1, "failed")

    async def test_a_file_of_tenants(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        file = Path(folder.name, "tenants.json")
        url = f"file://{file}"
        missing = await self.check(TENANT_SERVICE_URL=url)
        assert (missing.status, self.grades(missing)["Tenant Service"]) == (1, "failed")
        file.write_text(
            json.dumps({"t1": {"status": "active", "credentials": {"systemUserAccessToken": "s3cr3t"}}})
        )
        good = await self.check("--tenant", "t1", TENANT_SERVICE_URL=url)
        assert good.status == 0
        assert "s3cr3t" not in good.out

    async def test_meta_that_is_away_or_not_who_it_says(self) -> None:
        away = await self.check(META_API_BASE_URL="http://127.0.0.1:1")
        assert (away.status, self.grades(away)["Meta"]) == (1, "failed")
        certificate = Authority.create().issue("127.0.0.1")
        listening = reactor.listenSSL(
            0, Factory.forProtocol(Protocol), certificate.options(), interface="127.0.0.1"
        )
        self.addCleanup(listening.stopListening)
        url = f"https://127.0.0.1:{listening.getHost().port}"
        strange = await self.check(META_API_BASE_URL=url)
        assert self.grades(strange)["Meta"] == "failed"
        assert "META_API_CA_FILE" in self.about(strange, "Meta")

    async def test_a_port_that_somebody_else_has(self) -> None:
        taken = reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        self.addCleanup(taken.stopListening)
        port = taken.getHost().port
        ended = await self.check(HEALTH_CHECK_PORT=port)
        assert (ended.status, self.grades(ended)["HEALTH_CHECK_PORT"]) == (1, "failed")
        assert f"{port} on 127.0.0.1 can't be listened on: Address already in use" in self.about(
            ended, "HEALTH_CHECK_PORT"
        )


class Sending(CommandLine):
    def options(self, tenant: Any, to: str | None = "15550001234") -> tuple[str, ...]:
        options = ("--tenant", tenant.id, "--from", tenant.phone_number_id)
        return options if to is None else (*options, "--to", to)

    async def test_one_that_is_sent(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway()
        ended = await self.cli("send", *self.options(tenant), "--text", "hello", "--internal-id", "m-1")
        assert (ended.status, ended.err) == (0, "")
        queued, sent = ended.out.splitlines()
        assert queued == f"queued  m-1 of tenant t1, from {tenant.phone_number_id} to ***1234"
        (arrival,) = self.sent()
        assert sent.startswith(f"sent    {arrival.wamid}, after ")
        assert json.loads(arrival.body)["text"] == {"body": "hello"}
        assert "15550001234" not in ended.out

    async def test_as_json(self) -> None:
        tenant = self.sandbox.tenants.add("with.dots")
        await self.start_gateway()
        ended = await self.cli("send", *self.options(tenant), "--text", "hello", "--json")
        document = ended.document
        (arrival,) = self.sent()
        assert (document["outcome"], document["wamid"], document["to"]) == ("sent", arrival.wamid, "***1234")
        assert document["internalId"].startswith("cli-")
        assert "15550001234" not in ended.out

    async def test_any_payload_from_standard_input(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway()
        payload = {"type": "image", "image": {"link": "https://example.com/x.jpg"}}
        ended = await self.cli("send", *self.options(tenant), "--payload", "-", given=json.dumps(payload))
        assert ended.status == 0
        (arrival,) = self.sent()
        whole = {**payload, "to": "15550001234", "messaging_product": "whatsapp"}
        assert json.loads(arrival.body) == whole

    async def test_one_that_fails(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway()
        ended = await self.cli("send", *self.options(tenant, cards.always(131026)), "--text", "hello")
        assert ended.status == 1
        for part in ("failed  after", "rejected", "131026 Message undeliverable", "advice"):
            assert part in ended.out, ended.out
        as_json = await self.cli("send", *self.options(tenant, cards.always(131026)), "--text", "x", "--json")
        assert as_json.status == 1
        assert (as_json.document["reason"], as_json.document["errorCode"]) == ("rejected", 131026)

    async def test_one_whose_outcome_takes_too_long(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway()
        options = (
            *self.options(tenant, cards.hang()),
            "--text",
            "x",
            "--internal-id",
            "m-1",
            "--timeout",
            "1s",
        )
        ended = await self.cli("send", *options)
        assert ended.status == 2
        assert "whatsapp-egress why m-1 --tenant t1" in ended.out
        as_json = await self.cli("send", *options, "--json")
        assert (as_json.status, as_json.document["outcome"]) == (2, "unknown")

    async def test_who_is_interrupted_is_told_that_the_message_stays(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway()
        options = (*self.options(tenant, cards.hang()), "--text", "x", "--internal-id", "m 1")
        typed = Typed("send", *options, **self.environment())
        self.addCleanup(typed.kill)
        await self.until(lambda: len(self.sandbox.record) == 1, "it is under way")
        typed.interrupt()
        assert await typed.ended() == 130
        assert "stays queued" in typed.seen
        assert "whatsapp-egress why 'm 1' --tenant t1" in typed.seen
        assert "Traceback" not in typed.seen

    async def test_where_no_gateway_ever_ran_nothing_is_published(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        ended = await self.cli("send", *self.options(tenant), "--text", "x")
        assert (ended.status, ended.out) == (1, "")
        assert "Nothing was sent" in ended.err
        assert "whatsapp-events" in ended.err

    async def test_where_no_queue_takes_it(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        for exchange in ("whatsapp-exchange", "whatsapp-events"):
            self.upstream.channel.exchange_declare(exchange, "topic", durable=True)
        ended = await self.cli("send", *self.options(tenant), "--text", "x")
        assert (ended.status, ended.out) == (1, "")
        assert "no queue takes outbound.processed.t1" in ended.err

    async def test_where_there_is_no_broker(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        ended = await self.cli("send", *self.options(tenant), "--text", "x", RABBITMQ_PORT="1")
        assert (ended.status, ended.out) == (3, "")
        assert "RabbitMQ can't be reached" in ended.err

    async def test_what_makes_no_message_is_not_published(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway()
        await self.stop_gateway()
        options = self.options(tenant)
        for more, given in (
            ((), ""),
            (("--text", "x", "--payload", "-"), "{}"),
            (("--payload", "-"), "no json"),
            (("--payload", "-"), "[]"),
            (("--payload", "-"), '{"to": "1"}'),
            (("--payload", "-"), '{"messaging_product": "sms"}'),
            (("--text", "x", "--internal-id", "a\nb"), ""),
            (("--text", "x", "--from", "abc"), ""),
        ):
            ended = await self.cli("send", *options, *more, given=given)
            assert (ended.status, ended.out) == (2, ""), more
        ended = await self.cli("send", *self.options(tenant, None), "--text", "x")
        assert ended.status == 2
        ended = await self.cli("send", *options, "--text", "x" * 200, MESSAGE_MAX_BYTES="100")
        assert ended.status == 1
        assert "MESSAGE_MAX_BYTES" in ended.err
        ended = await self.cli("send", *options, "--text", "x", RABBITMQ_PREFETCH="none")
        assert ended.status == 1
        assert "RABBITMQ_PREFETCH" in ended.err
        assert self.upstream.depth("outbound-processed") == 0


class Steering(CommandLine):
    async def gateway_cli(self, *arguments: str) -> Ended:
        assert self.gateway is not None
        return await self.cli(*arguments, HEALTH_CHECK_PORT=self.gateway.health.port)

    async def test_a_paused_tenant_waits_until_it_is_resumed(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway(ADMIN_TOKEN=TOKEN)
        paused = await self.gateway_cli(
            "pause", "t1", "--reason", "wrong template", "--for", "30m", "--actor", "ann"
        )
        assert paused.status == 0, paused
        assert "t1 is paused until" in paused.out
        self.upstream.publish(message(tenant, internal_id="order-1"))
        await self.until(lambda: bool(self.events("message_deferred")), "it is deferred")
        told = await self.gateway_cli("why", "order-1", "--tenant", "t1")
        assert "waits in its tenant's deferred queue" in told.out
        assert "for an operator, who has paused it, until" in told.out
        lanes = await self.gateway_cli("lanes")
        assert lanes.out.splitlines()[1].split()[:2] == ["t1", "paused"]
        one = await self.gateway_cli("lanes", "t1")
        assert "wrong template, by ann" in one.out
        assert self.sent() == []
        resumed = await self.gateway_cli("resume", "t1")
        assert resumed.status == 0
        await self.until(lambda: len(self.sent()) == 1, "it is sent")
        await self.until_settled()
        sent = await self.gateway_cli("why", "order-1")
        assert "was sent" in sent.out
        again = await self.gateway_cli("resume", "t1")
        assert again.status == 1
        assert "not paused" in again.err

    async def test_a_message_behind_another_one(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway(ADMIN_TOKEN=TOKEN)
        for name in ("order-1", "order-2"):
            self.upstream.publish(message(tenant, to=cards.hang(), internal_id=name))
        await self.until(lambda: len(self.sandbox.record) == 1, "the first is under way")
        first = await self.gateway_cli("why", "order-1")
        assert "is being sent to Meta now" in first.out
        second = await self.gateway_cli("why", "order-2", "--json")
        (found,) = second.document["messages"]
        assert (found["where"], found["gate"]["cause"], found["ahead"]) == ("in_hand", "conversation", 1)

    async def test_breaker_and_credentials(self) -> None:
        self.sandbox.tenants.add("t1")
        await self.start_gateway(ADMIN_TOKEN=TOKEN)
        for command in ("breaker-reset", "credentials-drop"):
            ended = await self.gateway_cli(command, "t1", "--json")
            assert ended.status == 0, ended
            assert ended.document["tenantId"] == "t1"

    async def test_who_is_not_let_in(self) -> None:
        await self.start_gateway(ADMIN_TOKEN="another-token-altogether")
        ended = await self.gateway_cli("lanes")
        assert ended.status == 4
        assert "refused the token" in ended.err
        await self.stop_gateway()
        await self.start_gateway()
        ended = await self.gateway_cli("lanes")
        assert ended.status == 4
        assert "not enabled" in ended.err

    async def test_a_tenant_that_has_no_lane(self) -> None:
        await self.start_gateway(ADMIN_TOKEN=TOKEN)
        assert (await self.gateway_cli("lanes", "nobody")).status == 1
        assert "Not in hand" in (await self.gateway_cli("why", "nothing")).out


class DeadLetters(CommandLine):
    async def fail(self, count: int, **settings: object) -> None:
        """Have a gateway fail so many messages of tenant t1, each to somebody else."""
        self.tenant = self.sandbox.tenants.add("t1", messages_per_second=1000)
        self.sandbox.behaviours.put(self.tenant.phone_number_id, failure_rate=1.0)
        await self.start_gateway(
            ADMIN_TOKEN=TOKEN, META_API_MAX_RETRIES="0", BREAKER_FAILURE_THRESHOLD="1000"
        )
        for n in range(count):
            self.upstream.publish(message(self.tenant, to=f"1555000{n:04}", internal_id=f"m-{n}"))
        await self.until(lambda: self.upstream.depth("outbound-failed") == count, "all have failed")
        self.sandbox.behaviours.clear(self.tenant.phone_number_id)

    async def letters(self, *arguments: str) -> Ended:
        assert self.gateway is not None
        return await self.cli("dead-letters", *arguments, HEALTH_CHECK_PORT=self.gateway.health.port)

    async def test_they_are_listed_and_shown_without_numbers(self) -> None:
        await self.fail(3)
        listed = await self.letters("list")
        assert listed.status == 0, listed
        assert len(listed.out.splitlines()) == 4
        assert "retries_exhausted" in listed.out
        document = (await self.letters("list", "--tenant", "t1", "--younger-than", "1h", "--json")).document
        assert document["matching"] == 3
        assert (await self.letters("list", "--older-than", "1h", "--json")).document["matching"] == 0
        one = document["deadLetters"][0]
        shown = await self.letters("show", one["id"])
        assert f"{one['internalId']} of tenant t1" in shown.out
        assert "131000" in shown.out
        assert "x-egress-reason" in shown.out
        for number in range(3):
            assert f"1555000{number:04}" not in listed.out + shown.out
        assert (await self.letters("show", "0" * 32)).status == 1
        assert self.upstream.depth("outbound-failed") == 3

    async def test_a_dry_run_changes_nothing(self) -> None:
        await self.fail(3)
        ended = await self.letters("replay", "--dry-run")
        assert ended.status == 0, ended
        assert "3 dead letters match." in ended.out
        assert ended.out.splitlines()[2].split()[:2] == ["3", "send"]
        assert self.upstream.depth("outbound-failed") == 3
        assert self.sent() == []

    async def test_replayed_they_are_sent(self) -> None:
        await self.fail(5)
        ended = await self.letters("replay", "--tenant", "t1", "--yes")
        assert ended.status == 0, ended
        assert "Done: 5 dead letters replayed." in ended.out
        await self.until(lambda: len(self.sent()) == 5, "all are sent")
        assert {arrival.to for arrival in self.sent()} == {f"1555000{n:04}" for n in range(5)}
        assert self.upstream.depth("outbound-failed") == 0

    async def test_dropped_they_are_gone(self) -> None:
        await self.fail(4)
        one = (await self.letters("list", "--json")).document["deadLetters"][0]["id"]
        dropped = await self.letters("drop", "--id", one, "--yes", "--json")
        assert dropped.status == 0, dropped
        assert dropped.document["dropped"] == 1
        assert self.upstream.depth("outbound-failed") == 3
        assert (await self.letters("drop", "--all", "--yes")).status == 0
        assert self.upstream.depth("outbound-failed") == 0
        assert self.sent() == []

    async def test_ctrl_c_stops_a_replay_that_loses_and_doubles_nothing(self) -> None:
        count = 100
        await self.fail(count)
        assert self.gateway is not None
        typed = Typed(
            *("dead-letters", "replay", "--yes", "--rate", "20"),
            **self.environment(ADMIN_TOKEN=TOKEN, HEALTH_CHECK_PORT=self.gateway.health.port),
        )
        self.addCleanup(typed.kill)
        await self.until(lambda: len(self.sent()) >= 5, "it replays")
        typed.interrupt()
        assert await typed.ended() == 130
        assert "Stopped: " in typed.seen
        replayed = int(typed.seen.rpartition("Stopped: ")[2].split()[0])
        assert 5 <= replayed < count
        await self.until(lambda: len(self.sent()) == replayed, "what was replayed is sent")
        assert self.upstream.depth("outbound-failed") == count - replayed
        assert len({arrival.to for arrival in self.sent()}) == replayed
        rest = await self.letters("replay", "--yes", "--rate", "1000")
        assert f"Done: {count - replayed} dead letters replayed." in rest.out
        await self.until(lambda: len(self.sent()) == count, "all are sent")
        assert len({arrival.to for arrival in self.sent()}) == count
