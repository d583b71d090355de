"""Each query of the dashboard finds something on a real page, and the dashboard can be read."""

from __future__ import annotations

import itertools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from tests.deploy.named import faults
from tests.deploy.page import samples
from tests.deploy.promtool import ROOT, promtool

GRAFANA = ROOT / "deploy" / "grafana"
DASHBOARD = GRAFANA / "dashboards" / "whatsapp-egress.json"
QUESTIONS = [
    "Is anything wrong?",
    "Is it us?",
    "Is it the broker?",
    "Is it the Tenant Service?",
    "Is it Meta?",
    "Is it one tenant?",
    "What waits, since when?",
    "What failed, and why?",
    "Can it be sent again?",
]
VARIABLES = {"$__rate_interval": "1m", "$instance": ".*", "$tenant": ".*"}
STEPS = 300
"""Scrapes, 15 s apart: more than the hour that the longest range needs."""


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return document


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """Title and expression, as Prometheus gets it."""
    found = []
    for panel in panels():
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            found.append((panel["title"], expression))
    return found


class QueryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.there = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.there)

    def trial(self, expressions: list[tuple[str, str]]) -> tuple[bool, str]:
        """Have promtool evaluate them over an hour of scrapes of the page, on which everything grows by one a
        scrape. Content is what finds something, and not only what is no number."""
        series = [{"series": 'up{job="whatsapp-egress", instance="a"}', "values": f"1x{STEPS}"}]
        for sample in samples():
            labels = {**sample.labels, "job": "whatsapp-egress", "instance": "a"}
            named = ", ".join(f"{name}={json.dumps(value)}" for name, value in labels.items() if value)
            series.append({"series": f"{sample.name}{{{named}}}", "values": f"{sample.value:.0f}+1x{STEPS}"})
        trials = [
            {
                "expr": f"clamp_max(count(({expression}) == ({expression})), 1)",
                "eval_time": "70m",
                "exp_samples": [{"labels": "{}", "value": 1}],
            }
            for _, expression in expressions
        ]
        path = self.there / "trial.yml"
        case = {"interval": "15s", "input_series": series, "promql_expr_test": trials}
        path.write_text(yaml.safe_dump({"tests": [case]}))
        return promtool("test", "rules", path)

    def test_prometheus_finds_something_for_each(self) -> None:
        content, said = self.trial(queries())
        assert content, said

    def test_prometheus_finds_nothing_for_what_is_not_there(self) -> None:
        content, _ = self.trial([("", 'rate(messages_consumed_total{status="lost"}[5m])')])
        assert not content

    def test_each_metric_and_label_is_on_a_real_page(self) -> None:
        for title, expression in queries():
            assert faults(expression) == [], title

    def test_legends_name_labels_that_the_query_leaves(self) -> None:
        for panel in panels():
            for target in panel.get("targets", []):
                for label in target["legendFormat"].split("{{")[1:]:
                    assert label.split("}}")[0] in target["expr"] + " instance connection", panel["title"]


class LayoutTests(SynchronousTestCase):
    def test_there_is_a_row_for_each_question_in_order(self) -> None:
        rows = [panel for panel in dashboard()["panels"] if panel["type"] == "row"]
        assert [row["title"] for row in rows] == QUESTIONS
        assert sorted(row["gridPos"]["y"] for row in rows) == [row["gridPos"]["y"] for row in rows]

    def test_each_panel_says_what_it_shows(self) -> None:
        for panel in panels():
            assert panel["title"]
            assert panel["description"].endswith("."), panel["title"]

    def test_each_question_has_panels(self) -> None:
        kinds = [panel["type"] for panel in dashboard()["panels"]]
        assert ("row", "row") not in itertools.pairwise(kinds)
        assert kinds[-1] != "row"

    def test_no_two_panels_lie_on_each_other_or_beside_the_grid(self) -> None:
        cells: set[tuple[int, int]] = set()
        for panel in dashboard()["panels"]:
            at = panel["gridPos"]
            mine = set(
                itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))
            )
            assert not mine & cells, panel["title"]
            assert max(x for x, _ in mine) < 24, panel["title"]
            cells |= mine

    def test_ids_are_unique(self) -> None:
        ids = [panel["id"] for panel in dashboard()["panels"]]
        assert len(set(ids)) == len(ids)

    def test_nothing_is_bound_to_one_grafana(self) -> None:
        assert "id" not in dashboard()
        for panel in panels():
            if panel["type"] != "text":
                assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]


class ProvisioningTests(SynchronousTestCase):
    def provisioned(self, kind: str, name: str) -> Any:
        return yaml.safe_load((GRAFANA / "provisioning" / kind / name).read_text())

    def test_the_data_source_is_the_one_that_the_dashboard_begins_with(self) -> None:
        (source,) = self.provisioned("datasources", "prometheus.yml")["datasources"]
        (variable,) = (each for each in dashboard()["templating"]["list"] if each["type"] == "datasource")
        assert (source["type"], source["uid"]) == (variable["query"], variable["current"]["value"])

    def test_the_dashboard_is_looked_for_where_it_is_mounted(self) -> None:
        (provider,) = self.provisioned("dashboards", "whatsapp-egress.yml")["providers"]
        assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
