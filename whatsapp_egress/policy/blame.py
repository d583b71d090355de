"""What the end of an attempt says about the tenant and the road to Meta."""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum

from whatsapp_egress.policy.table import ErrorClass
from whatsapp_egress.policy.verdict import Dead, Fault, Reason, Retry, Sent, Verdict, Wait


class Word(Enum):
    """What breakers are told: that all is well, that there is trouble, or nothing that concerns them."""

    WELL = "well"
    TROUBLE = "trouble"
    NOTHING = "nothing"


_TROUBLES = {ErrorClass.TRANSIENT, ErrorClass.TENANT_ACCOUNT}


def word(verdict: Verdict | None) -> Word:
    """Only failures that say something about the tenant or its road are trouble, never a bad recipient.

    The first refusal of a token says nothing yet: fresh credentials may mend it. None is an attempt that was
    cut off.
    """
    if isinstance(verdict, Sent):
        return Word.WELL
    if verdict is None or isinstance(verdict, Wait) or verdict.fault is None:
        return Word.NOTHING
    if isinstance(verdict, Dead) and verdict.reason is Reason.AUTH_FAILED:
        return Word.TROUBLE
    return Word.TROUBLE if verdict.fault.error_class in _TROUBLES else Word.NOTHING


def answered(verdict: Verdict | None) -> bool:
    """Whether Meta answered as it does when all is well with it, be it with a no."""
    if isinstance(verdict, (Retry, Dead)):
        return verdict.fault is not None and word(verdict) is Word.NOTHING
    return isinstance(verdict, Sent)


def kind(verdict: Verdict | None) -> Hashable:
    """What makes two troubles the same."""
    fault = verdict.fault if isinstance(verdict, (Retry, Wait, Dead)) else None
    fault = fault or Fault("")
    return fault.error_class, fault.code, fault.http_status
