"""The installed `twistd whatsapp-egress` as a process of its own: how it starts, logs and ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.web.client import Agent, HTTPConnectionPool

from tests.integration.world import World, message
from whatsapp_egress.sandbox import cards

TWISTD = Path(sys.executable).with_name("twistd")


class Process(World):
    async def setUp(self) -> None:
        await super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.process: Popen[bytes] | None = None

    def start(self, *options: str, **settings: object) -> Popen[bytes]:
        """Start it, in the foreground unless `options` are twistd's; its log goes to a file in its folder."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "HOME", "PYTHONPATH") or name.startswith("COVERAGE")
        }
        self.log_file = self.folder / "log"
        self.process = Popen(
            [str(TWISTD), *(options or ("-n", "--pidfile=")), "whatsapp-egress"],
            env={**kept, **self.environment(**settings)},
            cwd=self.folder,
            stdout=self.log_file.open("wb"),
            stderr=PIPE,
        )
        self.addCleanup(self.end)
        return self.process

    def end(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """What it logged: whole lines of JSON, all of them."""
        whole = self.log_file.read_bytes().rpartition(b"\n")[0]
        logged = [json.loads(line) for line in whole.splitlines()]
        return [line for line in logged if event in (None, line["event"])]

    async def until_logged(self, event: str, times: int = 1) -> dict[str, Any]:
        await self.until(lambda: len(self.lines(event)) >= times, f"{event} is logged")
        return self.lines(event)[times - 1]

    async def until_ended(self, patience: float = 40) -> int:
        process = self.process
        assert process is not None
        await self.until(lambda: process.poll() is not None, "it ended", patience)
        return int(process.returncode)

    async def get(self, path: str) -> int:
        port = self.lines("service_started")[0]["healthPort"]
        client = HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False)))
        response = await client.get(f"http://127.0.0.1:{port}{path}")
        await response.content()
        return int(response.code)


class Starting(Process):
    async def test_it_sends_and_logs_json_lines_without_secrets_or_numbers(self) -> None:
        tenant = self.sandbox.tenants.add("t1", token="EAAverySecretToken1234567890")
        self.start(LOG_LEVEL="debug", RABBITMQ_PASSWORD="guest")
        await self.until_logged("rabbitmq_consuming")
        self.upstream.publish(message(tenant, to="15550001234", internal_id="order-1"))
        self.upstream.publish(message(tenant, to=cards.always(190), internal_id="order-2"))
        delivered = await self.until_logged("message_delivered")
        dead = await self.until_logged("message_dead_lettered")
        (arrival,) = self.sent()
        assert (delivered["level"], delivered["service"]) == ("INFO", "whatsapp-egress")
        assert (delivered["tenantId"], delivered["internalId"]) == ("t1", "order-1")
        assert delivered["wamid"] == arrival.wamid
        assert delivered["duration"] > 0
        assert (dead["errorCode"], dead["reason"]) == (190, "auth_failed")
        assert self.lines("message_consumed")[0]["level"] == "DEBUG"
        assert self.lines("meta_api_auth_error")
        text = self.log_file.read_text()
        assert "EAAverySecretToken1234567890" not in text
        assert "15550001234" not in text

    async def test_the_probes_tell_alive_and_ready_apart(self) -> None:
        self.upstream.close()
        await deferToThread(self.broker.stop)
        self.start()
        await self.until_logged("rabbitmq_unreachable")
        assert await self.get("/health/live") == 200
        assert await self.get("/health/ready") == 503
        await deferToThread(self.broker.start_again)
        await self.until_logged("rabbitmq_consuming")
        assert await self.get("/health/ready") == 200

    async def test_bad_settings_stop_it_with_one_message_that_lists_them_all(self) -> None:
        process = self.start(
            RABBITMQ_PORT="high", META_API_BASE_URL="http://example.com", META_APP_SECRET_FILE="/nowhere"
        )
        assert await self.until_ended() == 1
        assert process.stderr is not None
        said = process.stderr.read().decode()
        for name in ("RABBITMQ_PORT", "META_API_BASE_URL", "META_APP_SECRET_FILE"):
            assert name in said
        assert "Traceback" not in said
        assert self.log_file.read_bytes() == b""

    async def test_a_port_that_is_taken_stops_it_with_one_line_that_says_so(self) -> None:
        taken = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        self.addCleanup(taken.stopListening)
        self.start(HEALTH_CHECK_PORT=taken.getHost().port)
        assert await self.until_ended() == 1
        *_, last = self.lines()
        assert (last["event"], last["level"]) == ("service_not_started", "CRITICAL")
        assert last["setting"] == "HEALTH_CHECK_PORT"
        assert f"127.0.0.1:{taken.getHost().port}" in last["detail"]

    async def test_as_a_daemon_too(self) -> None:
        taken = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        self.addCleanup(taken.stopListening)
        pidfile = self.folder / "pid"
        process = self.start(
            f"--pidfile={pidfile}", "--logfile=its.log", HEALTH_CHECK_PORT=taken.getHost().port
        )
        assert await self.until_ended() == 1
        assert process.stderr is not None
        assert b"Couldn't listen on 127.0.0.1" in process.stderr.read()
        assert not pidfile.exists()


