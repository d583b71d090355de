"""Who may use the control API: those who know its token."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Sequence

from attrs import field, frozen

_BEARER = re.compile(rb"bearer +([!-~]+)\Z", re.IGNORECASE)


@frozen
class Access:
    """Admits who shows the token.

    Only a digest of it is kept, under a key of this process. What is shown is digested in the same way before
    the two are compared, so they are of one length and have nothing in common unless they are the same: how
    long it takes says nothing of how much of a guess is right. A header that is missing or malformed costs
    the same work as a wrong one.
    """

    _key: bytes = field(repr=False)
    _expected: bytes = field(repr=False)

    @classmethod
    def by(cls, token: str) -> Access:
        """By ADMIN_TOKEN."""
        key = secrets.token_bytes(32)
        return cls(key, _digest(key, token.encode()))

    def admits(self, authorization: Sequence[bytes]) -> bool:
        """Whether the values of the request's Authorization headers, of which there must be one, say so."""
        return hmac.compare_digest(_digest(self._key, _shown(authorization)), self._expected)


def _digest(key: bytes, token: bytes) -> bytes:
    return hmac.digest(key, token, "sha256")


def _shown(authorization: Sequence[bytes]) -> bytes:
    """The token in the header; nothing, which is no token, where it is not one header with a bearer token."""
    found = _BEARER.match(authorization[0]) if len(authorization) == 1 else None
    return b"" if found is None else found[1]
