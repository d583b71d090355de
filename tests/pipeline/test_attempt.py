"""One attempt: credentials, request, answer, verdict."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.pipeline.doubles import CREDENTIALS, EPOCH, FakeCredentials, FakeGraph, Witness, a_job
from tests.policy.meta import TABLE
from whatsapp_egress.errors import CredentialsSuspended, CredentialsUnavailable, TenantNotFound
from whatsapp_egress.pipeline.attempt import Attempt
from whatsapp_egress.pipeline.job import Job
from whatsapp_egress.policy.credentials import Credentials
from whatsapp_egress.policy.verdict import (
    Answer,
    Dead,
    Exchange,
    MetaError,
    Patience,
    Reason,
    Retry,
    Scope,
    Sent,
    Unanswered,
    Unsent,
    Verdict,
    Wait,
)

OK = Answer(200, wamid="wamid.1")


def error(code: int, status: int = 400) -> Answer:
    return Answer(status, error=MetaError(code))


class Trying(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.credentials, self.graph, self.witness = FakeCredentials(), FakeGraph(), Witness()
        self.job = a_job(payload=b'{"to": "15550001111"}')

    def try_it(self, exchange: Exchange, job: Job | None = None, patience: Patience | None = None) -> Verdict:
        self.graph.exchanges = [exchange]
        return self.successResultOf(self.begin(job or self.job, patience))

    def begin(self, job: Job, patience: Patience | None = None) -> Deferred[Verdict]:
        attempt = self.attempt(patience)
        credentials = attempt.at_hand("t1")
        assert credentials is not None
        return Deferred.fromCoroutine(attempt(job, credentials))

    def look_up(self) -> Deferred[Credentials | Dead | Wait]:
        return Deferred.fromCoroutine(self.attempt().look_up(self.job))

    def attempt(self, patience: Patience | None = None) -> Attempt:
        return Attempt(
            self.credentials,
            self.graph,
            TABLE,
            patience or Patience(),
            self.witness,
            self.clock,
            lambda: EPOCH + self.clock.seconds(),
        )


class SendingTests(Trying):
    def test_the_payload_goes_out_as_it_is_with_the_tenants_token(self) -> None:
        verdict = self.try_it(OK)

        assert verdict == Sent("wamid.1")
        assert self.graph.requests == [("100000001", "token-1", b'{"to": "15550001111"}')]

    def test_it_counts(self) -> None:
        self.try_it(OK)

        assert self.job.attempts == 1

    def test_the_attempts_made_before_it_came_count_too(self) -> None:
        job = a_job(retry_count=3)
        verdict = self.try_it(Unsent("refused"), job)

        assert isinstance(verdict, Dead)
        assert verdict.reason is Reason.RETRIES_EXHAUSTED
        assert job.attempts == 4

    def test_what_the_operator_wants_decides(self) -> None:
        verdict = self.try_it(Unanswered("lost"), patience=Patience(retry_ambiguous=False))

        assert isinstance(verdict, Dead)
        assert verdict.reason is Reason.IN_DOUBT

    def test_a_message_that_went_well_is_no_fault(self) -> None:
        self.try_it(OK)

        assert self.witness.names == []


class FaultOfOursTests(Trying):
    def test_while_sending_leaves_it_in_doubt(self) -> None:
        self.graph.exchanges = [KeyError("x")]
        verdict = self.successResultOf(self.begin(self.job))

        assert verdict == Dead(Reason.IN_DOUBT, "a fault of the gateway's (KeyError)")
        assert len(self.flushLoggedErrors(KeyError)) == 1

    def test_before_that_nothing_was_sent_and_the_tenant_waits(self) -> None:
        self.credentials.answer = KeyError("x")
        verdict = self.successResultOf(self.look_up())

        assert isinstance(verdict, Wait)
        assert verdict.scope is Scope.TENANT
        assert self.graph.requests == []
        assert len(self.flushLoggedErrors(KeyError)) == 1

    def test_to_be_broken_off_is_none(self) -> None:
        self.graph.exchanges = [Deferred()]
        sending = self.begin(self.job)
        self.credentials.answer = Deferred()
        for trying in (sending, self.look_up()):
            trying.cancel()
            self.failureResultOf(trying, CancelledError)


class RetryTests(Trying):
    def test_retries_are_exhausted_after_the_last_one(self) -> None:
        verdicts = [self.try_it(error(131000, 500)) for _ in range(4)]

        assert [isinstance(verdict, Retry) for verdict in verdicts] == [True, True, True, False]
        assert isinstance(verdicts[-1], Dead)
        assert verdicts[-1].reason is Reason.RETRIES_EXHAUSTED
        assert self.job.attempts == 4

    def test_a_throttle_uses_no_attempt_up(self) -> None:
        for _ in range(10):
            assert isinstance(self.try_it(error(130429)), Wait)

        assert self.job.attempts == 0

    def test_the_one_more_attempt_is_granted_once(self) -> None:
        assert isinstance(self.try_it(error(131053)), Retry)
        assert self.try_it(error(131053)) == Dead(
            Reason.REJECTED, "131053: Media upload error", self.witness.calls[-1][1]
        )

    def test_the_one_more_attempt_is_granted_after_others_that_were_no_fault_of_the_message(self) -> None:
        self.try_it(error(131000, 500))
        self.try_it(error(190, 401))

        assert isinstance(self.try_it(error(131053)), Retry)

    def test_every_fault_is_told_with_how_long_it_took(self) -> None:
        answer: Deferred[Exchange] = Deferred()
        self.graph.exchanges = [answer]
        trying = self.begin(self.job)
        self.clock.advance(1.5)
        answer.callback(error(131026))
        verdict = self.successResultOf(trying)

        assert isinstance(verdict, Dead)
        assert self.witness.calls == [("faulted", verdict.fault, 1.5)]


class AuthTests(Trying):
    def test_the_token_is_dropped_and_one_more_attempt_granted(self) -> None:
        verdict = self.try_it(error(190, 401))

        assert isinstance(verdict, Retry)
        assert self.credentials.dropped == [("t1", "token-1")]

    def test_the_next_attempt_uses_the_new_token(self) -> None:
        self.try_it(error(190, 401))
        self.credentials.answer = Credentials("token-2")

        assert self.try_it(OK) == Sent("wamid.1")
        assert self.graph.requests[-1][1] == "token-2"

    def test_refused_twice_the_message_has_failed(self) -> None:
        self.try_it(error(190, 401))
        verdict = self.try_it(error(0, 401))

        assert isinstance(verdict, Dead)
        assert verdict.reason is Reason.AUTH_FAILED
        assert self.credentials.dropped == [("t1", "token-1")]

    def test_another_retry_drops_no_token(self) -> None:
        self.try_it(error(131000, 500))

        assert self.credentials.dropped == []


class CredentialsTests(Trying):
    def answered(self, answer: Exception) -> Credentials | Dead | Wait:
        self.credentials.answer = answer
        return self.successResultOf(self.look_up())

    def test_those_at_hand_are_used_without_asking(self) -> None:
        assert self.attempt().at_hand("t1") == CREDENTIALS
        self.credentials.answer = Deferred()

        assert self.attempt().at_hand("t1") is None

    def test_those_that_were_asked_for_come_as_they_are(self) -> None:
        waiting = self.credentials.answer = Deferred()
        asking = self.look_up()
        self.assertNoResult(asking)
        waiting.callback(CREDENTIALS)

        assert self.successResultOf(asking) == CREDENTIALS

    def test_an_unknown_tenant_ends_its_message(self) -> None:
        verdict = self.answered(TenantNotFound())

        assert isinstance(verdict, Dead)
        assert verdict.reason is Reason.TENANT_NOT_FOUND
        assert verdict.fault is None

    def test_a_suspended_tenant_ends_its_message_and_the_detail_says_why(self) -> None:
        assert self.answered(CredentialsSuspended("status: expired")) == Dead(
            Reason.CREDENTIALS_SUSPENDED, "status: expired"
        )

    def test_where_there_is_no_answer_the_tenant_waits(self) -> None:
        verdict = self.answered(CredentialsUnavailable("timeout", "no answer in 5 s"))

        assert isinstance(verdict, Wait)
        assert verdict.scope is Scope.TENANT
        assert (verdict.floor, verdict.longest) == (5, 30)
        assert verdict.fault.detail == "no credentials: no answer in 5 s"

    def test_without_credentials_nothing_is_sent_or_counted(self) -> None:
        for answer in (TenantNotFound(), CredentialsSuspended("x"), CredentialsUnavailable("x", "y")):
            self.answered(answer)

        assert (self.graph.requests, self.job.attempts) == ([], 0)
        assert self.witness.names == []

    def test_each_lookup_is_told_of_and_what_it_says_of_the_tenant(self) -> None:
        self.attempt().at_hand("t1")
        assert self.witness.lookups == [("t1", 0.0, True, True)]

        for found, known in (
            (CREDENTIALS, True),
            (CredentialsSuspended("expired"), True),
            (TenantNotFound("t1"), False),
            (CredentialsUnavailable("connect", "refused"), None),
        ):
            self.credentials.answer = found
            self.look_up()
            assert self.witness.lookups[-1] == ("t1", 0.0, False, known)


class ExchangeTests(Trying):
    def test_every_exchange_is_told_of_however_it_ended(self) -> None:
        for exchange in (OK, error(131000, 500), Unsent("refused"), Unanswered("reset")):
            self.try_it(exchange)

            assert self.witness.exchanges[-1] == (exchange, 0.0)
