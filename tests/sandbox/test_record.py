"""The record: its order, its bound, its counts and those who wait for it."""

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.sandbox.record import Arrival, Record


def arrival(number, **what):
    fields = {
        "time": 0.0,
        "connection": 1,
        "method": "POST",
        "path": "/",
        "query": "",
        "headers": (("Host", "here"),),
        "body": b"{}",
        "phone_number_id": "1",
        "tenant": "acme",
        "to": "49",
        "status": 200,
        "wamid": "wamid.x",
        "error_code": None,
        "error_subcode": None,
        "wire": "whole",
    }
    return Arrival(number=number, **{**fields, **what})


class RecordTests(SynchronousTestCase):
    def setUp(self):
        self.record = Record(limit=3)

    def test_arrivals_are_kept_in_their_order(self):
        for number in (1, 2):
            self.record.add(arrival(number))

        assert [each.number for each in self.record] == [1, 2]

    def test_the_oldest_goes_where_there_are_too_many_and_is_still_counted(self):
        for number in range(1, 6):
            self.record.add(arrival(number))

        assert ([each.number for each in self.record], self.record.accepted, self.record.count) == (
            [3, 4, 5],
            5,
            5,
        )

    def test_arrivals_are_selected_by_number_phone_number_and_recipient(self):
        self.record.add(arrival(1))
        self.record.add(arrival(2, phone_number_id="2"))
        self.record.add(arrival(3, to="50"))

        assert [each.number for each in self.record.select(since=1)] == [2, 3]
        assert [each.number for each in self.record.select(phone_number_id="2")] == [2]
        assert [each.number for each in self.record.select(to="50")] == [3]

    def test_clearing_forgets_but_numbers_on(self):
        self.record.add(arrival(1, error_code=4))
        self.record.clear()

        assert (len(self.record), self.record.accepted, self.record.by_error_code, self.record.count) == (
            0,
            0,
            {},
            1,
        )

    def test_who_waits_is_told_when_enough_has_come(self):
        told = self.record.reached(2, phone_number_id="1")
        self.record.add(arrival(1))
        self.record.add(arrival(2, phone_number_id="2"))
        before = told.called
        self.record.add(arrival(3))

        assert (before, told.called) == (False, True)

    def test_who_waits_for_what_has_come_is_told_at_once(self):
        self.record.add(arrival(1))

        assert self.record.reached(1).called

    def test_who_waits_may_give_up(self):
        told = self.record.reached(1)
        told.addErrback(lambda failure: failure.trap(CancelledError) and None)
        told.cancel()
        self.record.add(arrival(1))

        assert told.called

    def test_a_header_is_found_whatever_its_case(self):
        assert arrival(1).header("host") == "here"
