"""The metrics of the contract that have a `tenant` label."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Histogram

META_SECONDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0)
"""Meta answers in 0.1 to 10 s."""

CREDENTIAL_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""The cache answers at once, the Tenant Service in 1 ms to 5 s."""

PROCESSING_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0)
"""From the delivery to its end: one exchange, or minutes of waiting for a turn."""

Key = tuple[str, ...]
"""The name of a metric here, and its labels."""


class TenantFamilies:
    """Counters and histograms by tenant.

    Children are made once for each set of labels and held, for to look one up costs more than to count.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(name, about, labels, registry=registry)

        def seconds(name: str, about: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, about, labels, buckets=buckets, registry=registry)

        self._counters = {
            "consumed": counter(
                "messages_consumed", "Messages taken, and how they ended.", "tenant", "status"
            ),
            "delivered": counter("messages_delivered", "Messages that Meta accepted.", "tenant"),
            "failed": counter(
                "messages_failed",
                "Messages dead-lettered, by Meta's code or else the reason.",
                "tenant",
                "error_code",
                "retryable",
            ),
            "requests": counter(
                "meta_api_requests", "Requests to Meta, by how they ended.", "tenant", "status_code", "method"
            ),
            "service": counter(
                "tenant_service_errors", "Times the Tenant Service gave no usable answer.", "tenant", "reason"
            ),
        }
        self._histograms = {
            "processing": seconds(
                "message_processing_duration_seconds",
                "From a message's delivery to its end.",
                PROCESSING_SECONDS,
                "tenant",
            ),
            "exchange": seconds(
                "meta_api_request_duration_seconds", "Exchanges with Meta.", META_SECONDS, "tenant"
            ),
            "credentials": seconds(
                "credential_fetch_duration_seconds",
                "How long messages waited for credentials.",
                CREDENTIAL_SECONDS,
                "tenant",
                "cached",
            ),
        }
        self._children: dict[Key, Callable[[float], None]] = {}

    def count(self, name: str, *labels: str, times: float = 1.0) -> None:
        """Count once, or several times; `labels` in the order of the metric's."""
        key = (name, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._counters[name].labels(*labels).inc
        child(times)

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        """Put one more duration into a histogram."""
        key = (name, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._histograms[name].labels(*labels).observe
        child(max(0.0, seconds))
