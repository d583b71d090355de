"""Replays and drops as operators order them, through a gateway and to Meta; and replays that are killed."""

from __future__ import annotations

import random
import re
import sys
import time
from collections import Counter
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.integration.letters import FAILED, INCOMING, NOTES, WithLetters, body
from tests.integration.rabbit import Publisher
from tests.integration.world import World
from tests.policy.meta import TABLE
from whatsapp_egress.clients.broker import replaying
from whatsapp_egress.control.jobs import CountChanged, Job, Order, State, What
from whatsapp_egress.control.replays import KEPT_JOBS, Replays
from whatsapp_egress.errors import QueueTrouble, ReplayUnderWay
from whatsapp_egress.policy.replay import Filter, Hold, Would

ROOT = Path(__file__).parents[2]


class WithReplays(WithLetters, World):
    async def setUp(self) -> None:
        await super().setUp()
        self.holds: dict[str, Hold] = {}
        self.was_sent: dict[tuple[str, str], float] = {}
        self.now = time.time()
        self.replays = self.make_replays()

    def make_replays(self) -> Replays:
        replays = Replays(
            self.queue(), TABLE, self.holds.get, lambda: self.was_sent, reactor, lambda: self.now
        )
        self.addCleanup(replays.end)
        return replays

    async def order(self, expected: int, what: What = What.REPLAY, **more: Any) -> Job:
        wanted = Filter(**{name: more.pop(name) for name in list(more) if name in Filter.__slots__})
        job = await self.replays.start(Order(what, wanted, "ann", expected, **({"rate": 10_000.0} | more)))
        await self.until(lambda: job.over, "the job is over")
        return job


