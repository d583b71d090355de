"""What a dead letter and a deferred message carry besides their bodies."""

from __future__ import annotations

from typing import Any

from pika import BasicProperties
from pika.frame import Header
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.clients.broker.properties import (
    dead_letter_properties,
    deferred_properties,
    replay_properties,
)

OURS: dict[str, str | int] = {"x-egress-reason": "rejected", "x-egress-detail": "131026: é"}
TRIED: dict[str, Any] = {"x-egress-attempts": 2, "x-egress-granted": "repeated"}
FRAME_MAX = 131_072

TRACE = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "vendor=1"}


def letter(headers: dict[Any, Any] | None = None, frame_max: int = FRAME_MAX, **fields: Any) -> Any:
    return dead_letter_properties(BasicProperties(headers=headers, **fields), OURS, frame_max)


def deferred(headers: dict[Any, Any] | None = None, frame_max: int = FRAME_MAX, **fields: Any) -> Any:
    return deferred_properties(BasicProperties(headers=headers, **fields), TRIED, frame_max)


def frame_size(properties: BasicProperties) -> int:
    return len(Header(1, 1000, properties).marshal())


class DeadLetterTests(SynchronousTestCase):
    def test_it_has_its_own_headers_and_ours(self) -> None:
        assert letter({"a": 1, b"\xff": None}).headers == {"a": 1, b"\xff": None, **OURS}

    def test_it_stays_in_its_trace(self) -> None:
        for headers in (TRACE, {name: text.encode() for name, text in TRACE.items()}):
            assert letter(headers).headers == headers | OURS

    def test_without_headers_of_its_own_it_has_ours(self) -> None:
        assert letter().headers == OURS

    def test_it_stays_in_its_trace_and_so_does_its_dead_letter(self) -> None:
        once = deferred(TRACE)
        assert once.headers == TRACE | TRIED

        spanned = deferred_properties(once, {"x-egress-span": f"00-{'1' * 32}-{'2' * 16}-01"}, FRAME_MAX)
        assert dead_letter_properties(spanned, OURS, FRAME_MAX).headers == TRACE | OURS

    def test_it_keeps_its_properties_and_is_persistent(self) -> None:
        names = "content_type content_encoding correlation_id reply_to message_id type app_id cluster_id"
        kept = dict.fromkeys(names.split(), "text")
        properties = letter(**kept, priority=3, timestamp=7, delivery_mode=1)

        assert {name: getattr(properties, name) for name in kept} == kept
        assert (properties.priority, properties.timestamp, properties.delivery_mode) == (3, 7, 2)

    def test_what_would_lose_it_becomes_a_header(self) -> None:
        properties = letter(expiration="1000", user_id="somebody")

        assert (properties.expiration, properties.user_id) == (None, None)
        said = {"x-egress-expiration": "1000", "x-egress-user-id": "somebody"}
        assert properties.headers == said | OURS

    def test_what_an_earlier_dead_lettering_said_is_gone(self) -> None:
        headers = {"x-egress-error-code": 131047, "x-egress-reason": "expired", "x-death": [{}], "n": 1}

        assert letter(headers).headers == {"x-death": [{}], "n": 1, **OURS}

    def test_what_was_said_before_it_was_deferred_stays(self) -> None:
        said = {"x-egress-user-id": "somebody", "x-egress-cc": ["a"], "x-egress-bcc": ["b"]}

        assert letter(said | TRIED).headers == said | OURS

    def test_its_own_user_id_counts_for_more_than_one_said_before(self) -> None:
        headers = letter({"x-egress-user-id": "before"}, user_id="now").headers

        assert headers == {"x-egress-user-id": "now"} | OURS

    def test_headers_that_just_fit_are_kept(self) -> None:
        fitting = frame_size(letter({"a": "x" * 1000}))

        assert letter({"a": "x" * 1000}, fitting).headers == {"a": "x" * 1000, **OURS}

    def test_of_headers_that_do_not_fit_the_largest_are_dropped_and_counted(self) -> None:
        headers = {"large": "x" * 1000, "small": 1, "larger": "x" * 2000, "trace": "00-abc"}
        properties = letter(headers, frame_size(letter(headers)) - 1)

        kept = {"large": "x" * 1000, "small": 1, "trace": "00-abc"}
        assert properties.headers == {**kept, **OURS, "x-egress-headers-dropped": 1}

    def test_the_count_needs_room_too(self) -> None:
        headers = {f"{n:04}": 1 for n in range(500)}
        most = frame_size(letter(headers)) - 1
        properties = letter(headers, most)

        assert frame_size(properties) <= most
        assert 1 < properties.headers["x-egress-headers-dropped"] < 10

    def test_it_fits_whatever_its_headers(self) -> None:
        for count in range(1, 2000, 37):
            headers = {f"header-{n:04}": "x" * n for n in range(count)}
            assert frame_size(letter(headers, 4096)) <= 4096, count


