"""Has the gateway replay or drop dead letters, shows how far it is, and stops it when told to."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click
from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from whatsapp_egress.cli.dead_letter_pages import foretold
from whatsapp_egress.cli.gateway import Gateway
from whatsapp_egress.cli.reach import Reach
from whatsapp_egress.cli.running import asking_on_terminal, note
from whatsapp_egress.cli.tables import counted, put, put_json
from whatsapp_egress.cli.trouble import Exit, Unreachable

LOOK_SECONDS = 0.3
"""Between two looks at how far it is."""

PATIENT_LOOKS = 20
"""Looks in a row that may fail before the gateway counts as gone; the errand is its own, not ours."""

MOST_LISTED = 200
"""Dead letters in one answer of the gateway's."""

_UNDER_WAY = frozenset(("counting", "running"))

Report = Mapping[str, Any]


@frozen
class Errand:
    """What the gateway is to do with the dead letters that `chosen` matches: `replays` or `drops`."""

    kind: str
    chosen: Mapping[str, Any]
    actor: str
    how: Mapping[str, object]

    @property
    def verb(self) -> str:
        """What it does."""
        return "replay" if self.kind == "replays" else "drop"

    @property
    def path(self) -> tuple[str, str]:
        """Where it is begun."""
        return "dead-letters", self.kind

    def order(self, **more: object) -> dict[str, object]:
        """What the gateway is told."""
        return {"filter": dict(self.chosen), "actor": self.actor, **self.how, **more}

    def done(self, report: Report) -> int:
        """How many it has dealt with."""
        return int(report.get("replayed" if self.kind == "replays" else "dropped") or 0)


def run_errand(reach: Reach, errand: Errand, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Count, foretell, ask, do it and tell; ends the process with a status of its own if it is cut short."""
    if not (dry_run or yes or (sys.stdin.isatty() and sys.stderr.isatty())):
        raise click.UsageError(
            "There is no terminal to ask on: say --yes, or --dry-run to see what it would do."
        )

    async def ask(gateway: Gateway) -> tuple[Report, Exit]:
        plan = await gateway.post(*errand.path, document=errand.order(dryRun=True))
        count = int(plan.get("counted") or 0)
        if not as_json or not (dry_run or yes):
            # What somebody is asked about must be seen, and a script's document stays alone on its stream.
            sample = await _sample(gateway, errand) if count else []
            _tell_plan(plan, count, sample, note if as_json else put)
        if dry_run or not plan.get("left"):
            return plan, Exit.DONE
        if not yes:
            await gateway.close()  # nobody would notice a connection's end while the question stands
            with asking_on_terminal():
                click.confirm(
                    f"{errand.verb.capitalize()} {counted(count, 'dead letter')}?", abort=True, err=True
                )
        return await _follow(gateway, errand, count)

    report, status = reach.run(ask)
    if as_json:
        put_json(report)
    elif report.get("id") is not None or status is not Exit.DONE:
        put(_told(errand, report))
    if status is not Exit.DONE:
        raise SystemExit(status)


async def _sample(gateway: Gateway, errand: Errand) -> list[Report]:
    """Some of what is to be replayed, for the reasons of what would become of it."""
    if errand.kind != "replays":
        return []
    found = await gateway.get("dead-letters", **errand.chosen, limit=MOST_LISTED)
    return list(found["deadLetters"])


async def _follow(gateway: Gateway, errand: Errand, count: int) -> tuple[Report, Exit]:
    order = errand.order(dryRun=False, expected=count)
    beginning = Deferred.fromCoroutine(gateway.post(*errand.path, document=order))
    try:
        # Who interrupts now must still hear what it is called, to stop it.
        begun = await _watched(beginning)
        with _progress(errand, count) as show:
            report = await _ended(gateway, errand, begun, show)
    except CancelledError:
        note(f"\nStopping the {errand.verb} at the gateway ...")
        return await _stopped(gateway, errand, await beginning), Exit.INTERRUPTED
    return report, Exit.DONE if report.get("state") == "done" else Exit.FAILED


async def _ended(
    gateway: Gateway, errand: Errand, report: Report, show: Callable[[Report], None] = lambda _: None
) -> Report:
    """Look until it is over."""
    failed = 0
    while report.get("state") in _UNDER_WAY:
        await deferLater(gateway.reactor, LOOK_SECONDS)
        try:
            report = await gateway.get(*errand.path, str(report["id"]))
            failed = 0
        except Unreachable as trouble:
            failed += 1
            if failed > PATIENT_LOOKS:
                raise Unreachable(
                    f"{trouble.message} The {errand.verb} {report['id']} goes on if the gateway does;"
                    " `whatsapp-egress dead-letters list` shows what is left."
                ) from trouble
        show(report)
    return report


def _watched(task: Deferred[Report]) -> Deferred[Report]:
    """What `task` comes to, for one who may stop waiting without stopping it."""
    watching: Deferred[Report] = Deferred()

    def tell(result: Report | Failure) -> Report | Failure | None:
        if watching.called:
            return result
        watching.callback(result)
        return None if isinstance(result, Failure) else result

    task.addBoth(tell)
    return watching


async def _stopped(gateway: Gateway, errand: Errand, report: Report) -> Report:
    stopping = await gateway.delete(*errand.path, str(report["id"]), actor=errand.actor)
    return await _ended(gateway, errand, stopping)


@contextmanager
def _progress(errand: Errand, count: int) -> Iterator[Callable[[Report], None]]:
    """A bar with rate and time left on a terminal, nothing elsewhere."""
    began = time.monotonic()
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    label = f"{errand.verb.capitalize()}ing".replace("Droping", "Dropping")
    bar: Any = click.progressbar(
        length=count,
        label=label,
        file=sys.stderr,
        show_pos=True,
        show_eta=True,
        item_show_func=lambda rate: None if rate is None else f"{rate:.0f}/s",
    )
    with bar:

        def show(report: Report) -> None:
            skipped = sum((report.get("skipped") or {}).values())
            rate = errand.done(report) / max(0.001, time.monotonic() - began)
            bar.update(max(0, errand.done(report) + skipped - bar.pos), rate)

        yield show


def _tell_plan(plan: Report, count: int, sample: list[Report], tell: Callable[[str], None]) -> None:
    verb = "matches" if count == 1 else "match"
    tell(f"{counted(count, 'dead letter')} {verb}." if count else "No dead letter matches.")
    if table := foretold(plan, sample):
        tell(table)
    if plan.get("detail"):
        tell(f"{str(plan['detail']).capitalize()}.")
    if not plan.get("left"):
        tell("There is nothing to do.")


def _told(errand: Errand, report: Report) -> str:
    done, left = errand.done(report), int(report.get("left") or 0)
    verb = "replayed" if errand.kind == "replays" else "dropped"
    state = str(report.get("state"))
    head = {"done": "Done", "stopped": "Stopped", "failed": "Failed"}.get(state, state)
    sentence = f"{head}: {counted(done, 'dead letter')} {verb}"
    skipped = report.get("skipped") or {}
    sentence += "".join(f", {count} not ({why})" for why, count in skipped.items())
    if left:
        sentence += f", {left} left: run it again for {'it' if left == 1 else 'them'}"
    detail = str(report.get("detail") or "")
    return f"{sentence}. {detail}".strip()
