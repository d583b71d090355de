"""The twistd plugin: what it says, where it logs, how a bad start ends."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.application.service import Application, IService, MultiService
from twisted.logger import ILogObserver
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress import __version__, tap

STUB = """
from twisted.application.service import MultiService
from twisted.internet import defer
from twisted.logger import Logger
import logging

class Egress(MultiService):
    def __init__(self, reactor, settings, redactor, tracing):
        super().__init__()
        self.reactor, self.redactor = reactor, redactor

    def startService(self):
        super().startService()
        log = Logger("whatsapp_egress.stub")
        log.debug("too_quiet")
        log.info("service_started", note="s3cret-password", to="919876543210")
        self.redactor.know("token-of-a-tenant")
        print("printed token-of-a-tenant")
        logging.getLogger("pika.connection").error("closed by %s", "s3cret-password")
        defer.setDebugging(True)
        def fail(local="inner-value"):
            raise ValueError("no token-of-a-tenant")
        defer.maybeDeferred(fail).addErrback(lambda failure: log.failure("task_failed", failure))
        self.reactor.callLater(STAY, self.reactor.stop)
"""


class Twistd(SynchronousTestCase):
    """Runs twistd with a stand-in for the service."""

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def environ(self, **settings: str) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TENANT_SERVICE_URL": "http://127.0.0.1:9",
            "RABBITMQ_PASSWORD": "s3cret-password",
            **settings,
        }

    def twistd(self, *arguments: str, stay: float = 0, **settings: str) -> "subprocess.CompletedProcess[str]":
        """Run twistd to its end. The service stops the reactor after `stay` seconds."""
        start = (
            "import sys, types\n"
            "stub = types.ModuleType('whatsapp_egress.service')\n"
            f"exec({STUB!r}.replace('STAY', '{stay}'), stub.__dict__)\n"
            "sys.modules['whatsapp_egress.service'] = stub\n"
            "from twisted.scripts.twistd import run\n"
            "sys.argv[0] = 'twistd'\n"
            "run()\n"
        )
        return subprocess.run(
            [sys.executable, "-c", start, *arguments],
            cwd=self.folder,
            env=self.environ(**settings),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


class StartTests(Twistd):
    def test_help_lists_the_settings_without_any_of_them_set(self) -> None:
        ended = self.twistd("whatsapp-egress", "--help", TENANT_SERVICE_URL="")

        assert (ended.returncode, ended.stderr) == (0, "")
        assert "META_API_MAX_CONNECTIONS_PER_TENANT" in ended.stdout

    def test_version_is_that_of_the_package(self) -> None:
        assert self.twistd("whatsapp-egress", "--version").stdout == f"whatsapp-egress {__version__}\n"

    def test_bad_settings_end_it_with_status_1_and_one_message_on_standard_error(self) -> None:
        for mode in (["-n"], []):
            ended = self.twistd(*mode, "whatsapp-egress", TENANT_SERVICE_URL="", RABBITMQ_PORT="x")

            assert (ended.returncode, ended.stdout) == (1, "")
            first, *faults, _ = ended.stderr.splitlines()
            assert first == "whatsapp-egress can't start: 2 settings are wrong or missing."
            assert [fault.split()[1] for fault in faults] == ["RABBITMQ_PORT", "TENANT_SERVICE_URL"]

    def test_bad_settings_leave_no_file_behind(self) -> None:
        self.twistd("whatsapp-egress", TENANT_SERVICE_URL="")

        assert list(self.folder.iterdir()) == []

    def test_an_argument_is_refused(self) -> None:
        assert self.twistd("-n", "whatsapp-egress", "extra").returncode == 1


class LogTests(Twistd):
    def test_in_the_foreground_every_line_of_standard_output_is_json(self) -> None:
        ended = self.twistd("-n", "whatsapp-egress")

        assert (ended.returncode, ended.stderr) == (0, "")
        assert {line["service"] for line in lines(ended.stdout)} == {"whatsapp-egress"}
        (started,) = [line for line in lines(ended.stdout) if line["event"] == "service_started"]
        assert (started["level"], started["version"]) == ("INFO", __version__)

    def test_secrets_and_phone_numbers_are_nowhere_in_it(self) -> None:
        output = self.twistd("-n", "whatsapp-egress").stdout

        for secret in ("s3cret-password", "token-of-a-tenant", "inner-value", "919876543210"):
            assert secret not in output
        assert "printed [REDACTED]" in output
        assert "closed by [REDACTED]" in output
        assert "***3210" in output

    def test_phone_numbers_are_shown_when_asked_for(self) -> None:
        assert "919876543210" in self.twistd("-n", "whatsapp-egress", LOG_PII="yes").stdout

    def test_the_level_is_the_least_that_is_logged(self) -> None:
        quiet, loud = (
            self.twistd("-n", "whatsapp-egress", LOG_LEVEL=level).stdout for level in ("error", "debug")
        )

        assert {line["level"] for line in lines(quiet)} == {"ERROR", "CRITICAL"}
        assert "too_quiet" in {line["event"] for line in lines(loud)}

    def test_the_encoding_of_the_terminal_does_not_matter(self) -> None:
        ended = self.twistd("-n", "whatsapp-egress", PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")

        assert "service_started" in ended.stdout

    def test_a_log_file_gets_the_same_lines(self) -> None:
        ended = self.twistd("-n", "--logfile=x.log", "whatsapp-egress")

        assert (ended.returncode, ended.stdout) == (0, "")
        assert "service_started" in {
            line["event"] for line in lines((self.folder / "x.log").read_text("utf-8"))
        }

    def test_a_logger_of_ones_own_takes_the_place(self) -> None:
        ended = self.twistd("-n", "--logger=twisted.logger.STDLibLogObserver", "whatsapp-egress")

        assert (ended.returncode, "service_started" in ended.stdout) == (0, False)

    def test_in_the_background_it_logs_to_twistd_log_and_rotates_when_told(self) -> None:
        started = self.twistd("--pidfile=x.pid", "whatsapp-egress", stay=60)
        assert started.returncode == 0
        pid, log = int((self.folder / "x.pid").read_text()), self.folder / "twistd.log"
        try:
            until(lambda: "task_failed" in log.read_text("utf-8"))
            os.kill(pid, signal.SIGUSR1)
            until((self.folder / "twistd.log.1").exists)
        finally:
            os.kill(pid, signal.SIGTERM)
        until(lambda: log.exists() and "Server Shut Down" in log.read_text("utf-8"))
        assert len(lines(log.read_text("utf-8"))) > 0

    def test_a_daemon_can_not_log_to_standard_output(self) -> None:
        ended = self.twistd("--logfile=-", "whatsapp-egress")

        assert (ended.returncode, ended.stderr) == (1, "A daemon can't log to standard output.\n")


def until(seen: Any) -> None:
    deadline = time.monotonic() + 30
    while not seen():
        assert time.monotonic() < deadline, "it was not seen within 30 s"
        time.sleep(0.02)


class InProcessTests(SynchronousTestCase):
    def log_file(self) -> str:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        return os.path.join(folder, "x.log")

    def options(self, **environ: str) -> tap.Options:
        self.patch(os, "environ", {"TENANT_SERVICE_URL": "http://t", **environ})
        options = tap.Options()
        options.parseOptions([])
        return options

    def made(self, twistd: dict[str, Any]) -> IService:
        self.patch(tap, "forward_stdlib_logging", lambda: self.forwarded.append(True))
        self.forwarded: list[bool] = []
        stub = SimpleNamespace(Egress=lambda reactor, settings, redactor, tracing: MultiService())
        self.patch(sys, "modules", {**sys.modules, "whatsapp_egress.service": stub})
        options = self.options()
        options.parent = twistd  # type: ignore[assignment]
        return tap.makeService(options)

    def test_the_options_bring_the_settings(self) -> None:
        assert self.options(RABBITMQ_PREFETCH="3")["settings"].rabbitmq_prefetch == 3

    def test_bad_settings_are_a_system_exit_with_the_message(self) -> None:
        with pytest.raises(SystemExit, match="HTTP_BIND"):
            self.options(HTTP_BIND="x")

    def test_the_application_gets_the_observer(self) -> None:
        application = Application("whatsapp-egress")
        self.made({"nodaemon": True, "logfile": self.log_file()}).setServiceParent(application)

        assert ILogObserver.providedBy(application.getComponent(ILogObserver))
        assert self.forwarded

    def test_the_service_can_be_part_of_another(self) -> None:
        parent = MultiService()
        service = self.made({"nodaemon": True, "logfile": self.log_file()})
        service.setServiceParent(parent)

        assert list(parent) == [service]

    def test_with_a_logger_of_ones_own_twistd_keeps_it(self) -> None:
        application = Application("whatsapp-egress")
        self.made({"logger": print}).setServiceParent(application)

        assert application.getComponent(ILogObserver, None) is None
        assert not self.forwarded

    def test_syslog_gets_the_lines_without_their_ends(self) -> None:
        sent: list[str] = []
        self.patch(tap.syslog, "openlog", sent.append)
        self.patch(tap.syslog, "syslog", sent.append)
        write = tap.log_destination({"syslog": True, "prefix": "egress"})
        assert write is not None
        write('{"é":1}\n'.encode())

        assert sent == ["egress", '{"é":1}']

    def test_standard_output_gets_each_line_at_once(self) -> None:
        octets = io.BytesIO()
        self.patch(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(octets), encoding="ascii"))
        for twistd in ({}, {"nodaemon": True}, {"nodaemon": True, "logfile": "-"}):
            write = tap.log_destination(twistd)
            assert write is not None
            write("é\n".encode())

        assert octets.getvalue() == "é\né\né\n".encode()

    def test_a_log_file_gets_the_octets(self) -> None:
        path = self.log_file()
        write = tap.log_destination({"nodaemon": True, "logfile": path})
        assert write is not None
        write("é\n".encode())

        assert Path(path).read_text("utf-8") == "é\n"

    def test_the_usage_has_the_settings(self) -> None:
        assert "RABBITMQ_HOST" in self.options().getUsage()

    def test_somebody_elses_rotation_signal_is_left_alone(self) -> None:
        before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        try:
            tap.log_destination({"nodaemon": True, "logfile": self.log_file()})
            assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGUSR1, before)
