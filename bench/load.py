"""What is published: the tenants, their messages, and the steady ones of B to K."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pika
from attrs import define, field, frozen

from whatsapp_egress.sandbox import cards

EXCHANGE = "whatsapp-exchange"
RATE = 5.0
"""Messages a second of each of B to K."""

PERSISTENT = pika.BasicProperties(content_type="application/json", delivery_mode=2)


@frozen
class Sender:
    """A tenant, and how many recipients its messages go to, one after the other."""

    tenant: str
    phone_number_id: str
    token: str
    recipients: int
    messages_per_second: int

    def message(self, number: int) -> bytes:
        """Return the body of its message *number*, which `mark_of` finds again in what Meta got."""
        mark = f"{self.tenant}/{number}"
        payload = {
            "messaging_product": "whatsapp",
            "to": cards.ordinary(number % self.recipients),
            "type": "text",
            "text": {"body": "Your parcel is on its way. It should be with you tomorrow before noon."},
            "biz_opaque_callback_data": mark,
        }
        metadata = {"tenantId": self.tenant, "phoneNumberId": self.phone_number_id, "internalId": mark}
        return json.dumps({"metadata": metadata, "wabaPayload": payload}).encode()

    @property
    def routing_key(self) -> str:
        """How it publishes to `EXCHANGE`."""
        return f"outbound.processed.{self.tenant}"


A = Sender("tenant-a", "300000001", "EAAbench000001ZD", recipients=200, messages_per_second=10)
B_TO_K = tuple(
    Sender(f"tenant-{letter}", f"30000{n:04}", f"EAAbench{n:06}ZD", recipients=50, messages_per_second=80)
    for n, letter in enumerate("bcdefghijk", 2)
)


def mark_of(payload: bytes) -> tuple[str, int]:
    """Return tenant and number of a message that Meta got."""
    tenant, _, number = str(json.loads(payload)["biz_opaque_callback_data"]).partition("/")
    return tenant, int(number)


@define
class Steady:
    """Publishes for several senders by turns, and notes when.

    Without confirms, which would hold up the next message: what is lost is missed when the books are closed.
    """

    _channel: Any
    _senders: Sequence[Sender]
    published: dict[tuple[str, int], float] = field(factory=dict)
    """Seconds since the epoch, just before it was handed to the broker's client."""
    latest: float = 0.0
    """How many seconds at most it was behind its own plan."""
    _counts: Counter[str] = field(factory=Counter, init=False)

    def once(self, rounds: int) -> None:
        """Publish so many messages of each sender at once."""
        for _ in range(rounds):
            for sender in self._senders:
                self._publish(sender)

    def keep_on(self, seconds: float, look: Callable[[], None]) -> None:
        """Publish `RATE` messages a second of each sender; *look* is called between any two."""
        interval = 1 / (RATE * len(self._senders))
        began = time.monotonic()
        for turn in range(round(seconds / interval)):
            late = time.monotonic() - (began + turn * interval)
            if late < 0:
                time.sleep(-late)
            self.latest = max(self.latest, late)
            self._publish(self._senders[turn % len(self._senders)])
            look()

    def _publish(self, sender: Sender) -> None:
        number = self._counts[sender.tenant]
        self._counts[sender.tenant] += 1
        body = sender.message(number)
        self.published[sender.tenant, number] = time.time()
        self._channel.basic_publish(EXCHANGE, sender.routing_key, body, PERSISTENT)
