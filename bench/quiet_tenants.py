"""Shows what tenants cost that have sent something and are quiet now: ``python -m bench.quiet_tenants``."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from hashlib import sha512
from pathlib import Path
from typing import Any

import pika
from attrs import define, frozen
from rich import box
from rich.console import Console
from rich.table import Table
from twisted.internet import task
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogBeginner

import whatsapp_egress
from bench.load import EXCHANGE, PERSISTENT, Sender
from whatsapp_egress.observe.logs import line_observer
from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.pipeline.recent import KEEP_SECONDS
from whatsapp_egress.sandbox.demo_parts import SandboxProcess, ask, without_settings
from whatsapp_egress.sandbox.rabbitmq import PrivateBroker
from whatsapp_egress.service import Egress
from whatsapp_egress.settings import Settings

MOST_GROWTH = 20.0
"""MiB that all quiet tenants may cost."""

FIRST = 1000
"""Other tenants, that send as many messages before: what connections and messages cost at their most is not
the quiet tenants' doing."""

_A_SECOND = 250
_EVERY = 0.25
_PATIENCE = 120.0
_REST = 65.0
"""Seconds of quiet in which connections that idle are closed."""

_FORGOTTEN = KEEP_SECONDS + 5.0
"""Seconds after which messages are forgotten, when others come: what is kept of them has its own bound."""

_TOKEN = 200
"""Characters, as Meta's have."""


@frozen
class Footprint:
    """What the gateway holds, in a moment of quiet."""

    resident: float
    """MiB."""
    lanes: int
    timers: Counter[str]

    @classmethod
    def of(cls, reactor: Any, egress: Egress) -> Footprint:
        """Take it, once garbage is gone."""
        gc.collect()
        lines = Path("/proc/self/status").read_text().splitlines()
        resident = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
        timers = Counter(_name(call.func) for call in reactor.getDelayedCalls())
        return cls(resident / 1024, len(egress.parts.lanes), timers)


def _name(called: Any) -> str:
    owner = getattr(called, "__self__", called)
    watched = getattr(owner, "f", owner)  # a LoopingCall's is what it calls
    return str(getattr(watched, "__qualname__", type(watched).__qualname__))


@define
class Gateway:
    """The gateway in this process, where its timers can be counted, and what it is fed with."""

    reactor: Any
    egress: Egress
    amqp_url: str
    graph_url: str
    sent: int = 0

    async def send(self, senders: Sequence[Sender], count: int) -> None:
        """Have them send *count* messages, by turns; returns when Meta has got all of them."""
        self.sent += count
        await deferToThread(_publish, self.amqp_url, senders, count)
        await self._until("all is sent", lambda: self._accepted() >= self.sent)

    async def quiet(self, rest: float) -> Footprint:
        """Wait until there is nothing to do, and *rest* seconds more, and tell what is there then."""
        parts = self.egress.parts
        await self._until("there is nothing in hand", lambda: not len(parts.recent))
        await self.sleep(rest)
        return Footprint.of(self.reactor, self.egress)

    async def ready(self) -> None:
        """Wait until it consumes."""
        await self._until("it consumes", self.egress.ready)

    def sleep(self, seconds: float) -> Deferred[None]:
        """Fires after so many seconds."""
        return task.deferLater(self.reactor, seconds)

    def _accepted(self) -> int:
        counts = ask(self.graph_url, "GET", "/_control/summary")["accepted_by_tenant"]
        return sum(counts.values())

    async def _until(self, what: str, reached: Callable[[], bool]) -> None:
        give_up = time.monotonic() + _PATIENCE
        while not reached():
            if time.monotonic() > give_up:
                raise RuntimeError(f"{_PATIENCE:.0f} s were not enough until {what}")
            await self.sleep(_EVERY)


def _publish(url: str, senders: Sequence[Sender], count: int) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    began = time.monotonic()
    for number in range(count):
        sender = senders[number % len(senders)]
        channel.basic_publish(EXCHANGE, sender.routing_key, sender.message(number), PERSISTENT)
        time.sleep(max(0.0, began + number / _A_SECOND - time.monotonic()))
    connection.close()


def _senders(kind: str, count: int) -> list[Sender]:
    digit = {"first": 4, "quiet": 5}[kind]
    names = [f"{kind}-{n:05}" for n in range(count)]
    return [Sender(name, f"{digit}0000{n:05}", _token(name), 1, 80) for n, name in enumerate(names)]


def _token(name: str) -> str:
    """A token as long as real ones, and like no other."""
    return f"EAA{sha512(name.encode()).hexdigest() * 2}"[:_TOKEN]


