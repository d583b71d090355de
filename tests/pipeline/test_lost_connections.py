"""A model of a broker whose connection is lost at any moment: no message is lost, none is sent twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from random import Random
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import EPOCH, NUMBER_THROTTLE, PAIR_THROTTLE, RETRY, Stage, Witness, a_message
from whatsapp_egress.deferred import Place
from whatsapp_egress.errors import QueueTrouble, Unpublished
from whatsapp_egress.message import InvalidMessage, Message
from whatsapp_egress.pipeline.intake import Intake
from whatsapp_egress.pipeline.job import Delivery, Job
from whatsapp_egress.pipeline.outcome import Outcome
from whatsapp_egress.pipeline.recent import Recent
from whatsapp_egress.policy.credentials import Credentials
from whatsapp_egress.policy.verdict import Dead, Reason, Sent, Verdict

STEP = 0.1
"""Seconds."""

PREFETCH = 6


@define(eq=False)
class Queued:
    """A message of the broker's: in its queue, or delivered and not acked."""

    body: bytes
    redelivered: bool = False
    headers: dict[str, Any] = field(factory=dict)
    number: int = 0
    """Its place in its queue."""


@define(eq=False)
class Queue:
    """A queue of the broker's; `place` is None for the one in."""

    place: Place | None
    ready: list[Queued] = field(factory=list)
    prefetch: int = 0
    came: Iterator[int] = field(factory=count)

    def publish(self, body: bytes, headers: dict[str, Any] | None = None) -> None:
        self.ready.append(Queued(body, False, headers or {}, next(self.came)))

    def put_back(self, queued: Queued) -> None:
        queued.redelivered = True
        self.ready.append(queued)
        self.ready.sort(key=lambda each: each.number)


@define(eq=False)
class Channel:
    is_open: bool = True
    unacked: dict[int, tuple[Queue, Queued]] = field(factory=dict)
    acks: list[Queued] = field(factory=list)
    """Those that were written and not read yet."""

    def held(self, queue: Queue) -> int:
        return sum(each is queue for each, _ in self.unacked.values())


@define(eq=False)
class Delivered:
    channel: Channel
    queue: Queue
    queued: Queued
    properties: Any = None
    redelivered: bool = False

    @property
    def place(self) -> Place | None:
        return self.queue.place

    @property
    def headers(self) -> dict[str, Any]:
        return self.queued.headers

    @property
    def body(self) -> bytes:
        return self.queued.body

    @property
    def alive(self) -> bool:
        return self.channel.is_open

    def ack(self) -> bool:
        if self.alive:
            self.channel.acks.append(self.queued)
        return self.alive

    def give_back(self) -> None:
        if self.alive:
            del self.channel.unacked[id(self.queued)]
            self.queue.put_back(self.queued)


