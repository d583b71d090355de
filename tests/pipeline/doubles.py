"""Doubles of what the pipeline is handed: they note what they are asked and answer as they are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from whatsapp_egress.deferred import Place, history
from whatsapp_egress.errors import Unpublished
from whatsapp_egress.message import Message
from whatsapp_egress.pipeline.deferral import Backyard
from whatsapp_egress.pipeline.job import Delivery, Job, Parcel
from whatsapp_egress.pipeline.lanes import Lanes
from whatsapp_egress.pipeline.outcome import Outcome
from whatsapp_egress.pipeline.recent import Recent, digest
from whatsapp_egress.pipeline.road import Pace, Road
from whatsapp_egress.pipeline.rounds import Rounds
from whatsapp_egress.pipeline.standing import Standings
from whatsapp_egress.pipeline.turns import Turns
from whatsapp_egress.policy.breaker import Breaker, State
from whatsapp_egress.policy.credentials import Credentials
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.policy.road import RoadWatch
from whatsapp_egress.policy.table import ErrorClass
from whatsapp_egress.policy.verdict import Dead, Exchange, Fault, Retry, Scope, Sent, Verdict, Wait
from whatsapp_egress.policy.window import Window
from whatsapp_egress.tasks import Tasks

EPOCH = 1_780_000_000.0
"""Seconds since the epoch when a test's clock shows zero."""

CREDENTIALS = Credentials("token-1", 20.0)

TRANSIENT = Fault("131000: Something went wrong", ErrorClass.TRANSIENT, code=131000)
RETRY = Retry(TRANSIENT)
PAIR_THROTTLE = Wait(Fault("131056: Pair rate limit", ErrorClass.THROTTLE_PAIR), Scope.RECIPIENT)
NUMBER_THROTTLE = Wait(Fault("130429: Rate limit", ErrorClass.THROTTLE_PHONE_NUMBER), Scope.SENDER, 10.0)
TENANT_WAIT = Wait(Fault("no credentials"), Scope.TENANT, 5.0, 30.0)


@define(eq=False)
class FakeDelivery:
    """A delivery; with `alive` False its channel is gone."""

    body: bytes = b"{}"
    properties: Any = None
    redelivered: bool = False
    alive: bool = True
    acks: int = 0
    place: Place | None = None
    headers: Mapping[str, Any] = field(factory=dict)
    given_back: int = 0
    routing_key: str = "outbound.processed.t1"

    def ack(self) -> bool:
        if self.alive:
            self.acks += 1
        return self.alive

    def give_back(self) -> None:
        self.given_back += 1


def confirmed() -> Deferred[None]:
    return succeed(None)


def refused() -> Deferred[None]:
    return fail(Unpublished("no connection"))


@frozen
class DeadLetter:
    body: bytes
    properties: Any
    headers: dict[str, str | int]


@define(eq=False)
class FakeBroker:
    """Notes every try to publish; `on_dead_letter` and `on_announce` say what becomes of it."""

    on_dead_letter: Callable[[], Deferred[None]] = confirmed
    on_announce: Callable[[], Deferred[None]] = confirmed
    dead_letters: list[DeadLetter] = field(factory=list)
    events: list[tuple[str, dict[str, Any]]] = field(factory=list)
    event_headers: list[dict[str, str]] = field(factory=list)

    def dead_letter(self, body: bytes, properties: Any, headers: dict[str, str | int]) -> Deferred[None]:
        self.dead_letters.append(DeadLetter(body, properties, headers))
        return self.on_dead_letter()

    def announce(self, routing_key: str, body: bytes, headers: dict[str, str]) -> Deferred[None]:
        self.events.append((routing_key, json.loads(body)))
        self.event_headers.append(headers)
        return self.on_announce()