class Stopping(Process):
    async def test_sigterm_under_load_settles_what_is_in_flight_and_leaves_the_rest(self) -> None:
        tenant = self.sandbox.tenants.add("t1", messages_per_second=100)
        self.sandbox.behaviours.put(latency_ms=(100, 400))
        process = self.start()
        await self.until_logged("rabbitmq_consuming")
        for n in range(600):
            self.upstream.publish(message(tenant, to=f"1555{n:07}", internal_id=f"m{n}"))
        await self.until(lambda: len(self.sandbox.record) > 60, "it is busy")
        process.send_signal(signal.SIGTERM)
        assert await self.until_ended() == 0
        sent = {arrival.to for arrival in self.sent()}
        assert len(sent) == len(self.sandbox.record)
        # Each message is either sent or still queued, and none is both.
        queues = ("outbound-processed", "outbound-deferred.t1", "outbound-deferred-first.t1")
        waiting = [waiting for queue in queues for _, waiting in self.upstream.take(queue)]
        assert len(sent) + len(waiting) == 600
        left = [json.loads(each.body) for each in waiting]
        left = {body["wabaPayload"]["to"] for body in left}
        assert left.isdisjoint(sent)
        assert self.lines("service_stopped")

    async def test_a_send_that_hangs_is_given_up_after_the_patience_and_stays_queued(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        process = self.start(SHUTDOWN_TIMEOUT="500")
        await self.until_logged("rabbitmq_consuming")
        self.upstream.publish(message(tenant, to=cards.hang()))
        await self.until(lambda: len(self.sandbox.record) == 1, "it hangs")
        process.send_signal(signal.SIGTERM)
        assert await self.until_ended() == 0
        await self.until(lambda: self.upstream.depth("outbound-processed") == 1, "it is queued")

    async def test_it_stops_while_the_broker_is_away(self) -> None:
        self.upstream.close()
        await deferToThread(self.broker.stop)
        process = self.start()
        await self.until_logged("rabbitmq_unreachable")
        process.send_signal(signal.SIGINT)
        assert await self.until_ended() == 0
        await deferToThread(self.broker.start_again)

    async def test_a_second_signal_ends_it_at_once(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        process = self.start()
        await self.until_logged("rabbitmq_consuming")
        self.upstream.publish(message(tenant, to=cards.hang()))
        await self.until(lambda: len(self.sandbox.record) == 1, "it hangs")
        process.send_signal(signal.SIGTERM)
        await self.until_logged("service_stopping")
        process.send_signal(signal.SIGTERM)
        assert await self.until_ended() == 128 + signal.SIGTERM
        assert not self.lines("service_stopped")
