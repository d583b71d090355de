"""How many messages a tenant may send in a day."""

from __future__ import annotations

from collections import deque
from math import inf

from attrs import define
from twisted.internet.interfaces import IReactorTime

DAY = 86_400.0
"""What `messagesPerDay` is counted over, in seconds: any 24 hours, not those of a calendar."""

SLOT = 300.0
"""Messages that were sent within so many seconds of each other are counted together."""


@define(eq=False)
class _Slot:
    start: float
    count: int

    @property
    def over_at(self) -> float:
        """When it counts no longer: a day after its end, for its last message may have gone just before."""
        return self.start + SLOT + DAY


class DailyQuota:
    """messagesPerDay: no more than `per_day` messages in any 24 hours.

    A message counts for a day and five minutes at most, so that 289 numbers are all there is to remember.
    """

    def __init__(self, per_day: int, clock: IReactorTime) -> None:
        self._per_day = per_day
        self._clock = clock
        self._slots: deque[_Slot] = deque()
        self._counted = 0

    @property
    def per_day(self) -> int:
        """Messages that may go in 24 hours."""
        return self._per_day

    @property
    def unused(self) -> bool:
        """Whether nothing was sent in the last 24 hours, so that there is nothing worth remembering."""
        self._forget()
        return self._counted == 0

    def change(self, per_day: int) -> None:
        """Allow `per_day` from now on; what was sent still counts."""
        self._per_day = per_day

    def allows(self) -> bool:
        """Whether one more may go now."""
        self._forget()
        return self._counted < self._per_day

    def take(self) -> None:
        """One more goes."""
        now = self._clock.seconds()
        # After the clock was set back, the newest slot is in the future and takes what comes.
        if not self._slots or now >= self._slots[-1].start + SLOT:
            self._slots.append(_Slot(now, 0))
        self._slots[-1].count += 1
        self._counted += 1

    def give_back(self) -> None:
        """One that was taken did not count with Meta after all: it was throttled.

        Nobody remembers in which slot it was taken. An exchange is shorter than a slot, so that was the
        newest or the one before, and the older gives back: else what went later would be forgotten too early.
        """
        now = self._clock.seconds()
        for slot in list(self._slots)[-2:]:
            if slot.count > 0 and now < slot.start + 2 * SLOT:
                slot.count -= 1
                self._counted -= 1
                return

    def opens_at(self) -> float | None:
        """When one more may go, by its clock in seconds; None when one may go now."""
        if self.allows():
            return None
        too_many = self._counted - self._per_day + 1
        for slot in self._slots:
            too_many -= slot.count
            if too_many <= 0:
                return slot.over_at
        return inf  # a quota of nothing

    def _forget(self) -> None:
        now = self._clock.seconds()
        while self._slots and self._slots[0].over_at <= now:
            self._counted -= self._slots.popleft().count
