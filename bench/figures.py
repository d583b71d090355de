"""What is made of a run: how long B to K took, how A fared, and whether everything is accounted for."""

from __future__ import annotations

import json
import math
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from attrs import define, frozen

from bench.flood import Flood
from bench.load import A, mark_of
from bench.watch import Deferral, Sample

NEVER = math.inf

SETTLE = 3.0
"""Seconds after the flood's deferral from which on A's rate is taken."""

_LEAST_WINDOW = 5.0
"""Seconds that A's rate is taken over at least."""


@frozen
class Arrival:
    """A request that came to the Graph API at `time`, seconds since the epoch."""

    tenant: str
    number: int
    to: str
    time: float
    accepted: bool

    @classmethod
    def of(cls, recorded: Mapping[str, Any]) -> Arrival:
        """Read one entry of the sandbox's record."""
        payload = b64decode(recorded["body"])
        tenant, number = mark_of(payload)
        # Not the record's own "to", which it lacks where the request was refused before it was read.
        to = json.loads(payload)["to"]
        return cls(tenant, number, to, recorded["time"], recorded["wamid"] is not None)


def percentile(values: Iterable[float], share: float) -> float:
    """Return the least of *values* that *share* of them do not exceed; `NEVER` where there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else NEVER


def latencies(
    published: Mapping[tuple[str, int], float], arrivals: Iterable[Arrival]
) -> dict[tuple[str, int], float]:
    """Return the seconds from publish to Meta of each message; `NEVER` for one that did not arrive."""
    found: dict[tuple[str, int], float] = dict.fromkeys(published, NEVER)
    for arrival in arrivals:
        mark = arrival.tenant, arrival.number
        if mark in found:
            found[mark] = min(found[mark], arrival.time - published[mark])
    return found


def out_of_order(arrivals: Iterable[Arrival], recipients: Mapping[str, int]) -> list[str]:
    """Say where a conversation was not kept in order: a message after a later one, or one left out.

    A message may be tried again before its follower is, but not be accepted twice.  *recipients* says how
    many each tenant has, which its messages go to by turns.
    """
    faults = []
    last: dict[tuple[str, str], int] = {}
    accepted: set[tuple[str, int]] = set()
    for arrival in arrivals:
        step = recipients[arrival.tenant]
        conversation = arrival.tenant, arrival.to
        before = last.get(conversation, arrival.number % step - step)
        if arrival.number not in (before, before + step):
            faults.append(f"{arrival.tenant}/{arrival.number} came after {arrival.tenant}/{before}")
        last[conversation] = arrival.number
        mark = arrival.tenant, arrival.number
        if arrival.accepted and mark in accepted:
            faults.append(f"{arrival.tenant}/{arrival.number} was sent twice")
        if arrival.accepted:
            accepted.add(mark)
    return faults


def rate(times: Iterable[float], began: float, ended: float) -> float | None:
    """Return how many of *times* lie in a second of the window; None where that is too short to tell."""
    if ended - began < _LEAST_WINDOW:
        return None
    return sum(began <= time < ended for time in times) / (ended - began)


@define
class Run:
    """What was seen of one run."""

    name: str
    published: Mapping[tuple[str, int], float]
    """B to K's messages that count, without those that warmed it up."""
    samples: Sequence[Sample]
    began: float
    """When B to K began to publish."""
    ended: float
    """When they had published all."""
    flood: Flood | None
    deferral: Deferral | None
    resident_before: int
    lateness: float
    total: int
    """All that was published, warm-up and flood included."""
    arrivals: Sequence[Arrival] = ()
    """What came to Meta; known, like what follows, once the gateway has ended."""
    left: int = 0
    """Messages in the queues, dead letters among them."""
    status: int = 0
    """The gateway's exit status."""

    @cached_property
    def took(self) -> dict[tuple[str, int], float]:
        """Seconds from publish to Meta of each of B to K's messages."""
        return latencies(self.published, self.arrivals)

    @property
    def arrived(self) -> int:
        """How many of B to K's messages came to Meta."""
        return sum(seconds < NEVER for seconds in self.took.values())

    def percentile(self, share: float) -> float:
        """Return what *share* of B to K's messages did not take longer than, from publish to Meta."""
        return percentile(self.took.values(), share)

    @property
    def later_p99(self) -> float | None:
        """The same for 99% of those that were published after the flood's deferral."""
        if self.deferral is None:
            return None
        later = [self.took[mark] for mark, when in self.published.items() if when >= self.deferral.ended]
        return percentile(later, 0.99) if later else None

    @property
    def deferral_seconds(self) -> float:
        """From the flood's first message to its deferral."""
        if self.flood is None:
            return 0.0
        return NEVER if self.deferral is None else self.deferral.ended - self.flood.began

    @property
    def deferral_rate(self) -> float:
        """Messages a second that were put aside, on the whole."""
        return 0.0 if self.deferral is None else self.deferral.count / self.deferral_seconds

    @property
    def growth(self) -> float:
        """MiB that the gateway grew by at most, from before the flood on."""
        return (max(sample.resident for sample in self.samples) - self.resident_before) / 1024

    @property
    def of_a(self) -> list[Arrival]:
        """A's requests."""
        return [arrival for arrival in self.arrivals if arrival.tenant == A.tenant]

    @property
    def rate_of_a(self) -> float | None:
        """A's accepted messages a second, while B to K published and the flood was out of the way."""
        if self.flood is None:
            return None
        free = self.flood.confirmed if self.deferral is None else self.deferral.ended
        times = (arrival.time for arrival in self.of_a if arrival.accepted)
        return rate(times, max(free, self.began) + SETTLE, self.ended)

    @property
    def accepted(self) -> int:
        """Messages that Meta took, each counted once."""
        return len({(arrival.tenant, arrival.number) for arrival in self.arrivals if arrival.accepted})

    @property
    def unaccounted(self) -> int:
        """Messages that are nowhere; less than none where some are both sent and still queued."""
        return self.total - self.accepted - self.left
