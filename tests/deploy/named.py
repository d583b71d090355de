"""Whether what an expression names is there, on a real page."""

from __future__ import annotations

import re
from functools import cache

from tests.deploy.page import samples
from tests.deploy.promql import Selector, grouped_by, selectors

OF_PROMETHEUS = {
    "up": {},
    "ALERTS": {"alertname": {""}, "alertstate": {"firing"}, "severity": {"page", "ticket"}},
}
"""Metrics that Prometheus makes itself."""

OF_THE_SCRAPE = {"job", "instance"}
"""Labels that Prometheus adds to each sample."""

ANYTHING = {"tenant", "le", "alertname"}
"""Labels whose values are not known beforehand."""


@cache
def known() -> dict[str, dict[str, set[str]]]:
    """By metric and label the values that are on the page."""
    found: dict[str, dict[str, set[str]]] = {
        metric: {label: set(values) for label, values in labels.items()}
        for metric, labels in OF_PROMETHEUS.items()
    }
    for sample in samples():
        labels = found.setdefault(sample.name, {})
        for label, value in sample.labels.items():
            labels.setdefault(label, set()).add(value)
    return found


def faults(expression: str, *, values: bool = True) -> list[str]:
    """What the expression names and the page has not; with `values` also those of labels."""
    found = selectors(expression)
    wrong = [fault for selector in found for fault in _of(selector, values=values)]
    labels = OF_THE_SCRAPE.union(*(known().get(selector.metric, {}) for selector in found))
    return wrong + [f"no label {label} to group by" for label in sorted(grouped_by(expression) - labels)]


def _of(selector: Selector, *, values: bool) -> list[str]:
    labels = known().get(selector.metric)
    if labels is None:
        return [f"no metric {selector.metric}"]
    wrong = []
    for label, how, value in selector.matchers:
        if label in OF_THE_SCRAPE:
            continue
        if label not in labels:
            wrong.append(f"no label {label} of {selector.metric}")
        elif values and label not in ANYTHING:
            wanted = value.split("|") if how in ("=~", "!~") else [value]
            wrong += [
                f"{selector.metric} is never {label}={each}"
                for each in wanted
                if not any(re.fullmatch(each, there) for there in labels[label])
            ]
    return wrong
