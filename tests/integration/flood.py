"""Tenants that publish much at once, and what became of it: all sent, once, each conversation in order."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

import pika
from attrs import frozen
from pika.exceptions import ChannelClosedByBroker
from twisted.internet.threads import deferToThread

from tests.integration.rabbit import WithRabbit
from tests.integration.world import World, message
from whatsapp_egress.sandbox.record import Arrival

RECIPIENTS = 10


def numbered(tenant: Any, numbers: Iterable[int], recipients: int = RECIPIENTS) -> list[bytes]:
    """Messages whose text is their number, in so many conversations."""
    return [
        message(
            tenant,
            internal_id=f"{tenant.id}-{number}",
            payload={
                "messaging_product": "whatsapp",
                "to": f"1999{number % recipients:07}",
                "type": "text",
                "text": {"body": str(number)},
            },
        )
        for number in numbers
    ]


def number_of(arrival: Arrival) -> int:
    """The number of a message of `numbered`."""
    return int(json.loads(arrival.body)["text"]["body"])


@frozen
class QueueLook:
    """What `rabbitmqctl` tells of a queue."""

    ready: int = 0
    unacked: int = 0


async def look_at_queues(case: WithRabbit) -> dict[str, QueueLook]:
    """All queues there are, by name; takes the broker half a second or more."""
    said = await deferToThread(
        case.broker.ctl,
        "list_queues",
        "--no-table-headers",
        "name",
        "messages_ready",
        "messages_unacknowledged",
    )
    lines = [line.split("\t") for line in said.splitlines() if line]
    return {name: QueueLook(int(ready), int(unacked)) for name, ready, unacked in lines}


class Flooded(World):
    """With a queue look that is allowed during a memory alarm, and counts by tenant."""

    _looks: Any = None

    def flood(self, tenant: Any, numbers: Collection[int], recipients: int = RECIPIENTS) -> None:
        """Publish, and wait for the confirms of all at once: one by one they would hold up the gateway and
        the sandbox, which are in this process. Without any, a quorum queue may lose the last ones when the
        channel is closed."""
        channel = self.upstream.connection.channel()
        confirmed: list[Any] = []
        channel._impl.confirm_delivery(confirmed.append)
        for body in numbered(tenant, numbers, recipients):
            channel.basic_publish(
                "whatsapp-exchange",
                f"outbound.processed.{tenant.id}",
                body,
                pika.BasicProperties(delivery_mode=2),
            )
        count = len(numbers)
        while max((frame.method.delivery_tag for frame in confirmed), default=0) < count:
            self.upstream.connection.process_data_events(0.01)
        assert all(isinstance(frame.method, pika.spec.Basic.Ack) for frame in confirmed)
        channel.close()

    def accepted(self, tenant: Any) -> int:
        """How many of the tenant's messages Meta has taken."""
        return int(self.sandbox.record.accepted_by_tenant[tenant.id])

    def arrived(self, tenant: Any) -> list[Arrival]:
        """Every request of the tenant's."""
        return [arrival for arrival in self.sandbox.record if arrival.tenant == tenant.id]

    def numbers_sent(self, tenant: Any) -> list[int]:
        return [number_of(arrival) for arrival in self.arrived(tenant) if arrival.status == 200]

    async def until_sent(self, tenant: Any, count: int, patience: float = 60) -> None:
        await self.until(
            lambda: self.accepted(tenant) >= count, f"{count} messages of {tenant.id} are sent", patience
        )

    def assert_all_sent_once_in_order(self, tenant: Any, count: int) -> None:
        sent = self.numbers_sent(tenant)
        assert sorted(sent) == list(range(count)), (len(sent), sorted(set(range(count)) - set(sent))[:20])
        self.assert_in_order(sent)

    def assert_in_order(self, sent: list[int], recipients: int = RECIPIENTS) -> None:
        conversations: dict[int, list[int]] = defaultdict(list)
        for number in sent:
            conversations[number % recipients].append(number)
        for conversation in conversations.values():
            assert conversation == sorted(conversation), conversation

    def deferred(self, tenant: Any) -> int:
        """How many messages wait in the tenant's deferred queues."""
        return sum(
            self.depth_of(f"{name}.{tenant.id}") for name in ("outbound-deferred-first", "outbound-deferred")
        )

    def depth_of(self, queue: str) -> int:
        """How many messages are ready in it, none where it isn't there; asked on a connection of its own, for
        a memory alarm silences those that have published."""
        if self._looks is None:
            connection = self.broker.connect()
            self.addCleanup(connection.close)
            self._looks = connection
        channel = self._looks.channel()
        try:
            return int(channel.queue_declare(queue, passive=True).method.message_count)
        except ChannelClosedByBroker:
            return 0
        finally:
            if channel.is_open:
                channel.close()