class World:
    """Broker, Meta and the pipeline between them. What happens comes of `seed`; `calm`, all goes well, and
    with `safe` no connection is ever lost. A lane holds `most_active` messages."""

    def __init__(self, seed: int, *, most_active: int = 1000, safe: bool = False) -> None:
        self.chance = Random(seed)
        self.calm = False
        self.safe = safe
        self.published: Counter[bytes] = Counter()
        self.sent: Counter[bytes] = Counter()
        self.conversations: dict[str, list[bytes]] = {}
        self.dead_letters: Counter[bytes] = Counter()
        self.queue = Queue(None, prefetch=PREFETCH)
        self.leases = Queue(None, prefetch=1000)
        self.deferred: dict[Place, Queue] = {}
        self.channel = Channel()
        self._connects_at = 0.0
        self._due: list[tuple[float, Any]] = []
        self._stage = Stage(most_active=most_active)
        self.clock = self._stage.clock
        self.recent = Recent(self.clock)
        outcome = Outcome(self, self.recent, Witness(), self.clock, lambda: EPOCH)
        lanes = self._lanes = self._stage.lanes

        def give_up(job: Job) -> None:
            self.recent.forget(job, job.history)

        lanes._road = evolve(lanes._road, attempt=self, settle=outcome.settle, give_up=give_up)
        lanes._yard = evolve(lanes._yard, queues=self, outcome=outcome, recent=self.recent, give_up=give_up)
        self._intake = Intake(_decode, lanes.offer, outcome, self.recent, Witness(), self.clock)

    def put(self, body: bytes) -> None:
        self.published[body] += 1
        self.queue.publish(body)

    def step(self) -> None:
        if self.calm or self.chance.random() < 0.7:
            self._read_acks()
        if not self.calm and not self.safe and self.channel.is_open and self.chance.random() < 0.04:
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
            if self.over:
                return
            self.step()
        raise AssertionError("something is stuck")

    @property
    def over(self) -> bool:
        in_queues = any(queue.ready for queue in (self.queue, *self.deferred.values()))
        return not in_queues and not len(self.recent) and self.channel.is_open and not self.channel.acks

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

    def announce(self, _routing_key: str, _body: bytes, _headers: dict[str, str]) -> Deferred[None]:
        return succeed(None)

    def declare(self, tenant_id: str) -> Deferred[None]:
        for place in (Place(tenant_id), Place(tenant_id, first=True)):
            self.deferred.setdefault(place, Queue(place))
        return self._asked(None)

    def publish(self, place: Place, delivery: Delivery, headers: dict[str, Any]) -> Deferred[None]:
        confirmed: Deferred[None] = Deferred()
        if place not in self.deferred:
            return fail(Unpublished("no queue takes it"))
        self.deferred[place].publish(delivery.body, headers)

        def end() -> None:
            if self.calm or self.safe or self.chance.random() < 0.95:
                confirmed.callback(None)
            else:
                confirmed.errback(Unpublished("nobody knows"))

        self._later([0.1], end)
        return confirmed

    def depth(self, place: Place) -> Deferred[int]:
        return self._asked(len(self.deferred[place].ready) if place in self.deferred else 0)

    def consume(self, place: Place, prefetch: int) -> Deferred[None]:
        if place not in self.deferred or not self.channel.is_open:
            return fail(QueueTrouble("not now"))
        self.deferred[place].prefetch = prefetch
        return self._asked(None)

    def cancel(self, place: Place) -> Deferred[None]:
        self.deferred[place].prefetch = 0
        return self._asked(None)

    def delete(self, place: Place) -> Deferred[bool]:
        queue = self.deferred.get(place)
        if queue is not None and (queue.ready or queue.prefetch):
            return self._asked(False)
        self.deferred.pop(place, None)
        return self._asked(True)

    def write_lease(self, body: bytes) -> Deferred[None]:
        self.leases.publish(body)
        return self._asked(None)

    def _asked(self, answer: Any) -> Deferred[Any]:
        asked: Deferred[Any] = Deferred()
        self._later([0, 0.1], lambda: asked.callback(answer))
        return asked

    # What Meta does.

    def at_hand(self, _tenant_id: str) -> Credentials:
        return Credentials("token", 1000.0)

    async def look_up(self, _job: Job) -> Credentials:
        raise AssertionError("they are at hand")

    async def __call__(self, job: Job, _credentials: Credentials) -> Verdict:
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
        if isinstance(verdict, (Sent, Dead)):
            self.conversations.setdefault(str(job.message.recipient), []).append(job.delivery.body)
        if verdict in wait:
            job.attempts -= 1
        return verdict

    def _later(self, seconds: list[float], happens: Any) -> None:
        self._due.append((self.clock.seconds() + self.chance.choice(seconds), happens))

    def _read_acks(self) -> None:
        channel = self.channel
        if channel.is_open:
            for queued in channel.acks:
                channel.unacked.pop(id(queued), None)
            channel.acks = []

    def _deliver(self) -> None:
        self._deliver_from(self.leases, self._lanes.lease)
        for queue in (*self.deferred.values(), self.queue):
            self._deliver_from(queue, self._intake.receive)

    def _deliver_from(self, queue: Queue, receive: Callable[[Delivery], None]) -> None:
        while self.channel.is_open and queue.ready and self.channel.held(queue) < queue.prefetch:
            queued = queue.ready.pop(0)
            self.channel.unacked[id(queued)] = queue, queued
            receive(Delivered(self.channel, queue, queued, redelivered=queued.redelivered))

    def _lose(self) -> None:
        self.channel.is_open = False
        for queue, queued in self.channel.unacked.values():
            queue.put_back(queued)
        for queue in self.deferred.values():
            queue.prefetch = 0
        self._connects_at = self.clock.seconds() + self.chance.choice([0, 0.5, 3, 20, 1000])
        self.recent.lost()
        self._lanes.deferred_lost()
        self._lanes.abandon()


def _decode(body: bytes) -> Message:
    if body.startswith(b"bad"):
        raise InvalidMessage("body: bad")
    return a_message(body.decode(), to=f"recipient {sum(body) % 3}")


class LostConnectionTests(SynchronousTestCase):
    def play(self, bodies: list[bytes] | None, **world: Any) -> None:
        """Many worlds, in which these bodies are published again and again, or (None) each is another."""
        for seed in range(150):
            self.check(seed, play(seed, bodies, **world))

    def check(self, seed: int, world: World) -> None:
        for body, copies in world.published.items():
            ends = world.sent[body] + world.dead_letters[body]
            assert ends >= copies, (seed, body, "is lost")
            assert world.sent[body] <= copies, (seed, body, "is sent twice")

    def test_each_message_ends_and_is_sent_at_most_once(self) -> None:
        self.play(None)

    def test_so_does_each_of_messages_that_are_alike(self) -> None:
        self.play([b"a", b"b", b"bad"])

    def test_so_does_each_that_is_deferred(self) -> None:
        self.play(None, most_active=3)

    def test_conversations_stay_in_order_through_the_deferred_queues(self) -> None:
        for seed in range(100):
            world = play(seed, None, most_active=3, safe=True)
            self.check(seed, world)
            for conversation in world.conversations.values():
                assert conversation == sorted(conversation, key=_number), (seed, conversation)


def play(seed: int, bodies: list[bytes] | None, **options: Any) -> World:
    world = World(seed, **options)
    for number in range(400):
        if world.chance.random() < 0.15:
            kind = b"bad" if world.chance.random() < 0.1 else b"good"
            world.put(world.chance.choice(bodies) if bodies else b"%b %d" % (kind, number))
        world.step()
    world.run_until_calm()
    return world


def _number(body: bytes) -> int:
    return int(body.split()[1])
