"""A dead-letter queue with letters in it, and what must be true of them at any time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from pika import BasicProperties
from twisted.internet import reactor

from tests.integration.rabbit import DeadLetter, WithRabbit
from whatsapp_egress.clients.broker import BrokerAddress, Topology
from whatsapp_egress.clients.broker.dead_letters import DeadLetterQueue
from whatsapp_egress.clients.broker.letters import Letter
from whatsapp_egress.clients.broker.looking import Look
from whatsapp_egress.clients.broker.replaying import Work

FAILED, INCOMING, NOTES = "outbound-failed", "outbound-processed", "outbound-replays"
NOW = 1_800_000_000.0


def body(n: int, tenant: str = "t1", phone_number_id: str = "100000001", **metadata: Any) -> bytes:
    ids = {"tenantId": tenant, "phoneNumberId": phone_number_id, "internalId": f"m{n}"}
    payload = {"messaging_product": "whatsapp", "to": f"1555{n:07}", "type": "text", "text": {"body": "é"}}
    return json.dumps({"metadata": ids | metadata, "wabaPayload": payload}, ensure_ascii=False).encode()


def engine(port: int, kind: str, now: Callable[[], float]) -> DeadLetterQueue:
    return DeadLetterQueue(
        reactor,
        BrokerAddress("127.0.0.1", port, "guest", "guest", "/", 30),
        Topology("whatsapp-exchange", INCOMING, kind),
        now,
    )


async def count_all(work: Work) -> Counter[str]:
    """The ids of all that are not in doubt."""
    ids: Counter[str] = Counter()

    def visit(letter: Letter) -> None:
        if not letter.facts.broken_off:
            ids[letter.facts.id] += 1

    await work.look(visit)
    return ids


class WithLetters(WithRabbit):
    kind = "classic"

    async def setUp(self) -> None:
        await super().setUp()
        self.upstream.channel.queue_delete(NOTES)
        self.upstream.channel.queue_declare(FAILED, durable=True, arguments={"x-queue-type": self.kind})
        self.now = NOW

    def queue(self) -> DeadLetterQueue:
        queue = engine(self.broker.port, self.kind, lambda: self.now)
        self.addCleanup(queue.cut_short)
        return queue

    def put(self, content: bytes, properties: BasicProperties | None = None, **headers: Any) -> None:
        said = {"x-egress-reason": "rejected", "x-egress-failed-at": "2026-11-25T10:00:00.000Z"} | headers
        properties = properties or BasicProperties(delivery_mode=2)
        properties.headers = (properties.headers or {}) | said
        self.upstream.channel.basic_publish("", FAILED, content, properties, mandatory=True)

    def put_many(self, count: int) -> list[bytes]:
        bodies = [body(n) for n in range(count)]
        for content in bodies:
            self.put(content)
        return bodies

    async def browsed(self, queue: DeadLetterQueue | None = None) -> tuple[Look, list[Letter]]:
        letters: list[Letter] = []
        return await (queue or self.queue()).browse(letters.append), letters

    async def in_queue(self, queue: str, count: int) -> list[DeadLetter]:
        """What is there, when as many are ready; it is not there any more after that."""
        await self.until(lambda: self.upstream.depth(queue) == count, f"{count} are in {queue}")
        return [letter for _, letter in self.upstream.take(queue)]

    async def bodies(self, queue: str, count: int) -> list[bytes]:
        return [letter.body for letter in await self.in_queue(queue, count)]
