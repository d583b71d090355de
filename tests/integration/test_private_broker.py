import ssl
import subprocess
import tempfile
import unittest
from pathlib import Path

import pika
import pika.exceptions
import pytest

from whatsapp_egress.sandbox.rabbitmq import BrokerUnavailable, PrivateBroker, TlsFiles
from whatsapp_egress.sandbox.tls import Authority

PATIENCE = 20.0


class PrivateBrokerTests(unittest.TestCase):
    broker: PrivateBroker
    tls: TlsFiles

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.tls = _tls_files(Path(folder.name))
        cls.broker = PrivateBroker.start(tls=cls.tls)
        cls.addClassCleanup(cls.broker.close)

    def channel(self, parameters: pika.connection.Parameters | None = None) -> pika.channel.Channel:
        connection = pika.BlockingConnection(parameters or pika.URLParameters(self.broker.url))
        self.addCleanup(lambda: connection.is_open and connection.close())
        return connection.channel()

    def queue(self, name: str, messages: int) -> None:
        channel = self.channel()
        channel.confirm_delivery()
        channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
        self.addCleanup(lambda: self.channel().queue_delete(name))
        for _ in range(messages):
            channel.basic_publish("", name, b"x", pika.BasicProperties(delivery_mode=2))
        channel.connection.close()

    def test_durable_messages_survive_a_stop_and_a_kill(self) -> None:
        self.queue("durable", 3)
        port = self.broker.port
        for end in (self.broker.stop, self.broker.kill):
            end()
            assert not self.broker.running
            with pytest.raises(pika.exceptions.AMQPConnectionError):
                self.channel()
            self.broker.start_again()
            assert (self.broker.port, self.broker.queue_depth("durable")) == (port, 3)

    def test_starting_what_runs_changes_nothing(self) -> None:
        channel = self.channel()
        self.broker.start_again()
        channel.queue_declare("", exclusive=True)

    def test_a_script_that_is_its_rabbitmqctl_can_be_written(self) -> None:
        self.queue("told-of", 0)
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "rabbitmqctl"
            self.broker.write_ctl(script)
            said = subprocess.run([str(script), "-q", "list_queues", "name"], capture_output=True, check=True)
        assert b"told-of" in said.stdout

    def test_connections_are_closed_by_force(self) -> None:
        channel = self.channel()
        self.broker.close_connections("for a test")
        with pytest.raises(pika.exceptions.ConnectionClosedByBroker, match="for a test"):
            channel.connection.process_data_events(time_limit=PATIENCE)

    def test_the_memory_alarm_blocks_who_publishes(self) -> None:
        channel = self.channel()
        blocked: list[str] = []
        channel.connection.add_on_connection_blocked_callback(lambda *_: blocked.append("blocked"))
        channel.connection.add_on_connection_unblocked_callback(lambda *_: blocked.append("unblocked"))
        channel.queue_declare("alarmed", exclusive=True)
        self.broker.set_memory_alarm(True)
        channel.basic_publish("", "alarmed", b"x")
        channel.connection.process_data_events(time_limit=2.0)
        self.broker.set_memory_alarm(False)
        channel.connection.process_data_events(time_limit=2.0)
        assert blocked == ["blocked", "unblocked"]

    def test_a_user_has_the_rights_it_was_given(self) -> None:
        self.queue("readable", 1)
        self.broker.add_user("reader", "secret", configure="", write="", read="readable")
        parameters = pika.ConnectionParameters(
            "127.0.0.1", self.broker.port, "/", pika.PlainCredentials("reader", "secret")
        )
        assert self.channel(parameters).basic_get("readable")[0] is not None
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
            self.channel(parameters).queue_declare("mine")

    def test_the_tls_listener_shows_the_certificate(self) -> None:
        context = ssl.create_default_context(cafile=str(self.tls.ca))
        parameters = pika.ConnectionParameters(
            "127.0.0.1", self.broker.tls_port, ssl_options=pika.SSLOptions(context, "localhost")
        )
        self.channel(parameters).queue_declare("", exclusive=True)

    def test_a_command_that_fails_is_told(self) -> None:
        with pytest.raises(BrokerUnavailable, match="rabbitmqctl delete_user: "):
            self.broker.ctl("delete_user", "nobody")

    def test_the_settings_lead_to_it(self) -> None:
        assert self.broker.settings()["RABBITMQ_PORT"] == str(self.broker.port)

    def test_two_run_side_by_side_and_one_that_is_closed_leaves_nothing(self) -> None:
        with PrivateBroker.start() as other:
            other.connect().close()
            assert other.port != self.broker.port
            assert other.log_file.exists()
            assert len(_processes_of(other.folder)) >= 2
        assert not other.folder.exists()
        assert _processes_of(other.folder) == []
        with pytest.raises(BrokerUnavailable, match="does not run"):
            other.ctl("status")
        self.broker.connect().close()


def _tls_files(folder: Path) -> TlsFiles:
    issued = Authority.create().issue()
    files = TlsFiles(folder / "ca.pem", folder / "certificate.pem", folder / "key.pem")
    files.ca.write_bytes(issued.ca_pem)
    files.certificate.write_bytes(issued.certificate_pem)
    files.key.write_bytes(issued.key_pem)
    return files


def _processes_of(folder: Path) -> list[int]:
    """Those whose home the folder is."""
    home = f"HOME={folder}\0".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if home in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found
