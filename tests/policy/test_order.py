"""Whose turn it is: priority, then first come, one message of a conversation at a time."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from itertools import count

from attrs import define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.policy.order import Order


@define(eq=False)
class Item:
    name: str
    unwanted: bool = False


class _Ordering(SynchronousTestCase):
    def setUp(self) -> None:
        self.order: Order[Item] = Order()

    def add(self, name: str, key: str | None = None, priority: int = 5, *, held: bool = False) -> Item:
        item = Item(name)
        self.order.add(item, key, priority, held=held)
        return item

    def unwant(self, *items: Item) -> None:
        for item in items:
            item.unwanted = True

    def taken(self) -> list[str]:
        """Take and finish everything."""
        names = []
        while item := self.order.next():
            names.append(item.name)
            self.order.done(item)
        return names


class OrderTests(_Ordering):
    def test_empty_it_gives_nothing(self) -> None:
        assert self.order.peek() is None
        assert self.order.next() is None
        assert len(self.order) == 0

    def test_first_come_first_served(self) -> None:
        for name, key in (("1", "a"), ("2", "b"), ("3", "a"), ("4", None)):
            self.add(name, key)

        assert self.taken() == ["1", "2", "3", "4"]

    def test_a_higher_priority_goes_first(self) -> None:
        for name, priority in (("low", 0), ("high", 10), ("usual", 5), ("high too", 10)):
            self.add(name, name, priority)

        assert self.taken() == ["high", "high too", "usual", "low"]

    def test_a_higher_priority_goes_first_within_a_conversation(self) -> None:
        self.add("low", "a", 1)
        self.add("high", "a", 9)

        assert self.taken() == ["high", "low"]

    def test_only_one_message_of_a_conversation_is_out(self) -> None:
        self.add("1", "a")
        self.add("2", "a")
        self.order.next()

        assert self.order.next() is None

    def test_messages_without_a_conversation_do_not_wait_for_each_other(self) -> None:
        self.add("1")
        self.add("2")

        assert self.order.next() is not None
        assert self.order.next() is not None

    def test_another_conversation_goes_on_while_one_is_out(self) -> None:
        self.add("1", "a", 10)
        self.add("2", "a", 10)
        self.add("3", "b", 0)
        self.order.next()

        following = self.order.next()
        assert following is not None
        assert following.name == "3"

    def test_a_released_message_keeps_its_place_before_its_conversation(self) -> None:
        first = self.add("1", "a", 1)
        assert self.order.next() is first
        self.add("urgent", "a", 10)
        self.order.release(first)

        assert self.order.next() is first

    def test_a_released_message_keeps_its_place_among_the_conversations(self) -> None:
        first = self.add("1", "a")
        self.order.next()
        self.add("2", "b")
        self.order.release(first)

        assert self.taken() == ["1", "2"]

    def test_it_counts_what_is_not_done(self) -> None:
        first = self.add("1", "a")
        self.add("2", "a")
        self.order.next()

        assert len(self.order) == 2
        self.order.done(first)
        assert len(self.order) == 1

    def test_peek_tells_the_rank_of_what_comes_next(self) -> None:
        ranks = []
        for name, priority in (("low", 1), ("usual", 5), ("usual too", 5), ("high", 7)):
            self.add(name, name, priority)
        while item := self.order.peek():
            ranks.append(item)
            self.order.done(self.order.next() or Item("none"))

        assert [-rank[0] for rank in ranks] == [7, 5, 5, 1]
        assert ranks == sorted(ranks)


class HeldTests(_Ordering):
    def test_what_is_held_is_not_given_out(self) -> None:
        self.add("1", "a", held=True)

        assert self.order.peek() is None
        assert self.order.next() is None
        assert len(self.order) == 1

    def test_what_comes_after_it_waits_for_it_whatever_its_priority(self) -> None:
        first = self.add("1", "a", 1, held=True)
        self.add("2", "a", 10)
        assert self.order.next() is None

        self.order.release(first)
        assert self.taken() == ["1", "2"]

    def test_other_conversations_do_not(self) -> None:
        self.add("1", "a", held=True)
        self.add("2", "b")

        assert self.taken() == ["2"]

    def test_released_it_has_the_place_at_which_it_came(self) -> None:
        first = self.add("1", "a", held=True)
        self.add("2", "b")
        self.order.release(first)

        assert self.taken() == ["1", "2"]

    def test_it_can_be_done_without_having_been_taken(self) -> None:
        first = self.add("1", "a", held=True)
        self.add("2", "a")
        self.order.done(first)

        assert self.taken() == ["2"]

    def test_it_is_not_discarded(self) -> None:
        self.add("1", "a", held=True)

        assert self.order.discard(lambda _: True) == []
        assert len(self.order) == 1


class SharedTests(_Ordering):
    def test_orders_that_share_what_numbers_them_can_compare_their_ranks(self) -> None:
        came = count()
        first, second = Order[Item](came), Order[Item](came)
        ranks = []
        for order in (second, first, second):
            order.add(Item("any"), None, 5)
        for order in (second, first, second):
            ranks.append(order.peek())
            order.next()

        assert ranks == sorted(ranks, key=lambda rank: rank or (0, 0))
        assert len(set(ranks)) == 3


class LookingTests(_Ordering):
    """What can be seen of an order without taking anything."""

    def names(self, items: Iterable[Item]) -> list[str]:
        return sorted(item.name for item in items)

    def test_all_of_it_is_what_is_taken_and_what_waits(self) -> None:
        for name, key in (("1", "a"), ("2", "a"), ("3", "b"), ("4", None)):
            self.add(name, key)
        self.order.next()

        assert self.names(self.order) == ["1", "2", "3", "4"]

    def test_heads_are_the_next_of_each_conversation(self) -> None:
        for name, key in (("1", "a"), ("2", "a"), ("3", "b"), ("4", None), ("5", None)):
            self.add(name, key)
        self.order.next()

        assert self.names(items[0] for items in self.order.conversations()) == ["1", "3", "4", "5"]

    def test_what_is_more_urgent_is_the_head_until_one_was_begun(self) -> None:
        self.add("1", "a", 1)
        self.add("2", "a", 5)
        assert self.names(items[0] for items in self.order.conversations()) == ["2"]

        self.order.next()
        self.add("3", "a", 9)
        assert self.names(items[0] for items in self.order.conversations()) == ["2"]

    def test_what_goes_before_one_is_told_as_it_goes(self) -> None:
        names = [
            self.add(name, "alice", priority) for name, priority in (("a", 5), ("b", 1), ("c", 9), ("d", 5))
        ]
        self.add("x", "bob")
        a, b, c, d = names

        assert self.order.before(b) == [c, a, d]
        assert self.order.before(c) == []
        assert self.order.next() is c
        late = self.add("e", "alice", 10)
        assert self.order.before(late) == [c]
        assert self.order.before(c) == []

    def test_nothing_is_told_of_what_is_not_here(self) -> None:
        self.add("a", "alice")

        assert self.order.before(Item("a")) is None

    def test_it_holds_a_conversation_until_its_last_message_is_done(self) -> None:
        first = self.add("1", "a")
        assert self.order.holds("a")
        assert not self.order.holds("b")

        self.order.next()
        assert self.order.holds("a")
        self.order.done(first)
        assert not self.order.holds("a")

    def test_what_waits_for_nobody_is_no_conversation(self) -> None:
        self.add("1")

        assert not self.order.holds(None)


class WithdrawTests(_Ordering):
    def withdrawn(self, *items: Item) -> list[str]:
        self.unwant(*items)
        return [item.name for item in self.order.withdraw(lambda items: items[0].unwanted)]

    def test_an_unwanted_head_takes_its_conversation_along(self) -> None:
        first = self.add("1", "a")
        self.add("2", "a")
        self.add("3", "b")

        assert self.withdrawn(first) == ["1", "2"]
        assert not self.order.holds("a")
        assert self.taken() == ["3"]

    def test_what_is_unwanted_behind_another_stays(self) -> None:
        self.add("1", "a")
        second = self.add("2", "a")

        assert self.withdrawn(second) == []
        assert self.taken() == ["1", "2"]

    def test_a_taken_head_goes_too(self) -> None:
        first = self.add("1", "a")
        self.add("2", "a")
        self.order.next()

        assert self.withdrawn(first) == ["1", "2"]
        assert len(self.order) == 0

    def test_so_does_one_that_is_held_or_released(self) -> None:
        held = self.add("1", "a", held=True)
        released = self.add("2", "b")
        self.order.next()
        self.order.release(released)

        assert self.withdrawn(held, released) == ["1", "2"]
        assert self.order.next() is None

    def test_the_rest_goes_as_it_came_and_not_by_priority(self) -> None:
        items = [self.add(f"{priority}", "a", priority) for priority in (3, 9, 5, 10, 1)]

        assert self.withdrawn(*items) == ["3", "9", "5", "10", "1"]

    def test_what_was_begun_goes_first(self) -> None:
        self.add("1", "a", 1)
        begun = self.add("2", "a", 5)
        self.order.next()
        self.add("3", "a", 9)

        assert self.withdrawn(begun) == ["2", "1", "3"]

    def test_it_keeps_nothing_of_what_was_withdrawn(self) -> None:
        first = weakref.ref(self.add("1", "a"))
        self.order.next()
        self.order.withdraw(lambda _: True)

        assert first() is None

    def test_a_conversation_can_begin_anew_after_it_was_withdrawn(self) -> None:
        first = self.add("1", "a")
        self.order.next()
        self.withdrawn(first)
        self.add("2", "a")

        assert self.taken() == ["2"]


class DiscardTests(_Ordering):
    def discarded(self, *items: Item) -> list[str]:
        self.unwant(*items)
        return [item.name for item in self.order.discard(lambda item: item.unwanted)]

    def test_what_is_unwanted_is_gone(self) -> None:
        self.add("1", "a")
        gone = self.add("2", "a")
        self.add("3", "b")

        assert self.discarded(gone) == ["2"]
        assert self.taken() == ["1", "3"]

    def test_what_is_taken_stays_and_what_waits_behind_it_goes(self) -> None:
        first, second = self.add("1", "a"), self.add("2", "a")
        self.order.next()

        assert self.discarded(first, second) == ["2"]
        assert len(self.order) == 1
        self.order.done(first)
        assert len(self.order) == 0

    def test_a_released_message_goes_too(self) -> None:
        first = self.add("1", "a")
        self.add("2", "a")
        self.order.next()
        self.order.release(first)

        assert self.discarded(first) == ["1"]
        assert self.taken() == ["2"]

    def test_a_released_message_that_is_wanted_stays_before_the_rest(self) -> None:
        first, second = self.add("1", "a"), self.add("2", "a")
        self.add("3", "a")
        self.order.next()
        self.order.release(first)

        assert self.discarded(second) == ["2"]
        assert self.taken() == ["1", "3"]

    def test_the_rest_of_a_conversation_keeps_its_order(self) -> None:
        items = {priority: self.add(f"{priority}", "a", priority) for priority in (7, 10, 9, 6)}

        self.discarded(items[10])
        assert self.taken() == ["9", "7", "6"]

    def test_a_conversation_can_begin_anew_after_all_of_it_was_discarded(self) -> None:
        gone = self.add("1", "a")
        self.discarded(gone)
        self.add("2", "a")

        assert self.taken() == ["2"]


@define(eq=False)
class _Expected:
    item: Item
    key: int | None
    rank: tuple[int, int]
    begun: bool = False
    out: bool = False


class OrderMachine(RuleBasedStateMachine):
    """Any sequence of calls, beside a list that is searched from its beginning each time."""

    def __init__(self) -> None:
        super().__init__()
        self.order: Order[Item] = Order()
        self.expected: list[_Expected] = []
        self.came = 0

    def conversations(self) -> list[list[_Expected]]:
        """In each the one that was begun comes first, and then what goes first."""
        found: dict[object, list[_Expected]] = {}
        for one in sorted(self.expected, key=lambda one: (not one.begun, one.rank)):
            found.setdefault(one if one.key is None else one.key, []).append(one)
        return list(found.values())

    def ready(self) -> list[_Expected]:
        """What may go: the first of each conversation of which none is out."""
        heads = (conversation[0] for conversation in self.conversations())
        return sorted((one for one in heads if not one.out), key=lambda one: one.rank)

    def out(self) -> list[_Expected]:
        return [one for one in self.expected if one.out]

    @rule(key=st.none() | st.integers(0, 3), priority=st.integers(0, 10))
    def add(self, key: int | None, priority: int) -> None:
        item = Item(str(self.came))
        self.order.add(item, key, priority)
        self.expected.append(_Expected(item, key, (-priority, self.came)))
        self.came += 1

    @rule(key=st.none() | st.integers(0, 3), priority=st.integers(0, 10))
    def add_held(self, key: int | None, priority: int) -> None:
        if any(one.key == key for one in self.expected if key is not None):
            return  # it would not be the first of its conversation
        item = Item(str(self.came))
        self.order.add(item, key, priority, held=True)
        self.expected.append(_Expected(item, key, (-priority, self.came), begun=True, out=True))
        self.came += 1

    @rule()
    def next(self) -> None:
        ready = self.ready()
        item = self.order.next()
        if not ready:
            assert item is None
            return
        assert item is ready[0].item
        ready[0].begun = ready[0].out = True
        keys = [one.key for one in self.out() if one.key is not None]
        assert len(keys) == len(set(keys))

    @precondition(lambda self: bool(self.out()))
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.out()))
        self.order.done(one.item)
        self.expected.remove(one)

    @precondition(lambda self: bool(self.out()))
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(self.out()))
        self.order.release(one.item)
        one.out = False

    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        unwanted = [one for one in self.expected if data.draw(st.booleans())]
        for one in unwanted:
            one.item.unwanted = True
        gone = self.order.discard(lambda item: item.unwanted)
        expected = [one for one in unwanted if not one.out]
        assert {item.name for item in gone} == {one.item.name for one in expected}
        self.expected = [one for one in self.expected if one not in expected]
        for one in self.expected:
            one.item.unwanted = False

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        going = [whole for whole in self.conversations() if data.draw(st.booleans())]
        # Those behind them may be unwanted or not.
        unwanted = {id(whole[0].item) for whole in going} | {
            id(one.item) for whole in self.conversations() for one in whole[1:] if data.draw(st.booleans())
        }
        gone = self.order.withdraw(lambda items: id(items[0]) in unwanted)
        places = {id(item): place for place, item in enumerate(gone)}
        assert len(gone) == len(places) == sum(len(whole) for whole in going)
        for whole in going:
            expected = sorted(whole, key=lambda one: (not one.begun, one.rank[1]))
            came = [places[id(one.item)] for one in expected]
            assert came == list(range(came[0], came[0] + len(came)))
            self.expected = [one for one in self.expected if one not in whole]

    @invariant()
    def shows_what_is_not_done(self) -> None:
        assert sorted(id(item) for item in self.order) == sorted(id(one.item) for one in self.expected)
        heads = [whole[0].item for whole in self.conversations()]
        assert sorted(map(id, (items[0] for items in self.order.conversations()))) == sorted(map(id, heads))
        for key in range(4):
            assert self.order.holds(key) == any(one.key == key for one in self.expected)

    @invariant()
    def knows_what_comes_next(self) -> None:
        ready = self.ready()
        peeked = self.order.peek()
        assert (peeked and peeked[0]) == (ready[0].rank[0] if ready else None)
        assert len(self.order) == len(self.expected)


class AnySequenceTests(SynchronousTestCase):
    def test_any_sequence_of_calls_keeps_the_order(self) -> None:
        case = OrderMachine.TestCase
        case.settings = settings(
            derandomize=True, deadline=None, max_examples=200, stateful_step_count=40, database=None
        )
        case("runTest").runTest()