@define(eq=False)
class FakeGraph:
    """Answers with `exchanges`, one after the other; an exception is a fault of ours."""

    exchanges: list[Exchange | Deferred[Exchange] | Exception] = field(factory=list)
    requests: list[tuple[str, str, bytes]] = field(factory=list)

    def send(self, phone_number_id: str, token: str, payload: bytes) -> Deferred[Exchange]:
        self.requests.append((phone_number_id, token, payload))
        exchange = self.exchanges.pop(0)
        if isinstance(exchange, Exception):
            raise exchange
        return exchange if isinstance(exchange, Deferred) else succeed(exchange)


@define(eq=False)
class FakeCredentials:
    """Answers with `answer`: credentials, the error to fail with, or what is to be waited for."""

    answer: Credentials | Exception | Deferred[Credentials] = CREDENTIALS
    dropped: list[tuple[str, str]] = field(factory=list)

    def at_hand(self, tenant_id: str) -> Credentials | None:
        return self.answer if isinstance(self.answer, Credentials) else None

    def get(self, tenant_id: str) -> Deferred[Credentials]:
        if isinstance(self.answer, Deferred):
            return self.answer
        return fail(self.answer) if isinstance(self.answer, Exception) else succeed(self.answer)

    def drop(self, tenant_id: str, refused: Credentials) -> None:
        self.dropped.append((tenant_id, refused.token))


@define(eq=False)
class Witness:
    """An observer that notes each call by its name, with what it was told beside the message."""

    calls: list[tuple[Any, ...]] = field(factory=list)
    lookups: list[tuple[str, float, bool, bool | None]] = field(factory=list)
    exchanges: list[tuple[Exchange, float]] = field(factory=list)

    def consumed(self, parcel: Parcel) -> None:
        self.calls.append(("consumed",))

    def asked(self, tenant_id: str, trouble: str | None, seconds: float) -> None:
        self.calls.append(("asked", tenant_id, trouble, seconds))

    def credentials(self, tenant_id: str, seconds: float, *, cached: bool, known: bool | None) -> None:
        self.lookups.append((tenant_id, seconds, cached, known))

    def answered(self, job: Job, exchange: Exchange, seconds: float) -> None:
        self.exchanges.append((exchange, seconds))

    def faulted(self, job: Job, fault: Fault, seconds: float) -> None:
        self.calls.append(("faulted", fault, seconds))

    def retrying(self, job: Job, fault: Fault, delay: float) -> None:
        self.calls.append(("retrying", fault, delay))

    def waiting(self, job: Job, wait: Wait, delay: float) -> None:
        self.calls.append(("waiting", wait, delay))

    def delivered(self, parcel: Parcel, sent: Sent) -> None:
        self.calls.append(("delivered", sent))

    def dead_lettered(self, parcel: Parcel, dead: Dead) -> None:
        self.calls.append(("dead_lettered", dead))

    def unpublished(self, parcel: Parcel, what: str, cause: str) -> None:
        self.calls.append(("unpublished", what, cause))

    def unsettled(self, parcel: Parcel) -> None:
        self.calls.append(("unsettled",))

    def left(self, job: Job) -> None:
        self.calls.append(("left",))

    def recalled(self, parcel: Parcel) -> None:
        self.calls.append(("recalled",))

    def deferred(self, parcel: Parcel) -> None:
        self.calls.append(("deferred",))

    def breaker(self, tenant_id: str | None, breaker: Breaker) -> None:
        self.calls.append(("breaker", tenant_id, breaker.state))

    def deferring(self, tenant_id: str) -> None:
        self.calls.append(("deferring", tenant_id))

    def deferred_over(self, tenant_id: str) -> None:
        self.calls.append(("deferred_over", tenant_id))

    def paused(self, tenant_id: str, pause: Pause | None) -> None:
        self.calls.append(("paused", tenant_id, pause))

    def backpressure(self, reason: str, *, on: bool) -> None:
        self.calls.append(("backpressure", reason, on))

    @property
    def names(self) -> list[str]:
        return [call[0] for call in self.calls]

    def delays(self) -> list[float]:
        return [call[2] for call in self.calls if call[0] in {"retrying", "waiting"}]


