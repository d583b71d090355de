"""The messages of the last minutes: those in hand, and those that the broker may deliver again."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from hashlib import blake2b
from itertools import count
from typing import Generic, TypeVar

from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime

from whatsapp_egress.deferred import Place
from whatsapp_egress.message import Identity
from whatsapp_egress.pipeline.job import Parcel
from whatsapp_egress.policy.verdict import History, Outcome, Sent

T = TypeVar("T")

KEEP_SECONDS = 300.0
"""How long before a lost connection an ack may have been written that the broker never read; and how long
it may take, once consuming begins anew, until it has delivered again what it must. Mostly seconds."""

KEEP_DOUBTS = 86_400.0
"""How long a deferred message may wait until its copies come, in seconds: as long as the queue in keeps
one."""

KEEP_MOST = 100_000
"""Bound of each memory: about 100 MB when full (measured: 1 KB for one)."""


def digest(body: bytes, place: Place | None = None) -> bytes:
    """The name of a message among the recent ones: of its whole body, so that only a true copy matches, and
    of the queue it is in, for the copy that was deferred has a life of its own."""
    queue = b"" if place is None else b"first" if place.first else b"back"
    return blake2b(body, digest_size=16, person=queue).digest()


@frozen
class Ending:
    """How a message ended.

    `published` says that its event, or dead letter, needs no further care; `acked`, that its ack was written.
    """

    identity: Identity
    attempts: int
    verdict: Outcome
    published: bool
    acked: bool


@define
class _Kept(Generic[T]):
    """What is remembered by messages' digests, of each of those that are alike: at most `KEEP_MOST` in all,
    the oldest forgotten first."""

    _clock: IReactorTime
    _seconds: float = KEEP_SECONDS
    _came: Iterator[int] = field(factory=count, init=False)
    _in_order: OrderedDict[int, tuple[float, bytes, T]] = field(factory=OrderedDict, init=False)
    _alike: dict[bytes, list[int]] = field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._in_order)

    def add(self, name: bytes, value: T) -> None:
        number = next(self._came)
        self._in_order[number] = (self._clock.seconds(), name, value)
        self._alike.setdefault(name, []).append(number)
        if len(self._in_order) > KEEP_MOST:
            self._drop(next(iter(self._in_order)))

    def get(self, name: bytes) -> list[T]:
        return [self._in_order[number][2] for number in self._alike.get(name, ())]

    def remove(self, name: bytes, value: T) -> None:
        """Forget one of that name that equals `value`."""
        self._drop(self._alike[name][self.get(name).index(value)])

    def all(self) -> Iterator[tuple[float, T]]:
        """All that is remembered, and since when."""
        for when, _name, value in self._in_order.values():
            yield when, value

    def drop_old(self) -> None:
        """Forget what is too old."""
        oldest = self._clock.seconds() - self._seconds
        while self._in_order and next(iter(self._in_order.values()))[0] <= oldest:
            self._drop(next(iter(self._in_order)))

    def take_all(self) -> list[tuple[bytes, T]]:
        taken = [(name, value) for _, name, value in self._in_order.values()]
        self._in_order.clear()
        self._alike.clear()
        return taken

    def _drop(self, number: int) -> None:
        _, name, _ = self._in_order.pop(number)
        alike = self._alike[name]
        alike.remove(number)
        if not alike:
            del self._alike[name]


Due = Ending | History
"""What the broker must deliver again: what ended and was not acked, or what was left with it."""


class Recent:
    """Lets a redelivery find what became of its message, so that it isn't sent a second time.

    What was acked is expected again only if its connection is lost, for the ack may not have been read. What
    was not acked is expected until the broker has had time to deliver it, however long it was away.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._in_hand: dict[bytes, list[Parcel]] = {}
        self._acked: _Kept[Ending] = _Kept(clock)
        self._due: _Kept[Due] = _Kept(clock)
        # Of what perhaps has several copies in a deferred queue: how many that come are not one too many.
        self._doubtful: _Kept[int] = _Kept(clock, KEEP_DOUBTS)
        self._from: Counter[Place] = Counter()
        self.bytes = 0
        """Of the bodies in hand."""
        self._consuming_since: float | None = None

    def __len__(self) -> int:
        """How many are in hand."""
        return sum(len(alike) for alike in self._in_hand.values())

    def begin(self, parcel: Parcel) -> None:
        """`parcel` is in hand from now on."""
        self._in_hand.setdefault(parcel.digest, []).append(parcel)
        self.bytes += len(parcel.delivery.body)
        if parcel.place is not None:
            self._from[parcel.place] += 1
        if self._consuming_since is None:
            self._consuming_since = self._clock.seconds()

    def in_hand(self) -> Iterator[Parcel]:
        """All that are in hand."""
        for alike in self._in_hand.values():
            yield from alike

    def endings(self) -> Iterator[tuple[float, Ending]]:
        """How messages of the last minutes ended, each with when, by the reactor's clock."""
        yield from self._acked.all()
        for when, due in self._due.all():
            if isinstance(due, Ending):
                yield when, due

    def held(self, place: Place) -> int:
        """How many of those in hand came from there, and are not acknowledged."""
        return self._from[place]

    def forget(self, parcel: Parcel, history: History) -> None:
        """`parcel` was left with the broker without an outcome; what was tried is remembered."""
        self._put_down(parcel)
        self._expect(parcel.digest, history)
        self.one_more(parcel.digest)

    def end(self, parcel: Parcel, ending: Ending) -> None:
        """`parcel` is not in hand any more, for this is how it ended."""
        self._put_down(parcel)
        if ending.acked:
            self._acked.add(parcel.digest, ending)
            self._acked.drop_old()
        else:
            self._expect(parcel.digest, ending)

    def sent(self) -> dict[tuple[str, str], float]:
        """What was sent in the last minutes: tenant id and internal id, and how many seconds ago."""
        now, ages = self._clock.seconds(), dict[tuple[str, str], float]()
        for when, ending in sorted(self.endings(), key=lambda each: each[0]):
            tenant_id, internal_id = ending.identity.tenant_id, ending.identity.internal_id
            if isinstance(ending.verdict, Sent) and tenant_id is not None and internal_id is not None:
                ages[tenant_id, internal_id] = now - when
        return ages

    def lost(self) -> None:
        """The connection that deliveries came on was lost."""
        self._consuming_since = None
        self._acked.drop_old()
        for name, ending in self._acked.take_all():
            self._expect(name, ending)

    def recall(self, name: bytes) -> Parcel | Due | None:
        """What the broker delivers again under this digest; None where nothing is known.

        It is a parcel still on its way, or something due, which then is due no more.
        """
        alike = self._in_hand.get(name, ())
        if lost := next((parcel for parcel in alike if not parcel.alive), None):
            return lost
        self._drop_overdue()
        if due := self._due.get(name):
            # What was acked comes again perhaps, the rest for sure.
            found = min(due, key=lambda one: isinstance(one, Ending) and one.acked)
            self._due.remove(name, found)
            return found
        # The first delivery is alive as far as we know: the broker knows better.
        return alike[0] if alike else None

    def doubt(self, name: bytes) -> bool:
        """A message is about to be deferred, and perhaps was already: several copies of that name may come.

        True when one has come in the last minutes, and there need not be another. One that came before that
        was of a message that has been published anew.
        """
        self._drop_overdue()
        self._acked.drop_old()
        if name in self._in_hand or self._acked.get(name) or self._due.get(name):
            return True
        self._doubtful.drop_old()
        self._await(name, self._awaited(name) or 1)
        return False

    def one_more(self, name: bytes) -> None:
        """One of that name goes into its deferred queue, or back into it, or may be published again: one more
        that comes from there is not one too many."""
        awaited = self._awaited(name)
        if awaited is not None:
            self._await(name, awaited + 1)

    def surplus(self, name: bytes) -> bool:
        """Whether what comes is one more copy of a message of which there may be several."""
        awaited = self._awaited(name)
        if awaited:
            self._await(name, awaited - 1)
        return awaited == 0

    def _awaited(self, name: bytes) -> int | None:
        return next(iter(self._doubtful.get(name)), None)

    def _await(self, name: bytes, copies: int) -> None:
        for before in self._doubtful.get(name):
            self._doubtful.remove(name, before)
        self._doubtful.add(name, copies)

    def _expect(self, name: bytes, due: Due) -> None:
        self._drop_overdue()
        self._due.add(name, due)

    def _drop_overdue(self) -> None:
        """Another worker has got it, or the broker has lost it."""
        since = self._consuming_since
        if since is not None and self._clock.seconds() - since >= KEEP_SECONDS:
            self._due.drop_old()

    def _put_down(self, parcel: Parcel) -> None:
        alike = self._in_hand[parcel.digest]
        alike.remove(parcel)
        self.bytes -= len(parcel.delivery.body)
        if (place := parcel.place) is not None:
            self._from[place] -= 1
            if not self._from[place]:
                del self._from[place]
        if not alike:
            del self._in_hand[parcel.digest]
