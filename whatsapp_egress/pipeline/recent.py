"""The messages of the last minutes: which are in hand, and how the others ended."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b

from attrs import define, frozen
from twisted.internet.interfaces import IReactorTime

from whatsapp_egress.message import Identity
from whatsapp_egress.pipeline.job import Parcel
from whatsapp_egress.policy.verdict import Dead, Sent

KEEP_SECONDS = 900.0
"""Longer than it takes to see a lost connection, to mend it (60 s between tries) and to redeliver."""

KEEP_MOST = 200_000
"""Bound of the memory: about 60 MB when full."""


def digest(body: bytes) -> bytes:
    """The name of a message among the recent ones: of its whole body, so that only a true copy matches."""
    return blake2b(body, digest_size=16).digest()


@frozen
class Ending:
    """How a message ended; `published` says that its event, or dead letter, needs no further care."""

    identity: Identity
    attempts: int
    verdict: Sent | Dead
    published: bool


@define
class Recent:
    """Lets a redelivery find what became of the message, so that it isn't sent a second time."""

    _clock: IReactorTime
    _in_hand: dict[bytes, Parcel]
    _ended: OrderedDict[bytes, tuple[float, Ending]]

    @classmethod
    def empty(cls, clock: IReactorTime) -> Recent:
        """A memory with nothing in it."""
        return cls(clock, {}, OrderedDict())

    def __len__(self) -> int:
        """How many are in hand."""
        return len(self._in_hand)

    def begin(self, parcel: Parcel) -> None:
        """`parcel` is in hand from now on."""
        self._in_hand[parcel.digest] = parcel

    def forget(self, parcel: Parcel) -> None:
        """`parcel` went back to the broker without an outcome."""
        if self._in_hand.get(parcel.digest) is parcel:
            del self._in_hand[parcel.digest]

    def end(self, parcel: Parcel, ending: Ending) -> None:
        """`parcel` is not in hand any more, for this is how it ended."""
        self.forget(parcel)
        now = self._clock.seconds()
        self._ended[parcel.digest] = (now, ending)
        self._ended.move_to_end(parcel.digest)
        while len(self._ended) > KEEP_MOST or next(iter(self._ended.values()))[0] <= now - KEEP_SECONDS:
            self._ended.popitem(last=False)

    def in_hand(self, name: bytes) -> Parcel | None:
        """The parcel with this digest that is still on its way."""
        return self._in_hand.get(name)

    def ending(self, name: bytes) -> Ending | None:
        """How the message with this digest ended."""
        found = self._ended.get(name)
        return None if found is None else found[1]
