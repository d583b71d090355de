"""What is left to try when the demo stays up: where everything is, and commands to paste."""

from __future__ import annotations

import secrets
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from whatsapp_egress.sandbox.demo_parts import GatewayProcess, SandboxProcess
from whatsapp_egress.sandbox.fates import internal_id_of, the_eight
from whatsapp_egress.sandbox.screen import Screen
from whatsapp_egress.settings import Settings

RABBITMQCTL = "rabbitmqctl"
"""The script in the demo's folder that speaks to its own RabbitMQ."""

_LOOK_INTERVAL = 0.4


def write_token(folder: Path) -> Path:
    """Make a token for the control API, in a file that nobody else can read; return its whole path."""
    path = (folder / "admin-token").resolve()
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(f"{secrets.token_hex(24)}\n")
    return path


def leftovers(
    settings: Settings, sandbox: SandboxProcess, gateway: GatewayProcess, folder: Path, token_file: Path
) -> Iterator[str]:
    """Give the lines that say where everything is, and what can be tried with it."""
    graph = sandbox.graph_url
    yield ""
    yield "It all stays up until Ctrl-C:"
    yield f"  the page        {gateway.health_url}/"
    yield f"  health          {gateway.health_url}/health"
    yield f"  metrics         {gateway.metrics_url}/metrics"
    yield f"  Graph API       {graph}"
    yield f"  Tenant Service  {sandbox.tenants_url}"
    broker = f"{settings.rabbitmq_host}:{settings.rabbitmq_port}"
    yield f"  RabbitMQ        {broker}, vhost {settings.rabbitmq_vhost}"
    yield ""
    yield "To steer it, in another terminal; the first three lines once:"
    yield from (f"  {line}" for line in steering(gateway, token_file))
    yield ""
    yield "To try:"
    yield f"  tail -f {folder / 'egress.log'}"
    yield f"  curl -s {graph}/_control/summary"
    yield f"  curl -s -X PUT {graph}/_control/behaviour/100000001 -d '{{\"failure_rate\": 0.3}}'"
    rabbitmqctl = folder / RABBITMQCTL
    if rabbitmqctl.exists():
        yield f"  {rabbitmqctl} stop_app     (and start_app: RabbitMQ away, and back)"
    yield f"  {publish_command(settings, folder)}"


def steering(gateway: GatewayProcess, token_file: Path) -> list[str]:
    """Return shell commands that ask and tell the gateway."""
    first, tenant = _one_more()[0], the_eight()[0].tenant
    return [
        f"export EGRESS_URL={gateway.health_url}",
        f"export ADMIN_TOKEN_FILE={shlex.quote(str(token_file))}",
        f"alias whatsapp-egress={shlex.quote(f'{shlex.quote(sys.executable)} -m whatsapp_egress.cli')}",
        "whatsapp-egress lanes",
        "whatsapp-egress pause bravo --reason 'to see it' --for 5m",
        "whatsapp-egress dead-letters list --limit 5",
        f"whatsapp-egress why {first} --tenant {tenant}     (after the last command below)",
    ]


def publish_command(settings: Settings, folder: Path) -> str:
    """Return a command that sends one more message; a password that is a real one is left out."""
    message = folder / "message.json"
    message.write_bytes(_one_more()[1])
    password = "guest" if settings.rabbitmq_password == "guest" else "PASSWORD"  # noqa: S105
    scheme = "amqps" if settings.rabbitmq_tls else "amqp"
    url = (
        f"{scheme}://{quote(settings.rabbitmq_user, safe='')}:{password}@{settings.rabbitmq_host}"
        f":{settings.rabbitmq_port}/{quote(settings.rabbitmq_vhost, safe='')}"
    )
    return (
        f'{sys.executable} -c "import pika; pika.BlockingConnection(pika.URLParameters({url!r})).channel()'
        f".basic_publish({settings.rabbitmq_exchange!r}, 'outbound.processed.{the_eight()[0].tenant}',"
        f" open({str(message)!r}, 'rb').read())\""
    )


def _one_more() -> tuple[str, bytes]:
    body = next(the_eight()[0].messages("more"))[1]
    return internal_id_of(body), body


def stay(gateway: GatewayProcess, screen: Screen) -> None:
    """Return on Ctrl-C, or when the gateway has ended."""
    with suppress(KeyboardInterrupt):
        while gateway.running:
            time.sleep(_LOOK_INTERVAL)
        screen.say("The gateway has ended.")
