"""One setting: how it is declared, read from the environment and found to be wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

from attrs import NOTHING, Factory, evolve, field, fields, frozen

T = TypeVar("T")

_METADATA = "whatsapp_egress.setting"
_LONGEST_SECRET = 64 * 1024
_LONGEST_SHOWN = 80


class Unfit(Exception):
    """A text is no value of its kind."""


@frozen
class Kind(Generic[T]):
    """What values a setting takes.

    `expects` ends the sentence "expected ...". `read` makes the value from text that is not empty; it raises
    `Unfit`, with a sentence that says more than `expects` where there is more to say, never with the value.
    """

    expects: str
    read: Callable[[str], T]
    unit: str = ""


@frozen
class Setting:
    """The declaration of one setting, from which it is read, listed and documented."""

    name: str
    """The name of the environment variable."""
    kind: Kind[Any]
    default: str | None
    """As it would stand in the environment; None where there is none."""
    required: bool
    secret: bool
    means: str

    @property
    def default_shown(self) -> str:
        """The default with its unit, for people."""
        if self.default is None:
            return "required" if self.required else "none"
        return f"{self.default} {self.kind.unit}".strip()


@frozen
class Fault:
    """What is wrong with one setting. It never holds the value of a secret."""

    name: str
    """The setting, as in the table of settings."""
    source: str
    """Where the value came from: the name itself, or NAME_FILE and the path."""
    problem: str
    """What is the matter: "is missing", "is '70000'", "can't be read: ..."."""
    expected: str
    advice: str = ""

    def __str__(self) -> str:
        sentence = f"{self.source} {self.problem}; expected {self.expected}."
        return f"{sentence} {self.advice}" if self.advice else sentence


class BadSettings(Exception):
    """The environment does not make a configuration. Its message names every fault, one a line."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(faults)
        self.faults = faults

    def __str__(self) -> str:
        many = len(self.faults)
        which = "a setting is" if many == 1 else f"{many} settings are"
        return "\n".join(
            [
                f"whatsapp-egress can't start: {which} wrong or missing.",
                *(f"  - {fault}" for fault in self.faults),
                "Correct the environment and start again; `twistd whatsapp-egress --help` lists every one.",
            ]
        )


@overload
def setting(kind: Kind[T], *, means: str) -> T: ...
@overload
def setting(
    kind: Kind[T], *, default: str, means: str, secret: bool = ..., derive: Callable[[Any], T] | None = ...
) -> T: ...
@overload
def setting(kind: Kind[T], *, default: None, means: str, secret: bool = ...) -> T | None: ...


def setting(
    kind: Kind[Any],
    *,
    default: str | object | None = NOTHING,
    means: str,
    secret: bool = False,
    derive: Callable[[Any], Any] | None = None,
) -> Any:
    """Declare an attribute of an attrs class as a setting.

    `default` is written as in the environment; without one the setting is required. Where it depends on
    other settings, `derive` makes it from the record, and `default` tells people what comes out. A `secret`
    can also be given as a file, and is left out of the record's repr and of every message.
    """
    declared = Setting(
        name="",
        kind=kind,
        default=default if isinstance(default, str) else None,
        required=default is NOTHING,
        secret=secret,
        means=means,
    )
    held = default
    if derive is not None:
        held = Factory(derive, takes_self=True)
    elif isinstance(default, str):
        held = kind.read(default)
    return field(default=held, repr=not secret, metadata={_METADATA: declared})


def settings_of(record: type) -> Iterator[tuple[str, Setting]]:
    """Each attribute of `record` with its declaration, in the order of the class."""
    for attribute in fields(record):
        yield attribute.name, evolve(attribute.metadata[_METADATA], name=attribute.name.upper())


def read_settings(record: type, environ: Mapping[str, str]) -> tuple[dict[str, Any], list[Fault]]:
    """Return the values given for the attributes of `record`, and what is wrong with the others.

    A variable that is empty, or blank where it is not a secret, counts as not given.
    """
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for attribute, declared in settings_of(record):
        try:
            text, source = _given(declared, environ)
            if text:
                values[attribute] = _read(declared, text, source)
        except _Wrong as wrong:
            faults.append(
                Fault(declared.name, wrong.source, wrong.problem, declared.kind.expects, wrong.advice)
            )
        else:
            if declared.required and not text:
                faults.append(Fault(declared.name, declared.name, "is missing", declared.kind.expects))
    return values, faults


class _Wrong(Exception):
    def __init__(self, source: str, problem: str, advice: str = "") -> None:
        super().__init__(source, problem)
        self.source = source
        self.problem = problem
        self.advice = advice


def _given(declared: Setting, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the text of a setting, empty if there is none, and where it stands."""
    name = declared.name
    text = environ.get(name, "")
    if not declared.secret:
        return text.strip(), name
    path = environ.get(f"{name}_FILE", "").strip()
    if not path:
        return text, name
    if text:
        raise _Wrong(name, f"and {name}_FILE are both given", "Unset one of them.")
    return _secret_in(path, f"{name}_FILE={path}"), f"{name}_FILE={path}"


def _secret_in(path: str, source: str) -> str:
    """Read a secret; the one line end that editors add is not part of it."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LONGEST_SECRET + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise _Wrong(source, f"can't be read: {reason}", "Check the path and its permissions.") from error
    if len(content) > _LONGEST_SECRET:
        raise _Wrong(source, f"holds more than {_LONGEST_SECRET} bytes")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        # Not chained: the error holds the bytes.
        raise _Wrong(source, "is not UTF-8 text") from None
    text = text[:-1] if text.endswith("\n") else text
    text = text[:-1] if text.endswith("\r") else text
    if not text:
        raise _Wrong(source, "is empty")
    return text


def _read(declared: Setting, text: str, source: str) -> Any:
    try:
        return declared.kind.read(text)
    except Unfit as error:
        advice = str(error)
    # Outside of the handler, so that an error which may quote the value is not chained.
    if declared.secret:
        raise _Wrong(source, "is not usable (its value is not shown)", advice)
    raise _Wrong(source, f"is {shown(text)}", advice)


def shown(text: str) -> str:
    """`text` for a message: quoted, cut, and without what may be a password or a token in a URL."""
    if "//" in text:
        text = re.sub(r"//.*@", "//***@", text, flags=re.DOTALL)
        text = re.sub(r"\?.*", "?***", text, flags=re.DOTALL)
    return repr(text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "...")
