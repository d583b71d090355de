"""A model of a broker whose connection is lost at any moment: no message is lost, none is sent twice."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import EPOCH, NUMBER_THROTTLE, PAIR_THROTTLE, RETRY, Stage, Witness, a_message
from whatsapp_egress.errors import Unpublished
from whatsapp_egress.message import InvalidMessage, Message
from whatsapp_egress.pipeline.intake import Intake
from whatsapp_egress.pipeline.job import Job
from whatsapp_egress.pipeline.outcome import Outcome
from whatsapp_egress.pipeline.recent import Recent
from whatsapp_egress.policy.verdict import Dead, Reason, Sent, Verdict

STEP = 0.1
"""Seconds."""

PREFETCH = 6


@define(eq=False)
class Queued:
    """A message of the broker's: in its queue, or delivered and not acked."""

    body: bytes
    redelivered: bool = False


@define(eq=False)
class Channel:
    is_open: bool = True
    unacked: list[Queued] = field(factory=list)
    acks: list[Queued] = field(factory=list)
    """Those that were written and not read yet."""


@define(eq=False)
class Delivered:
    channel: Channel
    queued: Queued
    properties: Any = None

    @property
    def body(self) -> bytes:
        return self.queued.body

    @property
    def redelivered(self) -> bool:
        return self.queued.redelivered

    @property
    def alive(self) -> bool:
        return self.channel.is_open

    def ack(self) -> bool:
        if self.alive:
            self.channel.acks.append(self.queued)
        return self.alive


class World:
    """Broker, Meta and the pipeline between them. What happens comes of `seed`; `calm`, all goes well."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.calm = False
        self.published: Counter[bytes] = Counter()
        self.sent: Counter[bytes] = Counter()
        self.dead_letters: Counter[bytes] = Counter()
        self.queue: list[Queued] = []
        self.channel = Channel()
        self._connects_at = 0.0
        self._due: list[tuple[float, Any]] = []
        self._stage = Stage()
        self.clock = self._stage.clock
        self.recent = Recent(self.clock)
        outcome = Outcome(self, self.recent, Witness(), self.clock, lambda: EPOCH)
        self._lanes = self._stage.lanes
        self._lanes._road = evolve(
            self._lanes._road,
            attempt=self._attempt,
            settle=outcome.settle,
            give_up=lambda job: self.recent.forget(job, job.history),
        )
        self._intake = Intake(_decode, self._lanes.offer, outcome, self.recent, Witness(), self.clock)

    def publish(self, body: bytes) -> None:
        self.published[body] += 1
        self.queue.append(Queued(body))

    def step(self) -> None:
        if self.calm or self.chance.random() < 0.7:
            self._read_acks()
        if not self.calm and self.channel.is_open and self.chance.random() < 0.04:
            self._lose()
        if not self.channel.is_open and self.clock.seconds() >= self._connects_at:
            self.channel = Channel()
        self._deliver()
        now = self.clock.seconds()
        ended = [happens for at, happens in self._due if at <= now]
        self._due = [(at, happens) for at, happens in self._due if at > now]
        for happens in ended:
            happens()
        self.clock.advance(STEP)

    def run_until_calm(self) -> None:
        self.calm = True
        for _ in range(20_000):
            if not self.queue and not self.channel.unacked and not len(self.recent) and self.channel.is_open:
                return
            self.step()
        raise AssertionError("something is stuck")

    # What the pipeline needs of the broker.

    def dead_letter(self, body: bytes, _properties: object, _headers: object) -> Deferred[None]:
        confirmed: Deferred[None] = Deferred()

        def end() -> None:
            if self.calm or self.chance.random() < 0.7:
                self.dead_letters[body] += 1
                confirmed.callback(None)
            else:
                confirmed.errback(Unpublished("no"))

        self._later([0, 0.05, 1], end)
        return confirmed

    def announce(self, _routing_key: str, _body: bytes) -> Deferred[None]:
        return succeed(None)

    # What Meta does.

    async def _attempt(self, job: Job) -> Verdict:
        self._lanes.learn("t1", 1000.0)
        job.attempts += 1
        verdict: Deferred[Verdict] = Deferred()
        self._later([0, 0.1, 1, 5], lambda: verdict.callback(self._verdict(job)))
        return await verdict

    def _verdict(self, job: Job) -> Verdict:
        dead, wait = Dead(Reason.REJECTED, ""), [PAIR_THROTTLE, NUMBER_THROTTLE]
        verdicts = [Sent("wamid.1")] * 6 + [dead] * 2 + [RETRY] * (2 if job.attempts < 4 else 0) + wait
        verdict = Sent("wamid.1") if self.calm else self.chance.choice(verdicts)
        if isinstance(verdict, Sent):
            self.sent[job.delivery.body] += 1
        if verdict in wait:
            job.attempts -= 1
        return verdict

    def _later(self, seconds: list[float], happens: Any) -> None:
        self._due.append((self.clock.seconds() + self.chance.choice(seconds), happens))

    def _read_acks(self) -> None:
        channel = self.channel
        if channel.is_open:
            channel.unacked = [queued for queued in channel.unacked if queued not in channel.acks]
            channel.acks = []

    def _deliver(self) -> None:
        while self.channel.is_open and self.queue and len(self.channel.unacked) < PREFETCH:
            queued = self.queue.pop(0)
            self.channel.unacked.append(queued)
            self._intake.receive(Delivered(self.channel, queued))

    def _lose(self) -> None:
        self.channel.is_open = False
        for queued in self.channel.unacked:
            queued.redelivered = True
        self.queue = self.channel.unacked + self.queue
        self.channel.unacked = []
        self._connects_at = self.clock.seconds() + self.chance.choice([0, 0.5, 3, 20, 1000])
        self.recent.lost()
        self._lanes.abandon()


def _decode(body: bytes) -> Message:
    if body.startswith(b"bad"):
        raise InvalidMessage("body: bad")
    return a_message(body.decode(), to=f"recipient {sum(body) % 3}")


class LostConnectionTests(SynchronousTestCase):
    def play(self, bodies: list[bytes] | None) -> None:
        """Many worlds, in which these bodies are published again and again, or (None) each is another."""
        for seed in range(150):
            world = World(seed)
            for number in range(400):
                if world.chance.random() < 0.15:
                    kind = b"bad" if world.chance.random() < 0.1 else b"good"
                    world.publish(world.chance.choice(bodies) if bodies else b"%b %d" % (kind, number))
                world.step()
            world.run_until_calm()
            for body, count in world.published.items():
                ends = world.sent[body] + world.dead_letters[body]
                assert ends >= count, (seed, body, "is lost")
                assert world.sent[body] <= count, (seed, body, "is sent twice")

    def test_each_message_ends_and_is_sent_at_most_once(self) -> None:
        self.play(None)

    def test_so_does_each_of_messages_that_are_alike(self) -> None:
        self.play([b"a", b"b", b"bad"])
