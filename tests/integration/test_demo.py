import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import TestCase, mock
from urllib.request import urlopen

import pytest
from attrs import evolve
from rich.console import Console

from tests.integration.rabbit import Publisher, the_broker
from whatsapp_egress.sandbox import demo
from whatsapp_egress.sandbox.demo_parts import (
    DemoFailed,
    GatewayProcess,
    SandboxProcess,
    ask,
    without_settings,
)
from whatsapp_egress.sandbox.demo_stay import publish_command
from whatsapp_egress.sandbox.fates import Fate, the_eight
from whatsapp_egress.settings import Settings

QUICK = ("acme", "delta", "nobody", "grove")


class DemoTests(TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.broker = the_broker()
        self.upstream = Publisher(self.broker)
        self.addCleanup(self.upstream.close)
        self.upstream.clean()
        self.environ = {**without_settings(os.environ), **self.broker.settings()}
        self.written = io.StringIO()

    def fates(self, *tenants: str) -> list[Fate]:
        shorter = {"grove": {"lasts": 2.0}}
        return [
            evolve(fate, **shorter.get(fate.tenant, {})) for fate in the_eight() if fate.tenant in tenants
        ]

    def play(self, fates: list[Fate], **more: Any) -> int:
        console = Console(file=self.written, width=140)
        return demo.run(fates, self.environ, self.folder, console, **more)

    def said(self) -> str:
        return self.written.getvalue()

    def test_every_fate_ends_as_foretold(self) -> None:
        status = self.play(self.fates(*QUICK))
        assert "140 published = 100 sent + 40 dead-lettered (auth_failed 10, " in self.said()
        assert (status, "NOT AS IT" in self.said()) == (0, False), self.said()
        assert len(json.loads((self.folder / "dead-letters.json").read_text())) == 40

    def test_its_dead_letters_are_taken_away_and_others_stay(self) -> None:
        channel = self.upstream.channel
        channel.exchange_declare("whatsapp-dlx", "topic", durable=True)
        channel.queue_declare("outbound-failed", durable=True)
        channel.queue_bind("outbound-failed", "whatsapp-dlx", "outbound.failed")
        channel.basic_publish("whatsapp-dlx", "outbound.failed", b"somebody else's")
        self.play(self.fates("nobody"))
        assert [letter.body for _, letter in self.upstream.take("outbound-failed")] == [b"somebody else's"]

    def test_another_end_than_the_foretold_one_fails(self) -> None:
        [nobody] = self.fates("nobody")
        status = self.play([evolve(nobody, dead_lettered={"expired": 30})])
        assert status == 1
        assert "nobody: foretold were 0 sent, 30 dead-lettered (expired 30)" in self.said()

    def test_messages_that_do_not_end_are_found_in_the_queue(self) -> None:
        [acme] = self.fates("acme")
        stuck = evolve(acme, behaviour={"mode": "html", "http_status": 503})
        with mock.patch.object(demo, "PATIENCE", 1.0):
            status = self.play([stuck])
        assert status == 1
        assert "60 published = 0 sent + 0 dead-lettered + 60 still queued + 0 missing" in self.said()

    def test_it_refuses_a_queue_that_holds_messages(self) -> None:
        channel = self.upstream.channel
        channel.queue_declare("outbound-processed", durable=True)
        channel.basic_publish("", "outbound-processed", b"somebody else's")
        with pytest.raises(DemoFailed, match="holds 1 messages and has 0 consumers"):
            self.play(self.fates("acme"))
        assert self.upstream.depth("outbound-processed") == 1

    def test_a_broker_that_is_away_is_told(self) -> None:
        self.environ["RABBITMQ_PORT"] = "1"
        with pytest.raises(DemoFailed, match=r"RabbitMQ at 127\.0\.0\.1:1 cannot be used"):
            self.play(self.fates("acme"))

    def test_with_keep_it_stays_until_ctrl_c_and_says_where_everything_is(self) -> None:
        ctrl_c = mock.PropertyMock(side_effect=KeyboardInterrupt)
        with mock.patch.object(GatewayProcess, "running", ctrl_c):
            status = self.play(self.fates("nobody"), keep=True)
        assert status == 0, self.said()
        assert "It all stays up until Ctrl-C:" in self.said()
        assert self.upstream.depth("outbound-failed") == 30

    def test_with_keep_the_commands_to_paste_and_the_addresses_work(self) -> None:
        token_file = self.folder / "admin-token"
        found: dict[str, str] = {}

        def try_them(_: GatewayProcess) -> bool:
            said = self.said()
            for name in ("the page", "metrics"):
                (url,) = re.findall(rf"{name} +(http\S+)", said)
                with urlopen(url) as answer:
                    found[name] = answer.read().decode()
            block = said.partition("the first three lines once:\n")[2].partition("\n\n")[0]
            lines = [line.strip().partition("     (")[0] for line in block.splitlines()]
            # bash without a terminal expands aliases only when it is told to.
            done = subprocess.run(
                ["bash", "-O", "expand_aliases"],
                input="\n".join(lines),
                capture_output=True,
                text=True,
                check=False,
            )
            found["commands"] = done.stdout + done.stderr
            raise KeyboardInterrupt

        with mock.patch.object(GatewayProcess, "running", property(try_them)):
            status = self.play(self.fates("nobody"), keep=True)
        assert status == 0, self.said()
        assert token_file.stat().st_mode & 0o777 == 0o600
        assert "<html" in found["the page"]
        assert "whatsapp_egress_up_info" in found["metrics"]
        for said in (
            "bravo is paused until",
            "tenant_not_found",
            "... and 25 more that match.",
            "Not in hand",
        ):
            assert said in found["commands"], found["commands"]

    def test_the_command_to_publish_one_more_works(self) -> None:
        settings = Settings.from_environment({**self.environ, "TENANT_SERVICE_URL": "http://127.0.0.1:1"})
        channel = self.upstream.channel
        channel.exchange_declare("whatsapp-exchange", "topic", durable=True)
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "whatsapp-exchange", "outbound.processed.#")
        subprocess.run(["/bin/sh", "-c", publish_command(settings, self.folder)], check=True)
        assert self.upstream.depth(queue) == 1


