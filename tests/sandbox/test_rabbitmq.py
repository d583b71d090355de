import os
import socket
import stat
import tempfile
from pathlib import Path
from unittest import TestCase

import pytest

from whatsapp_egress.sandbox.rabbitmq import BrokerUnavailable, PrivateBroker, TlsFiles
from whatsapp_egress.sandbox.rabbitmq_node import HOST, HeldPort, Node, find_epmd, find_server


class InFolder(TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def script(self, path: str, text: str = "exit 0") -> Path:
        script = self.folder / path
        script.parent.mkdir(parents=True, exist_ok=True)
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)
        return script


class FindingTests(InFolder):
    def test_the_script_named_in_the_environment_is_taken(self) -> None:
        script = self.script("mine/rabbitmq-server")
        assert find_server({"RABBITMQ_SERVER": str(script)}) == script

    def test_a_named_script_that_is_missing_is_told(self) -> None:
        with pytest.raises(BrokerUnavailable, match="RABBITMQ_SERVER is '/nowhere'"):
            find_server({"RABBITMQ_SERVER": "/nowhere"})

    def test_a_known_place_goes_before_the_path(self) -> None:
        place, wrapper = self.script("lib/rabbitmq-server"), self.script("sbin/rabbitmq-server")
        self.script("lib/rabbitmqctl")
        self.script("sbin/rabbitmqctl")
        assert find_server({"PATH": str(wrapper.parent)}, (str(place.parent),)) == place

    def test_the_path_is_searched(self) -> None:
        script = self.script("bin/rabbitmq-server")
        self.script("bin/rabbitmqctl")
        assert find_server({"PATH": f":/nowhere:{script.parent}"}, ()) == script

    def test_a_server_without_rabbitmqctl_is_passed_over(self) -> None:
        script = self.script("bin/rabbitmq-server")
        with pytest.raises(BrokerUnavailable):
            find_server({"PATH": str(script.parent)}, ())

    def test_without_rabbitmq_it_says_what_to_install(self) -> None:
        with pytest.raises(BrokerUnavailable, match="apt-get install rabbitmq-server"):
            find_server({"PATH": str(self.folder)}, ())

    def test_epmd_is_found_in_the_path(self) -> None:
        epmd = self.script("bin/epmd")
        assert find_epmd({"PATH": str(epmd.parent)}) == str(epmd)

    def test_epmd_is_found_in_erlang_s_folder(self) -> None:
        epmd = self.script("erts-13.1/bin/epmd")
        assert find_epmd({"PATH": "/nowhere"}, self.folder) == str(epmd)

    def test_without_epmd_it_says_what_to_install(self) -> None:
        with pytest.raises(BrokerUnavailable, match="epmd was not found"):
            find_epmd({"PATH": "/nowhere"}, self.folder)


class HeldPortTests(TestCase):
    def setUp(self) -> None:
        self.port = HeldPort()
        self.addCleanup(self.port.release)

    def listen(self, reuse: bool) -> None:
        with socket.socket() as listener:
            if reuse:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((HOST, self.port.number))
            listener.listen()

    def test_one_that_reuses_addresses_can_listen_there(self) -> None:
        self.listen(reuse=True)

    def test_others_cannot(self) -> None:
        with pytest.raises(OSError, match="Address already in use"):
            self.listen(reuse=False)

    def test_nobody_is_given_it(self) -> None:
        taken = [HeldPort() for _ in range(200)]
        for port in taken:
            self.addCleanup(port.release)
        assert self.port.number not in [port.number for port in taken]

    def test_after_the_release_others_can(self) -> None:
        self.port.release()
        self.listen(reuse=False)


class NodeTests(InFolder):
    def node(self, tls: TlsFiles | None = None) -> Node:
        node = Node(self.folder, tls)
        self.addCleanup(node.release)
        node.write_files()
        return node

    def test_the_cookie_is_for_the_owner_only(self) -> None:
        self.node()
        mode = (self.folder / ".erlang.cookie").stat().st_mode
        assert stat.S_IMODE(mode) == 0o400

    def test_the_cookie_stays_when_the_files_are_written_again(self) -> None:
        node = self.node()
        cookie = (self.folder / ".erlang.cookie").read_text()
        node.write_files()
        assert (self.folder / ".erlang.cookie").read_text() == cookie

    def test_it_listens_on_loopback_only(self) -> None:
        node = self.node()
        listeners = [
            line.split(" = ")[1]
            for line in (self.folder / "rabbitmq.conf").read_text().splitlines()
            if line.startswith("listeners.")
        ]
        assert listeners == [f"127.0.0.1:{node.amqp.number}"]

    def test_tls_files_are_named_in_the_configuration(self) -> None:
        node = self.node(TlsFiles(Path("/ca.pem"), Path("/cert.pem"), Path("/key.pem")))
        configuration = (self.folder / "rabbitmq.conf").read_text()
        for expected in (f"listeners.ssl.1 = 127.0.0.1:{node.amqps.number}", "certfile = /cert.pem"):
            assert expected in configuration

    def test_what_leads_to_other_nodes_is_left_out(self) -> None:
        others = {"RABBITMQ_NODENAME": "rabbit@prod", "RABBITMQ_NODE_PORT": "5672", "ERL_FLAGS": "-x"}
        environment = self.node().environment({**others, "LANG": "C"})
        assert environment["RABBITMQ_NODENAME"] == "private@localhost"
        assert not {"RABBITMQ_NODE_PORT", "ERL_FLAGS"} & set(environment)
        assert environment["LANG"] == "C"

    def test_the_ports_differ(self) -> None:
        node = self.node()
        ports = (node.amqp, node.amqps, node.distribution, node.epmd)
        assert len({port.number for port in ports}) == 4


class FailingStartTests(InFolder):
    def start(self, server: str) -> None:
        script = self.script("rabbitmq-server", server)
        self.script("bin/epmd", 'exec python3 -m http.server --bind 127.0.0.1 "$2"')
        path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
        PrivateBroker.start(self.folder / "node", environ={"RABBITMQ_SERVER": str(script), "PATH": path})

    def test_a_node_that_ends_while_starting_is_told_with_what_it_said(self) -> None:
        with pytest.raises(BrokerUnavailable, match=r"RabbitMQ ended while starting(.|\n)*no memory left"):
            self.start("echo no memory left; exit 1")

    def test_a_folder_that_was_given_is_kept(self) -> None:
        with pytest.raises(BrokerUnavailable):
            self.start("exit 1")
        assert (self.folder / "node" / "rabbitmq.conf").exists()
