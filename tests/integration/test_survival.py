"""Workers that are killed: what they had deferred is sent by who comes after them."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

from attrs import define

from tests.integration.flood import Flooded, number_of

ROOT = Path(__file__).parents[2]
TWISTD = Path(sys.executable).with_name("twistd")


@define(eq=False)
class Worker:
    """A gateway as a process of its own, of the code that these tests lie beside."""

    process: Popen[bytes]
    log_file: Path

    @classmethod
    def start(cls, folder: Path, settings: dict[str, str]) -> Worker:
        kept = {
            name: value
            for name, value in os.environ.items()
            if name in ("PATH", "HOME") or name.startswith("COVERAGE")
        }
        log_file = folder / "log"
        with log_file.open("wb") as log:
            process = Popen(
                [str(TWISTD), "-n", "--pidfile=", "whatsapp-egress"],
                env={**kept, "PYTHONPATH": str(ROOT), **settings},
                cwd=folder,
                stdout=log,
                stderr=PIPE,
            )
        return cls(process, log_file)

    def logged(self, event: str) -> list[dict[str, Any]]:
        whole = self.log_file.read_bytes().rpartition(b"\n")[0]
        return [line for line in map(json.loads, whole.splitlines()) if line["event"] == event]

    def kill(self) -> None:
        """End it as the kernel would for want of memory."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        if self.process.poll() is None:
            self.kill()
        assert self.process.stderr is not None
        self.process.stderr.close()


class Survival(Flooded):
    async def setUp(self) -> None:
        await super().setUp()
        self.workers: list[Worker] = []
        self.sandbox.behaviours.put(latency_ms=20)

    async def start_worker(self, **settings: object) -> Worker:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        worker = Worker.start(Path(folder.name), self.environment(**settings))
        self.addCleanup(worker.end)
        self.workers.append(worker)
        await self.until(lambda: bool(worker.logged("rabbitmq_consuming")), "a worker consumes")
        return worker

    def tenant(self, **settings: Any) -> Any:
        tenant = self.sandbox.tenants.add("survivor", **settings)
        self.addCleanup(self.forget, tenant)
        return tenant

    def forget(self, tenant: Any) -> None:
        for worker in self.workers:
            worker.end()
        self.upstream.forget(tenant.id)

    async def until_deferred(self, tenant: Any, least: int) -> None:
        await self.until(
            lambda: self.depth_of("outbound-processed") == 0 and self.deferred(tenant) >= least,
            "the rest is deferred",
        )

    async def until_each_is_sent(self, tenant: Any, count: int) -> None:
        await self.until(lambda: self.accepted(tenant) >= count, "as many are sent", 60)
        await self.until(lambda: len(set(self.numbers_sent(tenant))) == count, "each is sent", 20)

    def assert_doubled_only_what_was_in_flight(self, tenant: Any, *killed_at: float) -> None:
        """Sent twice are at most those whose answer a worker had not settled when it was killed."""
        arrivals = [arrival for arrival in self.arrived(tenant) if arrival.status == 200]
        seen: set[int] = set()
        doubled: set[int] = set()
        for arrival in arrivals:
            (doubled if number_of(arrival) in seen else seen).add(number_of(arrival))
        in_flight = {
            number_of(arrival)
            for arrival in arrivals
            for at in killed_at
            if arrival.time < at and (arrival.finished_at or at) > at - 0.1
        }
        assert doubled <= in_flight, (doubled, in_flight)
        assert len(doubled) <= 10

    async def test_what_was_deferred_is_sent_after_a_kill_and_a_restart(self) -> None:
        tenant = self.tenant(messages_per_second=20)
        worker = await self.start_worker(DEFER_AFTER="2000")
        self.flood(tenant, range(5040))
        await self.until_deferred(tenant, 4900)
        await self.until(lambda: self.accepted(tenant) >= 40, "it sends at its rate")
        worker.kill()
        killed_at = time.time()
        self.sandbox.tenants.change(tenant.id, messages_per_second=2000)
        await self.start_worker(DEFER_AFTER="2000")
        await self.until_each_is_sent(tenant, 5040)
        self.assert_doubled_only_what_was_in_flight(tenant, killed_at)
        first_times = list(dict.fromkeys(self.numbers_sent(tenant)))
        self.assert_in_order(first_times)
        assert self.depth_of("outbound-failed") == 0

    async def test_killed_while_it_defers_it_has_lost_nothing(self) -> None:
        tenant = self.tenant(messages_per_second=20)
        worker = await self.start_worker(RABBITMQ_PREFETCH="100", LANE_ACTIVE_LIMIT="20")
        self.flood(tenant, range(3000))
        await self.until(lambda: self.deferred(tenant) > 500, "it defers")
        assert self.depth_of("outbound-processed") > 0
        worker.kill()
        self.sandbox.tenants.change(tenant.id, messages_per_second=2000)
        await self.start_worker(RABBITMQ_PREFETCH="100", LANE_ACTIVE_LIMIT="20")
        await self.until_each_is_sent(tenant, 3000)
        # What was confirmed in the deferred queue and not yet acked in the other is in both.
        assert self.accepted(tenant) <= 3000 + 100
        assert self.depth_of("outbound-failed") == 0

    async def test_whoever_of_three_is_killed_another_takes_over(self) -> None:
        tenant = self.tenant(messages_per_second=20)
        first = await self.start_worker(DEFER_AFTER="2000")
        second = await self.start_worker(DEFER_AFTER="2000")
        self.flood(tenant, range(1500))
        await self.until_deferred(tenant, 1300)
        await self.until_more_is_sent(tenant)
        killed_at = []
        # One of the two that are killed has the lease.
        for victim in (first, second):
            victim.kill()
            killed_at.append(time.time())
            await self.until_more_is_sent(tenant)
            if victim is first:
                await self.start_worker(DEFER_AFTER="2000", CREDENTIAL_CACHE_TTL="1000")
        self.sandbox.tenants.change(tenant.id, messages_per_second=2000)
        await self.until_each_is_sent(tenant, 1500)
        self.assert_doubled_only_what_was_in_flight(tenant, *killed_at)
        assert self.depth_of("outbound-failed") == 0

    async def until_more_is_sent(self, tenant: Any) -> None:
        sent = self.accepted(tenant)
        await self.until(lambda: self.accepted(tenant) > sent + 15, "more is sent")
