"""The options of twistd, and the process as a user starts it."""

import os
import signal
import sys
from pathlib import Path

import msgspec
import pytest
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, HTTPConnectionPool, ResponseNeverReceived

from tests.sandbox.served import eventually
from whatsapp_egress.sandbox.tap import Options, makeService


def options(*words):
    parsed = Options()
    parsed.parseOptions(words)
    return parsed


class OptionsTests(SynchronousTestCase):
    def test_by_default_there_are_eight_tenants_on_two_ports(self):
        parsed = options()

        assert [each.id for each in parsed["directory"]][:2] == ["acme", "bravo"]
        assert (len(parsed["directory"]), parsed["graph-port"], parsed["tenant-port"]) == (8, 8480, 8481)

    def test_with_tls_the_port_is_another(self):
        assert options("--tls")["graph-port"] == 8443

    def test_a_bad_number_is_refused(self):
        for words in (["--graph-port", "x"], ["--tenant-port", "65536"], ["--tenants", "-1"]):
            with pytest.raises(UsageError):
                options(*words)

    def test_tenants_come_from_a_file(self):
        path = Path(self.mktemp())
        path.write_text('[{"tenantId": "t1", "phoneNumberId": "5", "token": "x"}]')

        (tenant,) = options("--tenants-file", str(path))["directory"]
        assert (tenant.id, tenant.phone_number_id, tenant.token) == ("t1", "5", "x")

    def test_a_bad_file_is_named(self):
        for text in ("{", "[{}]", '[{"tenantId": "t", "odd": 1}]', '[{"tenantId": "t", "token": 1}]'):
            path = Path(self.mktemp())
            path.write_text(text)

            with pytest.raises(UsageError, match=path.name):
                options("--tenants-file", str(path))

    def test_a_missing_file_is_named(self):
        with pytest.raises(UsageError, match="nowhere"):
            options("--tenants-file", "nowhere")

    def test_the_service_has_what_the_options_say(self):
        sandbox = makeService(options("--tenants", "2", "--app-secret", "s", "--record-limit", "7"))

        assert len(sandbox.tenants) == 2
        assert (sandbox.api.app_secret, sandbox.record.limit) == ("s", 7)

    def test_with_tls_the_authority_is_written(self):
        folder = Path(self.mktemp())
        makeService(options("--tls", "--tls-dir", str(folder)))

        assert (folder / "ca.pem").read_text().startswith("-----BEGIN CERTIFICATE-----")


class _Process(ProcessProtocol):
    def __init__(self):
        self.ended = Deferred()
        self.output = b""

    def childDataReceived(self, _fd, data):
        self.output += data

    def processEnded(self, reason):
        self.ended.callback(reason.value.signal or reason.value.exitCode)


class ProcessTests(TestCase):
    timeout = 60

    async def test_twistd_serves_and_ends_cleanly_with_a_request_hanging(self):
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        ports_file = folder / "ports.json"
        twistd = str(Path(sys.executable).with_name("twistd"))
        words = ["-n", "--pidfile=", "whatsapp-sandbox", "--graph-port=0", "--tenant-port=0"]
        process = _Process()
        child = reactor.spawnProcess(
            process,
            twistd,
            [twistd, *words, f"--ports-file={ports_file}"],
            env=dict(os.environ),
            path=str(folder),
        )
        await eventually(lambda: ports_file.exists() or process.ended.called)
        assert ports_file.exists(), process.output.decode()
        urls = msgspec.json.decode(ports_file.read_bytes())
        client = HTTPClient(Agent(reactor, pool=HTTPConnectionPool(reactor, persistent=False)))
        response = await client.put(f"{urls['tenants']}/_control/tenants/acme", data=b'{"mode": "hang"}')
        await response.content()
        # twistd ends itself by the signal that stopped it, once everything is closed.
        hanging = client.get(f"{urls['tenants']}/api/v1/tenants/acme/credentials?type=whatsapp")
        ended = hanging.addErrback(lambda failure: failure.trap(ResponseNeverReceived))
        asked = 0
        while not asked:
            summary = await client.get(f"{urls['tenants']}/_control/summary")
            asked = (await summary.json())["tenant_service"]["count"]
        child.signalProcess(signal.SIGTERM)

        assert await process.ended in {0, signal.SIGTERM}, process.output.decode()
        assert b"Server Shut Down" in process.output
        assert not ports_file.exists()
        await ended
