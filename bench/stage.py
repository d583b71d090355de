"""What a run is played on: RabbitMQ, the sandbox and the gateway, each a process of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pika
from attrs import define, field, frozen

from bench.load import B_TO_K, PERSISTENT, A, Sender
from whatsapp_egress.deferred import Lease, write_lease
from whatsapp_egress.policy.pause import Pause
from whatsapp_egress.sandbox.demo_parts import GatewayProcess, SandboxProcess, ask, without_settings
from whatsapp_egress.sandbox.rabbitmq import PrivateBroker

LATENCY_MS = 100
"""How long the Graph API takes."""

INCOMING, LEASES = "outbound-processed", "outbound-lanes"
DEFERRED = (f"outbound-deferred.{A.tenant}", f"outbound-deferred-first.{A.tenant}")

_NOT_FOUND = 404


@frozen
class Scenario:
    """What is wrong with A, which floods the queue.

    `behaviour` is what its number meets at the Graph API, `tenant` what the Tenant Service tells wrongly or
    how it fails; `paused` is whether an operator has stopped it.
    """

    name: str
    words: str
    behaviour: Mapping[str, Any] = field(factory=dict)
    tenant: Mapping[str, Any] = field(factory=dict)
    paused: bool = False

    @property
    def sends(self) -> bool:
        """Whether A's messages can get through."""
        return not (self.behaviour or self.tenant or self.paused)


SCENARIOS = {
    each.name: each
    for each in (
        Scenario("flood", "A is limited to 10 messages/s"),
        Scenario(
            "breaker",
            "Meta answers A with 131000, its breaker opens",
            {"mode": "error", "error_code": 131000},
        ),
        Scenario("token", "A's token is wrong (190)", tenant={"servedToken": "EAAbenchwrongZD"}),
        Scenario("tenant-service", "the Tenant Service hangs when asked for A", tenant={"mode": "hang"}),
        Scenario("paused", "an operator has paused A", paused=True),
    )
}


class Gateway(GatewayProcess):
    """The gateway, whose memory can be looked at."""

    @classmethod
    def start(cls, log_file: Path, environment: Mapping[str, str]) -> Gateway:
        """Start it, and return when it consumes.  Raises `DemoFailed`."""
        return cast(Gateway, super().start(log_file, environment))

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def resident(self) -> int:
        """How many KiB of memory it has."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        return 0  # it has ended, and nobody has looked yet


@frozen
class Room:
    """A virtual host: each run has one of its own, and so begins without a queue."""

    broker: PrivateBroker
    vhost: str
    queue_type: str

    @classmethod
    @contextmanager
    def open(cls, broker: PrivateBroker, vhost: str, queue_type: str) -> Iterator[Room]:
        """Make it, and remove it with all that is in it."""
        broker.ctl("add_vhost", vhost)
        broker.ctl("set_permissions", "-p", vhost, broker.settings()["RABBITMQ_USER"], ".*", ".*", ".*")
        try:
            yield cls(broker, vhost, queue_type)
        finally:
            if broker.running:
                broker.ctl("delete_vhost", vhost)

    @property
    def url(self) -> str:
        """The AMQP URL."""
        return f"{self.broker.url.rpartition('/')[0]}/{self.vhost}?heartbeat=0"

    @contextmanager
    def connection(self) -> Iterator[Any]:
        """Give a blocking pika connection."""
        connection = pika.BlockingConnection(pika.URLParameters(self.url))
        try:
            yield connection
        finally:
            if connection.is_open:
                connection.close()

    def pause(self, sender: Sender) -> None:
        """Publish the lease of a tenant that an operator has stopped."""
        lease = write_lease(Lease(sender.tenant, Pause("a measurement", "bench", time.time())))
        with self.connection() as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            channel.queue_declare(LEASES, durable=True, arguments={"x-queue-type": self.queue_type})
            channel.basic_publish("", LEASES, lease, PERSISTENT, mandatory=True)

    def left(self) -> int:
        """How many messages are in all queues, dead letters among them; leases are none."""
        names = self.broker.ctl("list_queues", "-p", self.vhost, "name").split()
        with self.connection() as connection:
            depths = Depths(connection)
            return sum(depths.of(name) for name in names if name != LEASES)


@define
class Depths:
    """Looks how many messages of a queue are ready; those that a consumer holds are not counted."""

    _connection: Any
    _channel: Any = None

    def of(self, queue: str) -> int:
        """Return it; 0 where there is no such queue."""
        if self._channel is None or not self._channel.is_open:
            self._channel = self._connection.channel()
        try:
            return int(self._channel.queue_declare(queue, passive=True).method.message_count)
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code != _NOT_FOUND:
                raise
            return 0


@define
class Stage:
    """The broker and the sandbox, which serve all runs; logs go to `folder`."""

    broker: PrivateBroker
    sandbox: SandboxProcess
    folder: Path
    settings: Mapping[str, str]
    environ: Mapping[str, str]

    @classmethod
    @contextmanager
    def open(cls, folder: Path, settings: Mapping[str, str]) -> Iterator[Stage]:
        """Start them, and stop them again.  *settings* are more settings for the gateway."""
        environ = without_settings(os.environ)
        with PrivateBroker.start(environ=environ) as broker:
            sandbox = SandboxProcess.start(folder, environ)
            try:
                yield cls(broker, sandbox, folder, settings, environ)
            finally:
                sandbox.stop()

    @contextmanager
    def set(self, name: str, scenario: Scenario | None) -> Iterator[tuple[Room, Gateway]]:
        """Give a room, and in it a gateway that consumes, with A as *scenario* says."""
        self._prepare(scenario)
        queue_type = self.settings.get("RABBITMQ_QUEUE_TYPE", "quorum")
        with Room.open(self.broker, f"bench-{name}", queue_type) as room:
            if scenario is not None and scenario.paused:
                room.pause(A)
            environment = {
                **self.environ,
                **self.broker.settings(),
                "RABBITMQ_VHOST": room.vhost,
                "META_API_BASE_URL": self.sandbox.graph_url,
                "TENANT_SERVICE_URL": self.sandbox.tenants_url,
                "HEALTH_CHECK_PORT": "0",
                "PROMETHEUS_PORT": "0",
                **self.settings,
            }
            gateway = Gateway.start(self.folder / f"egress-{name}.log", environment)
            try:
                yield room, gateway
            finally:
                gateway.stop()

    def accepted(self) -> Mapping[str, int]:
        """How many messages of each tenant the Graph API has accepted."""
        summary = ask(self.sandbox.graph_url, "GET", "/_control/summary")
        counts: dict[str, int] = summary["accepted_by_tenant"]
        return counts

    def _prepare(self, scenario: Scenario | None) -> None:
        url = self.sandbox.graph_url
        ask(url, "DELETE", "/_control/state")
        for sender in (A, *B_TO_K):
            changes = scenario.tenant if scenario is not None and sender is A else {}
            limits = {"messagesPerSecond": sender.messages_per_second}
            tenant = {"phoneNumberId": sender.phone_number_id, "token": sender.token, "rateLimits": limits}
            ask(url, "PUT", f"/_control/tenants/{sender.tenant}", {**tenant, **changes})
        ask(url, "PUT", "/_control/behaviour/*", {"latency_ms": LATENCY_MS})
        if scenario is not None and scenario.behaviour:
            behaviour = {"latency_ms": LATENCY_MS, **scenario.behaviour}
            ask(url, "PUT", f"/_control/behaviour/{A.phone_number_id}", behaviour)
