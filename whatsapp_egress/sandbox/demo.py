"""Sends messages of eight tenants with different fates through the gateway, and accounts for each one."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import define
from rich.console import Console

from whatsapp_egress.sandbox.demo_parts import (
    DemoFailed,
    GatewayProcess,
    Queues,
    SandboxProcess,
    accepted_messages,
    without_settings,
)
from whatsapp_egress.sandbox.demo_stay import RABBITMQCTL, leftovers, stay, write_token
from whatsapp_egress.sandbox.fates import Fate, internal_id_of, the_eight
from whatsapp_egress.sandbox.ledger import Ledger
from whatsapp_egress.sandbox.rabbitmq import BrokerUnavailable, PrivateBroker
from whatsapp_egress.sandbox.screen import Screen
from whatsapp_egress.settings import BadSettings, Settings

PATIENCE = 120.0  # seconds for all messages to end; about 25 are usual
LOOK_INTERVAL = 0.4

# Real waits are longer: here an outage of a few seconds must be over before the last attempt, and a broken
# tenant's messages must end while somebody looks on.
_GATEWAY_SETTINGS = {
    "META_API_RETRY_DELAY": "1500",
    "BREAKER_RESET_TIMEOUT": "1000",
    "SHUTDOWN_TIMEOUT": "10000",
    "HEALTH_CHECK_PORT": "0",
    "PROMETHEUS_PORT": "0",
}
_FURTHER = {
    "egress.log": "what the gateway did, as JSON lines",
    "record.json": "what arrived at the Graph API, and what it answered",
    "dead-letters.json": "the reason of each dead letter",
    "sandbox.log": "the sandbox's own log",
}


@define
class Demo:
    """The demo, once its parts run."""

    screen: Screen
    folder: Path
    settings: Settings
    sandbox: SandboxProcess
    gateway: GatewayProcess
    queues: Queues
    ledger: Ledger

    def play(self) -> None:
        """Publish everything, and look on until every message has ended or `PATIENCE` has."""
        self.queues.on_dead_letter(self._dead_letter)
        for fate in self.ledger.fates:
            self.sandbox.befall(fate)
        began = time.monotonic()
        self._publish(secrets.token_hex(3))
        relieved: set[str] = set()
        while True:
            self.queues.look(LOOK_INTERVAL)
            self.ledger.accepted(accepted_messages(self.sandbox.arrivals()))
            seconds = time.monotonic() - began
            for fate in self.ledger.fates:
                if fate.lasts is not None and seconds >= fate.lasts and fate.tenant not in relieved:
                    relieved.add(fate.tenant)
                    self.sandbox.relieve(fate)
            self.screen.show(self.ledger, seconds)
            if self.ledger.settled or seconds > PATIENCE:
                return

    def _publish(self, run: str) -> None:
        # By turns, so that no tenant's messages stand behind another's in the queue.
        lines = [(fate.tenant, fate.messages(run)) for fate in self.ledger.fates]
        while lines:
            for line in list(lines):
                tenant, messages = line
                following = next(messages, None)
                if following is None:
                    lines.remove(line)
                    continue
                internal_id, body = following
                self.ledger.published[internal_id] = tenant
                self.queues.publish(tenant, body)

    def _dead_letter(self, body: bytes, headers: Mapping[str, Any]) -> bool:
        return self.ledger.dead_letter(internal_id_of(body), str(headers.get("x-egress-reason")))

    def close_the_books(self, stop: bool) -> list[str]:
        """Count what is where and keep the record; return what is not as it should be.

        With *stop* the gateway ends first, so that what it held is back in the queue.
        """
        status = self.gateway.stop() if stop else 0
        self.queues.look(LOOK_INTERVAL)
        arrivals = list(self.sandbox.arrivals())
        self.ledger.accepted(accepted_messages(iter(arrivals)))
        tenants = [fate.tenant for fate in self.ledger.fates]
        self.ledger.queued = {internal_id_of(body) for body in self.queues.queued(tenants)}
        (self.folder / "record.json").write_text(json.dumps(arrivals, indent=1))
        dead = {each: reasons[0] for each, reasons in sorted(self.ledger.dead.items())}
        (self.folder / "dead-letters.json").write_text(json.dumps(dead, indent=1))
        faults = self.ledger.faults()
        return faults if status == 0 else [*faults, f"the gateway ended with exit status {status}"]

    def tell(self, faults: list[str]) -> None:
        """Print the tally, and where to look further."""
        self.screen.tally(self.ledger)
        for fault in faults:
            self.screen.say(f"NOT AS IT SHOULD BE: {fault}")
        if not faults:
            self.screen.say(
                "Every message is accounted for, none was sent twice, each fate ended as foretold."
            )
        self.screen.say()
        for name, words in _FURTHER.items():
            self.screen.say(f"  {self.folder / name!s:<24} {words}")
        self.screen.say(f"  {'README.md, docs/':<24} how it works, how it is run, and how to play on")


def run(
    fates: list[Fate], environ: Mapping[str, str], folder: Path, console: Console, keep: bool = False
) -> int:
    """Play the demo; return its exit status.

    Everything that is started is stopped again, also on an exception.  Raises `DemoFailed`,
    `BrokerUnavailable` or `BadSettings` when it cannot be played.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        screen = stack.enter_context(Screen(console))
        screen.say("Starting RabbitMQ, sandbox and gateway ...")
        token_file = write_token(folder)
        sandbox = SandboxProcess.start(folder, environ)
        stack.callback(sandbox.stop)
        environment = {
            **_broker(environ, folder, stack, screen),
            **_GATEWAY_SETTINGS,
            "ADMIN_TOKEN_FILE": str(token_file),
            "META_API_BASE_URL": sandbox.graph_url,
            "TENANT_SERVICE_URL": sandbox.tenants_url,
        }
        settings = Settings.from_environment(environment)
        queues = stack.enter_context(Queues.open(settings))
        queues.refuse_if_in_use()
        gateway = GatewayProcess.start(folder / "egress.log", environment)
        stack.callback(gateway.stop)
        demo = Demo(screen, folder, settings, sandbox, gateway, queues, Ledger(fates))
        count = sum(len(fate.payloads) for fate in fates)
        screen.say(f"Publishing {count} messages of {len(fates)} tenants ...")
        demo.play()
        faults = demo.close_the_books(stop=not keep)
        demo.tell(faults)
        if keep:
            queues.close()  # the dead letters are then back in their queue, to be looked at
            for line in leftovers(settings, sandbox, gateway, folder, token_file):
                screen.say(line)
            stay(gateway, screen)
        else:
            queues.remove_dead_letters()
    return 1 if faults else 0


