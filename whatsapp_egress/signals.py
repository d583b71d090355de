"""How the process is told to end: the first SIGTERM or SIGINT drains, the second ends it at once."""

from __future__ import annotations

import os
import signal
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_BY_SIGNAL = 128
"""Added to a signal's number it makes the exit status that shells show for it."""


def drain_on_signals(reactor: Any) -> None:
    """Take the signals over from Twisted, once the reactor runs.

    Twisted would end the process by the same signal after a clean stop, which supervisors take for a
    failure, and would only complain about a second one.
    """

    def drain(_number: int, _frame: object) -> None:
        for each in _SIGNALS:
            signal.signal(each, _exit_now)
        reactor.callFromThread(reactor.stop)

    for each in _SIGNALS:
        signal.signal(each, drain)


def _exit_now(number: int, _frame: object) -> None:
    # Not sys.exit: nothing is to be waited for, and what is not acked the broker delivers again.
    os._exit(_BY_SIGNAL + number)
