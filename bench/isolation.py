"""Measures how little one tenant's flood or trouble is felt by the others: ``python -m bench.isolation``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

import whatsapp_egress
from bench.play import Plan, Play, RunFailed
from bench.report import document, show, targets
from bench.stage import SCENARIOS, Scenario, Stage
from whatsapp_egress.sandbox.demo_parts import DemoFailed
from whatsapp_egress.sandbox.rabbitmq import BrokerUnavailable

_MISSED, _NOT_MEASURED = 1, 2

_SHORT = "In less than a minute: --scenario flood --seconds 12 --flood 5000"


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench.isolation", description=__doc__, epilog=_SHORT)
    parser.add_argument(
        "--scenario",
        type=_scenarios,
        default=list(SCENARIOS.values()),
        metavar="NAME[,NAME...]",
        help=f"which ones, of {', '.join(SCENARIOS)} [all of them]",
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="how long B to K publish [60]")
    parser.add_argument("--flood", type=int, default=20_000, help="messages A publishes at once [20000]")
    parser.add_argument(
        "--patience", type=float, default=30.0, help="seconds to wait for what has not arrived then [30]"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, too")
    parser.add_argument(
        "--logs", type=Path, metavar="FOLDER", help="keep the logs of sandbox and gateway there"
    )
    parser.add_argument(
        "--set",
        action="append",
        type=_setting,
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the gateway; may be given several times",
    )
    return parser.parse_args(words)


def _scenarios(text: str) -> list[Scenario]:
    try:
        return [SCENARIOS[name] for name in text.split(",")]
    except KeyError as error:
        raise argparse.ArgumentTypeError(f"{error} is none of {', '.join(SCENARIOS)}") from error


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError("NAME=VALUE is expected")
    return name, value


def measure(given: argparse.Namespace, console: Console) -> bool:
    """Play all runs, print what was seen, and return whether every target was reached."""

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    plan = Plan(given.seconds, given.flood, given.patience)
    with ExitStack() as stack:
        folder = given.logs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        folder.mkdir(parents=True, exist_ok=True)
        measured = Path(whatsapp_egress.__file__).parent
        load = " ".join(f"{each:.2f}" for each in os.getloadavg())
        say(f"{os.cpu_count()} cores, load before: {load}. Measured: {measured}")
        say("Starting RabbitMQ and sandbox ...")
        stage = stack.enter_context(Stage.open(folder, dict(given.set)))
        say("baseline: without A")
        alone = Play(stage, plan, None, say).play()
        documents, reached = [document(alone, [])], True
        for scenario in given.scenario:
            say(f"{scenario.name}: {scenario.words}")
            run = Play(stage, plan, scenario, say).play()
            verdict = targets(scenario, alone, run)
            show(console, scenario, alone, run, verdict)
            documents.append(document(run, verdict))
            reached = reached and all(target.reached for target in verdict)
            if given.json is not None:  # after each run, for the next one may fail
                given.json.write_text(json.dumps(documents, indent=1))
    say("Every target was reached." if reached else "NOT every target was reached.")
    return reached


def main(words: Sequence[str] | None = None) -> int:
    """Measure as the command line says; 0 only if every target was reached."""
    given = _arguments(words)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return 0 if measure(given, Console()) else _MISSED
    except (DemoFailed, BrokerUnavailable, RunFailed) as error:
        print(f"It could not be measured: {error}", file=sys.stderr)
        return _NOT_MEASURED
    except KeyboardInterrupt:
        print("\nInterrupted; everything is stopped.", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
