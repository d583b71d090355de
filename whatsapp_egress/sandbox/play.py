"""What a card makes of a message that would otherwise be accepted."""

from collections.abc import Callable

from attrs import evolve

from . import answers
from .answers import Answer, Wire
from .cards import Card, Kind
from .errors import MISSING_PROOF, GraphError, error_for

_COOKIE = (b"set-cookie", b"sandbox=crumb; Path=/; Max-Age=3600")
_ELSEWHERE = "http://redirected.invalid/messages"


def play(card: Card, contact: dict[str, str]) -> Answer:
    """Return the answer that *card* names for a message to *contact*."""
    if card.kind in _ERRORS:
        return answers.refused(_ERRORS[card.kind](card))
    if card.kind in _REFUSED:
        return _REFUSED[card.kind](card)
    if card.kind is Kind.STATUS:
        return answers.accepted(contact, status=_status(card, 201))
    if card.kind in _MESSAGE_STATUS:
        return answers.accepted(contact, message_status=_MESSAGE_STATUS[card.kind])
    return _ACCEPTED[card.kind](answers.accepted(contact), card)


def _status(card: Card, default: int) -> int:
    return card.parameter if 200 <= card.parameter <= 599 else default


_MESSAGE_STATUS = {Kind.HELD: "held_for_quality_assessment", Kind.PAUSED: "paused"}

_REFUSED: dict[Kind, Callable[[Card], Answer]] = {
    Kind.HTML: lambda card: answers.page(_status(card, 502)),
    Kind.REDIRECT: lambda card: answers.redirect(_status(card, 303), _ELSEWHERE),
    Kind.HANG: lambda _: Answer(200, b"", wire=Wire.HANG),
    Kind.RESET: lambda _: Answer(200, b"", wire=Wire.RESET),
    Kind.CLOSE: lambda _: Answer(200, b"", wire=Wire.CLOSE),
}

_ERRORS: dict[Kind, Callable[[Card], GraphError]] = {
    Kind.ERROR: lambda card: error_for(card.code, card.subcode),
    Kind.RETRY_AFTER: lambda card: evolve(error_for(130429), retry_after=float(card.parameter)),
    Kind.WITHOUT_CODE: lambda card: GraphError(None, "Please reduce the amount of data", _status(card, 500)),
    Kind.UNKNOWN_TRANSIENT: lambda card: GraphError(
        999999, "(#999999) Something new", _status(card, 400), is_transient=True
    ),
    Kind.SECRET_PROOF: lambda _: MISSING_PROOF,
}

_ACCEPTED: dict[Kind, Callable[[Answer, Card], Answer]] = {
    Kind.TRUNCATED: lambda answer, _: answer.over(Wire.TRUNCATED),
    Kind.STALLED: lambda answer, _: answer.over(Wire.STALLED),
    Kind.SLOW_BODY: lambda answer, card: answer.over(Wire.SLOW, slow_s=card.parameter / 10),
    Kind.DELAYED: lambda answer, card: answer.after(card.parameter / 10),
    Kind.CLOSE_AFTER: lambda answer, _: answer.over(Wire.CLOSE_AFTER),
    Kind.WITHOUT_ID: lambda answer, _: answers.without_id(answer),
    Kind.NOT_JSON: lambda answer, _: evolve(answer, body=b"OK\n", content_type=b"text/plain"),
    Kind.EMPTY: lambda answer, _: evolve(answer, body=b""),
    Kind.GZIP_BOMB: lambda answer, _: answers.bomb(answer),
    Kind.LARGE: lambda answer, card: answers.large(answer, max(1, card.parameter)),
    Kind.COOKIE: lambda answer, _: evolve(answer, headers=(*answer.headers, _COOKIE)),
}
