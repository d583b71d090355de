"""Whose turn it is within one sender: priority, then first come, one message at a time per recipient."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

from attrs import define, field

T = TypeVar("T")
Rank = tuple[int, int]
"""Smaller goes first: (-priority, when it came)."""


@define(eq=False)
class _Conversation(Generic[T]):
    """The messages to one recipient.

    `head` was begun and keeps its place until it is done; `ready` is the rank under which the conversation
    stands in line, None while its head is out (taken, or held for another try).
    """

    key: Hashable
    waiting: list[tuple[Rank, T]] = field(factory=list)
    head: tuple[Rank, T] | None = None
    ready: Rank | None = None

    def items(self) -> list[T]:
        """All of them, the next one first."""
        waiting = [item for _, item in self.waiting]
        return [self.head[1], *waiting] if self.head else waiting


class Order(Generic[T]):
    """The messages of one sender that are not done.

    An item is added, taken by `next`, and then either `done`, or `release`d when it may be tried again.
    Between `next` and `done` nothing else of its conversation is given out. A key of None stands for no
    conversation: such an item waits for nobody. `came` numbers what comes; orders that share it can compare
    their ranks.
    """

    def __init__(self, came: Iterator[int] | None = None) -> None:
        self._came = came or count()
        self._conversations: dict[Hashable, _Conversation[T]] = {}
        self._out: dict[int, _Conversation[T]] = {}
        # Entries whose rank is no longer their conversation's are stale and skipped; the second number
        # keeps the heap from comparing conversations.
        self._line: list[tuple[Rank, int, _Conversation[T]]] = []
        self._size = 0

    def __len__(self) -> int:
        """How many were added and are not done."""
        return self._size

    def add(self, item: T, key: Hashable | None, priority: int, *, held: bool = False) -> None:
        """Put `item` in line; a higher `priority` goes first.

        One that is `held` counts as taken until it is released. It must be the first of its conversation.
        """
        key = object() if key is None else key
        conversation = self._conversations.get(key)
        if conversation is None:
            conversation = self._conversations[key] = _Conversation(key)
        heappush(conversation.waiting, ((-priority, next(self._came)), item))
        self._size += 1
        if conversation.head is None:
            if held:
                conversation.head = heappop(conversation.waiting)
                self._out[id(item)] = conversation
            else:
                self._stand_in_line(conversation)

    def __iter__(self) -> Iterator[T]:
        """All of them."""
        for conversation in self._conversations.values():
            yield from conversation.items()

    def conversations(self) -> Iterator[list[T]]:
        """The items of each conversation, the next one first, taken or not."""
        for conversation in self._conversations.values():
            yield conversation.items()

    def before(self, item: T) -> list[T] | None:
        """What goes before `item` in its conversation, the next one first; None where it is not here."""
        for conversation in self._conversations.values():
            waiting = [each for _, each in sorted(conversation.waiting, key=lambda entry: entry[0])]
            items = [conversation.head[1], *waiting] if conversation.head else waiting
            for place, each in enumerate(items):
                if each is item:
                    return items[:place]
        return None

    def holds(self, key: Hashable) -> bool:
        """Whether it has messages of the conversation `key`."""
        return key in self._conversations

    def peek(self) -> Rank | None:
        """The rank of what `next` would give; None when nothing is ready."""
        while self._line and self._line[0][2].ready != self._line[0][0]:
            heappop(self._line)
        return self._line[0][0] if self._line else None

    def next(self) -> T | None:
        """Take the item whose turn it is; None when nothing is ready."""
        if self.peek() is None:
            return None
        conversation = heappop(self._line)[2]
        conversation.ready = None
        if conversation.head is None:
            conversation.head = heappop(conversation.waiting)
        item = conversation.head[1]
        self._out[id(item)] = conversation
        return item

    def release(self, item: T) -> None:
        """Let a taken item be taken again, at its old place and before the rest of its conversation."""
        self._stand_in_line(self._out.pop(id(item)))

    def done(self, item: T) -> None:
        """Take a taken item out; its conversation goes on."""
        conversation = self._out.pop(id(item))
        conversation.head = None
        self._size -= 1
        self._go_on(conversation)

    def discard(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take out the `unwanted` among the items that are not taken, and return them."""
        gone: list[T] = []
        for conversation in list(self._conversations.values()):
            if conversation.ready is not None and conversation.head and unwanted(conversation.head[1]):
                gone.append(conversation.head[1])
                conversation.head = None
            gone += [item for _, item in conversation.waiting if unwanted(item)]
            conversation.waiting = [entry for entry in conversation.waiting if not unwanted(entry[1])]
            heapify(conversation.waiting)
            if conversation.head is None:
                self._go_on(conversation)
        self._size -= len(gone)
        return gone

    def withdraw(self, unwanted: Callable[[list[T]], bool]) -> list[T]:
        """Take out the whole conversations that are `unwanted`, and return their items.

        Within each conversation what was begun comes first, and the rest as it came.
        """
        gone: list[T] = []
        for key, conversation in list(self._conversations.items()):
            items = conversation.items()
            if unwanted(items):
                self._out.pop(id(items[0]), None)
                conversation.ready = None
                del self._conversations[key]
                head = [conversation.head] if conversation.head else []
                came = sorted(conversation.waiting, key=lambda entry: entry[0][1])
                gone += [item for _, item in (*head, *came)]
        self._size -= len(gone)
        return gone

    def _go_on(self, conversation: _Conversation[T]) -> None:
        if conversation.waiting:
            self._stand_in_line(conversation)
        else:
            conversation.ready = None
            del self._conversations[conversation.key]

    def _stand_in_line(self, conversation: _Conversation[T]) -> None:
        rank, _ = conversation.head or conversation.waiting[0]
        if conversation.ready != rank:
            conversation.ready = rank
            heappush(self._line, (rank, next(self._came), conversation))
