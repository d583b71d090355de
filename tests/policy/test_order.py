"""Whose turn it is: priority, then first come, one message of a conversation at a time."""

from __future__ import annotations

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

    def add(self, name: str, key: str | None = None, priority: int = 5) -> Item:
        item = Item(name)
        self.order.add(item, key, priority)
        return item

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


class DiscardTests(_Ordering):
    def unwant(self, *items: Item) -> list[str]:
        for item in items:
            item.unwanted = True
        return [item.name for item in self.order.discard(lambda item: item.unwanted)]

    def test_what_is_unwanted_is_gone(self) -> None:
        self.add("1", "a")
        gone = self.add("2", "a")
        self.add("3", "b")

        assert self.unwant(gone) == ["2"]
        assert self.taken() == ["1", "3"]

    def test_what_is_taken_stays_and_what_waits_behind_it_goes(self) -> None:
        first, second = self.add("1", "a"), self.add("2", "a")
        self.order.next()

        assert self.unwant(first, second) == ["2"]
        assert len(self.order) == 1
        self.order.done(first)
        assert len(self.order) == 0

    def test_a_released_message_goes_too(self) -> None:
        first = self.add("1", "a")
        self.add("2", "a")
        self.order.next()
        self.order.release(first)

        assert self.unwant(first) == ["1"]
        assert self.taken() == ["2"]

    def test_a_released_message_that_is_wanted_stays_before_the_rest(self) -> None:
        first, second = self.add("1", "a"), self.add("2", "a")
        self.add("3", "a")
        self.order.next()
        self.order.release(first)

        assert self.unwant(second) == ["2"]
        assert self.taken() == ["1", "3"]

    def test_the_rest_of_a_conversation_keeps_its_order(self) -> None:
        items = {priority: self.add(f"{priority}", "a", priority) for priority in (10, 5, 9, 4, 3, 8, 7)}

        self.unwant(items[5])
        assert self.taken() == ["10", "9", "8", "7", "4", "3"]

    def test_a_conversation_can_begin_anew_after_all_of_it_was_discarded(self) -> None:
        gone = self.add("1", "a")
        self.unwant(gone)
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

    def ready(self) -> list[_Expected]:
        """What may go: the one begun of each conversation, or else its first, if none of it is out."""
        heads: dict[object, _Expected] = {}
        for one in sorted(self.expected, key=lambda one: (not one.begun, one.rank)):
            heads.setdefault(one if one.key is None else one.key, one)
        return sorted((one for one in heads.values() if not one.out), key=lambda one: one.rank)

    def out(self) -> list[_Expected]:
        return [one for one in self.expected if one.out]

    @rule(key=st.none() | st.integers(0, 3), priority=st.integers(0, 10))
    def add(self, key: int | None, priority: int) -> None:
        item = Item(str(self.came))
        self.order.add(item, key, priority)
        self.expected.append(_Expected(item, key, (-priority, self.came)))
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
