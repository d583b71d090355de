"""Several observers, told as one."""

from __future__ import annotations

import inspect
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.observe.everyone import Deaf, Everyone
from whatsapp_egress.pipeline.observer import Observer

CALLS = [name for name, _ in inspect.getmembers(Observer, inspect.isfunction) if not name.startswith("_")]


class Noting:
    """Notes whatever it is told, by name."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *told, **more: self.told.append((name, *told, *more.items()))


def arguments(name: str) -> tuple[list[object], dict[str, object]]:
    parameters = list(inspect.signature(getattr(Observer, name)).parameters.values())[1:]
    plain = [object() for each in parameters if each.kind is not each.KEYWORD_ONLY]
    return plain, {each.name: object() for each in parameters if each.kind is each.KEYWORD_ONLY}


class EveryoneTests(SynchronousTestCase):
    def test_each_call_reaches_all_of_them_as_it_came(self) -> None:
        assert len(CALLS) > 15
        for name in CALLS:
            first, second = Noting(), Noting()
            plain, named = arguments(name)

            getattr(Everyone((first, second)), name)(*plain, **named)  # type: ignore[arg-type]

            assert first.told == second.told == [(name, *plain, *named.items())], name

    def test_one_that_takes_no_notice_can_be_told_all_the_same(self) -> None:
        for name in CALLS:
            plain, named = arguments(name)
            assert getattr(Deaf(), name)(*plain, **named) is None, name
