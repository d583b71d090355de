"""The calls about dead letters: look at them, replay or drop them, follow and stop that."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

import msgspec
from attrs import frozen
from msgspec import UNSET, UnsetType

from whatsapp_egress.clients.broker.letters import Letter
from whatsapp_egress.control import jobs
from whatsapp_egress.control.call import Actor, Answer, Call, NoParameters, Order, TenantId
from whatsapp_egress.control.jobs import CountChanged, Job, What
from whatsapp_egress.control.letter_view import LetterReader
from whatsapp_egress.control.refusal import Refusal, bad_request, not_found
from whatsapp_egress.control.replays import Replays
from whatsapp_egress.control.routes import Route
from whatsapp_egress.errors import QueueTrouble, ReplayUnderWay
from whatsapp_egress.policy.replay import Filter, Forecast

Reason = Annotated[str, msgspec.Meta(pattern=r"^[a-z_]{1,40}\Z")]
LetterId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Age = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Code = Annotated[float, msgspec.Meta(ge=-(2**31), le=2**31 - 1, multiple_of=1)]
Count = Annotated[float, msgspec.Meta(ge=0, le=2**31 - 1, multiple_of=1)]
"""Whole numbers, which in JSON may be written as 5.0."""


class Chosen(msgspec.Struct, forbid_unknown_fields=True):
    """Which dead letters are meant; ages in seconds."""

    tenantId: TenantId | None = None
    reason: Reason | None = None
    code: Code | None = None
    olderThan: Age | None = None
    youngerThan: Age | None = None
    id: LetterId | None = None

    def filter(self) -> Filter:
        """The same, as policy has it."""
        code = None if self.code is None else int(self.code)
        return Filter(self.tenantId, self.reason, code, self.olderThan, self.youngerThan, self.id)

    def told(self) -> dict[str, Any]:
        """What is chosen by, for the audit."""
        given = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in given.items() if value is not None}


class Listed(msgspec.Struct, forbid_unknown_fields=True):
    """Which are to be listed, and how many at most. It is read from a query, where None would be what the
    text `null` says."""

    tenantId: TenantId | UnsetType = UNSET
    reason: Reason | UnsetType = UNSET
    code: Code | UnsetType = UNSET
    olderThan: Age | UnsetType = UNSET
    youngerThan: Age | UnsetType = UNSET
    id: LetterId | UnsetType = UNSET
    limit: Annotated[float, msgspec.Meta(ge=1, le=200, multiple_of=1)] = 50

    def filter(self) -> Filter:
        """Which are meant."""
        given = {name: getattr(self, name) for name in Chosen.__struct_fields__}
        return Chosen(**{name: value for name, value in given.items() if value is not UNSET}).filter()


class LetterOrder(Order):
    """What is to be done with which: `expected` as many as were counted before."""

    filter: Chosen
    dryRun: bool = False
    expected: Count | None = None


class ReplayOrder(LetterOrder):
    """`rate` in messages a second; `force` holds back nothing."""

    rate: Annotated[float, msgspec.Meta(gt=0, le=10_000)] = jobs.DEFAULT_RATE
    force: bool = False


class StopQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Who stops it."""

    actor: Actor | None = None


@frozen
class DeadLetterCalls:
    """Calls under /dead-letters."""

    _replays: Replays
    _reader: LetterReader

    def routes(self) -> list[Route]:
        """Which there are."""
        routes = [
            Route("GET", "/dead-letters", self.list),
            Route("GET", "/dead-letters/{letterId}", self.one),
            Route("POST", "/dead-letters/replays", self.replay),
            Route("POST", "/dead-letters/drops", self.drop),
        ]
        for what, path in ((What.REPLAY, "/dead-letters/replays"), (What.DROP, "/dead-letters/drops")):
            routes.append(Route("GET", f"{path}/{{jobId}}", partial(self.follow, what)))
            routes.append(Route("DELETE", f"{path}/{{jobId}}", partial(self.stop, what)))
        return routes

    async def list(self, call: Call) -> Answer:
        """Those that are meant, the newest first."""
        query = call.asked(Listed)
        wanted, now = query.filter(), self._reader.now()
        shown: deque[tuple[Letter, Forecast]] = deque(maxlen=int(query.limit))
        matching = 0

        def visit(letter: Letter, forecast: Forecast) -> None:
            nonlocal matching
            if wanted.takes(letter.facts, now):
                matching += 1
                shown.append((letter, forecast))

        with _refusing():
            look = await self._replays.browse(visit)
        return Answer(
            {
                "depth": look.depth,
                "looked": look.looked,
                "matching": matching,
                "complete": look.complete,
                "deadLetters": [self._reader.view(*each) for each in reversed(shown)],
            }
        )

    async def one(self, call: Call) -> Answer:
        """One, with its message."""
        call.asked(NoParameters)
        wanted = call.where["letterId"]
        found: list[tuple[Letter, Forecast]] = []

        def visit(letter: Letter, forecast: Forecast) -> None:
            if letter.facts.id == wanted and not found:
                found.append((letter, forecast))

        with _refusing():
            await self._replays.browse(visit)
        if not found:
            raise not_found("No dead letter has this id; it may have been replayed or dropped.")
        return Answer(self._reader.whole(*found[0]))

    async def replay(self, call: Call) -> Answer:
        """Send them again, or foretell it."""
        order = call.order(ReplayOrder)
        return await self._begin(call, What.REPLAY, order, order.rate, force=order.force)

    async def drop(self, call: Call) -> Answer:
        """Throw them away, or count them."""
        order = call.order(LetterOrder)
        return await self._begin(call, What.DROP, order, jobs.DEFAULT_RATE, force=True)

    async def _begin(self, call: Call, what: What, order: LetterOrder, rate: float, *, force: bool) -> Answer:
        call.told |= {"filter": order.filter.told(), "dryRun": order.dryRun, "expected": order.expected}
        wanted = order.filter.filter()
        with _refusing():
            if order.dryRun:
                plan = await self._replays.foretell(wanted, force=force)
                return Answer(self._reader.plan(what, order.actor, plan))
            if order.expected is None:
                raise bad_request("Say how many are expected: a dry run counts them.")
            job = await self._replays.start(
                jobs.Order(what, wanted, order.actor, int(order.expected), rate, force=force)
            )
        call.told["job"] = job.id
        return Answer(self._reader.job(job), 202)

    async def follow(self, what: What, call: Call) -> Answer:
        """How far it is."""
        call.asked(NoParameters)
        return Answer(self._reader.job(self._job(what, call)))

    async def stop(self, what: What, call: Call) -> Answer:
        """Stop it before its next message."""
        call.actor = call.asked(StopQuery).actor
        job = self._job(what, call)
        call.told["job"] = job.id
        self._replays.stop(job.id)
        return Answer(self._reader.job(job), 202)

    def _job(self, what: What, call: Call) -> Job:
        job = self._replays.job(call.where["jobId"])
        if job is None or job.order.what is not what:
            raise not_found("There is no such errand; the last 20 since the gateway's start are remembered.")
        return job


@contextmanager
def _refusing() -> Iterator[None]:
    """Make a `Refusal` of what can go wrong at the broker."""
    try:
        yield
    except QueueTrouble as error:
        raise Refusal(503, "broker_away", f"The dead letters can't be reached: {_sentence(error)}") from error
    except CountChanged as error:
        raise Refusal(409, "count_changed", _sentence(error)) from error
    except ReplayUnderWay as error:
        raise Refusal(409, "under_way", _sentence(error)) from error


def _sentence(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."