class Ordered(WithReplays):
    async def test_a_replay_reaches_meta_once_each(self) -> None:
        tenant = self.sandbox.tenants.add("t1", messages_per_second=1000)
        await self.start_gateway()
        for n in range(200):
            self.put(body(n, tenant.id, tenant.phone_number_id, retryCount=3), **{"x-egress-attempts": 4})
        job = await self.order(200)
        assert (job.state, job.counted, job.moved, job.left, job.skipped) == (State.DONE, 200, 200, 0, {})
        await self.until(lambda: len(self.sent()) >= 200, "all are sent")
        await self.until(lambda: self.upstream.depth(INCOMING) == 0, "nothing is left")
        assert Counter(arrival.to for arrival in self.sent()) == {f"1555{n:07}": 1 for n in range(200)}
        letters = (letter for _, letter in self.upstream.take(FAILED))
        assert [letter.headers for letter in letters if re.search(rb'"internalId": "m\d', letter.body)] == []
        told = self.events("dead_letters_ended")
        assert [(one["actor"], one["state"], one["moved"]) for one in told] == [("ann", "done", 200)]
        assert self.events("dead_letters_began")[0]["expected"] == 200

    async def test_what_fails_again_three_times_is_then_left_alone_but_by_force(self) -> None:
        tenant = self.sandbox.tenants.add("t1")
        await self.start_gateway()
        self.put(body(1, tenant.id, "999"))  # no number of the tenant's: Meta refuses it each time
        for replays in range(1, 4):
            assert (await self.order(1)).moved == 1
            await self.until(lambda: self.upstream.depth(FAILED) == 1, "it is back")
            _, (letter,) = await self.browsed()
            assert letter.facts.replays == replays
        job = await self.order(1)
        assert (job.state, job.moved, job.skipped) == (State.DONE, 0, {"replayed_often": 1})
        assert (await self.replays.foretell(Filter())).skipped == {"replayed_often": 1}
        assert (await self.order(1, force=True)).moved == 1
        await self.until(lambda: self.upstream.depth(FAILED) == 1, "it is back")

    async def test_another_count_than_expected_does_nothing(self) -> None:
        everything = self.put_many(5)
        for expected in (4, 6):
            with pytest.raises(CountChanged) as raised:
                await self.order(expected)
            assert raised.value.counted == 5
        assert await self.bodies(FAILED, 5) == everything
        assert [job.state for job in self.replays.jobs] == [State.FAILED, State.FAILED]
        assert [event["state"] for event in self.events("dead_letters_ended")] == ["failed", "failed"]

    async def test_only_what_is_meant(self) -> None:
        for n in range(30):
            code = {} if n % 2 else {"x-egress-error-code": 131047}
            self.put(body(n, f"t{n % 3}"), **code)
        assert (await self.order(5, tenant_id="t1", code=131047)).moved == 5
        assert (await self.order(10, What.DROP, tenant_id="t0")).moved == 10
        assert sorted(await self.bodies(INCOMING, 5)) == sorted(body(n, "t1") for n in (4, 10, 16, 22, 28))
        left = [n for n in range(30) if n % 3 and n not in (4, 10, 16, 22, 28)]
        assert await self.bodies(FAILED, 15) == [body(n, f"t{n % 3}") for n in left]

    async def test_each_is_foretold(self) -> None:
        self.holds["waits"] = Hold("the tenant is paused")
        self.was_sent["t1", "m3"] = 0.0
        self.put(body(0))
        self.put(body(1, "waits"))
        self.put(body(2, expiresAt="2020-01-01T00:00:00Z"))
        self.put(body(3))
        self.put(body(4), **{"x-egress-error-code": 131047})
        self.put(body(5), **{"x-egress-reason": "in_doubt"})
        found: list[Would] = []
        look = await self.replays.browse(lambda _letter, foretold: found.append(foretold.would))
        assert look.looked == 6
        assert found == [Would.SEND, Would.WAIT, Would.EXPIRE, Would.SENT, Would.FAIL, Would.DOUBT]
        foretold = await self.replays.foretell(Filter())
        assert (foretold.matching, foretold.skipped) == (6, {"sent": 1, "doubt": 1})
        assert foretold.would == dict.fromkeys(("send", "wait", "expire", "sent", "fail", "doubt"), 1)
        assert (await self.replays.foretell(Filter(), force=True)).skipped == {}
        job = await self.order(6)
        assert (job.moved, job.skipped) == (4, {"sent": 1, "doubt": 1})
        assert await self.bodies(FAILED, 2) == [body(3), body(5)]

    async def test_one_at_a_time_and_stopped_between_two_messages(self) -> None:
        self.put_many(500)
        order = Order(What.REPLAY, Filter(), "ann", 500, rate=100)
        job = await self.replays.start(order)
        assert (job.state, job.counted) == (State.RUNNING, 500)
        assert self.replays.job(job.id) is job
        with pytest.raises(ReplayUnderWay):
            await self.replays.start(order)
        await self.until(lambda: job.moved > 20, "some are done")
        assert job.left == 500 - job.moved
        assert self.replays.stop(job.id) is job
        await self.until(lambda: job.over, "it is over")
        assert job.state is State.STOPPED
        assert len(await self.bodies(INCOMING, job.moved)) + self.upstream.depth(FAILED) == 500
        assert self.upstream.depth(NOTES) == 0
        assert self.replays.stop("nobody") is None

    async def test_the_end_of_the_service_stops_it(self) -> None:
        self.put_many(300)
        job = await self.replays.start(Order(What.REPLAY, Filter(), "ann", 300, rate=50))
        await self.until(lambda: job.moved > 5, "some are done")
        await self.replays.end()
        assert job.state is State.STOPPED
        assert (self.upstream.depth(INCOMING), self.upstream.depth(FAILED)) == (job.moved, 300 - job.moved)
        with pytest.raises(ReplayUnderWay):
            await self.order(1)

    async def test_the_last_jobs_are_kept(self) -> None:
        jobs = [await self.order(0, What.DROP) for _ in range(KEPT_JOBS + 2)]
        assert self.replays.jobs == jobs[:1:-1]

    async def test_what_went_elsewhere_meanwhile_is_told(self) -> None:
        self.patch(replaying, "AGAIN_SECONDS", 0.01)
        self.put_many(200)
        job = await self.replays.start(Order(What.REPLAY, Filter(), "ann", 200, rate=200))
        self.upstream.channel.queue_purge(FAILED)
        await self.until(lambda: job.over, "it is over")
        assert (job.state, job.moved + job.left) == (State.DONE, 200)
        assert job.left > 0
        assert job.detail == f"{job.left} were not in the queue any more"

    async def test_a_connection_that_is_closed_fails_it_and_the_next_one_ends_it(self) -> None:
        everything = self.put_many(400)
        job = await self.replays.start(Order(What.REPLAY, Filter(), "ann", 400, rate=300))
        await self.until(lambda: job.moved > 60, "some are done")
        self.upstream.close()
        await deferToThread(self.broker.close_connections)
        await self.until(lambda: job.over, "it is over")
        assert job.state is State.FAILED
        assert job.detail
        self.upstream = Publisher(self.broker)
        left = (await self.replays.foretell(Filter())).matching
        again = await self.order(left)
        doubtful = again.skipped.get("doubt", 0)
        assert (again.state, again.moved) == (State.DONE, left - doubtful)
        sent = [letter.body for _, letter in self.upstream.take(INCOMING)]
        assert max(Counter(sent).values()) == 1
        assert set(sent) | set(await self.bodies(FAILED, doubtful)) == set(everything)

    async def test_without_a_broker_it_says_so(self) -> None:
        self.upstream.close()
        await deferToThread(self.broker.stop)
        try:
            with pytest.raises(QueueTrouble):
                await self.order(1)
            with pytest.raises(QueueTrouble):
                await self.replays.foretell(Filter())
        finally:
            await deferToThread(self.broker.start_again)
        assert self.replays.jobs[0].state is State.FAILED


