import io
import re
from unittest import TestCase

from rich.console import Console

from whatsapp_egress.sandbox.fates import Fate
from whatsapp_egress.sandbox.ledger import Ledger
from whatsapp_egress.sandbox.screen import Screen


class ScreenTests(TestCase):
    def setUp(self) -> None:
        self.written = io.StringIO()
        fate = Fate("acme", "1", "all is fine", [], sent=2, dead_lettered={"rejected": 1})
        self.ledger = Ledger([fate], published={"m1": "acme", "m2": "acme", "m3": "acme", "m4": "acme"})
        self.ledger.accepted(["m1", "m2"])
        self.ledger.dead_letter("m3", "rejected")

    def screen(self, terminal: bool = False) -> Screen:
        console = Console(file=self.written, width=120, force_terminal=terminal, color_system=None)
        screen = Screen(console)
        self.addCleanup(screen.__exit__)
        return screen

    def test_in_a_log_it_writes_a_line_now_and_then(self) -> None:
        screen = self.screen()
        for seconds in (0.4, 2.0, 5.0, 5.4, 5.8):
            screen.show(self.ledger, seconds)
        assert self.written.getvalue().splitlines() == [
            "   0 s: 2 sent, 1 dead-lettered (rejected 1), 1 waiting",
            "   5 s: 2 sent, 1 dead-lettered (rejected 1), 1 waiting",
        ]

    def test_on_a_terminal_it_draws_the_table(self) -> None:
        with self.screen(terminal=True) as screen:
            screen.show(self.ledger, 1.0)
        assert re.search("acme .* all is fine .* 4 .* 2 .* rejected 1 .* 1 ", self.written.getvalue())

    def test_the_tally_adds_up(self) -> None:
        for terminal in (False, True):
            screen = self.screen(terminal)
            self.ledger.queued = {"m4"}
            screen.tally(self.ledger)
            assert (
                "4 published = 2 sent + 1 dead-lettered (rejected 1) + 1 still queued + 0 missing"
                in self.written.getvalue()
            )

    def test_what_is_not_queued_is_missing(self) -> None:
        self.screen().tally(self.ledger)
        assert "+ 0 still queued + 1 missing" in self.written.getvalue()

    def test_brackets_are_written_as_they_are(self) -> None:
        self.screen().say("[bold] is no markup")
        assert self.written.getvalue() == "[bold] is no markup\n"
