"""A private RabbitMQ node for tests and demos, which is gone when its owner is gone."""

from __future__ import annotations

import atexit
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pika
from attrs import define

from whatsapp_egress.sandbox.children import Child
from whatsapp_egress.sandbox.rabbitmq_node import (
    HOST,
    MEMORY_LIMIT,
    BrokerUnavailable,
    Node,
    TlsFiles,
    find_epmd,
    find_server,
)

__all__ = ["HOST", "BrokerUnavailable", "PrivateBroker", "TlsFiles"]

USER = PASSWORD = "guest"  # noqa: S105 - RabbitMQ's own default, which it accepts from loopback only
START_TIMEOUT = 90.0  # seconds; 5-10 are usual, the rest is for a loaded machine
STOP_TIMEOUT = 30.0

_PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
_METHOD_FRAME = b"\x01"


@define(eq=False)
class PrivateBroker:
    """A RabbitMQ node of one's own, on 127.0.0.1, with user guest and vhost ``/``.

    Made by `start`.  Its own epmd and its own ports, name and folder keep it apart from every other node of
    the machine.  It is a context manager that closes it, and at the latest the interpreter's exit does.
    Everything here blocks.
    """

    _node: Node
    _server_script: Path
    _environ: Mapping[str, str]
    _owns_folder: bool
    _epmd: Child | None = None
    _server: Child | None = None

    @classmethod
    def start(
        cls,
        folder: Path | None = None,
        tls: TlsFiles | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> PrivateBroker:
        """Start a node and return it ready to be used, or raise `BrokerUnavailable`.

        A *folder* that is given is made if missing and kept; without one, a temporary folder is removed by
        `close`.  With *tls* there is an AMQPS listener, too.  *environ* may name the script to run in
        ``RABBITMQ_SERVER``.
        """
        script = find_server(environ)
        owns_folder = folder is None
        folder = Path(tempfile.mkdtemp(prefix="whatsapp-egress-rabbitmq-")) if folder is None else folder
        folder.mkdir(parents=True, exist_ok=True)
        broker = cls(Node(folder.resolve(), tls), script, dict(environ), owns_folder)
        atexit.register(broker.close)
        try:
            broker._node.write_files()
            broker.start_again()
        except BaseException:
            broker.close()
            raise
        return broker

    def __enter__(self) -> PrivateBroker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """Where the node keeps its data, configuration and logs."""
        return self._node.folder

    @property
    def log_file(self) -> Path:
        """Where the node logs."""
        return self.folder / "log" / "node.log"

    @property
    def port(self) -> int:
        """The AMQP port on 127.0.0.1; the same after `start_again`."""
        return self._node.amqp.number

    @property
    def tls_port(self) -> int:
        """The AMQPS port on 127.0.0.1; only with `TlsFiles` does anybody listen there."""
        return self._node.amqps.number

    @property
    def url(self) -> str:
        """The AMQP URL, with user and password."""
        return f"amqp://{USER}:{PASSWORD}@{HOST}:{self.port}/{quote('/', safe='')}"

    @property
    def running(self) -> bool:
        """Whether the node's process is there."""
        return self._server is not None and self._server.running

    def settings(self) -> dict[str, str]:
        """Return the environment variables that lead the gateway to this broker."""
        return {
            "RABBITMQ_HOST": HOST,
            "RABBITMQ_PORT": str(self.port),
            "RABBITMQ_USER": USER,
            "RABBITMQ_PASSWORD": PASSWORD,
            "RABBITMQ_VHOST": "/",
        }

    def start_again(self) -> None:
        """Start the stopped or killed node on the same ports and data; return when it takes connections."""
        if self.running:
            return
        self.kill()
        environment = self._node.environment(self._environ)
        epmd = [find_epmd(self._environ), "-port", str(self._node.epmd.number)]
        with (self.folder / "startup.log").open("ab") as output:
            self._epmd = Child.start(epmd, environment, output)
            self._wait_until(self._epmd, lambda: _accepts(self._node.epmd.number), "epmd")
            remove = self.folder if self._owns_folder else None
            self._server = Child.start([str(self._server_script)], environment, output, remove)
        self._wait_until(self._server, lambda: _speaks_amqp(self.port), "RabbitMQ")

    def stop(self) -> None:
        """Stop the node gracefully; it is killed if that takes longer than `STOP_TIMEOUT`."""
        if self._server is not None:
            self._server.terminate(STOP_TIMEOUT)
        self.kill()

    def kill(self) -> None:
        """End the node with SIGKILL, as a power cut would."""
        # epmd after the node, which would start another one in its place.
        for child in (self._server, self._epmd):
            if child is not None:
                child.kill()
        self._server = self._epmd = None

    def close(self) -> None:
        """Stop for good: give the ports back and remove the temporary folder.  May be called twice."""
        self.stop()
        atexit.unregister(self.close)
        self._node.release()
        if self._owns_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def ctl(self, *arguments: str) -> str:
        """Return what ``rabbitmqctl`` prints for *arguments*; takes about half a second.

        Raises `BrokerUnavailable` when it fails or the node does not run.
        """
        if not self.running:
            raise BrokerUnavailable(f"rabbitmqctl {arguments[0]}: the node does not run.")
        done = subprocess.run(
            [str(self._server_script.with_name("rabbitmqctl")), "--silent", *arguments],
            env=self._node.environment(self._environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise BrokerUnavailable(f"rabbitmqctl {arguments[0]}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def write_ctl(self, path: Path) -> None:
        """Make *path* a script that is ``rabbitmqctl`` for this node."""
        environment = self._node.environment(self._environ)
        own = {name: value for name, value in environment.items() if self._environ.get(name) != value}
        words = [f"{name}={value}" for name, value in sorted(own.items())]
        command = ["env", *words, str(self._server_script.with_name("rabbitmqctl"))]
        path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        path.chmod(0o755)

    def add_user(
        self, name: str, password: str, configure: str = ".*", write: str = ".*", read: str = ".*"
    ) -> None:
        """Add a user whose rights in vhost ``/`` are the three patterns; an empty one allows nothing."""
        self.ctl("add_user", name, password)
        self.set_permissions(name, configure, write, read)

    def set_permissions(self, name: str, configure: str, write: str, read: str) -> None:
        """Change a user's rights in vhost ``/`` to the three patterns; an empty one allows nothing."""
        self.ctl("set_permissions", name, configure or "^$", write or "^$", read or "^$")

    def close_connections(self, reason: str = "closed by force") -> None:
        """Have the node close all its clients' connections (320 CONNECTION_FORCED)."""
        self.ctl("close_all_connections", reason)

    def set_memory_alarm(self, on: bool) -> None:
        """Raise or clear the memory alarm, which blocks every connection that publishes."""
        self.ctl("set_vm_memory_high_watermark", *(["0"] if on else ["absolute", MEMORY_LIMIT]))

    def connect(self) -> Any:
        """Return a new blocking pika connection as guest."""
        return pika.BlockingConnection(pika.URLParameters(self.url))

    def queue_depth(self, name: str) -> int:
        """Return how many messages of queue *name* are ready; those a consumer holds are not counted."""
        connection = self.connect()
        try:
            answer = connection.channel().queue_declare(name, passive=True)
            return int(answer.method.message_count)
        finally:
            connection.close()

    def _wait_until(self, child: Child, ready: Callable[[], bool], name: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not ready():
            ended = not child.running
            if ended or time.monotonic() > deadline:
                said = (self.folder / "startup.log").read_text(errors="replace")[-2000:].strip()
                self.kill()
                problem = "ended while starting" if ended else f"was not ready in {START_TIMEOUT:.0f} s"
                raise BrokerUnavailable(f"{name} {problem}. It said:\n{said}")
            time.sleep(0.05)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _speaks_amqp(port: int) -> bool:
    try:
        with socket.create_connection((HOST, port), timeout=5) as connection:
            connection.sendall(_PROTOCOL_HEADER)
            return connection.recv(1) == _METHOD_FRAME
    except OSError:
        return False