def a_message(name: str = "m-1", to: str | None = "15550001111", **fields: Any) -> Message:
    defaults: dict[str, Any] = {"tenant_id": "t1", "phone_number_id": "100000001", "payload": b'{"to":""}'}
    return Message(internal_id=name, recipient=to, **{**defaults, **fields})


def a_job(
    name: str = "m-1",
    to: str | None = "15550001111",
    delivery: FakeDelivery | None = None,
    received: float = 0.0,
    **fields: Any,
) -> Job:
    """A job whose message is called `name`, for `to`; `fields` are the message's."""
    delivery = delivery or FakeDelivery(name.encode())
    return Job.of(delivery, digest(delivery.body), a_message(name, to, **fields), received)


class Attempts:
    """Attempts that note which message was begun, and go on until `end` says how they end.

    With `verdict` set each ends at once. `rate` is what tenants' credentials say, unless `rates` says
    otherwise; None where they are not at hand, and whoever asks waits until `found` answers. What was `found`
    is at hand from then on, if the double `keeps` it.
    """

    def __init__(self, rate: float | None) -> None:
        self.begun: list[str] = []
        self.asked: list[str] = []
        self.verdict: Verdict | None = None
        self.rate = rate
        self.rates: dict[str, float | None] = {}
        self.keeps = True
        self.refusal: Dead | None = None
        self.per_day: int | None = None
        self._open: dict[str, tuple[Job, Deferred[Verdict]]] = {}
        self._asking: dict[str, Deferred[Credentials | Dead | Wait]] = {}

    @property
    def open(self) -> list[str]:
        """Those in flight."""
        return list(self._open)

    def at_hand(self, tenant_id: str) -> Credentials | None:
        rate = self.rates.get(tenant_id, self.rate)
        if rate is None and tenant_id not in self.rates:
            return None
        return Credentials("token", rate, None, self.per_day)

    async def look_up(self, job: Job) -> Credentials | Dead | Wait:
        self.asked.append(job.message.internal_id)
        if self.refusal is not None:
            return self.refusal
        answer: Deferred[Credentials | Dead | Wait] = Deferred()
        self._asking[job.message.tenant_id] = answer
        return await answer

    def found(self, tenant_id: str, answer: Credentials | Dead | Wait) -> None:
        """The Tenant Service answers."""
        if isinstance(answer, Credentials) and self.keeps:
            self.rates[tenant_id] = answer.messages_per_second
        self._asking.pop(tenant_id).callback(answer)

    def broken(self, tenant_id: str, error: Exception) -> None:
        """Asking it ends in a fault of ours."""
        self._asking.pop(tenant_id).errback(error)

    async def __call__(self, job: Job, credentials: Credentials) -> Verdict:
        name = job.message.internal_id
        self.begun.append(name)
        job.attempts += 1
        if self.verdict is not None:
            if isinstance(self.verdict, Wait):
                job.attempts -= 1
            return self.verdict
        end: Deferred[Verdict] = Deferred()
        self._open[name] = job, end
        return await end

    def end(self, name: str, verdict: Verdict) -> None:
        job, end = self._open.pop(name)
        if isinstance(verdict, Wait):
            job.attempts -= 1
        end.callback(verdict)

    def crash(self, name: str, error: Exception) -> None:
        self._open.pop(name)[1].errback(error)


