"""Everything at one moment."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.observe.events import EXHAUSTED, job_of, parcel_of
from tests.observe.seen import Seen
from tests.pipeline.doubles import EPOCH
from whatsapp_egress import __version__
from whatsapp_egress.observe import overview as module
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.policy.verdict import Dead, Reason, Sent


class OverviewTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.seen = Seen()
        self.stage = self.seen.stage

    def now(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.seen.overview.json(self.seen.overview.now()))
        return document

    def test_the_service_itself(self) -> None:
        self.stage.clock.advance(90)
        now = self.now()

        assert now["version"] == __version__
        assert (now["startedAt"], now["uptime"]) == ("2026-05-28T20:26:40Z", 90)
        assert now["status"] == "healthy"
        assert now["checks"]["rabbitmq"]["status"] == "healthy"
        assert now["roadBreaker"] == {"state": "closed", "until": None}
        assert now["backpressure"] == []

    def test_sums_over_all_lanes(self) -> None:
        for tenant in ("t1", "t2"):
            self.stage.offer("m-1", created=EPOCH - 10, tenant_id=tenant)
        for _ in range(3):
            self.seen.chronicle.delivered(job_of(), Sent("wamid"))
        self.seen.chronicle.dead_lettered(job_of(), EXHAUSTED)
        self.seen.health.looked(12, 4, 0.001)
        totals = self.now()["totals"]

        assert (totals["lanes"], totals["active"], totals["inFlight"]) == (2, 2, 2)
        assert (totals["sentLastMinute"], totals["failedLastMinute"], totals["errorRate"]) == (3, 1, 0.25)
        assert (totals["queueDepth"], totals["deadLetterDepth"]) == (12, 4)
        assert totals["oldestSeconds"] == 10
        assert totals["heldBytes"] == 6

    def test_those_in_most_trouble_come_first_and_not_all_of_them(self) -> None:
        self.patch(module, "MOST_LANES", 2)
        for tenant in ("a", "b", "c"):
            self.stage.offer("m-1", tenant_id=tenant)
        self.stage.lanes.pause("b", Pause("r", "a", EPOCH))
        now = self.now()

        assert now["lanes"][0]["tenantId"] == "b"
        assert (len(now["lanes"]), now["lanesLeftOut"]) == (2, 1)

    def test_who_was_served_in_the_last_minute_is_there_without_anything_in_hand(self) -> None:
        self.stage.offer("m-1", tenant_id="t2")
        self.seen.chronicle.dead_lettered(job_of(), EXHAUSTED)
        lanes = self.now()["lanes"]

        assert [(lane["tenantId"], lane["state"], lane["failedLastMinute"]) for lane in lanes] == [
            ("t2", "sending", 0),
            ("t1", "idle", 1),
        ]
        assert lanes[1]["rate"] == lanes[1]["limit"]
        assert lanes[1]["lastError"]["title"] == "Something went wrong"

        self.stage.clock.advance(70)
        assert [lane["tenantId"] for lane in self.now()["lanes"]] == ["t2"]

    def test_the_latest_dead_letters_with_what_to_do(self) -> None:
        self.seen.chronicle.dead_lettered(parcel_of(None), Dead(Reason.INVALID_MESSAGE, "body of 9198765"))
        self.seen.chronicle.dead_lettered(job_of(), EXHAUSTED)
        newest, oldest = self.now()["deadLetters"]

        assert (newest["tenantId"], newest["internalId"], newest["code"]) == ("t1", "m-1", 131000)
        assert newest["title"]
        assert (oldest["tenantId"], oldest["reason"], oldest["code"]) == (None, "invalid_message", None)
        assert oldest["detail"] == "body of ****765"

    def test_a_secret_is_shown_nowhere(self) -> None:
        self.seen.chronicle.dead_lettered(job_of("a-secret"), EXHAUSTED)
        assert b"a-secret" not in self.seen.overview.json(self.seen.overview.now())
        assert self.now()["deadLetters"][0]["tenantId"] == "[REDACTED]"

    def test_health_is_what_the_contract_says(self) -> None:
        self.seen.health.looked(12, 4, 0.001)
        self.seen.chronicle.dead_lettered(job_of(), EXHAUSTED)
        document = json.loads(self.seen.overview.json(self.seen.overview.health_document()))

        assert document["metrics"] == {
            "messagesProcessedLast1Min": 1,
            "errorRateLast1Min": 1.0,
            "queueDepth": 12,
        }
        assert document["checks"]["rabbitmq"]["queueDepth"] == 12
        assert document["checks"]["rabbitmq"]["latency"] == 1.0
        assert document["checks"].keys() == {"rabbitmq", "tenantService", "metaApi"}
        assert document.keys() == {"status", "version", "uptime", "checks", "metrics"}
