"""The kinds of value a setting can have, each with its checks and the words that describe it."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from whatsapp_egress.setting import Kind, Unfit

A_YEAR = 365 * 24 * 3600 * 1000
"""Milliseconds; no time of ours is longer, and a typo with three zeros too many is caught."""

_YES_NO = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_WHOLE = re.compile(r"-?[0-9]{1,18}\Z")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?\Z")
_LABEL = r"(?!(?!xn)..--)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*\.?\Z", re.IGNORECASE)
"""What Twisted looks up: labels as of RFC 5891, which have no underscore."""
_VISIBLE = re.compile(r"[!-~]+\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_VERSION = re.compile(r"v[0-9]{1,4}\.[0-9]{1,4}\Z")
_SHORT_STRING = 255


def whole(least: int, most: int, unit: str = "") -> Kind[int]:
    """Return a whole number in ASCII digits: no sign, underscore, exponent or fraction."""

    def read(text: str) -> int:
        if not _WHOLE.match(text) or not least <= int(text) <= most:
            raise Unfit
        return int(text)

    of = f" of {unit}" if unit else ""
    return Kind(f"a whole number{of} from {least} to {most}", read, unit)


def milliseconds(least: int, most: int = A_YEAR) -> Kind[float]:
    """Return a time given as whole milliseconds and held as seconds."""
    given = whole(least, most, "ms")
    return Kind(given.expects, lambda text: given.read(text) / 1000, "ms")


def positive(unit: str) -> Kind[float]:
    """Return a number above 0, at most 1,000,000, that may have a fraction."""
    most = 1_000_000

    def read(text: str) -> float:
        if not _DECIMAL.match(text) or not 0 < float(text) <= most:
            raise Unfit
        return float(text)

    return Kind(f"a number above 0, at most {most}", read, unit)


def flag() -> Kind[bool]:
    """Return true or false."""

    def read(text: str) -> bool:
        try:
            return _YES_NO[text.lower()]
        except KeyError:
            raise Unfit from None

    return Kind("true or false (also yes, no, 1, 0)", read)


def choice(*values: str, **spellings: str) -> Kind[str]:
    """Return one of `values`, in any case; `spellings` are other words for some of them."""

    def read(text: str) -> str:
        word = spellings.get(text.lower(), text.lower())
        if word not in values:
            raise Unfit
        return word

    return Kind(f"one of {', '.join(values)}", read)


def name() -> Kind[str]:
    """Return a name as AMQP has them: a short string."""

    def read(text: str) -> str:
        if len(_utf8(text)) > _SHORT_STRING or _CONTROL.search(text):
            raise Unfit
        return text

    return Kind(f"1 to {_SHORT_STRING} bytes of UTF-8 without control characters", read)


def password() -> Kind[str]:
    """Return any text but NUL, which separates the fields of SASL PLAIN."""

    def read(text: str) -> str:
        if "\0" in text:
            raise Unfit
        _utf8(text)
        return text

    return Kind("text without NUL", read)


def token(least: int = 1) -> Kind[str]:
    """Return what can stand in an HTTP header, of at least so many characters."""

    def read(text: str) -> str:
        if not _VISIBLE.match(text):
            raise Unfit("Look for blanks, line ends and quotation marks around it.")
        if len(text) < least:
            raise Unfit("It is too short: it could be guessed.")
        return text

    many = f"at least {least} " if least > 1 else ""
    return Kind(f"{many}visible ASCII characters without blanks", read)


def host() -> Kind[str]:
    """Return a host name or an address, without scheme and port."""

    def read(text: str) -> str:
        if not _HOST.match(text) and not _is_address(text):
            raise Unfit("Scheme, port and underscores don't belong here.")
        return text

    return Kind("a host name or an IP address", read)


def address() -> Kind[str]:
    """Return an IP address to listen on."""

    def read(text: str) -> str:
        if not _is_address(text):
            raise Unfit("0.0.0.0 and :: listen on every interface.")
        return text

    return Kind("an IP address", read)


def certificates() -> Kind[Path]:
    """Return a PEM file with at least one certificate, readable now."""

    def read(text: str) -> Path:
        path = Path(text)
        try:
            pem = path.read_bytes().decode("ascii", "ignore")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not a path"
            raise Unfit(f"It can't be read: {reason}.") from error
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem)
        except (ssl.SSLError, ValueError) as error:
            raise Unfit("It holds no certificate, or one that can't be read.") from error
        return path.absolute()

    return Kind("the path of a PEM file with at least one certificate", read)


def graph_version() -> Kind[str]:
    """Return a version of the Graph API."""

    def read(text: str) -> str:
        if not _VERSION.match(text):
            raise Unfit
        return text

    return Kind("a version like v25.0", read)


def base_url() -> Kind[str]:
    """Return an http:// or https:// address that paths are put behind; held without a slash at its end."""
    return Kind(
        "an http:// or https:// address without user, query and fragment", _url_reader("http", "https")
    )


def tenant_service() -> Kind[str]:
    """Return the address of a Tenant Service, or of a file that stands for one.

    A file need not exist yet: a Tenant Service that is away at the start is no error.
    """
    web = _url_reader("http", "https")

    def read(text: str) -> str:
        if not text.lower().startswith("file:"):
            return web(text)
        parts = _split(text)
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise Unfit
        if not parts.path.startswith("/") or parts.path.endswith("/") or "\0" in unquote(parts.path):
            raise Unfit("The path is absolute: file:///etc/egress/tenants.json.")
        return f"file://{parts.path}"

    return Kind("an http://, https:// or file:/// address without user, query and fragment", read)


def path_template(*names: str) -> Kind[str]:
    """Return the path, with query, of a URL, in which each of `names` stands once or more in braces."""

    def read(text: str) -> str:
        bare = text
        for placeholder in names:
            if f"{{{placeholder}}}" not in text:
                raise Unfit
            bare = bare.replace(f"{{{placeholder}}}", "")
        if not _VISIBLE.match(text) or not text.startswith("/") or text.startswith("//"):
            raise Unfit
        if set(bare) & set("{}#"):
            raise Unfit("No other braces and no fragment can stand in it.")
        return text

    wanted = " and ".join(f"{{{placeholder}}}" for placeholder in names)
    return Kind(f"a path that starts with / and has {wanted} in it", read)


def is_loopback(url: str) -> bool:
    """Say whether the host of `url` is this machine, by name or by address."""
    named = urlsplit(url).hostname or ""
    return named == "localhost" or (_is_address(named) and ip_address(named).is_loopback)


def _url_reader(*schemes: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        parts = _split(text)
        if parts.scheme not in schemes:
            raise Unfit
        if "@" in parts.netloc:
            raise Unfit("A user and password can't stand in it.")
        if parts.query or parts.fragment or text.endswith(("?", "#")):
            raise Unfit
        named = parts.hostname or ""
        if not (_HOST.match(named) or _is_address(named)):
            raise Unfit("Its host is missing or malformed.")
        return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"

    return read


def _split(text: str) -> SplitResult:
    # urlsplit drops line ends and tabs in silence.
    if not _VISIBLE.match(text):
        raise Unfit("Only visible ASCII characters can stand in it.")
    try:
        parts = urlsplit(text)
        if parts.port == 0:
            raise Unfit("Its port is not a port.")
    except ValueError as error:
        raise Unfit("Its host or port is malformed.") from error
    return parts


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise Unfit from None
