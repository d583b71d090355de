"""What all lanes share: how fast they go, where attempts are made, and who hears of it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from whatsapp_egress.pipeline.job import Job
from whatsapp_egress.pipeline.observer import Observer
from whatsapp_egress.pipeline.turns import Turns
from whatsapp_egress.policy.credentials import Credentials
from whatsapp_egress.policy.verdict import Dead, Sent, Verdict, Wait
from whatsapp_egress.tasks import Tasks


@frozen
class Pace:
    """How fast lanes go: messages a second where a tenant names none, seconds, seconds, requests at once,
    messages in hand, seconds in hand."""

    default_rate: float
    refill_interval: float
    retry_delay: float
    most_in_flight: int
    most_active: int
    defer_after: float


class Cause(str, Enum):
    """What a lane's next message waits for; `conversation`, `retry` and
    `broker` are what only a certain message may wait for."""

    TOKEN = "token"  # noqa: S105 - a token of the bucket's
    RECIPIENT = "recipient"
    BREAKER = "breaker"
    THROTTLE = "throttle"
    CREDENTIALS = "credentials"
    PAUSE = "pause"
    TURN = "turn"
    DAY = "day"
    CONVERSATION = "conversation"
    RETRY = "retry"
    ROAD = "road"
    BROKER = "broker"


@frozen
class WaitsFor:
    """What the next message of a lane waits for, or a certain one, and until when: by the reactor's clock in
    seconds, None where nobody can know."""

    cause: Cause
    until: float | None = None


class Attempts(Protocol):
    """Makes attempts; `pipeline.attempt` provides it."""

    def at_hand(self, tenant_id: str) -> Credentials | None:
        """Credentials that can be used without asking anybody."""

    def look_up(self, job: Job) -> Coroutine[Deferred[Any], Any, Credentials | Dead | Wait]:
        """Ask for the credentials that `job` needs; or its verdict, where there are none."""

    def __call__(self, job: Job, credentials: Credentials) -> Coroutine[Deferred[Any], Any, Verdict]:
        """Try `job` once."""


@frozen
class Road:
    """What all lanes share. `now` gives seconds since the epoch, `jitter` 0..1."""

    attempt: Attempts
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
    app_throttled: Callable[[str], None]
    """Told whose throttle concerns the whole app."""
