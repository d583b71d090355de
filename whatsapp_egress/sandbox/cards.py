"""Recipients whose last digits choose what the sandbox answers, as test card numbers do in payments.

An ordinary number is accepted.  A number that ends as below meets the fate it names; any digits may stand in
front, so that many different recipients can share one fate.  Signs other than digits are skipped, so
``+1 555-7-0131026`` works too.

==================================  ======================================================================
the number ends with                what happens
==================================  ======================================================================
``1555 7 CCCCCCC``                  error ``CCCCCCC`` (zero-padded to 7 digits), each time
``1555 7 CCCCCCC SSSSSSS``          the same with error subcode ``SSSSSSS``
``1555 6 N CCCCCCC``                error ``CCCCCCC`` for the first ``N`` requests to this number, then fine
``1555 6 N CCCCCCC SSSSSSS``        the same with a subcode
``1555 9 KK PPP``                   behaviour ``KK`` with parameter ``PPP``, each time
``1555 8 N KK PPP``                 behaviour ``KK`` for the first ``N`` requests to this number, then fine
==================================  ======================================================================

=======  =====================  =========================================================================
``KK``   builder                behaviour; ``PPP`` in brackets
=======  =====================  =========================================================================
``01``   ``hang``               reads the request and never answers
``02``   ``reset``              reads the request, then resets the connection (RST)
``03``   ``close``              reads the request, then closes the connection without an answer
``04``   ``truncated``          accepts; the connection closes in the middle of the body
``05``   ``stalled``            accepts; the body stops in its middle and the connection stays open
``06``   ``slow_body``          accepts; the body trickles in over [tenths of a second]
``07``   ``delayed``            accepts; the answer begins after [tenths of a second]
``08``   ``close_after``        accepts; then the connection closes though it was to be kept alive
``10``   ``without_id``         accepts; the 2xx body has no message id
``11``   ``not_json``           accepts; the 2xx body is plain text
``12``   ``empty``              accepts; the 2xx body is empty
``13``   ``html``               an HTML page of a proxy with HTTP status [status]
``14``   ``redirect``           a redirect with HTTP status [status] to another host's name
``15``   ``gzip_bomb``          accepts; 200 KB of gzip that unpack to 200 MiB
``16``   ``large``              accepts; a body of [MiB] with a message id at its end
``17``   ``cookie``             accepts; sets a cookie
``18``   ``held``               accepts; ``message_status`` is ``held_for_quality_assessment``
``19``   ``status``             accepts with HTTP status [status], such as 201
``20``   ``retry_after``        error 130429 with ``Retry-After`` [seconds]
``21``   ``without_code``       HTTP status [status] with a JSON error that has no code
``22``   ``unknown_transient``  error 999999, which no table has, with ``is_transient``: true; HTTP [status]
``23``   ``secret_proof``       error 100 whose message asks for ``appsecret_proof``
``24``   ``paused``             accepts; ``message_status`` is ``paused``
=======  =====================  =========================================================================

The builders below make such numbers: ``cards.always(131026)``, ``cards.times(2, 131000)``, ``cards.hang()``.
"""

import re
from enum import Enum

from attrs import frozen

_MARK = "1555"
_PATTERN = re.compile(
    r"\d*?1555(?:"
    r"7(?P<code>\d{7})(?P<subcode>\d{7})?"
    r"|6(?P<times>\d)(?P<times_code>\d{7})(?P<times_subcode>\d{7})?"
    r"|9(?P<kind>\d\d)(?P<parameter>\d{3})"
    r"|8(?P<first>\d)(?P<first_kind>\d\d)(?P<first_parameter>\d{3})"
    r")"
)


class Kind(Enum):
    """What a card does; the values are the ``KK`` of the table above, ``ERROR`` has none."""

    ERROR = 0
    HANG = 1
    RESET = 2
    CLOSE = 3
    TRUNCATED = 4
    STALLED = 5
    SLOW_BODY = 6
    DELAYED = 7
    CLOSE_AFTER = 8
    WITHOUT_ID = 10
    NOT_JSON = 11
    EMPTY = 12
    HTML = 13
    REDIRECT = 14
    GZIP_BOMB = 15
    LARGE = 16
    COOKIE = 17
    HELD = 18
    STATUS = 19
    RETRY_AFTER = 20
    WITHOUT_CODE = 21
    UNKNOWN_TRANSIENT = 22
    SECRET_PROOF = 23
    PAUSED = 24


_KINDS = {kind.value: kind for kind in Kind if kind is not Kind.ERROR}


@frozen
class Card:
    """The fate a recipient's digits name."""

    kind: Kind
    code: int = 0
    subcode: int | None = None
    parameter: int = 0
    times: int | None = None  # None: each time


def read(digits: str) -> Card | None:
    """Return the card that the recipient's *digits* name, or None for an ordinary number."""
    if _MARK not in digits:
        return None
    match = _PATTERN.fullmatch(digits)
    if match is None:
        return None
    if match["code"] is not None:
        return Card(Kind.ERROR, int(match["code"]), _number(match["subcode"]))
    if match["times"] is not None:
        times = int(match["times"])
        return Card(Kind.ERROR, int(match["times_code"]), _number(match["times_subcode"]), times=times)
    kind = _KINDS.get(int(match["kind"] or match["first_kind"]))
    if kind is None:
        return None
    parameter = int(match["parameter"] or match["first_parameter"])
    return Card(kind, parameter=parameter, times=_number(match["first"]))


def _number(digits: str | None) -> int | None:
    return None if digits is None else int(digits)


def ordinary(who: int = 0) -> str:
    """Return a number that is accepted; another one for each *who* (0 to 99,999,999)."""
    return f"49151{who:08d}"


