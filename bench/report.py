"""The verdict: which targets a run reached, as a table and as JSON."""

from __future__ import annotations

import math
from typing import Any

from attrs import asdict, frozen
from rich import box
from rich.console import Console
from rich.table import Table

from bench.figures import NEVER, Run, out_of_order
from bench.load import B_TO_K, A
from bench.stage import Scenario

LEAST_DEFERRAL_RATE = 2000.0
MOST_GROWTH = 50.0
MOST_DEVIATION = 0.05

_RECIPIENTS = {sender.tenant: sender.recipients for sender in (A, *B_TO_K)}
_FAULTS_SHOWN = 3


@frozen
class Target:
    """What was to be reached, and what was."""

    name: str
    wanted: str
    measured: str
    reached: bool


def targets(scenario: Scenario, alone: Run, run: Run) -> list[Target]:
    """Return the targets of *scenario*; *alone* is the run without A."""
    most_p99 = 2 * alone.percentile(0.99) + run.deferral_seconds
    p99 = run.percentile(0.99)
    faults = out_of_order(run.arrivals, _RECIPIENTS)
    return [
        Target(
            "B to K's messages arrive",
            f"all {len(run.published)}",
            str(run.arrived),
            run.arrived == len(run.published),
        ),
        Target(
            "p99 of B to K",
            f"at most twice that without, and the deferral: {seconds(most_p99)}",
            seconds(p99),
            p99 <= most_p99 < NEVER,
        ),
        Target(
            "the flood is deferred",
            f"{LEAST_DEFERRAL_RATE:.0f} messages/s or more",
            f"{run.deferral_rate:.0f} messages/s" if run.deferral else "never",
            run.deferral_rate >= LEAST_DEFERRAL_RATE,
        ),
        Target(
            "memory grows",
            f"by less than {MOST_GROWTH:.0f} MiB",
            f"{run.growth:.1f} MiB",
            run.growth < MOST_GROWTH,
        ),
        _of_a(scenario, run),
        Target("in order per recipient", "none before an earlier one or twice", _told(faults), not faults),
        Target(
            "all is accounted for",
            f"{run.total} messages; exit status 0",
            f"{run.accepted} sent + {run.left} queued; {run.status}",
            run.unaccounted == 0 and run.status == 0,
        ),
    ]


def _of_a(scenario: Scenario, run: Run) -> Target:
    if scenario.sends:
        rate, wanted = run.rate_of_a, A.messages_per_second
        return Target(
            "A sends meanwhile",
            f"{wanted} messages/s within {MOST_DEVIATION:.0%}",
            "too short a time to tell" if rate is None else f"{rate:.2f} messages/s",
            rate is not None and abs(rate - wanted) <= MOST_DEVIATION * wanted,
        )
    requests, accepted = len(run.of_a), sum(arrival.accepted for arrival in run.of_a)
    return Target(
        "A sends nothing",
        "no request" if scenario.paused else "no message accepted",
        f"{requests} requests, {accepted} accepted",
        not (requests if scenario.paused else accepted),
    )


def _told(faults: list[str]) -> str:
    more = len(faults) - _FAULTS_SHOWN
    shown = "; ".join(faults[:_FAULTS_SHOWN]) + (f"; and {more} more" if more > 0 else "")
    return shown or "kept"


def seconds(value: float | None) -> str:
    """Return a time in words."""
    if value is None:
        return "-"
    if math.isinf(value):
        return "never"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def show(console: Console, scenario: Scenario, alone: Run, run: Run, verdict: list[Target]) -> None:
    """Print what was measured, and a line for each target."""
    figures = _table("B to K, from publish to Meta", "without A", "with A")
    for name, of_alone, of_run in _figures(alone, run):
        figures.add_row(name, of_alone, of_run)
    lines = _table(f"targets of {scenario.name}", "wanted", "measured", "")
    for target in verdict:
        style, word = ("green", "reached") if target.reached else ("bold red", "MISSED")
        lines.add_row(target.name, target.wanted, target.measured, word, style=style)
    console.print()
    for table in (figures, lines):
        console.print(table)
        console.print()


def _figures(alone: Run, run: Run) -> list[tuple[str, str, str]]:
    def both(name: str, of: Any) -> tuple[str, str, str]:
        return name, of(alone), of(run)

    rows = [
        both("arrived", lambda each: f"{each.arrived}/{len(each.published)}"),
        both("p50", lambda each: seconds(each.percentile(0.5))),
        both("p95", lambda each: seconds(each.percentile(0.95))),
        both("p99", lambda each: seconds(each.percentile(0.99))),
        both("longest", lambda each: seconds(each.percentile(1.0))),
        ("p99 of those published after the deferral", "", seconds(run.later_p99)),
        both("their publisher was late by at most", lambda each: seconds(each.lateness)),
        both("the gateway's memory before", lambda each: f"{each.resident_before / 1024:.1f} MiB"),
        both("  and its growth", lambda each: f"{each.growth:.1f} MiB"),
    ]
    if run.flood is not None:
        count = 0 if run.deferral is None else run.deferral.count
        publishing = seconds(run.flood.confirmed - run.flood.began)
        rows += [
            ("A's flood was published", "", f"{run.flood.count} in {publishing}"),
            ("  and deferred, since its first message", "", f"{count} in {seconds(run.deferral_seconds)}"),
            ("A's requests, and its messages accepted", "", _requests(run)),
        ]
    return rows


def _requests(run: Run) -> str:
    return f"{len(run.of_a)}, {sum(arrival.accepted for arrival in run.of_a)}"


def _table(*columns: str) -> Table:
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        drawn.add_column(column)
    return drawn


def document(run: Run, verdict: list[Target]) -> dict[str, Any]:
    """Return a run for a JSON file; what never came is null."""
    figures: dict[str, Any] = {
        "scenario": run.name,
        "published": len(run.published),
        "arrived": run.arrived,
        "p50": run.percentile(0.5),
        "p95": run.percentile(0.95),
        "p99": run.percentile(0.99),
        "longest": run.percentile(1.0),
        "p99_after_deferral": run.later_p99,
        "publisher_late": run.lateness,
        "memory_before_mib": run.resident_before / 1024,
        "memory_growth_mib": run.growth,
        "flood": None if run.flood is None else asdict(run.flood),
        "deferral_seconds": None if run.flood is None else run.deferral_seconds,
        "deferred": 0 if run.deferral is None else run.deferral.count,
        "deferral_rate": run.deferral_rate,
        "rate_of_a": run.rate_of_a,
        "requests_of_a": len(run.of_a),
        "total": run.total,
        "accepted": run.accepted,
        "left": run.left,
        "exit_status": run.status,
    }
    finite = {name: None if value == NEVER else value for name, value in figures.items()}
    return {**finite, "targets": [asdict(target) for target in verdict]}
