"""The images and the compose file, as far as they can be judged without an engine."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from attrs import frozen
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.deploy.ways import DECLARED, GATEWAY, ROOT, WayTestCase, documents, run, tool
from whatsapp_egress.sandbox.tap import Options as SandboxOptions

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCKERFILE = ROOT / "docker" / "Dockerfile"
REQUIREMENTS = ROOT / "docker" / "requirements.txt"
COMPOSE = ROOT / "docker" / "compose.yml"

PINNED = re.compile(r"[a-z0-9./-]+:v?\d+\.\d+\.\d+(-[a-z0-9.]+)*")
LOOPBACK = re.compile(r"127\.0\.0\.1:\d+:(\d+)")


@frozen
class Step:
    """One instruction of a Dockerfile."""

    name: str
    value: str

    @property
    def words(self) -> list[str]:
        """The exec form, which needs no shell."""
        words = json.loads(self.value)
        assert all(isinstance(word, str) for word in words)
        return list(words)


def stages() -> dict[str, list[Step]]:
    """The instructions of each stage, its FROM first; later ones begin with those that they are built on."""
    found: dict[str, list[Step]] = {}
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        step = Step(*line.split(maxsplit=1))
        if step.name == "FROM":
            base, _, name = step.value.split()
            found[name] = list(found.get(base, []))
        found[name].append(step)
    return found


def last(steps: list[Step], name: str) -> Step:
    return [step for step in steps if step.name == name][-1]


def probe(steps: list[Step]) -> list[str]:
    return Step("CMD", last(steps, "HEALTHCHECK").value.partition(" CMD ")[2]).words


class DockerfileTests(WayTestCase):
    def setUp(self) -> None:
        self.stages = stages()

    def test_hadolint_finds_nothing(self) -> None:
        judged = run(tool("hadolint"), DOCKERFILE)
        assert (judged.returncode, judged.stdout) == (0, "")

    def test_the_gateway_is_what_is_built_without_a_target(self) -> None:
        assert list(self.stages)[-1] == "gateway"
        assert last(self.stages["gateway"], "ENTRYPOINT").words == GATEWAY

    def test_images_from_elsewhere_are_pinned_and_the_same_python_throughout(self) -> None:
        bases = {
            step.value.split()[0] for steps in self.stages.values() for step in steps if step.name == "FROM"
        }
        (base,) = bases - set(self.stages)
        assert PINNED.fullmatch(base)
        python = Version(base.partition(":")[2].partition("-")[0])
        assert f"--python-version {python.major}.{python.minor} " in REQUIREMENTS.read_text()
        assert any(
            step.value.endswith(f"base.name=docker.io/library/{base}") for step in self.stages["runtime"]
        )

    def test_whoever_runs_it_is_a_number_and_not_root(self) -> None:
        for name in ("gateway", "sandbox"):
            user, group = last(self.stages[name], "USER").value.split(":")
            assert int(user) >= 10000
            assert int(group) >= 10000

    def test_it_is_told_to_end_by_the_signal_that_drains(self) -> None:
        assert last(self.stages["gateway"], "STOPSIGNAL").value == "SIGTERM"

    def test_what_is_copied_is_there_and_goes_to_the_engine(self) -> None:
        rules = (ROOT / ".dockerignore").read_text().splitlines()
        kept = {rule[1:] for rule in rules if rule.startswith("!")}
        copied = {
            source
            for steps in self.stages.values()
            for step in steps
            if step.name == "COPY" and "--from=" not in step.value
            for source in shlex.split(step.value)[:-1]
        }
        assert "*" in rules
        assert copied == kept
        for source in copied:
            assert (ROOT / source).exists(), source

    def test_its_environment_and_its_ports_are_those_of_the_settings(self) -> None:
        environment = dict(
            pair.split("=", 1)
            for step in self.stages["gateway"]
            if step.name == "ENV"
            for pair in shlex.split(step.value)
        )
        del environment["PATH"]
        settings = self.settings({**environment, "TENANT_SERVICE_URL": "http://tenants.example"})
        exposed = {int(port) for port in last(self.stages["gateway"], "EXPOSE").value.split()}
        assert exposed == {settings.health_check_port, settings.prometheus_port}
        assert {str(port) for port in exposed} == {
            DECLARED[name].default for name in ("HEALTH_CHECK_PORT", "PROMETHEUS_PORT")
        }

    def test_the_sandbox_is_started_with_options_it_has_and_shows_the_ports_it_has(self) -> None:
        steps = self.stages["sandbox"]
        *twistd, service = last(steps, "ENTRYPOINT").words
        assert (twistd, service) == (GATEWAY[:-1], "whatsapp-sandbox")
        options = SandboxOptions()
        options.parseOptions(last(steps, "CMD").words)
        exposed = {int(port) for port in last(steps, "EXPOSE").value.split()}
        assert exposed == {options["graph-port"], options["tenant-port"]}
        assert f"'127.0.0.1', {options['tenant-port']}" in probe(steps)[-1]

    def test_every_requirement_is_pinned_with_digests_and_as_the_package_wants_it(self) -> None:
        entries = re.split(r"\n(?=[a-z])", re.sub(r"(?m)^ *#.*\n", "", REQUIREMENTS.read_text()))
        pinned = {}
        for entry in entries:
            assert "--hash=sha256:" in entry
            requirement = Requirement(entry.partition("\\")[0].strip())
            (only,) = requirement.specifier
            assert only.operator == "=="
            pinned[canonicalize_name(requirement.name)] = only.version
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        # The image can't be added to later: what traces need is in it.
        for wanted in map(Requirement, project["dependencies"] + project["optional-dependencies"]["otel"]):
            if wanted.marker is None or wanted.marker.evaluate({"python_version": "3.13"}):
                assert wanted.specifier.contains(pinned[canonicalize_name(wanted.name)]), wanted


class ProbeTests(WayTestCase):
    """The command of HEALTHCHECK, run as an engine runs it."""

    def healthy(self, port: int) -> bool:
        python, *arguments = probe(stages()["gateway"])
        assert python == "python"
        # A proxy that would answer for everybody must not be asked.
        environment = {"HEALTH_CHECK_PORT": str(port), "http_proxy": "http://127.0.0.1:9"}
        ended = run(sys.executable, *arguments, env=environment)
        assert ended.returncode in (0, 1)
        return ended.returncode == 0

    def test_it_is_healthy_while_the_gateway_runs_though_the_broker_is_away(self) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "TENANT_SERVICE_URL": "http://127.0.0.1:9",
            "RABBITMQ_HOST": "127.0.0.1",
            "RABBITMQ_PORT": "9",
            "HEALTH_CHECK_PORT": "0",
            "PROMETHEUS_PORT": "0",
        }
        gateway = subprocess.Popen(
            [str(tool("twistd")), *GATEWAY[1:]], env=environment, stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(gateway.stdout.close)  # type: ignore[union-attr]
        self.addCleanup(gateway.wait, 30)
        self.addCleanup(gateway.kill)
        events = map(json.loads, gateway.stdout)  # type: ignore[arg-type]
        started = next(event for event in events if event["event"] == "service_started")

        assert self.healthy(started["healthPort"])
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(30) == 0
        assert not self.healthy(started["healthPort"])

    def test_an_answer_other_than_200_is_unhealthy(self) -> None:
        serve = (
            "import http.server\n"
            "class Handler(http.server.BaseHTTPRequestHandler):\n"
            "    def do_GET(self):\n"
            "        self.send_error(503)\n"
            "server = http.server.HTTPServer(('127.0.0.1', 0), Handler)\n"
            "print(server.server_port, flush=True)\n"
            "server.handle_request()\n"
        )
        server = subprocess.Popen(
            [sys.executable, "-c", serve], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.addCleanup(server.stdout.close)  # type: ignore[union-attr]
        self.addCleanup(server.wait, 30)
        self.addCleanup(server.kill)
        port = int(server.stdout.readline())  # type: ignore[union-attr]

        assert not self.healthy(port)
        assert server.wait(30) == 0  # it was asked


class ComposeTests(WayTestCase):
    @cached_property
    def compose(self) -> dict[str, Any]:
        (document,) = documents(COMPOSE)
        return document

    @cached_property
    def services(self) -> dict[str, Any]:
        return dict(self.compose["services"])

    def test_it_is_what_the_compose_specification_allows(self) -> None:
        judged = run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", COMPOSE)
        assert judged.returncode == 0, judged.stdout

    def test_images_are_pinned_or_built_here_from_a_stage_there_is(self) -> None:
        for name, service in self.services.items():
            if "build" in service:
                build = service["build"]
                assert (COMPOSE.parent / build["context"]).resolve() == ROOT
                assert (ROOT / build["dockerfile"]) == DOCKERFILE
                assert build["target"] == name
                assert name in stages()
            else:
                assert PINNED.fullmatch(service["image"]), service["image"]

    def test_nothing_is_published_beyond_this_machine(self) -> None:
        for service in self.services.values():
            for port in service["ports"]:
                assert LOOPBACK.fullmatch(port), port

    def test_the_gateway_takes_its_settings_and_finds_the_others(self) -> None:
        environment = self.services["gateway"]["environment"]
        settings = self.settings(environment)
        assert settings.rabbitmq_host in self.services
        assert settings.rabbitmq_user == self.services["rabbitmq"]["environment"]["RABBITMQ_DEFAULT_USER"]
        published = {
            match[1] for port in self.services["sandbox"]["ports"] if (match := LOOPBACK.match(port))
        }
        for url in (settings.tenant_service_url, settings.meta_api_base_url):
            host, port = url.removeprefix("http://").split(":")
            assert (host, port in published) == ("sandbox", True)
        assert any(
            port.endswith(f":{settings.health_check_port}") for port in self.services["gateway"]["ports"]
        )
        self.assert_time_to_drain(
            float(self.services["gateway"]["stop_grace_period"].removesuffix("s")), settings
        )

    def test_secrets_are_files_that_are_made_up_and_kept_out_of_git_and_of_the_image(self) -> None:
        made = re.findall(r"(?m)^for name in (.*); do$", (ROOT / "scripts" / "compose-secrets").read_text())
        assert set(self.compose["secrets"]) == set(made[0].split())
        for name, secret in self.compose["secrets"].items():
            assert secret == {"file": f"./secrets/{name}"}
        assert "/docker/secrets/" in (ROOT / ".gitignore").read_text().splitlines()
        for name, service in self.services.items():
            for variable, value in service.get("environment", {}).items():
                if variable.endswith("_FILE"):
                    assert value.removeprefix("/run/secrets/") in service["secrets"], (name, variable)

    def test_the_gateway_can_change_nothing_of_its_image_and_gain_no_right(self) -> None:
        gateway = self.services["gateway"]
        assert gateway["read_only"] is True
        assert gateway["cap_drop"] == ["ALL"]
        assert gateway["security_opt"] == ["no-new-privileges:true"]
        assert "user" not in gateway  # the image's
        assert {path.split(":")[0] for path in gateway["tmpfs"]} == {"/tmp"}

    def test_it_waits_for_what_has_a_health_check(self) -> None:
        built = stages()
        for service in self.services.values():
            for other, wanted in service.get("depends_on", {}).items():
                if wanted["condition"] == "service_healthy":
                    steps = built.get(other, [])
                    checked = any(step.name == "HEALTHCHECK" for step in steps)
                    assert checked or "healthcheck" in self.services[other], other

    def test_what_is_mounted_is_there(self) -> None:
        for service in self.services.values():
            for volume in service.get("volumes", []):
                source = volume.split(":")[0]
                if source.startswith("."):
                    assert (COMPOSE.parent / source).resolve().exists(), source
                else:
                    assert source in self.compose["volumes"], source

    def test_grafana_and_prometheus_find_what_is_mounted_where_they_look(self) -> None:
        mounted = {
            Path(volume.split(":")[1]): (COMPOSE.parent / volume.split(":")[0]).resolve()
            for name in ("prometheus", "grafana")
            for volume in self.services[name]["volumes"]
            if volume.startswith(".")
        }
        (scraping,) = documents(mounted[Path("/etc/prometheus/prometheus.yml")])
        for file in scraping["rule_files"]:
            assert any(fnmatch.fnmatch(str(path), f"/etc/prometheus/{file}") for path in mounted)
        targets = [
            target
            for job in scraping["scrape_configs"]
            for static in job["static_configs"]
            for target in static["targets"]
        ]
        assert f"gateway:{DECLARED['PROMETHEUS_PORT'].default}" in targets
        provisioning = mounted[Path("/etc/grafana/provisioning")]
        for file in (provisioning / "dashboards").glob("*.yml"):
            for provider in documents(file)[0]["providers"]:
                assert list(mounted[Path(provider["options"]["path"])].glob("*.json"))


class SecretsTests(WayTestCase):
    def test_they_are_made_up_once_for_all_to_read_in_a_folder_for_nobody_else(self) -> None:
        copy = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, copy)
        (copy / "docker").mkdir()
        (copy / "scripts").mkdir()
        shutil.copy(ROOT / "scripts" / "compose-secrets", copy / "scripts")
        script = copy / "scripts" / "compose-secrets"

        first = run(script)
        assert (first.returncode, first.stderr) == (0, "")
        secrets = {path.name: path.read_text() for path in (copy / "docker" / "secrets").iterdir()}
        assert len(set(secrets.values())) == len(secrets) == 3
        assert run(script).stdout == ""
        folder = copy / "docker" / "secrets"
        assert {path.name: path.read_text() for path in folder.iterdir()} == secrets
        assert folder.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}
        # ADMIN_TOKEN takes it, and so does whatever a password is put into.
        for secret in secrets.values():
            assert re.fullmatch(r"[A-Za-z0-9_-]{32,}", secret)
