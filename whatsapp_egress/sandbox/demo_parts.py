"""What the demo starts and talks to: sandbox and gateway as child processes, and the broker's queues."""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pika
from attrs import define, field

from whatsapp_egress.clients.broker.topology import deferred_queue
from whatsapp_egress.deferred import Place
from whatsapp_egress.sandbox.children import Child
from whatsapp_egress.sandbox.fates import Fate, Json
from whatsapp_egress.setting import settings_of
from whatsapp_egress.settings import Settings

DEAD_LETTERS = "outbound-failed"
START_TIMEOUT = 30.0  # seconds
STOP_TIMEOUT = 15.0

_TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=")
_PAGE = 1000


class DemoFailed(Exception):
    """The demo cannot go on; the text says why and what to do."""


def ask(base_url: str, method: str, path: str, document: object = None) -> Any:
    """Return the JSON answer of the sandbox's or the gateway's HTTP interface.

    Raises OSError when nobody answers, and `DemoFailed` for an answer other than 200.
    """
    connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=10)
    try:
        connection.request(method, path, None if document is None else json.dumps(document))
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise DemoFailed(f"{method} {base_url}{path} was answered {answer.status}: {body[:200]!r}")
    return json.loads(body)


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """Return *environ* without the gateway's own settings."""
    names = {declared.name for _, declared in settings_of(Settings)}
    names |= {f"{name}_FILE" for name in names}
    return {name: value for name, value in environ.items() if name not in names}


@define(eq=False)
class SandboxProcess:
    """The sandbox in a process of its own."""

    _child: Child
    graph_url: str
    tenants_url: str

    @classmethod
    def start(cls, folder: Path, environ: Mapping[str, str]) -> SandboxProcess:
        """Start it on free ports; it logs to *folder*.  Raises `DemoFailed`."""
        ports_file, log_file = folder / "sandbox-ports.json", folder / "sandbox.log"
        ports_file.unlink(missing_ok=True)
        options = ["--graph-port", "0", "--tenant-port", "0", "--ports-file", str(ports_file)]
        with log_file.open("wb") as output:
            child = Child.start([*_TWISTD, "whatsapp-sandbox", *options], without_settings(environ), output)
        _wait(child, ports_file.exists, "The sandbox", log_file)
        urls = json.loads(ports_file.read_text())
        return cls(child, urls["graph"], urls["tenants"])

    def befall(self, fate: Fate) -> None:
        """Have *fate* begin."""
        if fate.behaviour is not None:
            ask(self.graph_url, "PUT", f"/_control/behaviour/{fate.phone_number_id}", fate.behaviour)
        if fate.credentials is not None:
            ask(self.graph_url, "PATCH", f"/_control/tenants/{fate.tenant}", fate.credentials)

    def relieve(self, fate: Fate) -> None:
        """Have the tenant's phone number work again."""
        ask(self.graph_url, "DELETE", f"/_control/behaviour/{fate.phone_number_id}")

    def arrivals(self) -> Iterator[Json]:
        """Give what arrived at the Graph API, from its record."""
        since: int | None = 0
        while since is not None:
            page = ask(self.graph_url, "GET", f"/_control/requests?since={since}&limit={_PAGE}")
            yield from page["requests"]
            since = page["next_since"]

    def stop(self) -> None:
        """End it."""
        self._child.terminate(STOP_TIMEOUT)


def accepted_messages(arrivals: Iterator[Json]) -> Iterator[str]:
    """Give the id of each message that the Graph API took, again for each time it did."""
    for arrival in arrivals:
        if arrival["wamid"] is not None:
            yield json.loads(b64decode(arrival["body"])).get("biz_opaque_callback_data", "")


@define(eq=False)
class GatewayProcess:
    """The gateway in a process of its own."""

    _child: Child
    health_url: str
    metrics_url: str

    @classmethod
    def start(cls, log_file: Path, environment: Mapping[str, str]) -> GatewayProcess:
        """Start it, and return when it consumes.  Raises `DemoFailed`."""
        with log_file.open("wb") as output:
            child = Child.start([*_TWISTD, "whatsapp-egress"], environment, output)
        _wait(child, lambda: _ports(log_file) is not None, "The gateway", log_file)
        health_port, metrics_port = _ports(log_file) or (0, 0)
        gateway = cls(child, f"http://127.0.0.1:{health_port}", f"http://127.0.0.1:{metrics_port}")
        _wait(child, gateway.ready, "The gateway", log_file)
        return gateway

    def ready(self) -> bool:
        """Whether it consumes messages."""
        try:
            ask(self.health_url, "GET", "/health/ready")
        except (OSError, DemoFailed):
            return False
        return True

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._child.running

    def stop(self) -> int:
        """Have it drain and end; return its exit status."""
        return self._child.terminate(2 * STOP_TIMEOUT)


def _ports(log_file: Path) -> tuple[int, int] | None:
    for line in log_file.read_bytes().splitlines():
        if b'"service_started"' in line:
            event = json.loads(line)
            return event["healthPort"], event["metricsPort"]
    return None


