"""The command `whatsapp-egress` itself."""

from __future__ import annotations

import os

import click

from whatsapp_egress import __version__
from whatsapp_egress.cli.check import check
from whatsapp_egress.cli.dead_letters import dead_letters
from whatsapp_egress.cli.lanes import lanes, why
from whatsapp_egress.cli.send import send
from whatsapp_egress.cli.steering import breaker_reset, credentials_drop, pause, resume

_EPILOG = """\b
Exit status:
  0    done
  1    failed, or what was asked for is not there
  2    the command was not understood (send: also no outcome in time)
  3    nobody there: gateway or broker can't be reached
  4    refused: token missing or wrong, or the control API is not enabled
  130  interrupted

`check` and `send` read the gateway's own settings from the environment; `twistd whatsapp-egress --help` lists
them. The others ask a running gateway: --url or EGRESS_URL says where, ADMIN_TOKEN or ADMIN_TOKEN_FILE holds
its token."""


@click.group(
    epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}
)
@click.version_option(__version__, prog_name="whatsapp-egress", message="%(prog)s %(version)s")
@click.pass_context
def main(context: click.Context) -> None:
    """See and steer the gateway that sends WhatsApp messages from RabbitMQ to Meta's Cloud API.

    Times are shown in UTC. Phone numbers are shown by their last 4 digits.
    """
    if os.environ.get("NO_COLOR"):
        context.color = False


for _command in (
    check,
    send,
    lanes,
    why,
    pause,
    resume,
    breaker_reset,
    credentials_drop,
    dead_letters,
):
    main.add_command(_command)
