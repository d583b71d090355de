"""Takes secrets out of text: those it was told of, and what looks like one."""

from __future__ import annotations

import json
import re
from base64 import b64encode, urlsafe_b64encode
from collections import OrderedDict
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from attrs import define, field

from whatsapp_egress.observe.needles import Needles

REDACTED = "[REDACTED]"

MOST_KNOWN = 20_000
"""Secrets learned at run time that are remembered; about 1.3 KB each for a token of 200 characters."""

SECRET_WORDS = (
    "token",
    "passw",
    "passphrase",
    "secret",
    "authorization",
    "appsecretproof",
    "cookie",
    "apikey",
    "privatekey",
)
"""A field with one of these in its name (in lower case, without `_` and `-`) holds a secret."""

_PLAIN = re.compile(r"[A-Za-z0-9._~-]*\Z")
"""What looks the same however it is quoted, escaped or encoded."""

_META_TOKEN = re.compile(r"EAA[A-Za-z0-9]{20,}")
_BEARER = re.compile(r"(?i)\b(bearer['\"]?(?:\s|%20|\\t){1,4})[^\s'\",;)}\]]+")
_WORDS = (
    r"(?i:token|passw(?:or)?d|passphrase|secret|authorization|appsecret_proof|cookie|api_?key|private_?key)"
)
_NAMED = re.compile(
    # name=value, as in a query, a form or a repr; the value may be quoted
    rf"({_WORDS}[\w-]{{0,40}}=)(b?'[^']*'|b?\"[^\"]*\"|[^\s&;,'\")}}\]]+)"
    # 'name': 'value', as in JSON and in the repr of a mapping or of headers
    rf"|({_WORDS}[\w-]{{0,40}}['\"]\s{{0,4}}:\s{{0,4}}\[?)(b?'[^']*'|b?\"[^\"]*\")"
    # the header line, to its end
    r"|(\b(?i:(?:proxy-)?authorization|(?:set-)?cookie)\s{0,4}:\s{0,4})([^\r\n'\"]+)"
)
_HINTS = ("token", "passw", "passphrase", "secret", "authorization", "cookie", "key")
_SHORTEST_BASE64 = 8


def is_secret_name(name: str) -> bool:
    """Say whether a field or header called `name` holds a secret."""
    bare = name.lower().replace("_", "").replace("-", "")
    return any(word in bare for word in SECRET_WORDS)


def _frozen(secrets: Iterable[str]) -> frozenset[str]:
    return frozenset(secrets)


@define(eq=False)
class Redactor:
    """Knows the secrets of this process and keeps them out of text.

    `lasting` secrets are known for ever, and also in base64. Those learned by `know` are forgotten, the one
    unheard of for the longest time first, when there are more than `most`. Each is found wherever it stands,
    as part of a longer word, percent-encoded, or escaped as in a repr or in JSON.
    """

    _lasting: frozenset[str] = field(converter=_frozen, factory=frozenset)
    _most: int = MOST_KNOWN
    _learned: OrderedDict[str, None] = field(factory=OrderedDict, init=False)
    _needles: Needles = field(factory=Needles, init=False)

    def __attrs_post_init__(self) -> None:
        for secret in self._lasting:
            for form in _forms(secret) | _base64_forms(secret):
                self._needles.add(form)

    def know(self, secret: str) -> None:
        """Keep `secret` out of all text from now on."""
        if secret in self._learned:
            self._learned.move_to_end(secret)
        elif secret and secret not in self._lasting:
            self._learned[secret] = None
            for form in _forms(secret):
                self._needles.add(form)
            if len(self._learned) > self._most:
                self.forget(next(iter(self._learned)))

    def forget(self, secret: str) -> None:
        """Let `secret` stand again, if it was learned by `know`."""
        if secret in self._learned:
            del self._learned[secret]
            for form in _forms(secret):
                self._needles.discard(form)

    def known(self, text: str) -> str:
        """Return `text` without the secrets that are known; for what can't hold others."""
        spans = self._needles.spans(text)
        return _cover(text, spans) if spans else text

    def text(self, text: str) -> str:
        """Return `text` without the secrets that are known and without what looks like one."""
        text = self.known(text)
        # The expressions are slow beside a search for a word without which they can't match.
        if "EAA" in text:
            text = _META_TOKEN.sub(REDACTED, text)
        if not text.isalnum():
            small = text.lower()
            if "bearer" in small:
                text = _BEARER.sub(rf"\1{REDACTED}", text)
            if any(hint in small for hint in _HINTS):
                text = _NAMED.sub(_without_value, text)
        return text

    def reach(self) -> int:
        """The length of the longest secret that is known: text is not to be cut closer before it is clean."""
        return self._needles.longest()


def _without_value(match: re.Match[str]) -> str:
    name = match[1] or match[3] or match[5]
    value: str = match[2] or match[4] or match[6]
    if value.startswith(REDACTED[:-1]):
        return match[0]
    opening = re.match(r"b?['\"]", value)
    return f"{name}{opening[0]}{REDACTED}{value[-1]}" if opening else f"{name}{REDACTED}"


def _cover(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """Put one `REDACTED` in the place of each stretch of overlapping spans."""
    parts: list[str] = []
    done = 0
    for start, end in sorted(spans):
        if start >= done:
            parts += [text[done:start], REDACTED]
        done = max(done, end)
    parts.append(text[done:])
    return "".join(parts)


def _forms(secret: str) -> frozenset[str]:
    """`secret` in every writing it may turn up in."""
    if _PLAIN.match(secret):
        return frozenset([secret])
    octets = secret.encode("utf-8", "surrogatepass")
    escaped = json.dumps(secret)[1:-1]
    return frozenset(
        [
            secret,
            repr(secret)[1:-1],
            repr(octets)[2:-1],
            secret.replace("\\", "\\\\").replace("'", "\\'"),
            escaped,
            escaped.replace("\\", "\\\\"),
            json.dumps(secret, ensure_ascii=False)[1:-1],
            quote(octets, safe=""),
            quote(octets),
            quote_plus(octets),
        ]
    )


def _base64_forms(secret: str) -> frozenset[str]:
    """What base64 makes of `secret` behind any prefix, as in Basic credentials."""
    octets = secret.encode("utf-8", "surrogatepass")
    forms = set()
    for encode in (b64encode, urlsafe_b64encode):
        for before in range(3):
            # The first characters depend on what stands before, the last one on what comes after.
            first, last = (8 * before + 5) // 6, 8 * (before + len(octets)) // 6
            forms.add(encode(b"\0" * before + octets).decode("ascii")[first:last])
    return frozenset(form for form in forms if len(form) >= _SHORTEST_BASE64)