def _broker(environ: Mapping[str, str], folder: Path, stack: ExitStack, screen: Screen) -> dict[str, str]:
    """Return the environment that leads to the broker: a private one, unless RABBITMQ_HOST names another."""
    bare = without_settings(environ)
    rabbitmqctl = folder / RABBITMQCTL
    rabbitmqctl.unlink(missing_ok=True)
    if environ.get("RABBITMQ_HOST"):
        given = {name: value for name, value in environ.items() if name.startswith("RABBITMQ_")}
        queue = given.get("RABBITMQ_QUEUE", "outbound-processed")
        screen.say(
            f"Using RabbitMQ at {given['RABBITMQ_HOST']}, queue {queue}; what is declared there stays."
        )
        return bare | given
    broker = stack.enter_context(PrivateBroker.start(environ=bare))
    broker.write_ctl(rabbitmqctl)
    return bare | broker.settings()


def main(environ: Mapping[str, str] = os.environ) -> int:
    """Play the demo as the environment says, and return the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    keep = environ.get("KEEP", "") not in ("", "0")
    try:
        return run(the_eight(), environ, Path(".demo"), Console(), keep)
    except (DemoFailed, BrokerUnavailable, BadSettings) as error:
        print(f"The demo cannot be played: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; everything is stopped.", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
