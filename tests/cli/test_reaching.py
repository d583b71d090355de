from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import trustme
from twisted.internet import reactor
from twisted.internet.ssl import KeyPair, PrivateCertificate
from twisted.web.server import Site

from tests.cli.stand_in import TOKEN, WithStandIn
from tests.cli.terminal import run
from whatsapp_egress import __version__

NO_LANES = {"lanes": []}


def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


class Reaching(WithStandIn):
    async def test_it_asks_with_the_token_and_says_who_it_is(self) -> None:
        self.on("GET", "/lanes", NO_LANES)
        ended = await self.cli("lanes")
        assert (ended.status, ended.err) == (0, "")
        (call,) = self.gateway.calls
        assert call.headers["authorization"] == f"Bearer {TOKEN}"
        assert call.headers["user-agent"] == f"whatsapp-egress/{__version__}"

    async def test_the_port_of_the_settings_is_where_it_asks_if_nobody_says_otherwise(self) -> None:
        self.on("GET", "/lanes", NO_LANES)
        port = self.url.rpartition(":")[2]
        assert (await run("lanes", HEALTH_CHECK_PORT=port, ADMIN_TOKEN=TOKEN)).status == 0
        assert (await run("lanes", "--url", self.url, HEALTH_CHECK_PORT="x", ADMIN_TOKEN=TOKEN)).status == 0
        bad = await run("lanes", HEALTH_CHECK_PORT="x", ADMIN_TOKEN=TOKEN)
        assert bad.status == 2
        assert "HEALTH_CHECK_PORT" in bad.err
        any_port = await run("lanes", HEALTH_CHECK_PORT="0", ADMIN_TOKEN=TOKEN)
        assert any_port.status == 2
        assert "--url" in any_port.err

    async def test_the_token_may_be_in_a_file(self) -> None:
        self.on("GET", "/lanes", NO_LANES)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        file = Path(folder.name, "token")
        file.write_text(f"{TOKEN}\n")
        assert (await self.cli("lanes", ADMIN_TOKEN="", ADMIN_TOKEN_FILE=file)).status == 0
        ended = await self.cli("lanes", ADMIN_TOKEN="", ADMIN_TOKEN_FILE=f"{file}.gone")
        assert ended.status == 4
        assert "ADMIN_TOKEN_FILE" in ended.err

    async def test_without_a_token_it_asks_nobody(self) -> None:
        ended = await self.cli("lanes", ADMIN_TOKEN="")
        assert ended.status == 4
        assert "Set ADMIN_TOKEN" in ended.err
        assert self.gateway.calls == []

    async def test_a_wrong_token_is_told_and_never_shown(self) -> None:
        ended = await self.cli("lanes", "--json", ADMIN_TOKEN="another-token-altogether")
        assert (ended.status, ended.out) == (4, "")
        assert "refused the token" in ended.err
        assert "another-token" not in ended.err

    async def test_a_gateway_without_a_control_api_is_told(self) -> None:
        self.refuse("GET", "/lanes", 404, "not_enabled", "Set ADMIN_TOKEN.")
        ended = await self.cli("lanes")
        assert ended.status == 4
        assert "not enabled" in ended.err

    async def test_nobody_at_the_address(self) -> None:
        url = nobody()
        ended = await self.cli("lanes", "--url", url)
        assert (ended.status, ended.out) == (3, "")
        assert f"No gateway can be reached at {url}" in ended.err
        assert "Traceback" not in ended.err

    async def test_somebody_else_at_the_address(self) -> None:
        for status, body in ((404, b"<html>"), (200, b"hello"), (302, {}), (500, b"")):
            self.on("GET", "/lanes", body, status)
            ended = await self.cli("lanes")
            assert ended.status == 3, ended
            assert "no gateway with a control API" in ended.err

    async def test_a_gateway_without_its_broker(self) -> None:
        self.refuse("GET", "/dead-letters", 503, "broker_away", "RabbitMQ can't be reached; try again.")
        ended = await self.cli("dead-letters", "list")
        assert ended.status == 3
        assert "RabbitMQ can't be reached" in ended.err

    async def test_what_the_gateway_does_not_understand_is_told_in_its_words(self) -> None:
        self.refuse("GET", "/lanes/acme", 400, "bad_request", "There is no such thing.")
        ended = await self.cli("lanes", "acme")
        assert ended.status == 2
        assert "There is no such thing." in ended.err

    async def test_an_answer_for_very_many_tenants_is_taken(self) -> None:
        lanes = [
            {"tenantId": f"tenant-{n}", "state": "idle", "trouble": 0, "note": "x" * 500} for n in range(4000)
        ]
        self.on("GET", "/lanes", {"lanes": lanes})
        ended = await self.cli("lanes", "--json")
        assert len(ended.document["lanes"]) == 4000

    async def test_an_unencrypted_way_is_warned_of(self) -> None:
        ended = await self.cli("lanes", "--url", "http://gateway.invalid:8081")
        assert ended.status == 3
        assert "unencrypted" in ended.err

    async def test_an_address_that_is_none(self) -> None:
        for url in ("localhost:8081", "ftp://x", "http://user:pw@host", ""):
            ended = await self.cli("lanes", f"--url={url}")
            assert ended.status == 2, url
            assert "http:// or https:// address" in ended.err
            assert "pw" not in ended.err


class OverTls(WithStandIn):
    async def test_the_certificate_is_verified(self) -> None:
        authority = trustme.CA()
        made = authority.issue_cert("127.0.0.1", "localhost")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        trusted = Path(folder.name, "ca.pem")
        authority.cert_pem.write_to_path(trusted)
        pem = made.private_key_and_cert_chain_pem.bytes()
        certificate = PrivateCertificate.loadPEM(pem)
        assert isinstance(certificate.privateKey, KeyPair)
        port = reactor.listenSSL(0, Site(self.gateway), certificate.options(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.on("GET", "/lanes", NO_LANES)
        url = f"https://localhost:{port.getHost().port}"
        refused = await self.cli("lanes", "--url", url)
        assert refused.status == 3
        assert "certificate" in refused.err
        assert self.gateway.calls == []
        assert (await self.cli("lanes", "--url", url, "--ca-file", str(trusted))).status == 0
