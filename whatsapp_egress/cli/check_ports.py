"""Checks the ports to listen on: free, or a gateway's already."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from hyperlink import URL
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.web.http_headers import Headers

from whatsapp_egress.cli.findings import Finding, failed, ok
from whatsapp_egress.clients.http import HttpClient
from whatsapp_egress.clients.tls import trust
from whatsapp_egress.errors import NoReply, NotConnected
from whatsapp_egress.settings import Settings

_PATIENCE = 3.0
"""Seconds for whoever listens there to say who it is."""


async def port_findings(reactor: Any, settings: Settings) -> list[Finding]:
    """Try HEALTH_CHECK_PORT and PROMETHEUS_PORT."""
    wanted = (
        ("HEALTH_CHECK_PORT", settings.health_check_port, "health/live", b'"alive"'),
        ("PROMETHEUS_PORT", settings.prometheus_port, "metrics", b"messages_consumed_total"),
    )
    return [
        await _port(reactor, settings.http_bind, name, port, path, mark) for name, port, path, mark in wanted
    ]


async def _port(reactor: Any, bind: str, name: str, port: int, path: str, mark: bytes) -> Finding:
    if port == 0:
        return ok(name, "0: takes a free port, and logs which")
    try:
        listening = reactor.listenTCP(port, Factory(), interface=bind)
    except CannotListenError as error:
        if await _is_a_gateway(reactor, bind, port, path, mark):
            return ok(name, f"{port} on {bind} is served by a gateway already")
        reason = error.socketError.strerror if isinstance(error.socketError, OSError) else str(error)
        return failed(
            name,
            f"{port} on {bind} can't be listened on: {reason}",
            f"Set {name} or HTTP_BIND to something else, or end what listens there.",
        )
    await listening.stopListening()
    return ok(name, f"{port} on {bind} is free")


async def _is_a_gateway(reactor: Any, bind: str, port: int, path: str, mark: bytes) -> bool:
    address = ip_address(bind)
    if address.is_unspecified:
        address = ip_address("::1" if address.version == 6 else "127.0.0.1")
    host = f"[{address}]" if address.version == 6 else str(address)
    client = HttpClient.over(reactor, trust(None, platform=True), timeout=_PATIENCE, most_idle=1)
    try:
        url = URL.from_text(f"http://{host}:{port}/{path}")
        reply = await client.exchange("GET", url, Headers())
    except (NotConnected, NoReply):
        return False
    finally:
        await client.close()
    return reply.status == 200 and mark in reply.body
