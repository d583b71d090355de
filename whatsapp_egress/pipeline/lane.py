"""What concerns one tenant and nobody else: its order, its rate, its waits, its count in flight."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from itertools import count
from typing import Any

from attrs import define, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from whatsapp_egress.pipeline.job import Job
from whatsapp_egress.pipeline.observer import Observer
from whatsapp_egress.pipeline.turns import Turns
from whatsapp_egress.policy import backoff
from whatsapp_egress.policy.bucket import Bucket
from whatsapp_egress.policy.gate import Gate
from whatsapp_egress.policy.order import Order
from whatsapp_egress.policy.verdict import EXPIRED, Dead, Retry, Scope, Sent, Verdict, Wait
from whatsapp_egress.tasks import Tasks

log = Logger()


@frozen
class Pace:
    """How fast lanes go: messages a second where a tenant names none, seconds, seconds, requests at once."""

    default_rate: float
    refill_interval: float
    retry_delay: float
    most_in_flight: int


@frozen
class Road:
    """What all lanes share. `now` gives seconds since the epoch, `jitter` 0..1."""

    attempt: Callable[[Job], Coroutine[Deferred[Any], Any, Verdict]]
    settle: Callable[[Job, Sent | Dead], None]
    give_up: Callable[[Job], None]
    """Leave a job with the broker: it is delivered again."""
    tasks: Tasks
    """Owns the attempts in flight."""
    turns: Turns
    pace: Pace
    observer: Observer
    clock: IReactorTime
    now: Callable[[], float]
    jitter: Callable[[], float]


@define(eq=False)
class _Sender:
    """One phone number: its messages, its bucket, and the gate that a throttle shuts."""

    bucket: Bucket
    gate: Gate
    order: Order[Job]

    @property
    def ready(self) -> bool:
        return not self.gate.shut and self.bucket.available >= 1 and self.order.peek() is not None

    @property
    def quiet(self) -> bool:
        """Whether it holds no job, and no memory of a throttle or of tokens spent."""
        return not self.order and self.bucket.full and not self.gate.shut


class Lane:
    """A state machine without I/O: `offer` puts jobs in, `pump` starts what may, `finished` ends a try.

    Until the tenant's rate is known, and whenever its credentials must be fetched, one message goes ahead of
    the others and finds out. `on_idle` is called when nothing is left that would be worth keeping.
    """

    def __init__(self, road: Road, on_idle: Callable[[Lane], None]) -> None:
        self._road = road
        self._on_idle = on_idle
        self._rate: float | None = None
        self._ahead: Job | None = None
        self._senders: dict[str, _Sender] = {}
        self._came = count()
        self._gate = Gate(road.clock, self.pump)
        self._waits: set[Deferred[None]] = set()
        self._pumping = False
        self._stopped = False
        self.in_flight = 0

    def offer(self, job: Job) -> None:
        """Put a job in line."""
        message = job.message
        self._sender(message.phone_number_id).order.add(job, message.recipient, message.priority)
        self.pump()

    def learn(self, messages_per_second: float | None) -> None:
        """The tenant's rate per phone number, None for the default."""
        rate = messages_per_second or self._road.pace.default_rate
        self._ahead = None
        if rate == self._rate:
            return
        self._rate = rate
        for sender in self._senders.values():
            sender.bucket.change_rate(rate)
        self.pump()

    def pump(self) -> None:
        """Start every job that order, rate, gates and turns allow."""
        if self._pumping or self._stopped:
            return  # the loop below is running already and sees what changed
        self._pumping = True
        try:
            while sender := self._next_sender():
                self._start(sender)
        finally:
            self._pumping = False
        for number in [number for number, sender in self._senders.items() if sender.quiet]:
            del self._senders[number]
        if not self._senders and not self._gate.shut:
            # Nor may it be pumped once more: by then its tenant may have another lane.
            self._road.turns.leave(self)
            self._on_idle(self)

    def finished(self, sender: _Sender, job: Job, verdict: Verdict | None) -> None:
        """A try of `job` ended; without a verdict the message stays with the broker."""
        if isinstance(verdict, (Sent, Dead)):
            if isinstance(verdict, Sent):
                sender.gate.passed()
                self._gate.passed()
            sender.order.done(job)
            self._road.settle(job, verdict)
        elif verdict is None or self._stopped or not job.alive:
            self._give_up(sender, job)
        elif isinstance(verdict, Retry):
            self._try_again(sender, job, verdict)
        else:
            self._wait(sender, job, verdict)

    def abandon(self) -> None:
        """Leave to the broker what was not begun and can't be settled any more; it is delivered again."""
        for sender in self._senders.values():
            for job in sender.order.discard(lambda job: not job.alive):
                self._road.give_up(job)

    def stop(self) -> None:
        """Start nothing more, and leave to the broker all that is not in flight."""
        self._stopped = True
        self._gate.stop()
        for wait in list(self._waits):
            wait.cancel()
        for sender in self._senders.values():
            sender.gate.stop()
            sender.bucket.stop()
            for job in sender.order.discard(lambda _: True):
                self._road.give_up(job)

    def _sender(self, phone_number_id: str) -> _Sender:
        sender = self._senders.get(phone_number_id)
        if sender is None:
            pace, clock = self._road.pace, self._road.clock
            rate = self._rate or pace.default_rate
            sender = self._senders[phone_number_id] = _Sender(
                Bucket(rate, pace.refill_interval, clock, self.pump),
                Gate(clock, self.pump),
                Order(self._came),
            )
        return sender

    def _next_sender(self) -> _Sender | None:
        """The sender whose next job goes next, once a turn was taken for it."""
        if self._gate.shut or self.in_flight >= self._road.pace.most_in_flight:
            return None
        if self._rate is None and self._ahead is not None:
            return None
        ready = [sender for sender in self._senders.values() if sender.ready]
        if not ready or not self._road.turns.take(self):
            return None
        return min(ready, key=lambda sender: sender.order.peek() or (0, 0))

    def _start(self, sender: _Sender) -> None:
        job = sender.order.next()
        assert job is not None  # noqa: S101 - a ready sender has one
        self.in_flight += 1
        if self._rate is None:
            self._ahead = job
        if job.message.expired(self._road.now()):
            self._ended(sender, job, EXPIRED)
            return
        sender.bucket.take()
        self._road.tasks.own(self._try(sender, job))

    async def _try(self, sender: _Sender, job: Job) -> None:
        verdict: Verdict | None = None
        try:
            verdict = await self._road.attempt(job)
        finally:
            # Without a verdict the attempt was cut off, or failed by our own fault, which `tasks` logs.
            self._ended(sender, job, verdict)

    def _ended(self, sender: _Sender, job: Job, verdict: Verdict | None) -> None:
        self.in_flight -= 1
        if self._ahead is job:
            self._ahead = None
        self.finished(sender, job, verdict)
        self._road.turns.give_back()
        self.pump()

    def _give_up(self, sender: _Sender, job: Job) -> None:
        sender.order.done(job)
        self._road.give_up(job)

    def _try_again(self, sender: _Sender, job: Job, retry: Retry) -> None:
        delay = retry.floor
        job.pair_throttles = 0
        if retry.reauthorize:
            self._rate = None  # the credentials are fetched anew, and one message is enough for that
        else:
            step = backoff.retry(job.attempts - 1, self._road.pace.retry_delay, self._road.jitter)
            delay = max(delay, step)
        self._road.observer.retrying(job, retry.fault, delay)
        self._hold(sender, job, delay)

    def _wait(self, sender: _Sender, job: Job, wait: Wait) -> None:
        if wait.scope is Scope.RECIPIENT:
            delay = max(wait.floor, backoff.pair(job.pair_throttles))
            job.pair_throttles += 1
            self._road.observer.waiting(job, wait, delay)
            self._hold(sender, job, delay)
            return
        job.pair_throttles = 0
        if wait.scope is Scope.TENANT:
            self._rate = None  # perhaps the credentials must be fetched then
        gate = sender.gate if wait.scope is Scope.SENDER else self._gate
        delay = gate.shut_for(wait.floor, partial(backoff.throttle, first=wait.floor, longest=wait.longest))
        self._road.observer.waiting(job, wait, delay)
        sender.order.release(job)

    def _hold(self, sender: _Sender, job: Job, delay: float) -> None:
        """Keep `job` back, and its conversation behind it, for `delay` seconds."""
        wait: Deferred[None] = deferLater(self._road.clock, delay)
        self._waits.add(wait)
        wait.addBoth(self._held, wait, sender, job)
        wait.addErrback(lambda failure: log.failure("release_failed", failure))

    def _held(self, result: object, wait: Deferred[None], sender: _Sender, job: Job) -> None:
        self._waits.discard(wait)
        if isinstance(result, Failure) or not job.alive:
            self._give_up(sender, job)
        else:
            sender.order.release(job)
        self.pump()
