"""Whether we hold a tenant's lease, and so look after its deferred queues."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from whatsapp_egress.errors import Unpublished
from whatsapp_egress.pipeline.job import Delivery

RENEW_SECONDS = 600.0
"""Age at which a lease is written anew: a third of the broker's `consumer_timeout` (30 min)."""

RENEWED_SECONDS = 10.0
"""How long a lease that was written anew may take to arrive; then another worker has got it."""

UNOWNED_SECONDS = 60.0
"""After how many seconds without a lease one more is written, in case the other is lost: two do no harm."""


@define(eq=False)
class Leasehold:
    """A lease is ours while we hold its delivery. It is written by `_write`, with what it is to say by then,
    and the broker delivers it to us or to another worker. That one comes again when its holder dies."""

    _write: Callable[[], Deferred[None]]
    _clock: IReactorTime
    _held: Delivery | None = field(default=None, init=False)
    _came: float = field(default=0.0, init=False)
    _written: float | None = field(default=None, init=False)
    _stale: bool = field(default=False, init=False)

    @property
    def ours(self) -> bool:
        """Whether we hold it."""
        return self._held is not None

    def take(self, delivery: Delivery) -> None:
        """It came: it takes the place of the one that we hold."""
        self.let_go()
        self._held = delivery
        self._came = self._clock.seconds()

    def let_go(self) -> None:
        """It is over, or another worker's."""
        if self._held is not None:
            self._held.ack()
        self._held = None

    def lost(self) -> None:
        """Its channel is gone; the broker delivers it again."""
        self._held = None

    def changed(self) -> None:
        """What it says is not true any more."""
        self._stale = True

    def doubt(self) -> None:
        """The queues are gone: if another worker had it, it may be gone too."""
        if not self.ours:
            self._written = None

    async def see_to(self) -> None:
        """See to it that somebody has it, and that it says what is true. Raises `Unpublished`."""
        now, written = self._clock.seconds(), self._written
        unowned = not self.ours and (written is None or now - written > UNOWNED_SECONDS)
        if unowned or self._stale:
            await self._write_anew()

    async def renew(self) -> None:
        """Write it anew before the broker's patience ends. Raises `Unpublished`."""
        now, written = self._clock.seconds(), self._written
        if not self.ours:
            return
        if written is not None and written > self._came:
            if now - written > RENEWED_SECONDS:
                self.let_go()  # another worker has got the new one
        elif now - self._came > RENEW_SECONDS:
            await self._write_anew()

    async def _write_anew(self) -> None:
        before, self._written = self._written, self._clock.seconds()
        self._stale = False
        try:
            await self._write()
        except Unpublished:
            self._written, self._stale = before, True
            raise