class Stage:
    """Lanes with a clock of their own, attempts that a test ends, and ears for what becomes of the jobs."""

    def __init__(
        self,
        *,
        rate: float | None = 1000.0,
        most: int = 1000,
        most_per_tenant: int = 1000,
        most_active: int = 1000,
        threshold: int = 5,
    ) -> None:
        # Late, for the model of the queues is built on this module.
        from tests.pipeline.queues import FakeQueues  # noqa: PLC0415

        self.clock = Clock()
        self.witness = Witness()
        self.attempts = Attempts(rate)
        self.settled: list[tuple[str, Sent | Dead]] = []
        self.given_up: list[str] = []
        self.jobs: list[Job] = []
        self.recent = Recent(self.clock)
        self.outcome = Outcome(FakeBroker(), self.recent, Witness(), self.clock, self._now, events=False)
        self.queues = FakeQueues(self._receive, lambda lease: self.lanes.lease(lease))
        self._messages: dict[bytes, Message] = {}
        self.rounds = Rounds(self.clock)
        self.standings = Standings(self.clock, 80.0, threshold, 60.0, self.witness.breaker)
        road = Breaker(10**9, lambda _n: 5.0, self.clock, self._road_changed)
        self.turns = Turns(Window(most, self.clock), road, RoadWatch(threshold, self.clock), self.clock)
        self.lanes = Lanes(
            Road(
                attempt=self.attempts,
                settle=self._settle,
                give_up=self._give_up,
                tasks=Tasks(),
                turns=self.turns,
                pace=Pace(80.0, 0.1, 1.0, most_per_tenant, most_active, 60.0),
                observer=self.witness,
                clock=self.clock,
                now=self._now,
                jitter=lambda: 0.5,
                app_throttled=lambda tenant_id: self.lanes.app_throttled(tenant_id),
            ),
            Backyard(
                self.queues,
                self.outcome,
                self.recent,
                Tasks(),
                self.witness,
                self.clock,
                "me",
                self._give_up,
                60.0,
                lambda: most_active,
            ),
            self.standings,
            self.rounds,
        )

    def _now(self) -> float:
        return EPOCH + self.clock.seconds()

    def _settle(self, job: Job, verdict: Sent | Dead) -> None:
        self.settled.append((job.message.internal_id, verdict))
        self.outcome.settle(job, verdict)

    def _give_up(self, job: Job) -> None:
        self.given_up.append(job.message.internal_id)
        self.recent.forget(job, job.history)

    def _road_changed(self, state: State) -> None:
        self.witness.breaker(None, self.turns.breaker)
        self.lanes.road_changed(state)

    def _receive(self, delivery: Delivery) -> None:
        """A delivery of a deferred queue comes in."""
        message = self._messages[delivery.body]
        name = digest(delivery.body, delivery.place)
        self._offer(Job.of(delivery, name, message, self.clock.seconds(), history(delivery.headers)))

    def learn(self, tenant_id: str, rate: float | None) -> None:
        """The Tenant Service answers whoever asked it."""
        self.attempts.found(tenant_id, Credentials("token", rate))

    @property
    def begun(self) -> list[str]:
        """The messages whose attempts began, in order, once for each attempt."""
        return self.attempts.begun

    @property
    def in_flight(self) -> list[str]:
        return self.attempts.open

    def offer(self, name: str, to: str | None = "15550001111", **fields: Any) -> Job:
        job = a_job(name, to, received=self.clock.seconds(), **fields)
        self._messages[job.delivery.body] = job.message
        self._offer(job)
        return job

    def remember(self, name: str) -> None:
        """What a deferred message of that name is, that another process left."""
        self._messages[name.encode()] = a_message(name, name)

    def _offer(self, job: Job) -> None:
        self.jobs.append(job)
        self.recent.begin(job)
        self.lanes.offer(job)

    def warm_up(self, tenant_id: str = "t1") -> None:
        """Send one message, so that the tenant's rate is known; its lane stays while its bucket fills."""
        self.offer("warm-up", None, tenant_id=tenant_id)
        self.end("warm-up", Sent())
        self.begun.clear()
        self.settled.clear()

    def end(self, name: str, verdict: Verdict) -> None:
        self.attempts.end(name, verdict)

    def pass_time(self, seconds: float, step: float = 0.05) -> None:
        """Let time pass in small steps, as a reactor does."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)

    def lose_connection(self) -> None:
        for job in self.jobs:
            assert isinstance(job.delivery, FakeDelivery)
            job.delivery.alive = False
        self.lanes.abandon()

    @property
    def quiet(self) -> bool:
        """Whether no lane and no timer is left, but for the last round."""
        if not self.lanes:
            self.clock.advance(1)
        return len(self.lanes) == 0 and not self.clock.getDelayedCalls()
