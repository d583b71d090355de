"""The options of ``twistd whatsapp-egress`` and the service made from the environment."""

from __future__ import annotations

import logging
import os
import signal
import sys
import syslog
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from twisted.application.service import IService, MultiService
from twisted.logger import ILogObserver
from twisted.python import usage
from twisted.python.components import Componentized
from twisted.python.logfile import LogFile

from whatsapp_egress import __version__
from whatsapp_egress.observe.logs import forward_stdlib_logging, line_observer
from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.observe.tracing import tracing
from whatsapp_egress.setting_pages import help_text
from whatsapp_egress.settings import BadSettings, Settings
from whatsapp_egress.signals import drain_on_signals

Write = Callable[[bytes], object]


class Options(usage.Options):
    """No option of its own: everything is set in the environment, and `--help` says what."""

    longdesc = (
        "Sends WhatsApp messages from RabbitMQ to Meta's Cloud API. It is configured by the environment."
    )

    def getUsage(self, width: int | None = None) -> str:
        """Return the options and every setting."""
        return f"{super().getUsage(width)}\n{help_text()}"

    def opt_version(self) -> None:
        """Display the version and exit."""
        print(f"whatsapp-egress {__version__}")
        sys.exit(0)

    def postOptions(self) -> None:
        """Read the settings. Bad ones end the process with status 1 and one message on standard error."""
        try:
            self["settings"] = Settings.from_environment(os.environ)
        except BadSettings as bad:
            # Not a usage.UsageError: twistd would print all of --help with it.
            raise SystemExit(str(bad)) from None


class Logged(MultiService):
    """Gives the application that it becomes a part of the log observer of `child`."""

    def __init__(self, child: IService, observer: ILogObserver) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._observer = observer
        child.setServiceParent(self)

    def setServiceParent(self, parent: Any) -> None:
        """Join `parent`; when it is twistd's application, its log goes to the observer."""
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]
        if isinstance(parent, Componentized):
            # twistd looks for this component before it makes an observer of its own.
            parent.setComponent(ILogObserver, self._observer)


def makeService(options: Options) -> IService:
    """Return the gateway, logging to where twistd was told to log.

    With twistd's `--logger`, that logger gets the events as they are: to keep secrets and phone numbers out
    of what it writes is then its own task.
    """
    # Both only now: the reactor may be chosen until here, and `--help` needs neither.
    from twisted.internet import reactor  # noqa: PLC0415

    from whatsapp_egress.service import Egress  # noqa: PLC0415

    settings: Settings = options["settings"]
    redactor = Redactor(settings.secrets())
    service = Egress(reactor, settings, redactor, tracing(os.environ, redactor))
    reactor.callWhenRunning(drain_on_signals, reactor)
    write = log_destination(options.parent or {})
    if write is None:
        return service
    forward_stdlib_logging()
    # What pika warns of is told in our own words, and one of its warnings shows the text of messages.
    logging.getLogger("pika").setLevel(logging.ERROR)
    observer = line_observer(
        write, level=settings.log_level, pii=settings.log_pii, redactor=redactor, version=__version__
    )
    return Logged(service, observer)


def log_destination(twistd: Mapping[str, Any]) -> Write | None:
    """Return what writes a line to where twistd's own options say; None if they name a logger of their own.

    The same rules as twistd's: `--syslog` before `--logfile`, standard output in the foreground, `twistd.log`
    in the background.
    """
    if twistd.get("logger"):
        return None
    if twistd.get("syslog"):
        syslog.openlog(twistd.get("prefix") or "whatsapp-egress")
        return lambda line: syslog.syslog(line.decode("utf-8").rstrip("\n"))
    name, foreground = twistd.get("logfile"), twistd.get("nodaemon", True)
    if name == "-" and not foreground:
        raise SystemExit("A daemon can't log to standard output.")
    if name == "-" or (foreground and not name):
        if sys.stdout is None:
            raise SystemExit("Standard output is closed. Name a file with twistd's --logfile.")
        return _to_stream(sys.stdout)
    file = LogFile.fromFullPath(name or "twistd.log")
    _rotate_when_told(file)

    def write(line: bytes) -> None:
        file.write(line)

    return write


def _to_stream(stream: TextIO) -> Write:
    # twistd redirects sys.stdout into the log, so the stream is held on to. Bytes, as JSON is UTF-8 whatever
    # the locale says.
    octets = stream.buffer

    def write(line: bytes) -> None:
        octets.write(line)
        octets.flush()

    return write


def _rotate_when_told(file: LogFile) -> None:
    """Rotate on SIGUSR1, unless somebody else listens to it, as twistd does."""
    if signal.getsignal(signal.SIGUSR1):
        return

    def rotate(_signal: int, _frame: object) -> None:
        from twisted.internet import reactor  # noqa: PLC0415

        reactor.callFromThread(file.rotate)  # type: ignore[attr-defined]

    signal.signal(signal.SIGUSR1, rotate)
