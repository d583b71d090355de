"""Dead letters on a real RabbitMQ: looked at, sent again, dropped; and what a broken-off replay leaves."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from pika import BasicProperties
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from tests.integration.letters import FAILED, INCOMING, NOTES, NOW, WithLetters, body, count_all
from tests.integration.rabbit import DeadLetter, Publisher
from whatsapp_egress.clients.broker import dead_letters, looking, replaying
from whatsapp_egress.clients.broker.letters import Letter
from whatsapp_egress.errors import QueueTrouble, ReplayUnderWay, Unpublished, Unroutable


def never() -> bool:
    return False


def headers_of(copy: DeadLetter) -> dict[str, Any]:
    """Without what a quorum queue tells who takes from it."""
    return {name: value for name, value in copy.headers.items() if name != "x-delivery-count"}


class Looking(WithLetters):
    at_bound = 20

    async def test_a_look_sees_all_in_their_order_and_leaves_all_in_their_order(self) -> None:
        everything = self.put_many(730)
        queue = self.queue()
        for _ in range(3):
            look, letters = await self.browsed(queue)
            assert [letter.body for letter in letters] == everything
            assert (look.depth, look.looked, look.complete, look.doubts) == (730, 730, True, frozenset())
        assert await self.bodies(FAILED, 730) == everything

    async def test_an_id_stays_and_is_not_that_of_another(self) -> None:
        self.put(body(1))
        self.put(body(1), **{"x-egress-failed-at": "2026-11-25T10:00:00.001Z"})
        self.put(body(2))
        looks = [[letter.facts.id for letter in (await self.browsed())[1]] for _ in range(2)]
        assert looks[0] == looks[1]
        assert len(set(looks[0])) == 3

    async def test_a_look_ends_at_its_bound(self) -> None:
        everything = self.put_many(30)
        self.patch(looking, "MOST_LETTERS", 20)
        look, _ = await self.browsed()
        assert (look.depth, look.looked, look.complete) == (30, 20, False)
        self.patch(looking, "MOST_LETTERS", 30)
        self.patch(looking, "PAGE", 10)
        self.patch(looking, "MOST_BYTES", len(everything[0]) * 10 + 1)
        look, _ = await self.browsed()
        assert (look.looked, look.complete) == (self.at_bound, False)
        left = await self.bodies(FAILED, 30)
        if self.kind == "classic":
            assert left == everything
        else:  # of what was not taken to the end, the rest comes first
            assert sorted(left) == sorted(everything)

    async def test_a_look_that_fails_leaves_all_in_their_order(self) -> None:
        everything = self.put_many(120)

        def visit(letter: Letter) -> None:
            if letter.body == everything[110]:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await self.queue().browse(visit)
        assert await self.bodies(FAILED, 120) == everything

    async def test_what_comes_meanwhile_comes_behind(self) -> None:
        everything = self.put_many(150)

        def visit(letter: Letter) -> None:
            if letter.body == everything[0]:
                self.put(body(1000))

        look = await self.queue().browse(visit)
        assert look.looked in (150, 151)
        assert await self.bodies(FAILED, 151) == [*everything, body(1000)]

    async def test_an_empty_queue(self) -> None:
        look, letters = await self.browsed()
        assert (look.depth, look.looked, look.complete, letters) == (0, 0, True, [])


class LookingAtQuorum(Looking):
    kind = "quorum"
    at_bound = 10  # these have longer names


class Replaying(WithLetters):
    async def replay_all(self, rate: float = 10_000, moved: list[str] | None = None) -> None:
        queue = self.queue()
        work = await queue.begin()
        try:
            wanted = await count_all(work)
            await work.replay(wanted, rate, [].append if moved is None else moved.append, never)
        finally:
            await queue.end(work)

    async def test_each_is_in_the_queue_once_and_in_no_other(self) -> None:
        everything, moved = self.put_many(230), list[str]()
        await self.replay_all(moved=moved)
        assert await self.bodies(INCOMING, 230) == everything
        assert len(set(moved)) == 230
        assert (self.upstream.depth(FAILED), self.upstream.depth(NOTES)) == (0, 0)

    async def test_the_copy_is_the_message_as_it_was(self) -> None:
        headers = {"traceparent": "00-1", "CC": ["elsewhere"], "x-death": [{"count": 1}], "n": 7}
        properties = BasicProperties(
            content_type="application/json", message_id="id", priority=3, delivery_mode=1, headers=headers
        )
        self.put(body(1, retryCount=4), properties, **{"x-egress-attempts": 5, "x-egress-replays": 1})
        await self.replay_all()
        (copy,) = await self.in_queue(INCOMING, 1)
        assert copy.body == body(1, retryCount=0)
        assert headers_of(copy) == {"traceparent": "00-1", "n": 7, "x-egress-replays": 2}
        kept = copy.properties
        assert (kept.content_type, kept.message_id, kept.priority) == ("application/json", "id", 3)
        assert kept.delivery_mode == 2

    async def test_what_rabbitmq_let_expire_lives_again(self) -> None:
        self.upstream.channel.queue_declare(
            "short-lived",
            arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": FAILED},
        )
        self.upstream.channel.basic_publish("", "short-lived", body(1), BasicProperties(expiration="1"))
        await self.until(lambda: self.upstream.depth(FAILED) == 1, "it expired")
        self.upstream.channel.queue_delete("short-lived")
        _, (letter,) = await self.browsed()
        assert letter.facts.reason == "broker_expired"
        assert letter.facts.failed_at is not None
        assert 1.7e9 < letter.facts.failed_at < 1e10
        await self.replay_all()
        (copy,) = await self.in_queue(INCOMING, 1)
        assert headers_of(copy) == {"x-egress-replays": 1}
        assert copy.properties.expiration is None

    async def test_what_is_no_message_is_replayed_as_it_is(self) -> None:
        for content in (b"\xff", b"", b'{"metadata":{"tenantId":"t9","retryCount":3}}'):
            self.put(content)
        keys = self.upstream.channel.queue_declare("", exclusive=True).method.queue
        self.upstream.channel.exchange_declare("whatsapp-exchange", "topic", durable=True)
        self.upstream.channel.queue_bind(keys, "whatsapp-exchange", "#")
        await self.replay_all()
        await self.until(lambda: self.upstream.depth(keys) == 3, "all came")
        assert [(key, letter.body) for key, letter in self.upstream.take(keys)] == [
            ("outbound.processed.unknown", b"\xff"),
            ("outbound.processed.unknown", b""),
            ("outbound.processed.t9", b'{"metadata":{"tenantId":"t9","retryCount":3}}'),
        ]

    async def test_the_others_stay_in_their_order(self) -> None:
        everything = self.put_many(240)
        queue = self.queue()
        work = await queue.begin()
        ids: list[str] = []
        await work.look(lambda letter: ids.append(letter.facts.id))
        await work.replay(Counter(ids[1::3]), 10_000, lambda _id: None, never)
        await queue.end(work)
        assert await self.bodies(INCOMING, 80) == everything[1::3]
        assert await self.bodies(FAILED, 160) == [
            content for n, content in enumerate(everything) if n % 3 != 1
        ]

    async def test_one_of_two_that_are_alike(self) -> None:
        for _ in range(2):
            self.put(body(1))
        queue = self.queue()
        work = await queue.begin()
        (name,) = await count_all(work)
        await work.replay(Counter([name]), 10_000, lambda _id: None, never)
        await queue.end(work)
        assert (await self.bodies(INCOMING, 1), await self.bodies(FAILED, 1)) == ([body(1)], [body(1)])

    async def test_it_keeps_its_speed(self) -> None:
        self.put_many(40)
        began = reactor.seconds()
        await self.replay_all(rate=50)
        assert reactor.seconds() - began > 39 / 50

    async def test_dropped_they_are_gone_and_the_others_stay_in_their_order(self) -> None:
        everything = self.put_many(240)
        queue = self.queue()
        work = await queue.begin()
        ids, dropped = list[str](), list[str]()
        await work.look(lambda letter: ids.append(letter.facts.id))
        await work.drop(Counter(ids[::2]), dropped.append, never)
        await queue.end(work)
        assert dropped == ids[::2]
        assert await self.bodies(FAILED, 120) == everything[1::2]
        assert self.upstream.depth(INCOMING) == 0

    async def test_what_others_have_taken_meanwhile_is_not_waited_for(self) -> None:
        self.patch(replaying, "AGAIN_SECONDS", 0.01)
        self.put_many(10)
        queue, moved = self.queue(), list[str]()
        work = await queue.begin()
        wanted = await count_all(work)
        taken, _, _ = self.upstream.channel.basic_get(FAILED)
        await work.replay(wanted, 10_000, moved.append, never)
        assert len(moved) == 9
        self.upstream.channel.basic_nack(taken.delivery_tag)
        await queue.end(work)
        assert await self.bodies(FAILED, 1) == [body(0)]

    async def test_letters_are_given_back_and_taken_anew_before_the_broker_minds(self) -> None:
        self.patch(replaying, "HELD_SECONDS", 0.0)
        everything = self.put_many(250)
        queue, moved = self.queue(), list[str]()
        work = await queue.begin()
        wanted = await count_all(work)
        self.patch(replaying, "HELD_SECONDS", 0.05)
        await work.replay(wanted, 1_000, moved.append, never)
        await queue.end(work)
        assert len(moved) == 250
        assert sorted(await self.bodies(INCOMING, 250)) == sorted(everything)

    async def test_two_at_once_are_one_too_many(self) -> None:
        self.patch(dead_letters, "LOCK_SECONDS", 0.3)
        self.put_many(1)
        one, other = self.queue(), self.queue()
        work = await one.begin()
        with pytest.raises(ReplayUnderWay):
            await one.begin()
        with pytest.raises(ReplayUnderWay):
            await other.begin()
        look, letters = await self.browsed(other)
        assert (look.doubts, look.complete, len(letters)) == (None, False, 1)
        look, letters = await self.browsed(one)
        assert (look.doubts, look.complete, len(letters)) == (frozenset(), False, 1)
        await one.end(work)
        await other.end(await other.begin())

    async def test_who_looks_while_another_does_is_not_told_that_he_saw_all(self) -> None:
        self.put_many(1_000)
        looks = [Deferred.fromCoroutine(self.queue().browse(lambda _letter: None)) for _ in range(2)]
        for look in [await each for each in looks]:
            assert look.looked == 1_000 or not look.complete

    async def test_a_replay_waits_for_one_who_only_looks(self) -> None:
        everything = self.put_many(300)
        one, other = self.queue(), self.queue()
        looked = Deferred.fromCoroutine(one.browse(lambda _letter: None))
        work = await other.begin()
        assert (await count_all(work)).total() == len(everything)
        await other.end(work)
        look = await looked
        assert look.looked == len(everything) or not look.complete


class ReplayingQuorum(Replaying):
    kind = "quorum"


class BrokenOff(WithLetters):
    async def test_a_stop_between_two_messages_leaves_nothing_in_doubt(self) -> None:
        everything, moved = self.put_many(300), list[str]()
        queue = self.queue()
        work = await queue.begin()
        wanted = await count_all(work)
        await work.replay(wanted, 1_000, moved.append, lambda: len(moved) >= 73)
        await queue.end(work)
        sent = await self.bodies(INCOMING, len(moved))
        assert 73 <= len(sent) < 300
        assert sent == everything[: len(sent)]
        look, letters = await self.browsed()
        assert look.doubts == frozenset()
        assert [letter.body for letter in letters] == everything[len(sent) :]
        assert self.upstream.depth(NOTES) == 0

    async def test_a_slow_one_stops_without_waiting_for_the_next_ones_turn(self) -> None:
        self.put_many(3)
        queue, moved = self.queue(), list[str]()
        work = await queue.begin()
        wanted = await count_all(work)
        began = reactor.seconds()
        await work.replay(wanted, 0.01, moved.append, lambda: len(moved) == 1)
        await queue.end(work)
        assert reactor.seconds() - began < 10
        assert (self.upstream.depth(INCOMING), self.upstream.depth(NOTES)) == (1, 0)

    async def test_a_connection_that_is_closed_loses_and_doubles_nothing(self) -> None:
        everything, moved = self.put_many(400), list[str]()
        queue = self.queue()
        work = await queue.begin()
        wanted = await count_all(work)

        replay = Deferred.fromCoroutine(work.replay(wanted, 300, moved.append, never))
        await self.until(lambda: len(moved) > 60, "some are done")
        self.upstream.close()
        await deferToThread(self.broker.close_connections)
        with pytest.raises((QueueTrouble, Unpublished)):
            await replay
        await queue.end(work)
        self.upstream = Publisher(self.broker)
        look, letters = await self.browsed(queue)
        assert look.complete
        doubtful = {letter.body for letter in letters if letter.facts.broken_off}
        assert len(doubtful) <= replaying.BATCH
        left = [letter.body for letter in letters]
        sent = [letter.body for _, letter in self.upstream.take(INCOMING)]
        assert max(Counter(sent).values()) == 1
        assert set(sent) & set(left) <= doubtful
        assert sorted(set(sent) | set(left)) == sorted(everything)
        assert left == [content for content in everything if content in set(left)]

    async def test_where_no_queue_takes_them_all_stay_and_nothing_is_in_doubt(self) -> None:
        everything = self.put_many(120)
        queue = self.queue()
        work = await queue.begin()
        wanted = await count_all(work)
        self.upstream.channel.queue_unbind(INCOMING, "whatsapp-exchange", "outbound.processed.#")
        with pytest.raises(Unroutable):
            await work.replay(wanted, 10_000, lambda _id: None, never)
        await queue.end(work)
        look, letters = await self.browsed()
        assert look.doubts == frozenset()
        left = [letter.body for letter in letters]
        sent = [letter.body for _, letter in self.upstream.take(INCOMING)]  # since the binding was mended
        assert left[0] == everything[0]
        assert sorted(left + sent) == sorted(everything)

    async def test_what_is_not_confirmed_is_in_doubt(self) -> None:
        self.patch(replaying, "CONFIRM_SECONDS", 0.5)
        everything = self.put_many(10)
        queue = self.queue()
        work = await queue.begin()
        wanted = await count_all(work)
        await deferToThread(self.broker.set_memory_alarm, True)
        try:
            with pytest.raises(Unpublished):
                await work.replay(wanted, 10_000, lambda _id: None, never)
            queue.cut_short()
        finally:
            await deferToThread(self.broker.set_memory_alarm, False)
        await queue.end(work)
        _, letters = await self.browsed()
        assert [letter.body for letter in letters] == everything

    async def leave_note(self, *numbers: int) -> list[str]:
        """As one who was killed leaves it."""
        _, letters = await self.browsed()
        ids = [letters[n].facts.id for n in numbers]
        note = json.dumps({"ids": ids, "at": NOW}).encode()
        self.upstream.channel.basic_publish("", NOTES, note, BasicProperties(delivery_mode=2, message_id="x"))
        return ids

    async def test_a_note_stays_until_its_letters_are_replayed_by_force(self) -> None:
        self.put_many(6)
        ids = await self.leave_note(1, 4)
        await Replaying.replay_all(self)  # type: ignore[arg-type]
        assert await self.bodies(INCOMING, 4) == [body(n) for n in (0, 2, 3, 5)]
        look, letters = await self.browsed()
        assert look.doubts == set(ids)
        assert [letter.body for letter in letters if letter.facts.broken_off] == [body(1), body(4)]
        queue = self.queue()
        work = await queue.begin()
        await work.look(lambda _letter: None)
        await work.replay(Counter(ids[:1]), 100, lambda _id: None, never)
        await queue.end(work)
        assert self.upstream.depth(NOTES) == 1
        work = await queue.begin()
        await work.drop(Counter(ids), lambda _id: None, never)
        await queue.end(work)
        look, letters = await self.browsed()
        assert (look.doubts, letters) == (set(ids), [])
        assert await self.bodies(INCOMING, 1) == [body(1)]

    async def test_a_note_whose_letters_are_gone_goes_when_nobody_can_hold_them_any_more(self) -> None:
        self.put_many(2)
        await self.leave_note(0, 1)
        taken = [self.upstream.channel.basic_get(FAILED)[0] for _ in range(2)]
        queue = self.queue()
        for seconds, notes in ((60, 1), (3601, 0)):
            self.now = NOW + seconds
            work = await queue.begin()
            await work.look(lambda _letter: None)
            await queue.end(work)
            await self.until(lambda notes=notes: self.upstream.depth(NOTES) == notes, f"{notes} notes")
        for each in taken:
            self.upstream.channel.basic_ack(each.delivery_tag)

    async def test_a_note_whose_letters_are_there_stays_however_old_it_is(self) -> None:
        self.put_many(2)
        await self.leave_note(0, 1)
        self.now = NOW + 10_000_000
        queue = self.queue()
        work = await queue.begin()
        await work.look(lambda _letter: None)
        await queue.end(work)
        assert (await self.browsed())[0].doubts

    async def test_what_is_no_note_is_told_and_harms_nobody(self) -> None:
        self.put_many(2)
        await self.leave_note(0)
        self.upstream.channel.basic_publish("", NOTES, b"junk")
        look, _ = await self.browsed()
        assert len(look.doubts or ()) == 1
        assert self.events("replay_note_invalid")