class DeferredTests(SynchronousTestCase):
    def test_it_has_its_own_headers_and_ours(self) -> None:
        headers = {"a": 1, b"\xff": None, "x-death": [{}], "x-egress-reason": "rejected"}

        assert deferred(headers).headers == headers | TRIED
        assert deferred().headers == TRIED

    def test_it_stays_in_its_trace_and_so_does_its_dead_letter(self) -> None:
        once = deferred(TRACE)
        assert once.headers == TRACE | TRIED

        spanned = deferred_properties(once, {"x-egress-span": f"00-{'1' * 32}-{'2' * 16}-01"}, FRAME_MAX)
        assert dead_letter_properties(spanned, OURS, FRAME_MAX).headers == TRACE | OURS

    def test_it_keeps_its_properties_and_is_persistent(self) -> None:
        names = "content_type content_encoding correlation_id reply_to message_id type app_id cluster_id"
        kept = dict.fromkeys(names.split(), "text") | {"expiration": "1000"}
        properties = deferred(**kept, priority=3, timestamp=7, delivery_mode=1)

        assert {name: getattr(properties, name) for name in kept} == kept
        assert (properties.priority, properties.timestamp, properties.delivery_mode) == (3, 7, 2)

    def test_what_the_broker_would_act_on_becomes_a_header(self) -> None:
        properties = deferred({"CC": ["a"], "BCC": ["b"], "cc": "c"}, user_id="somebody")

        assert properties.user_id is None
        said = {"x-egress-user-id": "somebody", "x-egress-cc": ["a"], "x-egress-bcc": ["b"], "cc": "c"}
        assert properties.headers == said | TRIED

    def test_deferred_again_it_says_what_it_said_and_what_was_tried_since(self) -> None:
        once = deferred({"CC": ["a"], "n": 1}, user_id="somebody")
        twice = deferred_properties(once, {"x-egress-attempts": 3}, FRAME_MAX)

        assert twice.headers == once.headers | {"x-egress-attempts": 3}

    def test_of_headers_that_do_not_fit_the_largest_are_dropped_and_counted(self) -> None:
        headers = {"CC": ["x" * 1000], "small": 1}
        properties = deferred(headers, frame_size(deferred(headers)) - 1)

        assert properties.headers == {"small": 1, **TRIED, "x-egress-headers-dropped": 1}

    def test_it_fits_whatever_its_headers(self) -> None:
        for count in range(1, 2000, 37):
            headers = {f"header-{n:04}": "x" * n for n in range(count)}
            assert frame_size(deferred(headers, 4096, user_id="somebody")) <= 4096, count


class ReplayTests(SynchronousTestCase):
    def test_what_was_written_when_it_failed_is_gone(self) -> None:
        gone = dict.fromkeys(
            ("x-death", "x-first-death-queue", "x-last-death-reason", "x-delivery-count", "x-egress-reason",
             "x-egress-user-id", "x-egress-cc", "x-egress-expiration", "CC", "BCC"),
            "text",
        )  # fmt: skip
        kept = {"traceparent": "00-1", "x-deathly": 1, b"\xff": None}
        properties = replay_properties(BasicProperties(headers=gone | kept), 3, FRAME_MAX)
        assert properties.headers == kept | {"x-egress-replays": 3}

    def test_it_lasts_and_does_not_expire(self) -> None:
        properties = replay_properties(
            BasicProperties(expiration="1", user_id="somebody", delivery_mode=1, message_id="id"),
            1,
            FRAME_MAX,
        )
        assert (properties.expiration, properties.user_id, properties.delivery_mode) == (None, None, 2)
        assert properties.message_id == "id"

    def test_how_often_it_was_replayed_outlives_the_next_failure(self) -> None:
        replayed = replay_properties(BasicProperties(), 2, FRAME_MAX)
        assert dead_letter_properties(replayed, OURS, FRAME_MAX).headers == OURS | {"x-egress-replays": 2}