class Killed(WithReplays):
    count, rate, kills = 1_000, 400, 6

    def start(self) -> Popen[bytes]:
        command = [sys.executable, "-m", "tests.integration.replayer", str(self.broker.port)]
        child = Popen([*command, self.kind, str(self.rate)], cwd=ROOT, stdout=PIPE)
        self.addCleanup(self.end, child)
        return child

    def end(self, child: Popen[bytes]) -> None:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()

    async def kill_somewhere(self, dice: random.Random) -> None:
        """Start a replay, and kill it when it has counted and some random time has gone by."""
        child = self.start()
        assert child.stdout is not None
        line = await deferToThread(child.stdout.readline)
        assert line.startswith(b"counted")
        until: Deferred[None] = Deferred()
        reactor.callLater(dice.uniform(0, 0.5), until.callback, None)
        await until
        self.end(child)

    async def test_killed_again_and_again_it_loses_and_doubles_nothing(self) -> None:
        seed = random.randrange(10**6)
        dice = random.Random(seed)
        tenant = self.sandbox.tenants.add("t1", messages_per_second=1000)
        everything = [body(n, tenant.id, tenant.phone_number_id) for n in range(self.count)]
        for content in everything:
            self.put(content)
        for _ in range(self.kills):
            await self.kill_somewhere(dice)
        job = await self.replays.start(
            Order(What.REPLAY, Filter(), "ann", (await self.replays.foretell(Filter())).matching, rate=10_000)
        )
        await self.until(lambda: job.over, "the last one is over")
        assert job.state is State.DONE, job.detail
        _, letters = await self.browsed()
        doubtful = {letter.body for letter in letters if letter.facts.broken_off}
        assert [letter.body for letter in letters if not letter.facts.broken_off] == []
        assert len(letters) == len(doubtful) == job.skipped.get("doubt", 0)
        assert len(doubtful) <= self.kills * replaying.BATCH
        copies = self.upstream.depth(INCOMING)
        gateway = await self.start_gateway()
        await self.until(lambda: len(self.sent()) >= copies, "all are sent")
        await self.until(lambda: len(gateway.parts.recent) == 0, "nothing is in hand")
        times = Counter(arrival.to for arrival in self.sent())
        sent = {content for content in everything if times[f"1555{everything.index(content):07}"]}
        assert max(times.values()) == 1, f"doubled; seed {seed}"
        assert sent | doubtful == set(everything), f"lost; seed {seed}"
        print(
            f"\nkilled {self.kills} times: {len(sent)} sent, {len(doubtful)} in doubt,"
            f" {len(sent & doubtful)} of those sent"
        )


class KilledQuorum(Killed):
    kind = "quorum"
