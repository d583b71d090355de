"""What operators want done with dead letters, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from attrs import define, field, frozen
from attrs.validators import gt

from whatsapp_egress.clients.broker.looking import Look
from whatsapp_egress.policy.replay import Filter

DEFAULT_RATE = 50.0
"""Messages a second that a replay sends into the queue, where nobody says otherwise."""


class CountChanged(Exception):
    """There are not as many letters as was expected, and nothing was done."""

    def __init__(self, expected: int, counted: int) -> None:
        super().__init__(f"{counted} dead letters match, not {expected}: look again before you act")
        self.expected, self.counted = expected, counted


class What(str, Enum):
    """What is done with dead letters."""

    REPLAY = "replay"
    DROP = "drop"


class State(str, Enum):
    """How far a job is."""

    COUNTING = "counting"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


@frozen
class Order:
    """What an operator wants done, and with how many: `expected` is what was counted before.

    `rate` is in messages a second, more than 0, and like `force` for replays only.
    """

    what: What
    filter: Filter
    actor: str
    expected: int
    rate: float = field(default=DEFAULT_RATE, validator=gt(0))
    force: bool = False


@define(eq=False)
class Job:
    """One order and how far it is.

    `moved` were replayed or dropped, `left` are still to be; of those that were `counted` the others were
    `skipped`, by why. Times are in seconds since the epoch.
    """

    id: str
    order: Order
    began: float
    state: State = State.COUNTING
    counted: int = 0
    moved: int = 0
    skipped: dict[str, int] = field(factory=dict)
    left: int = 0
    detail: str = ""
    ended: float | None = None
    stopping: bool = field(default=False, init=False)

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in (State.DONE, State.STOPPED, State.FAILED)


@frozen
class Foretold:
    """What a replay would come to: how many are meant, what would happen to them, and which would be skipped.

    `look` tells whether all were seen.
    """

    look: Look
    matching: int
    would: Mapping[str, int]
    skipped: Mapping[str, int]
