from collections import Counter
from unittest import TestCase

from whatsapp_egress.sandbox.fates import Fate
from whatsapp_egress.sandbox.ledger import Counts, Ledger, in_words


def ledger(sent: int = 2, **dead_lettered: int) -> Ledger:
    """Two messages, m1 and m2, of tenant t, which are to end as said."""
    fate = Fate("t", "1", "", [], sent=sent, dead_lettered=dead_lettered)
    return Ledger([fate], published={"m1": "t", "m2": "t"})


class LedgerTests(TestCase):
    def test_all_is_well_when_all_ended_as_foretold(self) -> None:
        books = ledger(sent=1, rejected=1)
        books.accepted(["m1"])
        books.dead_letter("m2", "rejected")
        assert (books.faults(), books.settled) == ([], True)

    def test_a_message_that_is_nowhere_is_missing(self) -> None:
        books = ledger()
        books.accepted(["m1"])
        assert books.faults()[0] == "1 missing, such as m2"

    def test_a_message_in_the_queue_is_not_missing_but_told(self) -> None:
        books = ledger()
        books.accepted(["m1"])
        books.queued = {"m2"}
        assert books.faults()[0] == "1 still queued, such as m2"

    def test_a_message_sent_twice_is_told(self) -> None:
        books = ledger()
        books.accepted(["m1", "m2", "m2"])
        assert books.faults() == ["1 sent more than once, such as m2"]

    def test_a_message_dead_lettered_twice_is_told(self) -> None:
        books = ledger(sent=1, rejected=1)
        books.accepted(["m1"])
        books.dead_letter("m2", "rejected")
        books.dead_letter("m2", "rejected")
        assert books.faults() == ["1 dead-lettered twice, such as m2"]

    def test_a_message_both_sent_and_dead_lettered_is_told(self) -> None:
        books = ledger(rejected=1)
        books.accepted(["m1", "m2"])
        books.dead_letter("m2", "rejected")
        assert books.faults() == ["1 both sent and dead-lettered, such as m2"]

    def test_a_message_that_ended_and_is_queued_is_told(self) -> None:
        books = ledger()
        books.accepted(["m1", "m2"])
        books.queued = {"m1"}
        assert books.faults() == ["1 ended and queued nevertheless, such as m1"]

    def test_another_end_than_the_foretold_one_is_told(self) -> None:
        books = ledger(sent=1, rejected=1)
        books.accepted(["m1"])
        books.dead_letter("m2", "expired")
        assert books.faults() == [
            "t: foretold were 1 sent, 1 dead-lettered (rejected 1); "
            "there are 1 sent, 1 dead-lettered (expired 1)"
        ]

    def test_somebody_else_s_messages_do_not_count(self) -> None:
        books = ledger()
        books.accepted(["m1", "m2", "theirs"])
        assert not books.dead_letter("theirs", "rejected")
        assert (books.faults(), books.total()) == ([], Counts(2, 2, Counter()))

    def test_it_is_not_settled_while_a_message_is_on_its_way(self) -> None:
        books = ledger()
        books.accepted(["m1"])
        assert not books.settled
        assert books.counts()["t"].waiting == 1

    def test_no_dead_letters_need_no_reasons(self) -> None:
        assert in_words(3, {}) == "3 sent, 0 dead-lettered"
