"""The systemd unit: its secrets, its time to drain, and what systemd itself says of it."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path

from tests.deploy.ways import DECLARED, GATEWAY, ROOT, SECRETS, WayTestCase, assignments, run, tool

UNIT = ROOT / "deploy" / "systemd" / "whatsapp-egress.service"
ENVIRONMENT = ROOT / "deploy" / "systemd" / "environment.example"
EXPOSURE = 1.5
"""Most that `systemd-analyze security` may say, of 10; up to 2 it calls OK."""


def directives() -> dict[str, list[str]]:
    found = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        if line and line[0] not in "#[":
            name, value = line.split("=", 1)
            found[name].append(value)
    return found


class UnitTests(WayTestCase):
    def setUp(self) -> None:
        self.unit = directives()

    def test_it_starts_what_the_image_starts(self) -> None:
        program, *arguments = self.unit["ExecStart"][0].split()
        assert [Path(program).name, *arguments] == GATEWAY

    def test_every_credential_is_a_secret_given_as_a_file(self) -> None:
        loaded = dict(value.split(":", 1) for value in self.unit["LoadCredential"])
        given = dict(value.split("=", 1) for value in self.unit["Environment"])
        assert {f"%d/{credential}" for credential in loaded} == set(given.values())
        for name, path in given.items():
            assert name.removesuffix("_FILE") in SECRETS
            assert path == "%d/" + name.removesuffix("_FILE").lower().replace("_", "-")

    def test_its_settings_are_taken_and_leave_it_time_to_drain(self) -> None:
        secrets = dict(value.split("=", 1) for value in self.unit["Environment"])
        settings = self.settings({**assignments(ENVIRONMENT.read_text()), **secrets})
        patience = float(self.unit["TimeoutStopSec"][0].removesuffix("s"))
        self.assert_time_to_drain(patience, settings)
        assert settings.http_bind == "127.0.0.1"

    def test_what_the_example_suggests_would_be_taken_too(self) -> None:
        suggested = re.sub(r"(?m)^#(?=[A-Z_]+=)", "", ENVIRONMENT.read_text())
        assert len(assignments(suggested)) > len(assignments(ENVIRONMENT.read_text()))
        self.settings(assignments(suggested))

    def test_it_may_listen_on_the_default_ports_and_no_others(self) -> None:
        assert self.unit["SocketBindDeny"] == ["any"]
        assert self.unit["SocketBindAllow"] == [
            f"tcp:{DECLARED[name].default}" for name in ("HEALTH_CHECK_PORT", "PROMETHEUS_PORT")
        ]

    def test_it_is_confined(self) -> None:
        for name, value in {
            "DynamicUser": "yes",
            "NoNewPrivileges": "yes",
            "ProtectSystem": "strict",
            "CapabilityBoundingSet": "",
            "PrivateTmp": "yes",
            "ProtectHome": "yes",
            "SystemCallArchitectures": "native",
            "Restart": "on-failure",
        }.items():
            assert self.unit[name] == [value], name
        assert self.unit["SystemCallFilter"] == ["@system-service", "~@privileged @resources"]
        assert int(self.unit["MemoryHigh"][0].removesuffix("M")) < int(
            self.unit["MemoryMax"][0].removesuffix("M")
        )

    def test_what_would_break_it_is_not_asked_for(self) -> None:
        # cffi's callbacks, which verify Meta's certificate, need a page that is writable and executable.
        assert "MemoryDenyWriteExecute" not in self.unit
        # /proc/stat has the time of the start, which the process_* metrics need.
        assert "ProcSubset" not in self.unit


class SystemdTests(WayTestCase):
    """What systemd says; it need not run for that."""

    def setUp(self) -> None:
        analyze = shutil.which("systemd-analyze")
        if analyze is None:
            self.skipTest("systemd-analyze is not installed")
        self.analyze = str(analyze)
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        # A program that is there, for systemd looks for it.
        self.unit = folder / UNIT.name
        self.unit.write_text(UNIT.read_text().replace("/opt/whatsapp-egress/bin/twistd", str(tool("twistd"))))

    def test_the_unit_is_without_fault(self) -> None:
        judged = run(self.analyze, "verify", "--man=no", self.unit)
        assert (judged.returncode, judged.stdout, judged.stderr) == (0, "", "")

    def test_it_is_exposed_as_little_as_the_docs_say(self) -> None:
        judged = run(self.analyze, "security", "--offline=true", "--no-pager", self.unit)
        found = re.search(r"Overall exposure level for \S+: ([\d.]+)", judged.stdout)
        assert found, judged.stderr
        assert float(found[1]) <= EXPOSURE