class WholeDemoTests(TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def start(self, **environ: str) -> subprocess.Popen[str]:
        # As a terminal starts it: whoever runs the tests in the background has them ignore SIGINT.
        listening = ["env", "--default-signal=INT"]
        return subprocess.Popen(
            [*listening, sys.executable, "-m", "whatsapp_egress.sandbox.demo"],
            env={**os.environ, **environ},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def test_without_rabbitmq_it_says_what_to_do(self) -> None:
        process = self.start(RABBITMQ_SERVER="/nowhere")
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "apt-get install rabbitmq-server" in errors

    def test_ctrl_c_and_sigterm_stop_everything_that_it_started(self) -> None:
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
            process = self.start()
            assert process.stdout is not None
            while "Publishing" not in process.stdout.readline():
                assert process.poll() is None
            process.send_signal(number)
            process.communicate(timeout=60)
            assert process.returncode == status
            assert _processes_in(self.folder) == []


class PartsTests(TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def test_settings_of_the_gateway_are_left_out_of_the_environment(self) -> None:
        environ = {"META_APP_SECRET": "x", "RABBITMQ_PASSWORD_FILE": "/x", "PATH": "/bin"}
        assert without_settings(environ) == {"PATH": "/bin"}

    def test_a_sandbox_that_does_not_start_is_told_with_its_log(self) -> None:
        with pytest.raises(DemoFailed, match="The sandbox ended while starting"):
            SandboxProcess.start(self.folder, {"PYTHONHOME": "/nowhere"})

    def test_an_answer_other_than_200_is_told(self) -> None:
        sandbox = SandboxProcess.start(self.folder, os.environ)
        self.addCleanup(sandbox.stop)
        with pytest.raises(DemoFailed, match="was answered 404"):
            ask(sandbox.graph_url, "GET", "/_control/nothing")


def _processes_in(folder: Path) -> list[str]:
    """What runs with the folder as its working directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found
