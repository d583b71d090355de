"""How long a scrape holds the reactor up, with a thousand tenants that all have work.

`python -m bench.metrics_page` prints the size of the page, how long it took, and how late the reactor was at
the worst, with nobody scraping and while a page is made. Target: never later than 50 ms for a scrape's sake.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from attrs import define, field
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater, react
from twisted.internet.utils import getProcessOutput
from twisted.web.resource import Resource

from tests.observe.events import REJECTED, job_of
from tests.observe.seen import Seen
from tests.pipeline.doubles import Stage
from whatsapp_egress.observe.exposition import Exposition
from whatsapp_egress.observe.labels import TenantLabels
from whatsapp_egress.observe.metrics import Metrics
from whatsapp_egress.observe.web import WebService
from whatsapp_egress.policy.verdict import Answer, Sent

TARGET_MS = 50.0
SCRAPE = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], headers={"Accept-Encoding": "gzip"})
print(len(urllib.request.urlopen(request).read()))
"""
"""Another process asks, as Prometheus does: to read the page would hold this one up."""

TICK = 0.001
QUIET_SECONDS = 2.0


@define
class Lateness:
    """Ticks every millisecond and notes the worst delay, in ms."""

    worst: float = 0.0
    _stopped: bool = field(default=False, init=False)

    async def run(self) -> None:
        """Tick until stopped."""
        while not self._stopped:
            due = reactor.seconds() + TICK
            await deferLater(reactor, TICK)
            self.worst = max(self.worst, (reactor.seconds() - due) * 1000)

    def stop(self) -> None:
        """Tick no more."""
        self._stopped = True


def filled(tenants: int, messages: int) -> tuple[Seen, Metrics]:
    """Real lanes with work in hand, and metrics of each."""
    seen = Seen(Stage())
    labels = seen.labels = seen.gauges._labels = TenantLabels(tenants)
    metrics = Metrics(seen.registry, seen.stage.clock, labels, lambda _code: True)
    for number in range(tenants):
        job = job_of(f"tenant-{number}")
        metrics.credentials(f"tenant-{number}", 0.1, cached=False, known=True)
        metrics.consumed(job)
        for status in (200, 400):
            metrics.answered(job, Answer(status), 0.2)
        metrics.delivered(job, Sent("wamid"))
        metrics.dead_lettered(job, REJECTED)
        for each in range(messages):
            seen.stage.offer(f"m-{each}", f"1555000{each}", tenant_id=f"tenant-{number}")
    return seen, metrics


async def measure(tenants: int, messages: int) -> bool:
    """Scrape once, and print what that cost; True when it reached its target."""
    seen, _metrics = filled(tenants, messages)
    seen.gauges._clock = reactor
    seen.registry.register(seen.shelf)
    root = Resource()
    root.putChild(b"metrics", Exposition(reactor, seen.registry, seen.shelf, seen.gauges.read))
    service = WebService(reactor, "PROMETHEUS_PORT", 0, "127.0.0.1", root)
    service.startService()
    quiet = Lateness()
    running = Deferred.fromCoroutine(quiet.run())
    await deferLater(reactor, QUIET_SECONDS)
    quiet.stop()
    await running
    scraped = Lateness()
    running = Deferred.fromCoroutine(scraped.run())
    began = reactor.seconds()
    url = f"http://127.0.0.1:{service.port}/metrics"
    size = int(await getProcessOutput(sys.executable, ["-c", SCRAPE, url]))
    seconds = reactor.seconds() - began
    scraped.stop()
    await running
    await service.stopService()
    print(f"{tenants} tenants, {messages} messages in hand of each")
    print(f"the page: {size / 2**20:.1f} MiB gzipped, in {seconds:.2f} s")
    print(
        f"the reactor was late by {quiet.worst:.1f} ms at the worst; {scraped.worst:.1f} ms while it was made"
    )
    reached = scraped.worst - quiet.worst <= TARGET_MS
    print("reached" if reached else f"NOT reached: {TARGET_MS:.0f} ms")
    return reached


async def main(_reactor: Any) -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--messages", type=int, default=5)
    options = parser.parse_args()
    if not await measure(options.tenants, options.messages):
        sys.exit(1)


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(main(reactor)))