def _introduce(graph_url: str, senders: Sequence[Sender]) -> None:
    for each in senders:
        told = {
            "phoneNumberId": each.phone_number_id,
            "token": each.token,
            "rateLimits": {"messagesPerSecond": each.messages_per_second},
        }
        ask(graph_url, "PUT", f"/_control/tenants/{each.tenant}", told)


async def measure(reactor: Any, count: int, rest: float, folder: Path, console: Console) -> bool:
    """Run the gateway, print what quiet tenants cost, and return whether that is little enough."""
    environ = without_settings(os.environ)
    with ExitStack() as stack:
        broker = stack.enter_context(PrivateBroker.start(environ=environ))
        sandbox = SandboxProcess.start(folder, environ)
        stack.callback(sandbox.stop)
        first, quiet = _senders("first", FIRST), _senders("quiet", count)
        console.print(f"Introducing {len(quiet)} tenants to the sandbox ...", highlight=False)
        _introduce(sandbox.graph_url, [*first, *quiet])
        settings = Settings.from_environment(
            {
                **broker.settings(),
                "META_API_BASE_URL": sandbox.graph_url,
                "TENANT_SERVICE_URL": sandbox.tenants_url,
                "HEALTH_CHECK_PORT": "0",
                "PROMETHEUS_PORT": "0",
            }
        )
        redactor = Redactor(settings.secrets())
        log = stack.enter_context((folder / "egress.log").open("wb"))
        _log_to(log.write, settings, redactor)
        egress = Egress(reactor, settings, redactor)
        gateway = Gateway(reactor, egress, broker.url, sandbox.graph_url)
        egress.startService()
        try:
            await gateway.ready()
            return await _compare(gateway, first, quiet, rest, console)
        finally:
            await egress.stopService()


async def _compare(
    gateway: Gateway, first: Sequence[Sender], quiet: Sequence[Sender], rest: float, console: Console
) -> bool:
    async def after(senders: Sequence[Sender], rest: float) -> Footprint:
        what = f"{len(quiet)} messages of {len(senders)} tenants"
        console.print(f"{what}, then {rest:.0f} s of quiet ...", highlight=False)
        await gateway.send(senders, len(quiet))
        return await gateway.quiet(rest)

    before = await after(first, max(_REST, rest))
    then = await after(quiet, _REST)
    growth, more = then.resident - before.resident, then.timers - before.timers
    table = Table("", f"{len(first)} tenants", f"{len(quiet)} more, now quiet", box=box.SIMPLE_HEAD)
    table.add_row("memory", f"{before.resident:.1f} MiB", f"{then.resident:.1f} MiB")
    table.add_row("lanes", str(before.lanes), str(then.lanes))
    table.add_row("timers", _told(before.timers), _told(then.timers))
    console.print(table)
    verdict = [
        ("they leave no timers", f"{more.total()} more", not more),
        (f"they cost less than {MOST_GROWTH:.0f} MiB", f"{growth:.1f} MiB", growth < MOST_GROWTH),
    ]
    for name, measured, reached in verdict:
        console.print(f"{name}: {measured}: {'reached' if reached else 'MISSED'}", highlight=False)
    return all(reached for _, _, reached in verdict)


def _told(timers: Counter[str]) -> str:
    return "\n".join(f"{count} {name}" for name, count in sorted(timers.items())) or "none"


def _log_to(write: Callable[[bytes], object], settings: Settings, redactor: Redactor) -> None:
    logging.getLogger("pika").setLevel(logging.ERROR)
    observer = line_observer(
        write, level=settings.log_level, pii=False, redactor=redactor, version=whatsapp_egress.__version__
    )
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False)


def main() -> None:
    """Measure; the exit status is 0 only if every target was reached."""
    parser = argparse.ArgumentParser("python -m bench.quiet_tenants", description=__doc__)
    parser.add_argument("--tenants", type=int, default=10_000, help="how many send and fall quiet [10000]")
    parser.add_argument(
        "--rest",
        type=float,
        default=_FORGOTTEN,
        help=f"seconds of quiet before they send, {_REST:.0f} at least [{_FORGOTTEN:.0f}]; in less than "
        f"{_FORGOTTEN:.0f} s what is kept of messages counts as theirs",
    )
    given = parser.parse_args()
    reached: list[bool] = []

    async def run(reactor: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            reached.append(await measure(reactor, given.tenants, given.rest, Path(folder), Console()))
        if not all(reached):
            sys.exit(1)

    task.react(lambda reactor: Deferred.fromCoroutine(run(reactor)))


if __name__ == "__main__":
    main()
