"""Who is let in, and that it can't be found out how close a guess is."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.control.served import TOKEN
from whatsapp_egress.control.access import Access

GUESSES = [
    [],
    [b""],
    [b"Bearer"],
    [b"Bearer "],
    [TOKEN.encode()],
    [b"Basic " + TOKEN.encode()],
    [b"Bearer " + TOKEN[:-1].encode()],
    [b"Bearer " + TOKEN.encode() + b"x"],
    [b"Bearer x" + TOKEN[1:].encode()],
    [b"Bearer " + TOKEN.upper().encode()],
    [b"Bearer " + TOKEN.encode() + b" x"],
    [b"Bearer " + TOKEN.encode() + b"\n"],
    [b"Bearer\t" + TOKEN.encode()],
    [b"Bearer \xff\xfe"],
    [b"Bearer " + b"x" * 16_000],
    [b"Bearer " + TOKEN.encode(), b"Bearer " + TOKEN.encode()],
]
"""None of them is the token in one bearer header."""


class AccessTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.access = Access.by(TOKEN)

    def test_who_shows_the_token_is_let_in(self) -> None:
        for scheme in (b"Bearer ", b"bearer ", b"BEARER   "):
            assert self.access.admits([scheme + TOKEN.encode()])

    def test_nobody_else_is(self) -> None:
        for guess in GUESSES:
            assert not self.access.admits(guess), guess

    def test_its_repr_shows_nothing(self) -> None:
        shown = repr(self.access)

        assert TOKEN not in shown
        assert repr(self.access._expected) not in shown

    def test_neither_is_one_token_let_in_by_another_nor_do_digests_of_two_processes_agree(self) -> None:
        assert not Access.by(TOKEN + "x").admits([b"Bearer " + TOKEN.encode()])
        assert Access.by(TOKEN)._expected != self.access._expected


class WorkTests(SynchronousTestCase):
    """What would take longer for a better guess is seen where it would happen: in what is compared."""

    def setUp(self) -> None:
        self.compared: list[tuple[bytes, bytes]] = []
        self.digested: list[bytes] = []
        compare, digest = hmac.compare_digest, hmac.digest

        def comparing(one: bytes, other: bytes) -> bool:
            self.compared.append((one, other))
            return compare(one, other)

        def digesting(key: bytes, message: bytes, how: str) -> bytes:
            self.digested.append(message)
            return digest(key, message, how)

        self.access = Access.by(TOKEN)
        self.patch(hmac, "compare_digest", comparing)
        self.patch(hmac, "digest", digesting)

    def test_every_guess_costs_one_digest_and_one_comparison_in_constant_time(self) -> None:
        for guess in (*GUESSES, [b"Bearer " + TOKEN.encode()]):
            self.compared.clear()
            self.digested.clear()
            self.access.admits(guess)

            assert len(self.digested) == 1, guess
            ((one, other),) = self.compared
            assert (type(one), len(one)) == (type(other), len(other)) == (bytes, 32), guess

    def test_a_guess_that_is_nearly_right_is_no_nearer_than_any_other(self) -> None:
        """What is compared begins alike by chance alone, however much of a guess is right."""
        self.access.admits([b"Bearer " + TOKEN.encode()])
        for right in range(len(TOKEN)):
            self.access.admits([b"Bearer " + (TOKEN[:right] + "?" * (len(TOKEN) - right)).encode()])
        (right_digest, expected), *others = self.compared

        assert right_digest == expected
        assert all(_alike(one, expected) <= 3 for one, _ in others)

    def test_what_is_compared_can_not_be_worked_out_by_who_guesses(self) -> None:
        other: Any = Access.by(TOKEN)
        self.access.admits([b"Bearer a-guess"])
        other.admits([b"Bearer a-guess"])

        assert self.compared[0][0] != self.compared[1][0]


class Leaky:
    """Compares as one must not: it stops at the first difference."""

    def __init__(self, token: str) -> None:
        self._expected = b"Bearer " + token.encode()

    def admits(self, authorization: list[bytes]) -> bool:
        (shown,) = authorization
        return len(shown) == len(self._expected) and all(
            one == other for one, other in zip(shown, self._expected, strict=True)
        )


class TimingTests(SynchronousTestCase):
    """With a stopwatch, and a token so long that stopping early shows. The two guesses take turns, and the
    faster quarter of each counts: a busy machine slows both alike."""

    token = "a" * 4000

    def ratio(self, admits: Callable[[list[bytes]], bool]) -> float:
        """How much longer a guess takes of which all but the end is right than one that begins wrong."""
        guesses = [b"Bearer " + guess.encode() for guess in (self.token[:-1] + "b", "b" + self.token[1:])]
        took: list[list[int]] = [[], []]
        for _ in range(1500):
            for times, guess in zip(took, guesses, strict=True):
                began = perf_counter_ns()
                assert not admits([guess])
                times.append(perf_counter_ns() - began)
        close, far = (sorted(times)[len(times) // 4] for times in took)
        return close / far

    def test_a_close_guess_takes_as_long_as_a_far_one(self) -> None:
        assert 0.7 < self.ratio(Access.by(self.token).admits) < 1.4

    def test_the_stopwatch_would_show_it(self) -> None:
        assert self.ratio(Leaky(self.token).admits) > 3


def _alike(one: bytes, other: bytes) -> int:
    """How many bytes they have in common at their beginning."""
    return next((n for n in range(len(one)) if one[n] != other[n]), len(one))
