"""The cache of credentials: how often the Tenant Service is asked, and what is used while it is away."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.clients import credentials as module
from whatsapp_egress.clients.credentials import CredentialCache
from whatsapp_egress.errors import CredentialsSuspended, CredentialsUnavailable, TenantNotFound
from whatsapp_egress.policy.credentials import Credentials, Keeping

EPOCH = 1_780_000_000.0
AWAY = CredentialsUnavailable("http_503", "HTTP 503")
JUNK = CredentialsUnavailable("junk", "HTTP 200 without JSON")
UNKNOWN = TenantNotFound("t1")
SUSPENDED = CredentialsSuspended("the Tenant Service says suspended")


@define(eq=False)
class Script:
    """A Tenant Service that answers as `answers` say, one after the other; then it hangs."""

    answers: list[Credentials | Exception] = field(factory=list)
    asked: list[str] = field(factory=list)
    hanging: list[Deferred[Credentials]] = field(factory=list)

    def fetch(self, tenant_id: str) -> Deferred[Credentials]:
        self.asked.append(tenant_id)
        if not self.answers:
            self.hanging.append(Deferred())
            return self.hanging[-1]
        answer = self.answers.pop(0)
        return fail(answer) if isinstance(answer, Exception) else succeed(answer)


class Caching(SynchronousTestCase):
    keeping = Keeping(fresh=900, stale=3600, negative=30)

    def setUp(self) -> None:
        self.clock = Clock()
        self.service = Script()
        self.learned: list[str] = []
        self.asked: list[tuple[str, str | None, float]] = []
        self.cache = CredentialCache(
            self.service,
            self.keeping,
            self.clock,
            lambda: EPOCH + self.clock.seconds(),
            lambda: 0.0,
            self.learned.append,
            lambda *asked: self.asked.append(asked),
        )
        self.log: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.log.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.log.append)

    def answers(self, *answers: Credentials | Exception) -> None:
        self.service.answers = list(answers)

    def token(self, tenant_id: str = "t1") -> str:
        """The token there is at once."""
        return self.successResultOf(self.cache.get(tenant_id)).token

    def refusal(self, tenant_id: str = "t1") -> Exception:
        """The error there is at once."""
        error = self.failureResultOf(self.cache.get(tenant_id)).value
        assert isinstance(error, Exception)
        return error

    def fetched(self, token: str = "old", **fields: Any) -> None:
        self.answers(Credentials(token, **fields))
        assert self.token() == token

    def assert_waits(self, tenant_id: str = "t1") -> None:
        """There is nothing yet to be used."""
        waiting = self.cache.get(tenant_id)
        self.assertNoResult(waiting)
        waiting.addErrback(lambda failure: failure.trap(CredentialsUnavailable))
        self.addCleanup(self.cache.stop)

    @property
    def times(self) -> int:
        return len(self.service.asked)

    def told(self, name: str) -> list[Any]:
        return [event.get(name) for event in self.log if event["log_format"] == "credential_fetch_failed"]


class FreshTests(Caching):
    def test_it_is_asked_once_for_many_messages(self) -> None:
        waiting = [self.cache.get("t1") for _ in range(100)]
        self.assertNoResult(waiting[99])
        self.service.hanging[0].callback(Credentials("t"))

        assert [self.successResultOf(one).token for one in waiting] == ["t"] * 100
        assert self.service.asked == ["t1"]

    def test_each_question_is_told_of_with_how_it_ended(self) -> None:
        self.answers(CredentialsUnavailable("connect", "refused"), TenantNotFound("t1"))
        self.cache.get("t1").addErrback(lambda _: None)
        self.clock.advance(module.FIRST_PAUSE)
        self.answers(Credentials("token-2", 80.0))
        self.cache.get("t2")

        assert self.asked == [("t1", "connect", 0.0), ("t1", None, 0.0), ("t2", None, 0.0)]

    def test_each_tenant_is_asked_for(self) -> None:
        self.answers(Credentials("a"), Credentials("b"))

        assert [self.token("t1"), self.token("t2"), self.token("t1")] == ["a", "b", "a"]
        assert self.service.asked == ["t1", "t2"]

    def test_they_are_kept_for_their_time(self) -> None:
        self.fetched("old")
        self.answers(Credentials("new"))
        self.clock.advance(899)
        assert self.token() == "old"

        self.clock.advance(1)
        assert self.token() == "new"

    def test_they_are_never_used_past_their_end(self) -> None:
        self.fetched("old", expires_at=EPOCH + 60)
        self.answers(Credentials("new"))
        self.clock.advance(60)

        assert self.token() == "new"

    def test_every_token_is_made_known_so_that_no_log_shows_it(self) -> None:
        self.fetched("EAAsecret")

        assert self.learned == ["EAAsecret"]

    def test_who_gives_up_waiting_is_forgotten(self) -> None:
        first, second = self.cache.get("t1"), self.cache.get("t1")
        first.cancel()
        self.service.hanging[0].callback(Credentials("t"))

        self.failureResultOf(first, CancelledError)
        assert self.successResultOf(second).token == "t"

    def test_only_so_many_tenants_are_kept(self) -> None:
        self.patch(module, "MOST_TENANTS", 2)
        self.answers(*(Credentials("t") for _ in range(4)))
        for tenant_id in ("t1", "t2", "t1", "t3", "t1", "t2"):
            self.token(tenant_id)

        assert self.service.asked == ["t1", "t2", "t3", "t2"]

    def test_a_tenant_that_is_asked_for_is_kept(self) -> None:
        self.patch(module, "MOST_TENANTS", 1)
        waiting = self.cache.get("t1")
        self.answers(Credentials("b"))
        self.token("t2")
        self.service.hanging[0].callback(Credentials("a"))

        assert self.successResultOf(waiting).token == "a"
        assert self.token("t2") == "b"


class RefusedTests(Caching):
    def test_an_unknown_tenant_is_remembered_for_a_while(self) -> None:
        self.answers(UNKNOWN, Credentials("t"))
        assert isinstance(self.refusal(), TenantNotFound)

        self.clock.advance(29)
        assert isinstance(self.refusal(), TenantNotFound)
        self.clock.advance(1)
        assert self.token() == "t"

    def test_a_suspended_one_too(self) -> None:
        self.answers(SUSPENDED)

        assert [str(self.refusal()) for _ in range(2)] == [str(SUSPENDED)] * 2
        assert self.times == 1

    def test_its_memory_keeps_nothing_of_those_who_met_it(self) -> None:
        self.messages: list[weakref.ref[Credentials]] = []
        meeting = Deferred.fromCoroutine(self.met())
        self.service.hanging[0].errback(TenantNotFound("t1"))
        self.failureResultOf(meeting, TenantNotFound)
        for _ in range(10):
            self.failureResultOf(Deferred.fromCoroutine(self.met()), TenantNotFound)
        gc.collect()

        assert self.service.asked == ["t1"]
        assert [met for met in self.messages if met() is not None] == []

    async def met(self) -> Credentials:
        message = Credentials("a message of its own")
        self.messages.append(weakref.ref(message))
        return await self.cache.get("t1")

    def test_it_is_not_asked_again_at_once(self) -> None:
        self.answers(UNKNOWN)
        self.refusal()
        self.clock.advance(1)

        assert self.times == 1

    def test_a_refusal_ends_what_was_known(self) -> None:
        self.fetched("old")
        self.answers(SUSPENDED, AWAY)
        self.clock.advance(900)
        self.refusal()
        self.clock.advance(30)

        self.assert_waits()

    def test_it_is_told(self) -> None:
        self.answers(SUSPENDED)
        self.refusal()

        assert self.told("reason") == ["CredentialsSuspended"]


class RefusedAndForgottenTests(Caching):
    keeping = Keeping(negative=0)

    def test_who_asks_again_on_being_told_is_answered_anew(self) -> None:
        asking = Deferred.fromCoroutine(self.ask_until_known())
        self.answers(Credentials("t"))
        self.service.hanging[0].errback(UNKNOWN)

        assert self.successResultOf(asking).token == "t"
        assert self.times == 2

    async def ask_until_known(self) -> Credentials:
        while True:
            try:
                return await self.cache.get("t1")
            except TenantNotFound:
                continue


class ForgettingTests(Caching):
    def test_what_was_dropped_is_asked_for_again(self) -> None:
        self.fetched("old")
        self.cache.forget("t1")
        self.answers(Credentials("new"))

        assert self.token() == "new"

    def test_so_is_a_tenant_that_was_unknown(self) -> None:
        self.answers(UNKNOWN)
        self.refusal()
        self.cache.forget("t1")
        self.answers(Credentials("new"))

        assert self.token() == "new"

    def test_an_answer_that_was_on_its_way_is_not_kept(self) -> None:
        waiting = self.cache.get("t1")
        self.cache.forget("t1")
        self.service.hanging[0].callback(Credentials("old"))
        self.answers(Credentials("new"))

        assert self.successResultOf(waiting).token == "old"
        assert self.token() == "new"

    def test_others_keep_theirs(self) -> None:
        self.fetched("old")
        self.cache.forget("t2")

        assert self.token() == "old"


class AwayTests(Caching):
    def test_it_is_asked_three_times_with_growing_pauses(self) -> None:
        self.answers(AWAY, JUNK, Credentials("t"))
        waiting = self.cache.get("t1")
        assert self.times == 1
        self.clock.advance(0.25)
        assert self.times == 2
        self.clock.advance(0.49)
        self.assertNoResult(waiting)
        self.clock.advance(0.01)

        assert self.successResultOf(waiting).token == "t"

    def test_after_the_third_it_counts_as_away(self) -> None:
        self.answers(AWAY, AWAY, JUNK)
        waiting = [self.cache.get("t1"), self.cache.get("t1")]
        self.clock.advance(0.25)
        self.clock.advance(0.5)

        assert [self.failureResultOf(one).value for one in waiting] == [JUNK, JUNK]
        assert self.times == 3

    def test_each_failure_is_told(self) -> None:
        self.test_after_the_third_it_counts_as_away()

        assert self.told("reason") == ["http_503", "http_503", "junk"]
        assert self.told("staleUsed") == [False] * 3

    def test_it_is_not_remembered(self) -> None:
        self.test_after_the_third_it_counts_as_away()
        self.answers(Credentials("t"))

        assert self.token() == "t"

    def test_to_be_broken_off_is_no_answer(self) -> None:
        waiting = self.cache.get("t1")
        self.cache.stop()

        error = self.failureResultOf(waiting, CredentialsUnavailable).value
        assert error.reason == "cut_off"


class StaleTests(Caching):
    def setUp(self) -> None:
        super().setUp()
        self.fetched("old")
        self.clock.advance(900)

    def test_old_ones_are_used_as_soon_as_it_is_seen_to_be_away(self) -> None:
        waiting = self.cache.get("t1")
        self.assertNoResult(waiting)
        self.service.hanging[0].errback(AWAY)

        assert self.successResultOf(waiting).token == "old"
        assert self.told("staleUsed") == [True]

    def test_meanwhile_it_is_left_alone(self) -> None:
        self.away()
        self.clock.advance(9)

        assert self.token() == "old"
        assert self.times == 4

    def test_then_it_is_asked_once_more_and_nobody_waits_for_the_answer(self) -> None:
        self.away()
        self.clock.advance(11)

        assert [self.token(), self.token()] == ["old", "old"]
        assert self.times == 5

    def test_when_it_is_back_the_new_ones_are_used(self) -> None:
        self.away()
        self.clock.advance(11)
        self.answers(Credentials("new"))
        self.token()

        assert self.token() == "new"

    def test_when_it_has_been_back_the_next_outage_is_a_new_one(self) -> None:
        self.away()
        self.clock.advance(11)
        self.answers(Credentials("new"))
        self.token()
        self.clock.advance(900)

        self.assert_waits()

    def test_when_it_is_back_and_says_no_that_counts(self) -> None:
        self.away()
        self.clock.advance(11)
        self.answers(SUSPENDED)
        self.token()

        assert isinstance(self.refusal(), CredentialsSuspended)

    def test_they_are_not_used_when_they_are_too_old(self) -> None:
        self.away()
        self.clock.advance(2700)

        self.assert_waits()

    def test_they_are_not_used_past_their_end(self) -> None:
        self.answers(Credentials("ending", expires_at=EPOCH + 2000))
        self.token()
        self.clock.advance(1100)
        self.answers(AWAY)

        self.assert_waits()

    def away(self) -> None:
        """It is asked, three times without success."""
        self.answers(AWAY, AWAY, AWAY)
        self.token()
        self.clock.advance(0.25)
        self.clock.advance(0.5)


class RefusedTokenTests(Caching):
    def test_a_token_that_meta_refused_is_fetched_anew(self) -> None:
        old = self.used("old")
        self.answers(Credentials("new"))
        self.cache.drop("t1", old)

        assert self.token() == "new"

    def test_one_that_was_replaced_meanwhile_is_not(self) -> None:
        old = self.used("old")
        self.clock.advance(900)
        self.fetched("new")
        self.cache.drop("t1", old)

        assert self.token() == "new"
        assert self.times == 2

    def test_it_is_fetched_once_however_many_messages_were_sent_with_it(self) -> None:
        bad = self.used("bad")
        self.answers(Credentials("bad"))
        for _ in range(10):
            self.cache.drop("t1", bad)
            self.token()

        assert self.times == 2

    def test_one_that_came_back_the_same_is_asked_for_again_when_it_is_refused_again(self) -> None:
        bad = self.used("bad")
        self.answers(Credentials("bad"), Credentials("good"))
        self.cache.drop("t1", bad)
        again = self.successResultOf(self.cache.get("t1"))
        self.cache.drop("t1", again)

        assert self.token() == "good"

    def test_it_is_not_used_while_the_tenant_service_is_away(self) -> None:
        old = self.used("old")
        self.answers(AWAY)
        self.cache.drop("t1", old)

        self.assert_waits()

    def test_a_tenant_that_is_not_known_has_none(self) -> None:
        self.cache.drop("t1", Credentials("old"))
        self.fetched("t")

        assert self.times == 1

    def used(self, token: str) -> Credentials:
        """Credentials that messages were sent with."""
        self.fetched(token)
        return self.successResultOf(self.cache.get("t1"))
