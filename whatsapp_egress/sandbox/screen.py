"""How the demo looks on a terminal, and as plain lines where there is none."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from whatsapp_egress.sandbox.ledger import Counts, Ledger, in_words, reasons_in_words

_PLAIN_EVERY = 5.0  # seconds between two lines where no table can be redrawn
_BAR_WIDTH = 16
_WIDTH_FOR_BARS = 100  # columns of the terminal


class Screen:
    """Shows the ledger while it fills; a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._bars = console.is_terminal and console.width >= _WIDTH_FOR_BARS
        self._next_line = 0.0

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str = "") -> None:
        """Print a line, above the table if there is one."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def show(self, ledger: Ledger, seconds: float) -> None:
        """Show how things stand after so many *seconds*."""
        if self._live is not None:
            self._live.start()
            self._live.update(table(ledger, self._bars), refresh=True)
        elif seconds >= self._next_line:
            self._next_line = seconds + _PLAIN_EVERY
            total = ledger.total()
            self.say(
                f"{seconds:4.0f} s: {in_words(total.sent, total.dead_lettered)}, {total.waiting} waiting"
            )

    def tally(self, ledger: Ledger) -> None:
        """Show how it ended."""
        if self._live is not None:
            self._live.update(table(ledger, self._bars), refresh=True)
            self._live.stop()
        else:
            self._console.print()
            self._console.print(table(ledger, self._bars))
        total = ledger.total()
        self.say()
        missing = max(0, total.waiting - len(ledger.queued))
        ended = in_words(total.sent, total.dead_lettered, " + ")
        self.say(
            f"{total.published} published = {ended} + {len(ledger.queued)} still queued + {missing} missing"
        )


def table(ledger: Ledger, bars: bool = True) -> Table:
    """Return the table of all tenants, with *bars* for how far they are."""
    counts, total = ledger.counts(), ledger.total()
    drawn = Table(show_footer=True, box=box.SIMPLE, pad_edge=False, show_edge=False, collapse_padding=True)
    drawn.add_column("tenant", "all")
    drawn.add_column("what befalls it")
    drawn.add_column("published", str(total.published), justify="right")
    drawn.add_column("sent", str(total.sent), justify="right", style="green")
    drawn.add_column("dead-lettered", str(total.dead_lettered.total()), style="red")
    drawn.add_column("waiting", str(total.waiting), justify="right", style="yellow")
    if bars:
        drawn.add_column("", _bar(total), width=_BAR_WIDTH)
    for fate in ledger.fates:
        row = counts[fate.tenant]
        drawn.add_row(
            fate.tenant,
            fate.words,
            str(row.published),
            str(row.sent),
            reasons_in_words(row.dead_lettered),
            str(row.waiting),
            *([_bar(row)] if bars else []),
        )
    return drawn


def _bar(counts: Counts) -> ProgressBar:
    return ProgressBar(
        total=max(1, counts.published), completed=counts.done, width=_BAR_WIDTH, finished_style="green"
    )
