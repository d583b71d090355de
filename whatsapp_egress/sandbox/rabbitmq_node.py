"""What a private RabbitMQ node is started with: scripts, ports, files and environment."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

HOST = "127.0.0.1"
MEMORY_LIMIT = "1GiB"

_PLACES = ("/usr/lib/rabbitmq/bin", "/opt/homebrew/sbin", "/usr/local/sbin", "/opt/rabbitmq/sbin")
_ERLANG = Path("/usr/lib/erlang")
_FOREIGN = ("RABBITMQ_", "ERL_", "RUNNING_UNDER_SYSTEMD", "NOTIFY_SOCKET")
_INSTALL = (
    "Debian and Ubuntu: apt-get install rabbitmq-server; Fedora: dnf install rabbitmq-server; "
    "macOS: brew install rabbitmq; others: https://www.rabbitmq.com/docs/download. "
    "If it is installed already, set RABBITMQ_SERVER to the path of its script rabbitmq-server"
)


class BrokerUnavailable(Exception):
    """RabbitMQ cannot be found, does not start or does not do as told; the text says what to do."""


@frozen
class TlsFiles:
    """PEM files of a TLS listener: trust roots, the server's certificate and its key."""

    ca: Path
    certificate: Path
    key: Path


class HeldPort:
    """A TCP port of 127.0.0.1 that nobody else gets while it is held.

    On Linux a socket that is bound but does not listen keeps the kernel from giving the port away, and still
    lets one that sets SO_REUSEADDR, as Erlang's do, listen there.  Elsewhere the port is merely free when
    chosen.
    """

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((HOST, 0))
        self.number: int = self._socket.getsockname()[1]
        if not sys.platform.startswith("linux"):
            self._socket.close()

    def release(self) -> None:
        """Let others have the port.  May be called twice."""
        self._socket.close()


def find_server(environ: Mapping[str, str], places: tuple[str, ...] = _PLACES) -> Path:
    """Return the path of the script ``rabbitmq-server``, or raise `BrokerUnavailable`.

    The *places* come before PATH: what Debian has in ``/usr/sbin`` is a wrapper that changes the user and
    writes to the system's folders.
    """
    named = environ.get("RABBITMQ_SERVER")
    if named:
        if Path(named).is_file():
            return Path(named)
        raise BrokerUnavailable(f"RABBITMQ_SERVER is {named!r}, which is no file. {_INSTALL}.")
    for place in (*places, *filter(None, environ.get("PATH", "").split(os.pathsep))):
        script = Path(place) / "rabbitmq-server"
        if script.is_file() and script.with_name("rabbitmqctl").exists():
            return script
    raise BrokerUnavailable(f"No rabbitmq-server was found. {_INSTALL}.")


def find_epmd(environ: Mapping[str, str], erlang: Path = _ERLANG) -> str:
    """Return the path of Erlang's port mapper daemon, or raise `BrokerUnavailable`."""
    found = shutil.which("epmd", path=environ.get("PATH"))
    beside = sorted(erlang.glob("erts-*/bin/epmd"))
    if found is None and not beside:
        raise BrokerUnavailable(f"Erlang's epmd was not found in PATH. {_INSTALL}.")
    return found or str(beside[-1])


@frozen
class Node:
    """A node's folder and ports, and what is made of them."""

    folder: Path
    tls: TlsFiles | None
    amqp: HeldPort = field(factory=HeldPort)
    amqps: HeldPort = field(factory=HeldPort)
    distribution: HeldPort = field(factory=HeldPort)
    epmd: HeldPort = field(factory=HeldPort)

    def release(self) -> None:
        """Give the ports back."""
        for port in (self.amqp, self.amqps, self.distribution, self.epmd):
            port.release()

    def write_files(self) -> None:
        """Write the configuration, and the cookie unless it is there."""
        cookie = self.folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(secrets.token_hex(20))
            cookie.chmod(0o400)
        # Without an own, empty one, the scripts read the system's /etc/rabbitmq/rabbitmq-env.conf.
        (self.folder / "rabbitmq-env.conf").write_text("")
        (self.folder / "enabled_plugins").write_text("[].\n")
        (self.folder / "advanced.config").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text("\n".join([*self._configuration(), ""]))

    def _configuration(self) -> list[str]:
        lines = [
            f"listeners.tcp.1 = {HOST}:{self.amqp.number}",
            f"vm_memory_high_watermark.absolute = {MEMORY_LIMIT}",
            "disk_free_limit.absolute = 10MB",
            "raft.wal_max_size_bytes = 67108864",
            "log.console = false",
            "log.file = node.log",
        ]
        if self.tls is not None:
            lines += [
                f"listeners.ssl.1 = {HOST}:{self.amqps.number}",
                f"ssl_options.cacertfile = {self.tls.ca}",
                f"ssl_options.certfile = {self.tls.certificate}",
                f"ssl_options.keyfile = {self.tls.key}",
                "ssl_options.verify = verify_none",
                "ssl_options.fail_if_no_peer_cert = false",
            ]
        return lines

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return *environ* without what speaks of other nodes and with what leads to this one."""
        loopback_only = "-start_epmd false -kernel inet_dist_use_interface {127,0,0,1}"
        return {name: value for name, value in environ.items() if not name.startswith(_FOREIGN)} | {
            "HOME": str(self.folder),  # where Erlang looks for its cookie
            "ERL_EPMD_PORT": str(self.epmd.number),
            "ERL_EPMD_ADDRESS": HOST,
            "RABBITMQ_NODENAME": "private@localhost",  # unique, for the epmd that knows it is our own
            "RABBITMQ_DIST_PORT": str(self.distribution.number),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "rabbitmq-env.conf"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S 2:2 {loopback_only}",
            "RABBITMQ_CTL_ERL_ARGS": loopback_only,
            "RUNNING_UNDER_SYSTEMD": "true",  # the script then becomes the node instead of waiting for it
        }
