"""What is written beside deferred messages comes back as it was; junk does not pass for it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.deferred import (
    ATTEMPTS_HEADER,
    GRANTED_HEADER,
    SPAN_HEADER,
    InvalidLease,
    Lease,
    headers,
    history,
    read_lease,
    span,
    write_lease,
)
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.policy.trace import TraceContext
from whatsapp_egress.policy.verdict import History

determined = settings(derandomize=True, deadline=None)
tenant_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]))
times = st.floats(0, 1e12)
pauses = st.builds(Pause, reason=texts, actor=texts, since=times, until=st.none() | times)


class LeaseTests(SynchronousTestCase):
    @determined
    @given(st.builds(Lease, tenant_id=tenant_ids, pause=st.none() | pauses, writer=texts))
    def test_a_lease_comes_back_as_it_was_written(self, lease: Lease) -> None:
        assert read_lease(write_lease(lease)) == lease

    def test_it_is_written_as_json_that_people_can_read(self) -> None:
        lease = Lease("acme", Pause("spam", "ops", since=100.0, until=200.5), "worker-1")

        assert json.loads(write_lease(lease)) == {
            "tenantId": "acme",
            "pause": {"reason": "spam", "actor": "ops", "since": 100.0, "until": 200.5},
            "writer": "worker-1",
        }

    def test_one_without_a_pause_says_so(self) -> None:
        assert json.loads(write_lease(Lease("acme")))["pause"] is None

    def test_what_a_later_version_may_add_is_no_fault(self) -> None:
        assert read_lease(b'{"tenantId": "acme", "added": [1]}') == Lease("acme")

    def test_times_may_be_whole_numbers(self) -> None:
        body = b'{"tenantId": "acme", "pause": {"reason": "", "actor": "", "since": 1, "until": 2}}'

        assert read_lease(body).pause == Pause("", "", since=1.0, until=2.0)

    def test_junk_is_refused(self) -> None:
        for body in (
            b"",
            b"{",
            b"null",
            b"[]",
            b"{}",
            b'"acme"',
            b'{"tenantId": null}',
            b'{"tenantId": 1}',
            b'{"tenantId": ""}',
            b'{"tenantId": "a/b"}',
            b'{"tenantId": "acme\\n"}',
            b'{"tenantId": "..\\u0000"}',
            b'{"tenantId": "' + b"a" * 65 + b'"}',
            b'{"tenantId": "acme", "pause": true}',
            b'{"tenantId": "acme", "pause": {}}',
            b'{"tenantId": "acme", "pause": {"reason": "r", "actor": "a"}}',
            b'{"tenantId": "acme", "pause": {"reason": "r", "actor": "a", "since": "now"}}',
            b'{"tenantId": "acme", "pause": {"reason": "r", "actor": "a", "since": NaN}}',
            b'{"tenantId": "acme", "pause": {"reason": "r", "actor": "a", "since": 1e999}}',
            b'{"tenantId": "acme", "pause": {"reason": 1, "actor": "a", "since": 1}}',
            b'{"tenantId": "acme", "writer": 1}',
            b'{"tenantId": "acme"} {}',
            b'{"tenantId": "\xff"}',
            b'{"tenantId": "acme", "added": ' + b"[" * 100_000,
            write_lease(Lease("acme"))[:-1],
        ):
            with self.subTest(body=body[:80]), pytest.raises(InvalidLease):
                read_lease(body)

    def test_the_refusal_says_why_in_one_line(self) -> None:
        with pytest.raises(InvalidLease, match=r"\A.*tenantId.*\Z"):
            read_lease(b'{"tenantId": "acme\\n"}')

    @determined
    @given(st.binary())
    def test_no_bytes_are_anything_else_than_a_lease_or_refused(self, body: bytes) -> None:
        try:
            read = read_lease(body)
        except InvalidLease:
            return
        assert read_lease(write_lease(read)) == read


class HistoryTests(SynchronousTestCase):
    @determined
    @given(st.builds(History, st.integers(0, 2**31 - 1), st.booleans(), st.booleans()))
    def test_what_was_tried_comes_back_as_it_was_written(self, tried: History) -> None:
        assert history(headers(tried)) == tried

    def test_it_is_written_so_that_people_can_read_it(self) -> None:
        assert headers(History(3, reauthorized=True, repeated=True)) == {
            ATTEMPTS_HEADER: 3,
            GRANTED_HEADER: "reauthorized,repeated",
        }

    def test_where_nothing_is_written_nothing_is_known(self) -> None:
        assert history({}) is None

    def test_attempts_that_are_no_number_of_attempts_are_not_believed(self) -> None:
        for attempts in (None, "3", b"3", 3.0, True, False, -1, 2**31, [3], {"n": 3}):
            with self.subTest(attempts=attempts):
                assert history({ATTEMPTS_HEADER: attempts, GRANTED_HEADER: "repeated"}) is None

    def test_what_was_granted_is_believed_only_where_it_is_named(self) -> None:
        junk: tuple[Any, ...] = (None, 1, b"repeated", ["repeated"], "", ",", "REPEATED", "repeatedly")
        for granted in junk:
            with self.subTest(granted=granted):
                assert history({ATTEMPTS_HEADER: 3, GRANTED_HEADER: granted}) == History(3)

    def test_a_name_beside_unknown_ones_is_found(self) -> None:
        assert history({ATTEMPTS_HEADER: 3, GRANTED_HEADER: "other,repeated"}) == History(3, repeated=True)

    def test_other_headers_do_not_matter(self) -> None:
        assert history({ATTEMPTS_HEADER: 0, "x-death": [{}]}) == History(0)


class SpanTests(SynchronousTestCase):
    def test_the_span_that_ended_comes_back_as_it_was_written(self) -> None:
        ended = TraceContext("1" * 32, "2" * 16, sampled=True)

        assert span(headers(History(0), ended)) == ended

    def test_where_nothing_is_written_or_junk_nothing_is_known(self) -> None:
        assert span(headers(History(0))) is None
        assert span({SPAN_HEADER: "00-junk"}) is None
        assert span({SPAN_HEADER: 7}) is None
