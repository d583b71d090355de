"""The messages of the last minutes: which are in hand, how others ended, and how far the rest had come."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import Generic, TypeVar

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime

from whatsapp_egress.message import Identity
from whatsapp_egress.pipeline.job import Parcel
from whatsapp_egress.policy.verdict import Dead, History, Sent

T = TypeVar("T")

KEEP_SECONDS = 900.0
"""Longer than it takes to see a lost connection, to mend it (60 s between tries) and to redeliver."""

KEEP_MOST = 100_000
"""Bound of each memory: about 80 MB when full (measured: 0.8 KB for one)."""


def digest(body: bytes) -> bytes:
    """The name of a message among the recent ones: of its whole body, so that only a true copy matches."""
    return blake2b(body, digest_size=16).digest()


@frozen
class Ending:
    """How a message ended.

    `published` says that its event, or dead letter, needs no further care; `acked`, that the broker will not
    deliver it again, unless the ack was lost on its way.
    """

    identity: Identity
    attempts: int
    verdict: Sent | Dead
    published: bool
    acked: bool


@define
class _Kept(Generic[T]):
    """What is remembered by a message's digest, at most `KEEP_MOST` of it, the oldest forgotten first."""

    _clock: IReactorTime
    _by_digest: OrderedDict[bytes, tuple[float, T]] = field(factory=OrderedDict, init=False)

    def put(self, name: bytes, value: T) -> None:
        self._by_digest[name] = (self._clock.seconds(), value)
        self._by_digest.move_to_end(name)
        if len(self._by_digest) > KEEP_MOST:
            self._by_digest.popitem(last=False)

    def get(self, name: bytes) -> T | None:
        found = self._by_digest.get(name)
        return None if found is None else found[1]

    def drop(self, name: bytes) -> None:
        self._by_digest.pop(name, None)

    def drop_old(self) -> None:
        """Forget what is older than `KEEP_SECONDS`."""
        oldest = self._clock.seconds() - KEEP_SECONDS
        while self._by_digest and next(iter(self._by_digest.values()))[0] <= oldest:
            self._by_digest.popitem(last=False)


class Recent:
    """Lets a redelivery find what became of its message, so that it isn't sent a second time.

    What ended unacked is remembered until the broker has delivered it again, however long it was away.
    Messages alike to the last byte are told apart as far as it matters: each that was published ends.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._in_hand: dict[bytes, list[Parcel]] = {}
        self._acked: _Kept[Ending] = _Kept(clock)
        self._unacked: _Kept[Ending] = _Kept(clock)
        self._left: _Kept[list[History]] = _Kept(clock)

    def __len__(self) -> int:
        """How many are in hand."""
        return sum(len(alike) for alike in self._in_hand.values())

    def begin(self, parcel: Parcel) -> None:
        """`parcel` is in hand from now on. What was acked of its like says nothing of it."""
        self._in_hand.setdefault(parcel.digest, []).append(parcel)
        self._acked.drop(parcel.digest)

    def forget(self, parcel: Parcel, history: History) -> None:
        """`parcel` was left with the broker without an outcome; what was tried is remembered."""
        self._put_down(parcel)
        self._left.put(parcel.digest, [*(self._left.get(parcel.digest) or ()), history])
        self._left.drop_old()

    def end(self, parcel: Parcel, ending: Ending) -> None:
        """`parcel` is not in hand any more, for this is how it ended."""
        self._put_down(parcel)
        if ending.acked:
            self._unacked.drop(parcel.digest)
            self._acked.put(parcel.digest, ending)
            self._acked.drop_old()
        else:
            self._unacked.put(parcel.digest, ending)

    def recall(self, name: bytes) -> Parcel | Ending | History | None:
        """What the broker delivers again under this digest.

        A parcel still on its way, an ending, or what had been tried of a message that was left with the
        broker; None where nothing is known.
        """
        alike = self._in_hand.get(name, ())
        if lost := next((parcel for parcel in alike if not parcel.alive), None):
            return lost
        if ending := self._unacked.get(name):
            return ending
        if left := self._left.get(name):
            history = left.pop()
            if not left:
                self._left.drop(name)
            return history
        # The first delivery is alive, or was acked, as far as we know: the broker knows better.
        return alike[0] if alike else self._acked.get(name)

    def _put_down(self, parcel: Parcel) -> None:
        alike = self._in_hand[parcel.digest]
        alike.remove(parcel)
        if not alike:
            del self._in_hand[parcel.digest]
