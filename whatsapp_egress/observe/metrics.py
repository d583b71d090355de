"""What happens to messages, as counters and histograms for Prometheus."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Callable

from attrs import define, field
from prometheus_client import CollectorRegistry, Counter, disable_created_metrics
from twisted.internet.interfaces import IReactorTime
from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from whatsapp_egress.message import Identity
from whatsapp_egress.observe.everyone import Deaf
from whatsapp_egress.observe.families import Key, TenantFamilies
from whatsapp_egress.observe.labels import UNKNOWN, TenantLabels
from whatsapp_egress.pipeline.job import Job, Parcel
from whatsapp_egress.policy.breaker import Breaker, State
from whatsapp_egress.policy.table import ErrorClass
from whatsapp_egress.policy.verdict import Answer, Dead, Exchange, Fault, Reason, Scope, Sent, Unsent, Wait

UNRESOLVED_SECONDS = 60.0
"""How long what happened to a tenant of which nothing is known yet is kept for it; then it counts as one of
the unknown. Longer than three tries to fetch its credentials take."""

MOST_UNRESOLVED = 10_000
"""Tenants that something is kept for."""

_WILL_NOT_HELP = {
    Reason.INVALID_MESSAGE,
    Reason.EXPIRED,
    Reason.TENANT_NOT_FOUND,
    Reason.CREDENTIALS_SUSPENDED,
}

_APP = "app"
"""The scope of a throttle that concerns the whole app, and with it other tenants."""


@define(eq=False)
class _Unresolved:
    """What happened to a tenant since `since` that no label is known for."""

    since: float
    counts: Counts[Key] = field(factory=Counts)


class Metrics(Deaf):
    """An `Observer` that counts.

    `listed` says whether Meta's table has a code: the others share the label `unlisted`, for what an answer
    says must not make labels without end.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        clock: IReactorTime,
        labels: TenantLabels,
        listed: Callable[[int], bool],
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a gauge more for each of them, which nobody reads
        self._clock = clock
        self._labels = labels
        self._listed = listed
        self._family = TenantFamilies(registry)
        self._unresolved: dict[str, _Unresolved] = {}

        def ours(name: str, about: str, label: str | None = None) -> Counter:
            return Counter(f"whatsapp_egress_{name}", about, [label] if label else [], registry=registry)

        self._throttles = ours("throttles", "Throttles met, by who waits.", "scope")
        self._retries = ours(
            "retries", "Attempts that will be made again, by the class of error.", "error_class"
        )
        self._deferrals = ours("deferrals", "Messages put into their tenant's deferred queue.")
        self._dead = ours("dead_letters", "Messages dead-lettered, by reason.", "reason")
        self._events_lost = ours("events_lost", "Events that the broker did not confirm.")
        self._unsettled = ours("unsettled", "Messages whose delivery was gone before the ack.")
        self._recalled = ours("recalled", "Redeliveries recognised, and not sent again.")
        self._opened = ours("breaker_opened", "Times a breaker opened.", "scope")
        self.logged = LogCounts(ours("log_events", "Events logged as warnings or worse.", "level"))
        # There from the start, so that an increase is seen from the first one on.
        for reason in Reason:
            self._dead.labels(reason.value)
        for scope in ("tenant", "road"):
            self._opened.labels(scope)
        for who in (*(scope.value for scope in Scope), _APP):
            self._throttles.labels(who)
        for error_class in (ErrorClass.TRANSIENT, ErrorClass.AUTH):
            self._retries.labels(error_class.value)

    # -- what is observed --------------------------------------------------------------------------

    def consumed(self, parcel: Parcel) -> None:
        if parcel.place is None:  # else it was counted before it was deferred
            self._count(parcel.identity, "consumed", "consumed", wait=isinstance(parcel, Job))

    def asked(self, tenant_id: str, trouble: str | None, seconds: float) -> None:
        if trouble is not None:
            self._count(Identity(tenant_id), "service", trouble)

    def credentials(self, tenant_id: str, seconds: float, *, cached: bool, known: bool | None) -> None:
        if known:
            label = self._labels.find(tenant_id) or self._learn(tenant_id)
            self._family.observe("credentials", seconds, label, "true" if cached else "false")
        elif known is False:
            self._resolve(tenant_id, self._labels.find(tenant_id) or UNKNOWN)

    def answered(self, job: Job, exchange: Exchange, seconds: float) -> None:
        label = self._label(job)
        if isinstance(exchange, Answer):
            status = str(exchange.status)
        else:
            status = "unsent" if isinstance(exchange, Unsent) else "unanswered"
        self._family.count("requests", label, status, "POST")
        self._family.observe("exchange", seconds, label)

    def retrying(self, job: Job, fault: Fault, delay: float) -> None:
        self._retries.labels(fault.error_class.value if fault.error_class else "unclassified").inc()

    def waiting(self, job: Job, wait: Wait, delay: float) -> None:
        if wait.fault.error_class is not None:  # else it waits for its credentials
            self._throttles.labels(_APP if wait.fault.app_wide else wait.scope.value).inc()

    def delivered(self, parcel: Parcel, sent: Sent) -> None:
        label = self._label(parcel)
        self._family.count("consumed", label, "success")
        self._family.count("delivered", label)
        self._family.observe("processing", self._clock.seconds() - parcel.received, label)

    def dead_lettered(self, parcel: Parcel, dead: Dead) -> None:
        tenant_id = parcel.identity.tenant_id
        label = self._labels.find(tenant_id) or UNKNOWN
        if tenant_id is not None:
            self._resolve(tenant_id, label)
        self._family.count("consumed", label, "failed")
        self._family.count("failed", label, self._code(dead), _retryable(dead))
        self._family.observe("processing", self._clock.seconds() - parcel.received, label)
        self._dead.labels(dead.reason.value).inc()

    def unpublished(self, parcel: Parcel, what: str, cause: str) -> None:
        if what == "event":
            self._events_lost.inc()

    def unsettled(self, parcel: Parcel) -> None:
        self._unsettled.inc()

    def recalled(self, parcel: Parcel) -> None:
        self._recalled.inc()

    def deferred(self, parcel: Parcel) -> None:
        self._deferrals.inc()

    def breaker(self, tenant_id: str | None, breaker: Breaker) -> None:
        if breaker.state is State.OPEN:
            self._opened.labels("road" if tenant_id is None else "tenant").inc()

    def give_up_unresolved(self) -> None:
        """Count as unknown what nothing has become known of for long; to be called now and then."""
        oldest = self._clock.seconds() - UNRESOLVED_SECONDS
        for tenant_id in [each for each, kept in self._unresolved.items() if kept.since <= oldest]:
            self._resolve(tenant_id, UNKNOWN)

    # -- labels ------------------------------------------------------------------------------------

    def _label(self, parcel: Parcel) -> str:
        return self._labels.find(parcel.identity.tenant_id) or UNKNOWN

    def _learn(self, tenant_id: str) -> str:
        label = self._labels.learn(tenant_id)
        self._resolve(tenant_id, label)
        return label

    def _count(self, identity: Identity, name: str, *labels: str, wait: bool = True) -> None:
        """Count for a tenant; where its label is not known yet, and is about to be, later."""
        tenant_id = identity.tenant_id
        label = self._labels.find(tenant_id)
        if label is not None or tenant_id is None or not wait:
            self._family.count(name, label or UNKNOWN, *labels)
            return
        kept = self._unresolved.get(tenant_id)
        if kept is None:
            if len(self._unresolved) >= MOST_UNRESOLVED:
                self._resolve(next(iter(self._unresolved)), UNKNOWN)
            kept = self._unresolved[tenant_id] = _Unresolved(self._clock.seconds())
        key: Key = (name, *labels)
        kept.counts[key] += 1

    def _resolve(self, tenant_id: str, label: str) -> None:
        kept = self._unresolved.pop(tenant_id, None)
        if kept is not None:
            for key, times in kept.counts.items():
                self._family.count(key[0], label, *key[1:], times=times)

    def _code(self, dead: Dead) -> str:
        code = dead.fault.code if dead.fault else None
        if code is None:
            return dead.reason.value
        return str(code) if self._listed(code) else "unlisted"


_WORTH_COUNTING = (LogLevel.warn, LogLevel.error, LogLevel.critical)


@implementer(ILogObserver)
@define(eq=False)
class LogCounts:
    """A log observer that counts what is a warning or worse."""

    _counter: Counter

    def __attrs_post_init__(self) -> None:
        for level in _WORTH_COUNTING:
            self._counter.labels(level.name)

    def __call__(self, event: LogEvent) -> None:
        """One more event."""
        level = event.get("log_level")
        if level is not None and level in _WORTH_COUNTING:
            self._counter.labels(level.name).inc()


def _retryable(dead: Dead) -> str:
    """Whether the same message may go through later: its trouble was not its own."""
    passing = dead.fault is not None and dead.fault.error_class is ErrorClass.TRANSIENT
    return "true" if passing or dead.reason is Reason.AUTH_FAILED else "false"
