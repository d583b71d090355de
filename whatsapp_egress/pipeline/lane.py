"""What concerns one tenant and nobody else: its order, its rate, its waits, its count in flight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count

from whatsapp_egress.pipeline.holds import Holds, key_of
from whatsapp_egress.pipeline.job import Job
from whatsapp_egress.pipeline.outlook import Outlook
from whatsapp_egress.pipeline.road import Cause, Road
from whatsapp_egress.pipeline.rounds import LOOK_SECONDS
from whatsapp_egress.pipeline.sender import Sender, shut
from whatsapp_egress.pipeline.standing import Standing
from whatsapp_egress.pipeline.turns import Turn
from whatsapp_egress.policy import backoff, blame
from whatsapp_egress.policy.blame import Word
from whatsapp_egress.policy.breaker import State
from whatsapp_egress.policy.credentials import Credentials
from whatsapp_egress.policy.gate import Gate
from whatsapp_egress.policy.ramp import Ramp
from whatsapp_egress.policy.verdict import EXPIRED, Dead, Retry, Scope, Sent, Verdict, Wait

HOLD_BACK = 1.5 * LOOK_SECONDS
"""Seconds a message is held back that is in hand for too long to be begun: until after the next round."""


class Lane:
    """A state machine without I/O: `offer` puts jobs in, `pump` starts what may, `finished` ends a try.

    Whenever credentials must be fetched, one message asks for them and the others wait. `on_idle` is called
    when nothing is left that would be worth keeping.
    """

    def __init__(
        self, tenant_id: str, road: Road, standing: Standing, workers: int, on_idle: Callable[[Lane], None]
    ) -> None:
        self.tenant_id = tenant_id
        self.standing = standing
        self.in_flight = 0
        # Whether it stays though it is empty, with all it knows of its numbers: it has deferred messages.
        self.kept = False
        self._road = road
        self._on_idle = on_idle
        self._senders: dict[str, Sender] = {}
        self._came = count()
        self._gate = Gate(road.clock, self._opened)
        self._ramp = Ramp(road.pace.most_in_flight)
        self._holds = Holds(road.clock, self._release)
        self.outlook = Outlook(road, standing, self._senders, self._holds, self._gate, self._ramp, workers)
        self._lent: Credentials | None = None
        self._pumping = False
        self._stopped = False
        standing.on_change = self._breaker_changed
        standing.share(workers)

    @property
    def senders(self) -> Mapping[str, Sender]:
        """Its phone numbers that have something in hand, or something to remember."""
        return self._senders

    @property
    def active(self) -> int:
        """How many messages it has in hand."""
        return sum(len(sender.order) for sender in self._senders.values())

    @property
    def full(self) -> bool:
        """Whether it has as many messages in hand as it may (LANE_ACTIVE_LIMIT)."""
        return self.active >= self._road.pace.most_active

    def offer(self, job: Job) -> None:
        """Put a job in line; one of a conversation that was put aside has the rest of its time to wait."""
        message, sender = job.message, self._sender(job.message.phone_number_id)
        key = key_of(job)
        rest = 0.0 if key is None or sender.order.holds(message.recipient) else self._holds.rest(job)
        sender.order.add(job, message.recipient, message.priority, held=rest > 0)
        if rest > 0:
            self._holds.hold(job, rest)
        self.pump()

    def pump(self) -> None:
        """Start every job that order, rate, gates, breaker and turns allow."""
        if self._pumping or self._stopped:
            return  # the loop below is running already and sees what changed
        self._pumping = True
        try:
            while self._start_one():
                pass
        finally:
            self._pumping = False
        self._let_go()

    def finished(self, sender: Sender, job: Job, verdict: Verdict | None) -> None:
        """A try of `job` ended; without a verdict the message stays with the broker."""
        if isinstance(verdict, (Sent, Dead)):
            if isinstance(verdict, Sent):
                self._gate.passed()
                sender.passed()
            sender.order.done(job)
            self._road.settle(job, verdict)
        elif verdict is None or self._stopped or not job.alive:
            self._give_up(sender, job)
        elif isinstance(verdict, Retry):
            self._try_again(job, verdict)
        else:
            self._wait(sender, job, verdict)

    # -- deferral ----------------------------------------------------------------------------------

    def put_aside(self) -> list[Job]:
        """Let go of what is overdue, whole conversations in order."""
        overdue, gone = self.outlook.overdue(), list[Job]()
        for sender in self._senders.values():
            gone += sender.order.withdraw(overdue)
        for job in gone:
            self._holds.put_aside(job)
        self._holds.forget_over()
        self.pump()
        return gone

    def forget_over(self) -> None:
        """Drop what is remembered of conversations that were put aside and whose time is over: their messages
        may have gone to another worker."""
        self._holds.forget_over()
        self._let_go()

    # -- changes from outside --------------------------------------------------------------------

    def share(self, workers: int) -> None:
        """So many workers share the tenant's rate from now on."""
        self.outlook.workers = workers
        for sender in self._senders.values():
            sender.share(workers)
        if self.standing.share(workers):
            self.pump()

    def look_at_quota(self) -> None:
        """Where the day's quota is used up no message begins that would learn of another one: look
        ourselves."""
        if self.standing.quota is None or self.standing.quota.allows():
            return
        credentials = self._road.attempt.at_hand(self.tenant_id)
        if credentials is not None and self._learn(credentials):
            self.pump()

    def slow_down(self) -> None:
        """Cut the rate of all its numbers."""
        for sender in self._senders.values():
            sender.slow_down()

    def resumed(self) -> None:
        """A pause has ended: begin with one message."""
        self._ramp.restart()
        self.pump()

    def abandon(self) -> None:
        """Leave to the broker what was not begun and can't be settled any more; it is delivered again."""
        for sender in self._senders.values():
            for job in sender.order.discard(lambda job: not job.alive):
                self._road.give_up(job)

    def stop(self) -> None:
        """Start nothing more, and leave to the broker all that is not in flight."""
        self._stopped = True
        self._gate.stop()
        self._holds.stop()
        for sender in self._senders.values():
            sender.stop()
            for job in sender.order.withdraw(lambda jobs: not jobs[0].busy):
                self._road.give_up(job)
            for job in sender.order.discard(lambda _: True):
                self._road.give_up(job)

    # -- one message -------------------------------------------------------------------------------

    def _sender(self, phone_number_id: str) -> Sender:
        sender = self._senders.get(phone_number_id)
        if sender is None:
            pace, clock = self._road.pace, self._road.clock
            sender = self._senders[phone_number_id] = Sender(
                self.standing.rate(phone_number_id),
                self.outlook.workers,
                pace.refill_interval,
                pace.most_in_flight,
                clock,
                self._came,
                self.pump,
            )
        return sender

    def _start_one(self) -> bool:
        """Start the job whose turn it is; False when none may go."""
        if self.outlook.shut:
            self._lent = None  # they may be out of date when it opens
            return False
        if self.outlook.looking_up or self.in_flight >= self._ramp.limit:
            return False
        ready = [sender for sender in self._senders.values() if sender.ready]
        if not ready or not self.standing.breaker.allows():
            return False
        sender = min(ready, key=lambda sender: sender.order.peek() or (0, 0))
        job = sender.order.next()
        assert job is not None  # noqa: S101 - a ready sender has one
        if job.message.expired(self._road.now()):
            self.finished(sender, job, EXPIRED)
            return True
        if not job.held_back and self.outlook.too_old(job):
            # It waited behind others of its conversation, of which one was in flight at each look: now the
            # next round can put it aside. Where that can't be done it is sent after all.
            job.held_back = True
            self._holds.hold(job, HOLD_BACK)
            return True
        credentials = self._lent or self._road.attempt.at_hand(self.tenant_id)
        if credentials is None:
            self.outlook.asker = job
            job.busy = True
            self._road.tasks.own(self._look_up(sender, job))
            return not self.outlook.looking_up  # it may have been known at once
        if self._learn(credentials):
            sender.order.release(job)
            return True  # its rate or its quota is another one than it was taken to be: look again
        turn = self._road.turns.take(self)
        if turn is None:
            sender.order.release(job)
            return False
        self._start(sender, job, credentials, turn)
        return True

    def _start(self, sender: Sender, job: Job, credentials: Credentials, turn: Turn) -> None:
        self._lent = None
        self.in_flight += 1
        sender.in_flight += 1
        job.busy = True
        sender.bucket.take()
        if self.standing.quota is not None:
            self.standing.quota.take()
        ticket = self.standing.breaker.begin()
        self._road.tasks.own(self._try(sender, job, credentials, turn, ticket))

    async def _try(self, sender: Sender, job: Job, credentials: Credentials, turn: Turn, ticket: int) -> None:
        verdict: Verdict | None = None
        try:
            verdict = await self._road.attempt(job, credentials)
        finally:
            # Without a verdict the attempt was cut off, or failed by our own fault, which `tasks` logs.
            self.in_flight -= 1
            sender.in_flight -= 1
            job.busy = False
            self._tell_breakers(sender, verdict, turn, ticket)
            self.finished(sender, job, verdict)
            self.pump()

    async def _look_up(self, sender: Sender, job: Job) -> None:
        """No turn is taken for it: a Tenant Service that hangs costs other tenants nothing."""
        found: Credentials | Dead | Wait | None = None
        try:
            found = await self._road.attempt.look_up(job)
        finally:
            self.outlook.asker = None
            job.busy = False
            if isinstance(found, Credentials) and job.alive and not self._stopped:
                self._lent = found
                sender.order.release(job)
            else:
                self.finished(sender, job, None if isinstance(found, Credentials) else found)
            self.pump()

    def _learn(self, credentials: Credentials) -> bool:
        if not self.standing.learn(credentials, self.outlook.workers):
            return False
        for sender in self._senders.values():
            sender.adjust()
        return True

    def _tell_breakers(self, sender: Sender, verdict: Verdict | None, turn: Turn, ticket: int) -> None:
        word, answered = blame.word(verdict), blame.answered(verdict)
        if answered:
            self._ramp.passed()
            sender.ramp.passed()
        breaker = self.standing.breaker
        if word is Word.WELL:
            breaker.succeeded(ticket)
        elif word is Word.NOTHING or self._road.turns.breaker.state is not State.CLOSED:
            breaker.released(ticket)  # nobody's fault, or everybody's
        else:
            breaker.failed(ticket)
        # Last, for it gives the turn on, perhaps to this lane.
        self._road.turns.end(turn, word, blame.kind(verdict), answered=answered)

    def _give_up(self, sender: Sender, job: Job) -> None:
        sender.order.done(job)
        self._road.give_up(job)

    def _try_again(self, job: Job, retry: Retry) -> None:
        delay = retry.floor
        job.pair_throttles = 0
        if retry.reauthorize:
            self._lent = None
        else:
            step = backoff.retry(job.attempts - 1, self._road.pace.retry_delay, self._road.jitter)
            delay = max(delay, step)
        self._road.observer.retrying(job, retry.fault, delay)
        self._holds.hold(job, delay)

    def _wait(self, sender: Sender, job: Job, wait: Wait) -> None:
        throttled = wait.fault.error_class is not None
        if throttled and self.standing.quota is not None:
            self.standing.quota.give_back()
        if wait.scope is Scope.RECIPIENT:
            delay = max(wait.floor, backoff.pair(job.pair_throttles))
            job.pair_throttles += 1
            self._road.observer.waiting(job, wait, delay)
            self._holds.hold(job, delay)
            return
        job.pair_throttles = 0
        if wait.scope is Scope.SENDER:
            delay = sender.throttle(wait)
        else:
            delay = self._shut_gate(wait, throttled=throttled)
        self._road.observer.waiting(job, wait, delay)
        sender.order.release(job)

    def _shut_gate(self, wait: Wait, *, throttled: bool) -> float:
        """The whole tenant waits: for its credentials, or because its account or the app is throttled."""
        if throttled and not self._gate.shut:
            self.slow_down()
        if throttled or not self._gate.shut:
            self.outlook.gate_cause = Cause.THROTTLE if throttled else Cause.CREDENTIALS
        delay = shut(self._gate, wait)
        if wait.fault.app_wide:
            self._road.app_throttled(self.tenant_id)
        return delay

    # -- what opens again --------------------------------------------------------------------------

    def _release(self, job: Job) -> None:
        """The time of a held message has come."""
        sender = self._senders[job.message.phone_number_id]
        if job.alive:
            sender.order.release(job)
        else:
            self._give_up(sender, job)
        self.pump()

    def _opened(self) -> None:
        if self.outlook.gate_cause is Cause.THROTTLE:
            self._ramp.restart()
        self.pump()

    def _breaker_changed(self) -> None:
        if self.standing.breaker.state is State.CLOSED:
            self._ramp.restart()
        self.pump()

    def _let_go(self) -> None:
        if self.kept:
            return
        for number in [number for number, sender in self._senders.items() if sender.quiet]:
            del self._senders[number]
        if not self._senders and not self._gate.shut and self._holds.empty:
            # Nor may it be pumped once more: by then its tenant may have another lane.
            self._road.turns.leave(self)
            self._on_idle(self)
