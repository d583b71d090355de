"""Where the gateway's control API is and who asks it: the options that its commands share."""

from __future__ import annotations

import functools
import getpass
import os
import re
import socket
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
from attrs import field, frozen
from twisted.internet.defer import Deferred

from whatsapp_egress.cli.gateway import Gateway
from whatsapp_egress.cli.running import note, on_reactor
from whatsapp_egress.cli.trouble import Refused
from whatsapp_egress.message import TENANT_ID
from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.setting import Unfit, read_settings, setting
from whatsapp_egress.setting_kinds import base_url, is_loopback, token, whole

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])

LOOPBACK = "127.0.0.1"
_LONGEST_ACTOR = 100


@frozen(kw_only=True)
class _Environment:
    """What the gateway's own settings tell of its control API."""

    health_check_port: int = setting(whole(0, 65535), default="8081", means="Port of the control API.")
    admin_token: str | None = setting(token(), default=None, secret=True, means="Token of the control API.")


@frozen(kw_only=True)
class Reach:
    """The address of a control API, and the token for it."""

    url: str
    ca_file: Path | None = None
    token: str = field(repr=False)

    def run(self, ask: Callable[[Gateway], Coroutine[Deferred[Any], Any, T]]) -> T:
        """Return what `ask` comes to with a gateway to ask."""

        async def main(reactor: Any) -> T:
            pem = self.ca_file.read_bytes() if self.ca_file else None
            gateway = Gateway.over(reactor, self.url, self.token, pem)
            try:
                return await ask(gateway)
            finally:
                await gateway.close()

        return on_reactor(main, Redactor([self.token]))


class _Tenant(click.ParamType[str]):
    name = "tenant"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not re.match(TENANT_ID, text):
            self.fail(
                f"{text!r} is no tenant id: expected letters, digits, '.', '_' and '-', 64 at most.",
                param,
                ctx,
            )
        return text


TENANT = _Tenant()


class _Url(click.ParamType[str]):
    name = "url"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return base_url().read(str(value))
        except Unfit as unfit:
            self.fail(f"expected {base_url().expects}. {unfit}".strip(), param, ctx)


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document, for scripts.")


def asks_gateway(command: Command) -> Command:
    """Give a command the options that say where the gateway is; it gets them as a `Reach`, first."""

    @click.option(
        "--url",
        envvar="EGRESS_URL",
        show_envvar=True,
        type=_Url(),
        help="Where the gateway's health port is.  [default: http://127.0.0.1:HEALTH_CHECK_PORT]",
    )
    @click.option(
        "--ca-file",
        envvar="EGRESS_CA_FILE",
        show_envvar=True,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="More trust roots, for an https:// URL.",
    )
    @json_option
    @functools.wraps(command)
    def with_reach(*args: Any, url: str | None, ca_file: Path | None, **options: Any) -> Any:
        return command(_reach(url, ca_file), *args, **options)

    return with_reach  # type: ignore[return-value]


def _reach(url: str | None, ca_file: Path | None) -> Reach:
    values, faults = read_settings(_Environment, os.environ)
    for fault in faults:
        if fault.name == "ADMIN_TOKEN":
            raise Refused(str(fault))
        if url is None:
            raise click.UsageError(f"{fault} Or give --url.")
    given = values.get("admin_token")
    if given is None:
        raise Refused(
            "There is no token. Set ADMIN_TOKEN, or ADMIN_TOKEN_FILE to the path of a file that holds it;"
            " it is the one that the gateway was started with."
        )
    if url is None:
        port = values.get("health_check_port", 8081)
        if port == 0:
            raise click.UsageError(
                "HEALTH_CHECK_PORT=0 takes a free port, which only the gateway's log knows"
                " (service_started, healthPort). Give --url."
            )
        url = f"http://{LOOPBACK}:{port}"
    if url.startswith("http://") and not is_loopback(url):
        note(f"Warning: the token travels unencrypted to {url}; https:// or a tunnel would hide it.")
    return Reach(url=url, ca_file=ca_file, token=given)


class _Actor(click.ParamType[str]):
    name = "name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).strip()
        if not text or not text.isprintable() or len(text) > _LONGEST_ACTOR:
            self.fail(f"expected 1 to {_LONGEST_ACTOR} printable characters.", param, ctx)
        return text


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


actor_option = click.option(
    "--actor",
    type=_Actor(),
    default=_who,
    show_default="user@host",
    help="Who does it, for the gateway's audit log.",
)
