"""How the Graph API treats one phone number: its speed, its failures and its limits."""

from collections import deque
from random import Random
from typing import Annotated, Any, Literal

import msgspec
from attrs import asdict, define, field, fields, frozen
from msgspec import Meta
from twisted.internet.interfaces import IReactorTime

EVERY = "*"
_PAIRS_KEPT = 100_000

Mode = Literal[
    "ok", "hang", "reset", "reset_early", "close", "truncated", "stalled", "slow_body", "html", "error"
]
_NotNegative = Annotated[float, Meta(ge=0)]


@frozen
class Behaviour:
    """What is set for a phone number, or for all; the names are those of the control endpoint's JSON."""

    mode: Mode = "ok"
    # No constraint in this union: with a tuple in it, msgspec 0.22 crashes when garbage is collected.
    latency_ms: float | tuple[float, float] = 0.0  # before the first byte; two of them: at random between
    failure_rate: Annotated[float, Meta(ge=0, le=1)] = 0.0  # share of the requests that fail
    failure_code: int = 131000
    error_code: int = 131016  # for mode "error"
    error_subcode: int | None = None
    http_status: Annotated[int, Meta(ge=200, le=599)] | None = None  # instead of the table's
    retry_after: _NotNegative | None = None  # seconds; goes with every error of this behaviour
    messages_per_second: Annotated[float, Meta(gt=0)] | None = None  # more than this in any second: 130429
    pair_interval_s: _NotNegative | None = None  # same recipient again sooner than this: 131056
    until: Annotated[int, Meta(ge=1)] | None = None  # it ends after so many requests


_NAMES = frozenset(each.name for each in fields(Behaviour))


class SettingError(ValueError):
    """A change names or sets something that cannot be."""


def changed(behaviour: Behaviour, changes: dict[str, Any]) -> Behaviour:
    """Return *behaviour* with *changes* made.

    Raises:
        SettingError: a name that a behaviour doesn't have, or a latency that cannot be.
        msgspec.ValidationError: a value of the wrong type or out of its range.
    """
    unknown = sorted(set(changes) - _NAMES)
    if unknown:
        raise SettingError(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(_NAMES))}")
    result = msgspec.convert({**asdict(behaviour), **changes}, Behaviour)
    latency = result.latency_ms
    low, high = latency if isinstance(latency, tuple) else (latency, latency)
    if not 0 <= low <= high:
        raise SettingError("latency_ms is not negative, or two such numbers, the smaller one first")
    return result


@define
class _Standing:
    behaviour: Behaviour
    left: int | None


@define
class Behaviours:
    """The behaviours in force, and the counts their limits are held against."""

    clock: IReactorTime
    random: Random = field(factory=Random)
    _standing: dict[str, _Standing] = field(factory=dict, init=False)
    _windows: dict[str, deque[float]] = field(factory=dict, init=False)
    _pairs: dict[tuple[str, str], float] = field(factory=dict, init=False)

    def put(self, phone_number_id: str = EVERY, **settings: Any) -> Behaviour:
        """Set the behaviour of a number (or, with ``*``, of those that have none of their own) anew."""
        return self._set(phone_number_id, changed(Behaviour(), settings))

    def patch(self, phone_number_id: str = EVERY, **settings: Any) -> Behaviour:
        """Change some settings of the number's behaviour and keep the others."""
        standing = self._standing.get(phone_number_id)
        before = Behaviour() if standing is None else standing.behaviour
        return self._set(phone_number_id, changed(before, settings))

    def clear(self, phone_number_id: str | None = None) -> None:
        """Forget one number's behaviour, or without a number all of them with their counts."""
        if phone_number_id is not None:
            self._standing.pop(phone_number_id, None)
            return
        self._standing.clear()
        self._windows.clear()
        self._pairs.clear()

    def all(self) -> dict[str, Behaviour]:
        """Return the behaviours in force by phone number id."""
        return {number: standing.behaviour for number, standing in self._standing.items()}

    def peek(self, phone_number_id: str) -> Behaviour:
        """Return the behaviour in force for a number without counting a request."""
        standing = self._standing.get(phone_number_id) or self._standing.get(EVERY)
        return Behaviour() if standing is None else standing.behaviour

    def next(self, phone_number_id: str) -> Behaviour:
        """Return the behaviour for a request that has come, and count it where the behaviour is to end."""
        for number in (phone_number_id, EVERY):
            standing = self._standing.get(number)
            if standing is not None:
                if standing.left is not None:
                    standing.left -= 1
                    if standing.left <= 0:
                        del self._standing[number]
                return standing.behaviour
        return Behaviour()

    def latency(self, behaviour: Behaviour) -> float:
        """Return how many seconds to wait before this answer."""
        if isinstance(behaviour.latency_ms, tuple):
            return self.random.uniform(*behaviour.latency_ms) / 1000
        return behaviour.latency_ms / 1000

    def fails(self, behaviour: Behaviour) -> bool:
        """Say whether this request is one of the share that fails."""
        return behaviour.failure_rate > 0 and self.random.random() < behaviour.failure_rate

    def too_fast(self, phone_number_id: str, behaviour: Behaviour) -> bool:
        """Count a message against the number's throughput; True (and not counted) when it is over it."""
        limit = behaviour.messages_per_second
        if limit is None:
            return False
        # Under one a second the window is longer instead, since it holds whole messages only.
        length = max(1.0, 1.0 / limit)
        now = self.clock.seconds()
        window = self._windows.setdefault(phone_number_id, deque())
        while window and window[0] <= now - length:
            window.popleft()
        if len(window) >= max(1, int(limit * length)):
            return True
        window.append(now)
        return False

    def too_soon(self, phone_number_id: str, recipient: str, behaviour: Behaviour) -> bool:
        """Note a message to a recipient; True (and not noted) when the last one was too short a while ago."""
        interval = behaviour.pair_interval_s
        if not interval:
            return False
        now = self.clock.seconds()
        pair = (phone_number_id, recipient)
        last = self._pairs.get(pair)
        if last is not None and now - last < interval:
            return True
        self._pairs.pop(pair, None)
        self._pairs[pair] = now
        if len(self._pairs) > _PAIRS_KEPT:
            del self._pairs[next(iter(self._pairs))]
        return False

    def _set(self, phone_number_id: str, behaviour: Behaviour) -> Behaviour:
        self._standing[phone_number_id] = _Standing(behaviour, behaviour.until)
        return behaviour
