"""A process that replays all dead letters that are not in doubt, to be killed: PORT KIND RATE."""

from __future__ import annotations

import sys
import time
from typing import Any

from twisted.internet import task
from twisted.internet.defer import ensureDeferred

from tests.integration.letters import count_all, engine


async def replay(_reactor: Any, port: str, kind: str, rate: str) -> None:
    queue = engine(int(port), kind, time.time)
    work = await queue.begin()
    wanted = await count_all(work)
    print("counted", wanted.total(), flush=True)
    await work.replay(wanted, float(rate), lambda _id: None, lambda: False)
    await queue.end(work)
    print("done", flush=True)


if __name__ == "__main__":
    task.react(lambda reactor: ensureDeferred(replay(reactor, *sys.argv[1:])))
