"""The manifests: valid by Kubernetes' own schemas, and one with the settings, the probes and each other."""

from __future__ import annotations

import re
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.test_docker import last, stages
from tests.deploy.ways import DECLARED, ROOT, SECRETS, WayTestCase, assignments, documents, run
from whatsapp_egress import __version__
from whatsapp_egress.settings import Settings

FOLDER = ROOT / "deploy" / "kubernetes"
BASE, EXAMPLE, COMPONENTS = FOLDER / "base", FOLDER / "example", FOLDER / "components"
NAME = "whatsapp-egress"
LABELS = {"app.kubernetes.io/name": NAME}

VERSIONS = ("1.31", kubernetes_validate.latest_version())
"""The oldest that has all that is used as stable, and the newest that there are schemas of."""

THEIR_OWN = {"ScaledObject", "TriggerAuthentication", "PodMonitor"}
"""Kinds of KEDA and of the Prometheus Operator, of which there are no schemas here."""


def kustomizations() -> dict[Path, dict[str, Any]]:
    return {path.parent: documents(path)[0] for path in FOLDER.rglob("kustomization.yaml")}


def manifests() -> list[dict[str, Any]]:
    paths = sorted(set(FOLDER.rglob("*.yaml")) - {path / "kustomization.yaml" for path in kustomizations()})
    return [document for path in paths for document in documents(path)]


def the(kind: str) -> dict[str, Any]:
    (found,) = (manifest for manifest in manifests() if manifest["kind"] == kind)
    return found


def assert_valid(manifest: dict[str, Any]) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)