def always(code: int, subcode: int | None = None, *, who: int = 0) -> str:
    """Return a number that is answered with error *code* each time."""
    return f"{_front(who)}7{code:07d}{_seven(subcode)}"


def times(n: int, code: int, subcode: int | None = None, *, who: int = 0) -> str:
    """Return a number that is answered with error *code* *n* times (1 to 9), then accepted."""
    return f"{_front(who)}6{_digit(n)}{code:07d}{_seven(subcode)}"


def hang(*, first: int | None = None, who: int = 0) -> str:
    """Return a number that is never answered; with *first*, only so many times."""
    return _behaviour(Kind.HANG, 0, first, who)


def reset(*, first: int | None = None, who: int = 0) -> str:
    """Return a number whose request is read, then the connection is reset."""
    return _behaviour(Kind.RESET, 0, first, who)


def close(*, first: int | None = None, who: int = 0) -> str:
    """Return a number whose request is read, then the connection is closed without an answer."""
    return _behaviour(Kind.CLOSE, 0, first, who)


def truncated(*, first: int | None = None, who: int = 0) -> str:
    """Return a number that is accepted with an answer cut off in the middle of its body."""
    return _behaviour(Kind.TRUNCATED, 0, first, who)


def stalled(*, first: int | None = None, who: int = 0) -> str:
    """Return a number that is accepted with an answer that stops in the middle of its body."""
    return _behaviour(Kind.STALLED, 0, first, who)


def slow_body(tenths: int = 20, *, first: int | None = None, who: int = 0) -> str:
    """Return a number whose answer's body takes *tenths* of a second to arrive."""
    return _behaviour(Kind.SLOW_BODY, tenths, first, who)


def delayed(tenths: int = 20, *, first: int | None = None, who: int = 0) -> str:
    """Return a number whose answer begins after *tenths* of a second."""
    return _behaviour(Kind.DELAYED, tenths, first, who)


def close_after(*, first: int | None = None, who: int = 0) -> str:
    """Return a number that is accepted on a connection that then closes unannounced."""
    return _behaviour(Kind.CLOSE_AFTER, 0, first, who)


def without_id(*, first: int | None = None, who: int = 0) -> str:
    """Return a number that is accepted without a message id."""
    return _behaviour(Kind.WITHOUT_ID, 0, first, who)


def not_json(*, first: int | None = None, who: int = 0) -> str:
    """Return a number that is accepted with plain text."""
    return _behaviour(Kind.NOT_JSON, 0, first, who)


def empty(*, first: int | None = None, who: int = 0) -> str:
    """Return a number that is accepted with an empty body."""
    return _behaviour(Kind.EMPTY, 0, first, who)


def html(status: int = 502, *, first: int | None = None, who: int = 0) -> str:
    """Return a number that is answered with a proxy's HTML page."""
    return _behaviour(Kind.HTML, status, first, who)


def redirect(status: int = 303, *, first: int | None = None, who: int = 0) -> str:
    """Return a number that is answered with a redirect."""
    return _behaviour(Kind.REDIRECT, status, first, who)


def gzip_bomb(*, first: int | None = None, who: int = 0) -> str:
    """Return a number that is answered with a small body that unpacks to a huge one."""
    return _behaviour(Kind.GZIP_BOMB, 0, first, who)


def large(mebibytes: int = 2, *, first: int | None = None, who: int = 0) -> str:
    """Return a number that is answered with a body of so many MiB."""
    return _behaviour(Kind.LARGE, mebibytes, first, who)


def cookie(*, first: int | None = None, who: int = 0) -> str:
    """Return a number that is accepted with a cookie set."""
    return _behaviour(Kind.COOKIE, 0, first, who)


def held(*, first: int | None = None, who: int = 0) -> str:
    """Return a number that is accepted and held for quality assessment."""
    return _behaviour(Kind.HELD, 0, first, who)


def paused(*, first: int | None = None, who: int = 0) -> str:
    """Return a number that is accepted and paused."""
    return _behaviour(Kind.PAUSED, 0, first, who)


def status(code: int = 201, *, first: int | None = None, who: int = 0) -> str:
    """Return a number that is accepted with the HTTP status *code*."""
    return _behaviour(Kind.STATUS, code, first, who)


def retry_after(seconds: int, *, first: int | None = 1, who: int = 0) -> str:
    """Return a number that is throttled (130429) with ``Retry-After``, once by default."""
    return _behaviour(Kind.RETRY_AFTER, seconds, first, who)


def without_code(status: int = 500, *, first: int | None = None, who: int = 0) -> str:
    """Return a number that is answered with a JSON error that has no code."""
    return _behaviour(Kind.WITHOUT_CODE, status, first, who)


def unknown_transient(status: int = 400, *, first: int | None = None, who: int = 0) -> str:
    """Return a number that is answered with an unknown code marked ``is_transient``."""
    return _behaviour(Kind.UNKNOWN_TRANSIENT, status, first, who)


def secret_proof(*, first: int | None = None, who: int = 0) -> str:
    """Return a number that is answered with the error that asks for ``appsecret_proof``."""
    return _behaviour(Kind.SECRET_PROOF, 0, first, who)


def _behaviour(kind: Kind, parameter: int, first: int | None, who: int) -> str:
    many = "9" if first is None else f"8{_digit(first)}"
    return f"{_front(who)}{many}{kind.value:02d}{parameter:03d}"


def _front(who: int) -> str:
    return f"{who}{_MARK}" if who else _MARK


def _seven(subcode: int | None) -> str:
    return "" if subcode is None else f"{subcode:07d}"


def _digit(n: int) -> int:
    if not 1 <= n <= 9:
        raise ValueError(f"a card counts from 1 to 9, not to {n}")
    return n
