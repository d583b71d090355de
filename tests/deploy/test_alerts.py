"""The alerts look at what is there, are tried, and are explained."""

from __future__ import annotations

import re
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from tests.deploy.named import faults
from tests.deploy.promtool import ALERTS, ALERTS_TEST, PROMETHEUS, RUNBOOK, promtool

JOB = "whatsapp-egress"


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def sections() -> list[str]:
    """Headings of the runbook that are an alert's."""
    return re.findall(r"^### (WhatsappEgress\w+)$", RUNBOOK.read_text(), re.MULTILINE)


class AlertTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.names = [rule["alert"] for rule in rules()]

    def test_each_metric_and_label_is_on_a_real_page(self) -> None:
        for rule in rules():
            assert faults(rule["expr"]) == [], rule["alert"]

    def test_each_is_judged_by_somebody_and_says_what_is_the_matter(self) -> None:
        for rule in rules():
            assert rule["labels"]["severity"] in {"page", "ticket"}, rule["alert"]
            assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}, rule["alert"]

    def test_each_looks_at_this_service_only(self) -> None:
        for rule in rules():
            assert f'job="{JOB}"' in rule["expr"], rule["alert"]

    def test_no_two_have_one_name(self) -> None:
        assert len(set(self.names)) == len(self.names)

    def test_each_has_its_section_in_the_runbook_and_each_section_its_alert(self) -> None:
        assert sorted(sections()) == sorted(self.names)

    def test_each_links_to_its_section(self) -> None:
        for rule in rules():
            url = rule["annotations"]["runbook_url"]
            assert url == f"docs/runbook.md#{rule['alert'].lower()}", rule["alert"]

    def test_each_section_says_what_it_means_and_what_to_do(self) -> None:
        for section in re.split(r"^### ", RUNBOOK.read_text(), flags=re.MULTILINE)[1:]:
            name, text = section.split("\n", 1)
            if name in self.names:
                for part in ("It means", "People notice", "Find out", "Do", "It is over"):
                    assert f"**{part}" in text, (name, part)


class TrialTests(SynchronousTestCase):
    """The tests of the rules themselves."""

    def setUp(self) -> None:
        self.names = [rule["alert"] for rule in rules()]
        self.cases = yaml.safe_load(ALERTS_TEST.read_text())["tests"]

    def test_prometheus_takes_the_rules_and_the_configuration(self) -> None:
        for what, path in (("rules", ALERTS), ("config", PROMETHEUS / "prometheus.yml")):
            content, said = promtool("check", what, path)
            assert content, said

    def test_each_fires_on_its_series_and_only_then(self) -> None:
        content, said = promtool("test", "rules", ALERTS_TEST)
        assert content, said

    def test_each_is_tried_firing_and_at_rest(self) -> None:
        for alert in self.names:
            for what in ("fires", "rests"):
                cases = [case for case in self.cases if re.match(rf"{alert} {what}\b", case["name"])]
                assert cases, (alert, what)
                for case in cases:
                    assert self.expects(case, alert) == (what == "fires"), case["name"]

    def test_the_series_that_the_trials_feed_are_on_a_real_page(self) -> None:
        for case in self.cases:
            for series in case["input_series"]:
                if JOB in series["series"]:
                    assert faults(series["series"], values=False) == [], case["name"]

    @staticmethod
    def expects(case: dict[str, Any], alert: str) -> bool:
        samples = [sample for test in case["promql_expr_test"] for sample in test["exp_samples"]]
        return any(f'alertname="{alert}"' in sample["labels"] for sample in samples)