class ManifestTests(WayTestCase):
    @cached_property
    def pod(self) -> dict[str, Any]:
        return dict(the("Deployment")["spec"]["template"]["spec"])

    @cached_property
    def container(self) -> dict[str, Any]:
        (container,) = self.pod["containers"]
        return dict(container)

    @cached_property
    def environment(self) -> dict[str, str]:
        return {
            name: value
            for folder in (BASE, EXAMPLE)
            for name, value in assignments((folder / "settings.env").read_text()).items()
        }

    @cached_property
    def taken(self) -> Settings:
        return self.settings(self.environment)

    def test_kubernetes_own_kinds_are_valid(self) -> None:
        kinds = {manifest["kind"] for manifest in manifests()}
        assert kinds > THEIR_OWN
        for manifest in manifests():
            if manifest["kind"] not in THEIR_OWN:
                assert_valid(manifest)

    def test_the_schemas_refuse_a_field_that_is_misspelt(self) -> None:
        wrong = the("Deployment")
        wrong["spec"]["template"]["spec"]["terminationGraceSeconds"] = 45
        with pytest.raises(kubernetes_validate.ValidationError):
            assert_valid(wrong)

    def test_every_file_is_named_by_a_kustomization_and_there(self) -> None:
        for folder, kustomization in kustomizations().items():
            named = set(kustomization.get("resources", [])) | set(kustomization.get("components", []))
            generators = kustomization.get("configMapGenerator", [])
            named |= {name for generator in generators for name in generator["envs"]}
            for name in named:
                assert (folder / name).exists(), (folder, name)
            files = {path.name for path in folder.iterdir() if path.is_file()}
            assert files - {"kustomization.yaml"} <= named, folder
        assert {(EXAMPLE / name).resolve() for name in kustomizations()[EXAMPLE]["components"]} == set(
            COMPONENTS.iterdir()
        )

    def test_the_settings_are_taken(self) -> None:
        assert self.taken.http_bind == "0.0.0.0"
        assert self.container["envFrom"] == [{"configMapRef": {"name": NAME}}]
        assert "env" not in self.container

    def test_secrets_come_as_files_of_a_secret_that_is_in_no_file_here(self) -> None:
        assert not [manifest for manifest in manifests() if manifest["kind"] == "Secret"]
        volumes = {volume["name"]: volume for volume in self.pod["volumes"]}
        (mount,) = (mount for mount in self.container["volumeMounts"] if mount["name"] == "secrets")
        assert mount["readOnly"] is True
        assert volumes["secrets"]["secret"] == {"secretName": NAME, "defaultMode": 0o440}
        files = {
            name: path for name, path in self.environment.items() if name.removesuffix("_FILE") in SECRETS
        }
        assert files
        for name, path in files.items():
            expected = name.removesuffix("_FILE").lower().replace("_", "-")
            assert path == f"{mount['mountPath']}/{expected}"

    def test_services_of_the_namespace_set_no_variable(self) -> None:
        # A Service called rabbitmq would set RABBITMQ_PORT, which is a setting, to an address.
        assert self.pod["enableServiceLinks"] is False

    def test_ports_are_those_of_the_settings_and_of_the_image(self) -> None:
        ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        assert ports == {"health": self.taken.health_check_port, "metrics": self.taken.prometheus_port}
        exposed = last(stages()["gateway"], "EXPOSE").value.split()
        assert sorted(map(int, exposed)) == sorted(ports.values())
        service = the("Service")["spec"]
        assert {port["targetPort"]: port["port"] for port in service["ports"]} == ports
        for endpoint in the("PodMonitor")["spec"]["podMetricsEndpoints"]:
            assert (endpoint["port"], endpoint["path"]) == ("metrics", "/metrics")
        for rule in the("NetworkPolicy")["spec"]["ingress"]:
            assert {port["port"] for port in rule["ports"]} <= set(ports)

    def test_liveness_asks_for_the_reactor_and_readiness_for_the_broker(self) -> None:
        asked = {name: self.container[name]["httpGet"] for name in self.container if name.endswith("Probe")}
        assert asked == {
            "startupProbe": {"path": "/health/live", "port": "health"},
            "livenessProbe": {"path": "/health/live", "port": "health"},
            "readinessProbe": {"path": "/health/ready", "port": "health"},
        }

    def test_there_is_time_to_drain(self) -> None:
        self.assert_time_to_drain(self.pod["terminationGracePeriodSeconds"], self.taken)

    def test_the_pod_keeps_to_the_restricted_standard_and_to_a_file_system_it_can_not_change(self) -> None:
        user, group = map(int, last(stages()["gateway"], "USER").value.split(":"))
        assert self.pod["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": group,
            "fsGroup": group,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert self.container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert self.pod["automountServiceAccountToken"] is False
        assert the("ServiceAccount")["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(self.pod)

    def test_memory_is_limited_above_what_may_be_held(self) -> None:
        limit = self.container["resources"]["limits"]["memory"]
        assert int(limit.removesuffix("Mi")) * 2**20 > 4 * self.taken.held_max_bytes
        assert set(self.container["resources"]["requests"]) == {"cpu", "memory"}

    def test_the_image_is_this_version(self) -> None:
        assert self.container["image"] == f"{NAME}:{__version__}"
        (image,) = kustomizations()[EXAMPLE]["images"]
        assert (image["name"], str(image["newTag"])) == (NAME, __version__)

    def test_all_speak_of_the_same_pods(self) -> None:
        assert LABELS.items() <= the("Deployment")["spec"]["template"]["metadata"]["labels"].items()
        selectors = [
            the("Deployment")["spec"]["selector"]["matchLabels"],
            the("Service")["spec"]["selector"],
            the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
            the("PodMonitor")["spec"]["selector"]["matchLabels"],
            the("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
            *(each["labelSelector"]["matchLabels"] for each in self.pod["topologySpreadConstraints"]),
        ]
        assert selectors == [LABELS] * 6

    def test_the_metrics_get_the_job_that_the_alerts_ask_for(self) -> None:
        job = LABELS[the("PodMonitor")["spec"]["jobLabel"]]
        (scraping,) = documents(ROOT / "deploy" / "prometheus" / "prometheus.yml")
        assert job in {each["job_name"] for each in scraping["scrape_configs"]}

    def test_no_worker_stands_for_all_of_them(self) -> None:
        service = the("Service")["spec"]
        assert (service["clusterIP"], service["publishNotReadyAddresses"]) == ("None", True)

    def test_an_eviction_leaves_a_worker(self) -> None:
        assert the("PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
        assert the("Deployment")["spec"]["replicas"] == 2
        assert the("ScaledObject")["spec"]["minReplicaCount"] >= 2

    def test_keda_looks_at_the_queue_that_is_consumed_with_what_is_in_no_pod(self) -> None:
        scaled = the("ScaledObject")["spec"]
        assert scaled["scaleTargetRef"] == {"name": the("Deployment")["metadata"]["name"]}
        assert scaled["minReplicaCount"] < scaled["maxReplicaCount"]
        (trigger,) = scaled["triggers"]
        assert trigger["type"] == "rabbitmq"
        assert trigger["metadata"]["queueName"] == self.taken.rabbitmq_queue
        assert trigger["metadata"]["mode"] == "QueueLength"
        # Fewer than a worker takes at once would call for a worker that finds nothing to do.
        assert int(trigger["metadata"]["value"]) > self.taken.rabbitmq_prefetch
        assert all(isinstance(value, str) for value in trigger["metadata"].values())
        secret = the("TriggerAuthentication")
        assert trigger["authenticationRef"] == {"name": secret["metadata"]["name"]}
        (reference,) = secret["spec"]["secretTargetRef"]
        assert (reference["parameter"], reference["name"]) == ("host", f"{NAME}-scaler")

    def test_the_network_lets_the_broker_and_https_through(self) -> None:
        policy = the("NetworkPolicy")["spec"]
        ports = {port["port"] for rule in policy["egress"] for port in rule.get("ports", [])}
        plain, with_tls = re.findall(r"\d+", str(DECLARED["RABBITMQ_PORT"].default))
        assert {int(plain), int(with_tls), 443, 53} == ports


class RenderedTests(WayTestCase):
    """What `kubectl apply -k` would send."""

    def setUp(self) -> None:
        kubectl = shutil.which("kubectl")
        if kubectl is None:
            self.skipTest("kubectl is not installed")
        rendered = run(str(kubectl), "kustomize", EXAMPLE)
        assert rendered.returncode == 0, rendered.stderr
        self.rendered = {each["kind"]: each for each in yaml.safe_load_all(rendered.stdout)}

    def test_the_example_is_valid_and_in_one_namespace(self) -> None:
        assert set(self.rendered) == {manifest["kind"] for manifest in manifests()} | {"ConfigMap"}
        for kind, manifest in self.rendered.items():
            assert manifest["metadata"]["namespace"] == "messaging"
            if kind not in THEIR_OWN:
                assert_valid(manifest)

    def test_changed_settings_start_new_pods(self) -> None:
        name = self.rendered["ConfigMap"]["metadata"]["name"]
        assert re.fullmatch(f"{NAME}-[a-z0-9]{{10}}", name)
        (container,) = self.rendered["Deployment"]["spec"]["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"configMapRef": {"name": name}}]
        assert container["image"] == f"registry.example.com/messaging/{NAME}:{__version__}"

    def test_the_gateway_takes_the_settings_that_come_out(self) -> None:
        settings = self.settings(self.rendered["ConfigMap"]["data"])
        assert settings.rabbitmq_host == "rabbitmq.messaging.svc"

    def test_keda_alone_says_how_many_workers_there_are(self) -> None:
        assert "replicas" not in self.rendered["Deployment"]["spec"]
