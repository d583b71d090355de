"""Operators steer a gateway that is a process of its own, on a real RabbitMQ, by its control API alone."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue
from twisted.web.client import Agent, HTTPConnectionPool

from tests.integration.rabbit import PATIENCE
from tests.integration.test_process import Process
from tests.integration.world import message
from whatsapp_egress.sandbox import cards

TOKEN = "correct-horse-battery-staple"
OPS = {"actor": "ops"}
ROOT = Path(__file__).parents[2]


class Steering(Process):
    timeout = 240

    async def setUp(self) -> None:
        await super().setUp()
        self.upstream.channel.queue_delete("outbound-replays")
        self.http = HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False)))

    def environment(self, **settings: object) -> dict[str, str]:
        """With the tree that is tested, whatever is installed."""
        return {**super().environment(**settings), "PYTHONPATH": str(ROOT)}

    async def start_steered(self, **settings: object) -> None:
        secret = self.folder / "admin-token"
        secret.write_text(f"{TOKEN}\n")
        self.start(ADMIN_TOKEN_FILE=secret, **settings)
        self.addCleanup(self.upstream.forget, "t1")
        await self.until_logged("rabbitmq_consuming")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.lines('service_started')[0]['healthPort']}/api/v1"

    async def call(self, method: str, path: str, body: object = None, token: str = TOKEN) -> tuple[int, Any]:
        response = await self.http.request(
            method,
            f"{self.url}{path}",
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            data=None if body is None else json.dumps(body).encode(),
        )
        return response.code, json.loads(await response.content())

    async def why(self, internal_id: str) -> dict[str, Any]:
        status, document = await self.call("GET", f"/messages?internalId={internal_id}")
        assert status == 200
        return dict(document["messages"][0]) if document["messages"] else {"where": None}

    async def until_so(self, holds: Callable[[], Awaitable[bool]], what: str) -> None:
        give_up_at = reactor.seconds() + PATIENCE
        while not await holds():
            assert reactor.seconds() < give_up_at, (what, self.lines()[-10:])
            await deferLater(reactor, 0.05)

    async def until_is(self, internal_id: str, where: str) -> dict[str, Any]:
        async def is_there() -> bool:
            return (await self.why(internal_id))["where"] == where

        await self.until_so(is_there, f"{internal_id} is {where}")
        return await self.why(internal_id)

    async def test_a_pause_holds_messages_and_its_end_lets_them_go(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_steered()
        status, lane = await self.call("POST", "/lanes/t1/pause", {**OPS, "reason": "they asked"})
        assert (status, lane["state"], lane["pause"]["actor"]) == (200, "paused", "ops")
        self.upstream.publish(message(tenant, internal_id="m-1"))
        found = await self.until_is("m-1", "deferred")
        assert found["gate"] == {
            "cause": "pause",
            "until": None,
            "inWords": "waits for an operator, who has paused it",
        }
        assert self.sent() == []

        status, lane = await self.call("POST", "/lanes/t1/resume", OPS)
        assert (status, lane["pause"]) == (200, None)
        found = await self.until_is("m-1", "sent")
        assert found["wamid"] == self.sent()[0].wamid
        assert [(line["path"], line["actor"], line["status"]) for line in self.lines("control_call")] == [
            ("/api/v1/lanes/t1/pause", "ops", 200),
            ("/api/v1/lanes/t1/resume", "ops", 200),
        ]

    async def test_a_pause_with_an_end_ends_by_itself(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_steered()
        await self.call("POST", "/lanes/t1/pause", {**OPS, "reason": "they asked", "seconds": 2})
        self.upstream.publish(message(tenant, internal_id="m-1"))
        gone = await self.until_is("m-1", "sent")
        assert gone["attempts"] == 1
        assert (await self.call("POST", "/lanes/t1/resume", OPS))[1]["error"] == "not_paused"

    async def test_why_a_message_waits(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_steered()
        throttled = cards.times(1, 131056)
        for name, to in (("m-1", throttled), ("m-2", throttled), ("m-3", "15550009999")):
            self.upstream.publish(message(tenant, to=to, internal_id=name))
        await self.until_is("m-3", "sent")

        async def is_throttled() -> bool:
            return ((await self.why("m-1")).get("gate") or {}).get("cause") == "recipient"

        await self.until_so(is_throttled, "its recipient is throttled")
        first, second = await self.why("m-1"), await self.why("m-2")
        assert (first["where"], first["ahead"]) == ("in_hand", 0)
        assert (second["where"], second["ahead"], second["gate"]) == ("in_hand", 1, first["gate"])
        assert first["gate"]["until"] is not None
        assert (await self.until_is("m-2", "sent"))["gate"] is None
        assert (await self.call("GET", "/messages?internalId=m-9"))[1]["hint"].startswith("Not in hand")

    async def test_a_breaker_is_closed_by_hand(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_steered(BREAKER_FAILURE_THRESHOLD="2", META_API_MAX_RETRIES="0")
        other = self.sandbox.tenants.add("t2")
        self.upstream.publish(message(other, internal_id="fine"))
        await self.until_is("fine", "sent")
        self.sandbox.behaviours.put(tenant.phone_number_id, mode="error", error_code=131016)
        for number in range(2):
            self.upstream.publish(message(tenant, to=f"1555000{number}", internal_id=f"m-{number}"))
        await self.until_logged("circuit_breaker_opened")
        self.sandbox.behaviours.clear(tenant.phone_number_id)
        self.upstream.publish(message(tenant, internal_id="late"))
        found = await self.until_is("late", "in_hand")
        assert found["gate"]["cause"] == "breaker"

        status, lane = await self.call("POST", "/lanes/t1/breaker/reset", OPS)
        assert (status, lane["breaker"]["state"]) == (200, "closed")
        await self.until_is("late", "sent")

    async def test_dropped_credentials_are_asked_for_again(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_steered()
        for number in range(3):
            self.upstream.publish(message(tenant, internal_id=f"m-{number}"))
        await self.until_is("m-2", "sent")
        assert self.lookups("t1") == 1

        assert (await self.call("POST", "/lanes/t1/credentials/drop", OPS))[0] == 200
        self.upstream.publish(message(tenant, internal_id="late"))
        await self.until_is("late", "sent")
        assert self.lookups("t1") == 2

    def lookups(self, tenant_id: str) -> int:
        return self.sandbox.fetches.by_tenant[tenant_id]

    async def test_dead_letters_are_looked_at_replayed_and_dropped(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_steered(META_API_MAX_RETRIES="0")
        self.sandbox.behaviours.put(tenant.phone_number_id, mode="error", error_code=131016)
        for number in range(3):
            self.upstream.publish(message(tenant, to=f"1555000000{number}", internal_id=f"m-{number}"))
        await self.until_logged("message_dead_lettered", 3)
        status, found = await self.call(
            "GET", "/dead-letters?tenantId=t1&reason=retries_exhausted&code=131016"
        )
        assert (status, found["depth"], found["matching"], found["complete"]) == (200, 3, 3, True)
        newest = found["deadLetters"][0]
        assert (newest["internalId"], newest["forecast"]["would"]) == ("m-2", "send")
        status, whole = await self.call("GET", f"/dead-letters/{newest['id']}")
        assert (status, whole["body"]["metadata"]["internalId"]) == (200, "m-2")
        assert "15550000002" not in json.dumps(whole)

        chosen = {**OPS, "filter": {"id": newest["id"]}}
        status, plan = await self.call("POST", "/dead-letters/drops", {**chosen, "dryRun": True})
        assert (status, plan["counted"], plan["dropped"]) == (200, 1, 0)
        status, drop = await self.call("POST", "/dead-letters/drops", {**chosen, "expected": 1})
        assert status == 202
        await self.until_done("drops", drop["id"])

        self.sandbox.behaviours.clear(tenant.phone_number_id)
        chosen = {**OPS, "filter": {"tenantId": "t1"}}
        status, refusal = await self.call("POST", "/dead-letters/replays", {**chosen, "expected": 3})
        assert (status, refusal["error"]) == (409, "count_changed")
        status, plan = await self.call("POST", "/dead-letters/replays", {**chosen, "dryRun": True})
        assert (plan["counted"], plan["would"]) == (2, {"send": 2})
        status, replay = await self.call("POST", "/dead-letters/replays", {**chosen, "expected": 2})
        assert status == 202
        assert (await self.until_done("replays", replay["id"]))["replayed"] == 2
        for number in range(2):
            assert (await self.until_is(f"m-{number}", "sent"))["attempts"] == 1
        assert self.dead_letters() == []
        assert {json.loads(arrival.body)["to"] for arrival in self.sent()} == {"15550000000", "15550000001"}

    async def until_done(self, kind: str, job_id: str) -> dict[str, Any]:
        report: dict[str, Any] = {}

        async def is_done() -> bool:
            report.update((await self.call("GET", f"/dead-letters/{kind}/{job_id}"))[1])
            return report["state"] == "done"

        await self.until_so(is_done, f"{job_id} is done")
        return report

    async def test_nobody_gets_in_without_the_token_and_no_log_shows_one(self) -> None:
        await self.start_steered(LOG_LEVEL="debug")
        for token in ("", "hunter2hunter2hunter2", TOKEN[:-1]):
            status, document = await self.call("POST", "/lanes/t1/pause", {**OPS, "reason": "x"}, token)
            assert (status, document["error"]) == (401, "unauthorized")
        assert (await self.call("GET", f"/lanes/{TOKEN}"))[0] == 404
        refused = self.lines("control_call")
        assert [(line["status"], line["level"]) for line in refused] == [(401, "WARNING")] * 3 + [
            (404, "WARNING")
        ]
        assert all(line["remote"] == "127.0.0.1" for line in refused)
        text = self.log_file.read_text()
        assert TOKEN not in text
        assert "hunter2" not in text

    async def test_it_does_what_its_description_says(self) -> None:
        await self.start_steered()
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        output, errors, status = await getProcessOutputAndValue(
            sys.executable,
            [
                *("-m", "schemathesis.cli", "run", f"{self.url}/openapi.json"),
                *("--header", f"Authorization: Bearer {TOKEN}"),
                *("--checks", "all", "--max-examples", "5", "--generation-deterministic", "--no-color"),
                *("--exclude-operation-id", "pause"),  # each tenant of it would have queues of its own
            ],
            env=dict(os.environ),
            path=folder,
        )
        assert status == 0, (output + errors).decode()