def _wait(child: Child, ready: Callable[[], bool], name: str, log_file: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while not ready():
        ended = not child.running
        if ended or time.monotonic() > deadline:
            child.kill()
            problem = "ended while starting" if ended else f"was not ready in {START_TIMEOUT:.0f} s"
            raise DemoFailed(f"{name} {problem}; {log_file} ends with:\n{_tail(log_file)}")
        time.sleep(0.05)


def _tail(log_file: Path) -> str:
    return log_file.read_text(errors="replace")[-1500:].strip()


@define(eq=False)
class Queues:
    """The broker as the systems before and after the gateway see it."""

    _settings: Settings
    _connection: Any
    _channel: Any
    _dead_letters: Any = None
    _ours: list[int] = field(factory=list)

    @classmethod
    def open(cls, settings: Settings) -> Queues:
        """Connect where the gateway connects to.  Raises `DemoFailed`."""
        tls = None
        if settings.rabbitmq_tls:
            roots = None if settings.rabbitmq_ca_file is None else str(settings.rabbitmq_ca_file)
            tls = pika.SSLOptions(ssl.create_default_context(cafile=roots), settings.rabbitmq_host)
        parameters = pika.ConnectionParameters(
            host=settings.rabbitmq_host,
            port=settings.rabbitmq_port,
            virtual_host=settings.rabbitmq_vhost,
            credentials=pika.PlainCredentials(settings.rabbitmq_user, settings.rabbitmq_password),
            ssl_options=tls,
        )
        try:
            connection = pika.BlockingConnection(parameters)
        except (pika.exceptions.AMQPError, OSError) as error:
            where = f"{settings.rabbitmq_host}:{settings.rabbitmq_port}"
            raise DemoFailed(f"RabbitMQ at {where} cannot be used: {error!r}") from error
        channel = connection.channel()
        channel.confirm_delivery()
        return cls(settings, connection, channel)

    def __enter__(self) -> Queues:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # Ctrl-C may have left pika in the middle of something: its connection then ends with the process.
        if kind is None or issubclass(kind, Exception):
            self.close()

    def refuse_if_in_use(self) -> None:
        """Raise `DemoFailed` if the queue holds messages or is consumed: they would be somebody's own."""
        queue = self._settings.rabbitmq_queue
        channel = self._connection.channel()
        try:
            found = channel.queue_declare(queue, passive=True).method
        except pika.exceptions.ChannelClosedByBroker:
            return  # there is none yet
        channel.close()
        if found.message_count or found.consumer_count:
            raise DemoFailed(
                f"The queue {queue} of this broker holds {found.message_count} messages and has"
                f" {found.consumer_count} consumers: the demo would send them, or lose its own to them."
                " Set RABBITMQ_QUEUE and RABBITMQ_EXCHANGE to names of the demo's own, or another"
                " RABBITMQ_VHOST."
            )

    def publish(self, tenant: str, message: bytes) -> None:
        """Publish as the systems before the gateway do; return when the broker has confirmed it."""
        self._channel.basic_publish(
            self._settings.rabbitmq_exchange,
            f"outbound.processed.{tenant}",
            message,
            pika.BasicProperties(content_type="application/json", delivery_mode=2),
            mandatory=True,
        )

    def on_dead_letter(self, receive: Callable[[bytes, Mapping[str, Any]], bool]) -> None:
        """Call *receive* with body and headers of each dead letter; what it returns says whether it is ours.

        They all stay in their queue until `remove_dead_letters`.
        """

        def received(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
            if receive(body, properties.headers or {}):
                self._ours.append(method.delivery_tag)

        self._dead_letters = self._connection.channel()
        self._dead_letters.basic_consume(DEAD_LETTERS, received)

    def remove_dead_letters(self) -> None:
        """Take those that are ours out of their queue; the broker puts the others back."""
        for tag in self._ours:
            self._dead_letters.basic_ack(tag)
        self._ours.clear()

    def look(self, seconds: float) -> None:
        """Take in what arrives during *seconds*."""
        self._connection.process_data_events(time_limit=seconds)

    def queued(self, tenants: Iterable[str]) -> list[bytes]:
        """Return what is in the queue, and in the deferred queues of `tenants`; it stays there."""
        deferred = [deferred_queue(Place(tenant, first)) for tenant in tenants for first in (True, False)]
        return [body for name in (self._settings.rabbitmq_queue, *deferred) for body in self._read(name)]

    def _read(self, queue: str) -> list[bytes]:
        channel = self._connection.channel()
        bodies: list[bytes] = []
        try:
            while True:
                method, _, body = channel.basic_get(queue)
                if method is None:
                    channel.close()
                    return bodies
                bodies.append(body)
        except pika.exceptions.ChannelClosedByBroker:
            return []  # there is none

    def close(self) -> None:
        """Disconnect."""
        if self._connection.is_open:
            self._connection.close()
