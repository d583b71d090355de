"""A dead letter is read, whoever wrote it."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties
from pika.compat import long
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.clients.broker.delivery import RabbitDelivery
from whatsapp_egress.clients.broker.letters import read_letter
from whatsapp_egress.clients.broker.looking import MOST_DELIVERIES, Letters
from whatsapp_egress.clients.broker.tables import Timestamp
from whatsapp_egress.errors import QueueTrouble
from whatsapp_egress.policy.replay import DeadLetter

BODY = (
    b'{"metadata":{"tenantId":"t1","phoneNumberId":"1","internalId":"m1","retryCount":2,'
    b'"expiresAt":"2026-11-23T10:40:00Z"},"wabaPayload":{"messaging_product":"whatsapp","to":"1"}}'
)

OURS = {
    "x-egress-reason": "rejected",
    "x-egress-detail": "131047: too late",
    "x-egress-error-code": 131047,
    "x-egress-error-subcode": 7,
    "x-egress-fbtrace-id": "trace",
    "x-egress-http-status": 400,
    "x-egress-attempts": 3,
    "x-egress-failed-at": "2026-11-23T10:30:00.000Z",
    "x-egress-replays": 2,
}

DEATH = {"reason": "expired", "time": Timestamp(1_700_000_000), "count": 1}

NAMES = [*OURS, "x-death", "x-delivery-count"]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


def facts(body: bytes = BODY, /, **headers: Any) -> DeadLetter:
    return read_letter(body, BasicProperties(headers=headers)).facts


@define
class Server:
    server_version: str


class LetterTests(SynchronousTestCase):
    def test_all_that_we_write_is_read(self) -> None:
        read = facts(**OURS)
        assert read == DeadLetter(
            id=read.id,
            reason="rejected",
            tenant_id="t1",
            phone_number_id="1",
            internal_id="m1",
            detail="131047: too late",
            error_code=131047,
            error_subcode=7,
            http_status=400,
            fbtrace_id="trace",
            attempts=3,
            failed_at=1795429800.0,
            replays=2,
            expires_at=1795430400.0,
        )
        assert read_letter(BODY, BasicProperties()).retry_count == 2

    def test_of_what_rabbitmq_dead_lettered_its_own_reason_and_time_count(self) -> None:
        assert (facts(**{"x-death": [DEATH]}).reason, facts(**{"x-death": [DEATH]}).failed_at) == (
            "broker_expired",
            1.7e9,
        )
        moment = datetime(2026, 1, 1, tzinfo=timezone.utc)  # as pika reads it when it is not mended
        assert facts(**{"x-death": [DEATH | {"time": moment}]}).failed_at == moment.timestamp()

    def test_integers_of_64_bits_are_integers_like_others(self) -> None:
        read = facts(**{"x-egress-error-code": long(131047), "x-egress-attempts": long(2**40)})
        assert msgspec.json.encode([read.error_code, read.attempts]) == b"[131047,1099511627776]"

    def test_whether_it_is_a_message_is_read_too(self) -> None:
        assert [facts(body).no_message for body in (BODY, b"", b"[]", b"{}")] == [False, True, True, True]

    def test_what_says_nothing(self) -> None:
        read = facts(b"\xff")
        assert read == DeadLetter(id=read.id, reason="unknown", no_message=True)

    def test_of_what_is_no_message_the_ids_are_read(self) -> None:
        read = facts(b'{"metadata":{"tenantId":"t1","phoneNumberId":"x","internalId":"m1","retryCount":2}}')
        assert (read.tenant_id, read.phone_number_id, read.internal_id) == ("t1", None, "m1")

    def test_a_time_that_is_none(self) -> None:
        for said in ["yesterday", ""]:
            assert facts(**OURS | {"x-egress-failed-at": said}).failed_at is None

    def test_an_id_is_that_of_the_body_and_the_moment(self) -> None:
        same = [
            facts(**OURS),
            facts(**OURS | {"x-delivery-count": 7}),
            facts(**OURS | {"x-egress-replays": 9}),
        ]
        assert len({each.id for each in same}) == 1
        others = [
            facts(BODY + b" ", **OURS),
            facts(**OURS | {"x-egress-failed-at": "2026-11-23T10:30:00.001Z"}),
            facts(**{"x-death": [DEATH]}),
            facts(**{"x-death": [DEATH | {"time": Timestamp(1_700_000_001)}]}),
            facts(),
        ]
        assert len({each.id for each in (*same, *others)}) == 6

    @given(st.binary() | st.just(BODY), st.dictionaries(st.sampled_from(NAMES), values))
    def test_whatever_stands_there_it_is_read(self, body: bytes, headers: dict[str, Any]) -> None:
        read = read_letter(body, BasicProperties(headers=headers))
        assert read.facts.id == read_letter(body, BasicProperties(headers=headers)).facts.id
        assert read.facts.replays >= 0

    def test_a_quorum_queue_that_would_lose_it_is_left_alone(self) -> None:
        for version, deliveries, left_alone in [
            ("4.1.3", MOST_DELIVERIES, True),
            ("4.0.0", 19, True),
            ("4.2.7", MOST_DELIVERIES - 1, False),
            ("3.13.7", 50, False),
            ("4.3.0", 50, False),
            ("", 50, False),
        ]:
            nothing: Any = None
            server: Any = Server(version)
            properties = BasicProperties(headers={"x-delivery-count": deliveries})
            delivery = RabbitDelivery(nothing, 1, properties, BODY, redelivered=True)
            letters = Letters(server, nothing, Clock())
            if left_alone:
                with pytest.raises(QueueTrouble, match="classic"):
                    letters.read(delivery)
            else:
                assert letters.read(delivery).deliveries == deliveries
