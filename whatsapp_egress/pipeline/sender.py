"""One phone number of a tenant: its messages in order, its rate, and the gate that a throttle shuts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from twisted.internet.interfaces import IReactorTime

from whatsapp_egress.pipeline.job import Job
from whatsapp_egress.policy import backoff
from whatsapp_egress.policy.bucket import Bucket
from whatsapp_egress.policy.gate import Gate
from whatsapp_egress.policy.order import Order
from whatsapp_egress.policy.ramp import Ramp
from whatsapp_egress.policy.rate import Rate
from whatsapp_egress.policy.verdict import Wait


def shut(gate: Gate, wait: Wait) -> float:
    """Shut `gate` for as long as `wait` says, longer each time in a row; returns the seconds to wait."""
    return gate.shut_for(wait.floor, partial(backoff.throttle, first=wait.floor, longest=wait.longest))


class Sender:
    """`workers` says how many share the number: each gives its bucket an equal part of the rate."""

    def __init__(
        self,
        rate: Rate,
        workers: int,
        interval: float,
        most: int,
        clock: IReactorTime,
        came: Iterator[int],
        pump: Callable[[], None],
    ) -> None:
        self.rate = rate
        self.order: Order[Job] = Order(came)
        self.in_flight = 0
        self._workers = workers
        self._pump = pump
        self.ramp = Ramp(most)
        self.bucket = Bucket(rate.current / workers, interval, clock, pump)
        self.gate = Gate(clock, self._opened)

    @property
    def ready(self) -> bool:
        """Whether a message of it can go now, as far as the number is concerned."""
        return self.open and self.order.peek() is not None

    @property
    def open(self) -> bool:
        """Whether gate, bucket and ramp let one more go."""
        return not self.gate.shut and self.bucket.available >= 1 and self.in_flight < self.ramp.limit

    @property
    def quiet(self) -> bool:
        """Whether it holds no job, and no memory of a throttle or of tokens spent."""
        return not self.order and self.bucket.full and not self.gate.shut

    def share(self, workers: int) -> None:
        """So many workers share the number from now on."""
        self._workers = workers
        self.adjust()

    def adjust(self) -> None:
        """The rate is another one: fill the bucket with this one from now on."""
        self.bucket.change_rate(self.rate.current / self._workers)

    def throttle(self, wait: Wait) -> float:
        """Shut the gate and cut the rate; returns the seconds to wait. What was in flight when the gate shut
        tells the same throttle once more, and cuts nothing."""
        if not self.gate.shut:
            self.slow_down()
        return shut(self.gate, wait)

    def slow_down(self) -> None:
        """Cut the rate."""
        self.rate.throttled()
        self.adjust()

    def passed(self) -> None:
        """A send went well."""
        self.gate.passed()
        # What was in flight when the gate shut says nothing of the rate after it.
        if not self.gate.shut and self.rate.passed():
            self.adjust()

    def stop(self) -> None:
        """Forget the timers, for good."""
        self.gate.stop()
        self.bucket.stop()

    def _opened(self) -> None:
        self.ramp.restart()
        self._pump()
