"""Looks at dead letters: takes all, hands each out, gives all back."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, evolve, field, frozen
from pika.adapters.twisted_connection import TwistedChannel
from twisted.internet.interfaces import IReactorTime

from whatsapp_egress.clients.broker.declaring import look_at
from whatsapp_egress.clients.broker.delivery import RabbitDelivery
from whatsapp_egress.clients.broker.letters import Letter, read_letter
from whatsapp_egress.clients.broker.link import Connection
from whatsapp_egress.clients.broker.taking import Taking
from whatsapp_egress.clients.broker.topology import DEAD_LETTER_QUEUE
from whatsapp_egress.errors import QueueTrouble

MOST_LETTERS = 50_000
MOST_BYTES = 256 * 2**20
"""How many letters, and bytes of them, are held unacknowledged at once; those behind are not seen."""

PAGE = 100
"""Letters taken at a time: their bodies are in memory."""

MOST_DELIVERIES = 15
"""Deliveries of a letter after which a quorum queue of RabbitMQ 4.0 to 4.2 is left alone: it counts each
look, and drops at 20 if nobody says otherwise
(https://github.com/rabbitmq/rabbitmq-server/discussions/18226)."""


@frozen
class Look:
    """What a look at the dead-letter queue came to.

    `depth` were ready in it, `looked` were handed out, `complete` that there were no others: neither behind
    those, nor in the hands of somebody who looks or replays at the same time. `doubts` are the ids of letters
    whose replay was broken off; None where somebody has the notes meanwhile.
    """

    depth: int
    looked: int
    complete: bool
    doubts: frozenset[str] | None


@define(eq=False)
class Letters:
    """The dead-letter queue, on one channel."""

    _connection: Connection
    _channel: TwistedChannel
    _clock: IReactorTime
    taking: Taking = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.taking = Taking(self._connection, self._channel, DEAD_LETTER_QUEUE, self._clock)

    async def look(self, visit: Callable[[Letter], None], doubts: frozenset[str] | None) -> Look:
        """Take all, hand each to `visit`, give all back in their order."""
        state = await look_at(self._connection, DEAD_LETTER_QUEUE)
        looked = size = 0
        complete = False
        async with self.taking.held():
            while looked < MOST_LETTERS and size < MOST_BYTES:
                page = await self.taking.take(min(PAGE, MOST_LETTERS - looked))
                if not page:
                    # Else others have some of them in their hands.
                    complete = doubts is not None and (state is None or looked >= state.messages)
                    break
                looked += len(page)
                for delivery in page:
                    letter = self.read(delivery)
                    size += len(letter.body)
                    if doubts is not None and letter.facts.id in doubts:
                        letter = evolve(letter, facts=evolve(letter.facts, broken_off=True))
                    visit(letter)
        return Look(max(looked, 0 if state is None else state.messages), looked, complete, doubts)

    def read(self, delivery: RabbitDelivery) -> Letter:
        """What was delivered. Raises `QueueTrouble` when looking at it more often would lose it."""
        letter = read_letter(delivery.body, delivery.properties)
        if letter.deliveries >= MOST_DELIVERIES and self._connection.server_version.startswith(
            ("4.0.", "4.1.", "4.2.")
        ):
            raise QueueTrouble(
                f"{DEAD_LETTER_QUEUE} is a quorum queue that counts each look, and drops letters after 20: "
                "make it a classic queue, or update RabbitMQ to 4.3"
            )
        return letter
