"""Sends a few hundred messages of eight tenants with different fates through the gateway, and accounts for each."""

from __future__ import annotations

import json
import os
import secrets
import shutil
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
    DEAD_LETTERS,
    DemoFailed,
    GatewayProcess,
    Queues,
    SandboxProcess,
    accepted_messages,
    without_settings,
)
from whatsapp_egress.sandbox.fates import Fate, the_eight
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

    def _dead_letter(self, body: bytes, headers: Mapping[str, Any]) -> None:
        self.ledger.dead_letter(_internal_id(body), str(headers.get("x-egress-reason")))

    def close_the_books(self) -> list[str]:
        """Stop the gateway, count what is where, keep the record; return what is not as it should be."""
        status = self.gateway.stop()
        self.queues.look(LOOK_INTERVAL)
        self.take_stock()
        self.ledger.queued = {_internal_id(body) for body in self.queues.queued()}
        faults = self.ledger.faults()
        return faults if status == 0 else [*faults, f"the gateway ended with exit status {status}"]

    def take_stock(self) -> None:
        """Read the sandbox's record, and keep it."""
        arrivals = list(self.sandbox.arrivals())
        self.ledger.accepted(accepted_messages(iter(arrivals)))
        (self.folder / "record.json").write_text(json.dumps(arrivals, indent=1))
        dead = {each: reasons[0] for each, reasons in sorted(self.ledger.dead.items())}
        (self.folder / "dead-letters.json").write_text(json.dumps(dead, indent=1))


def _internal_id(body: bytes) -> str:
    try:
        return str(json.loads(body)["metadata"]["internalId"])
    except (ValueError, TypeError, KeyError):
        return ""  # not one of ours


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
        sandbox = SandboxProcess.start(folder, environ)
        stack.callback(sandbox.stop)
        environment = {
            **_broker(environ, stack, screen),
            **_GATEWAY_SETTINGS,
            "META_API_BASE_URL": sandbox.graph_url,
            "TENANT_SERVICE_URL": sandbox.tenants_url,
        }
        settings = Settings.from_environment(environment)
        queues = Queues.open(settings)
        stack.callback(queues.close)
        queues.refuse_if_in_use()
        screen.say("Starting the gateway ...")
        gateway = GatewayProcess.start(folder / "egress.log", environment)
        stack.callback(gateway.stop)
        demo = Demo(screen, folder, settings, sandbox, gateway, queues, Ledger(fates))
        count = sum(len(fate.payloads) for fate in fates)
        screen.say(f"Publishing {count} messages of {len(fates)} tenants ...")
        demo.play()
        if keep:
            _keep(demo)
        faults = demo.close_the_books()
        _tell(demo, faults)
    return 1 if faults else 0
