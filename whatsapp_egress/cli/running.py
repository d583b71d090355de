"""One run of the reactor per command, which Ctrl-C ends in an orderly way."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure

from whatsapp_egress import __version__
from whatsapp_egress.cli.trouble import Exit, Interrupted
from whatsapp_egress.observe.logs import line_observer
from whatsapp_egress.observe.redaction import Redactor

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def on_reactor(main: Callable[[Any], Coroutine[Deferred[Any], Any, T]], redactor: Redactor) -> T:
    """Run `main(reactor)` to its end; returns what it returns, raises what it raises.

    The first SIGINT or SIGTERM cancels it, so that it can still clean up, and a second ends the process.
    """
    from twisted.internet import reactor as made  # noqa: PLC0415 - `--help` needs none

    reactor: Any = made
    _log_what_is_our_fault(redactor)
    results: list[Any] = []

    def begin() -> None:
        running = Deferred.fromCoroutine(main(reactor))
        _cancel_on_signal(reactor, running)
        running.addBoth(results.append).addBoth(lambda _: reactor.stop())

    before = [signal.getsignal(number) for number in _SIGNALS]
    reactor.callWhenRunning(begin)
    try:
        reactor.run(installSignalHandlers=False)
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)
    result: T | Failure = results[0]
    if isinstance(result, Failure):
        if result.check(CancelledError):
            raise Interrupted("Interrupted.")
        result.raiseException()
    return result


@contextmanager
def asking_on_terminal() -> Iterator[None]:
    """While somebody is asked, which stops the reactor, Ctrl-C means no."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _cancel_on_signal(reactor: Any, running: Deferred[Any]) -> None:
    def leave_now(_number: int, _frame: object) -> None:
        # The reactor would swallow an exception.
        os._exit(Exit.INTERRUPTED)

    def cancel(_number: int, _frame: object) -> None:
        for number in _SIGNALS:
            signal.signal(number, leave_now)
        reactor.callFromThread(running.cancel)

    for number in _SIGNALS:
        signal.signal(number, cancel)


def _log_what_is_our_fault(redactor: Redactor) -> None:
    """The parts log as in the gateway. Here their troubles are told by the command; what must never happen
    goes to standard error."""
    octets = sys.stderr.buffer

    def write(line: bytes) -> None:
        octets.write(line)
        octets.flush()

    observer = line_observer(write, level="critical", pii=False, redactor=redactor, version=__version__)
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)
    logging.getLogger("pika").setLevel(logging.CRITICAL + 1)


def note(words: str) -> None:
    """A remark for people, on standard error."""
    click.echo(words, err=True)
