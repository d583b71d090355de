"""`pause`, `resume`, `breaker-reset` and `credentials-drop`: what an operator changes about one tenant."""

from __future__ import annotations

import time

import click

from whatsapp_egress.cli.durations import Duration, Moment, when
from whatsapp_egress.cli.lanes import show_lane
from whatsapp_egress.cli.reach import TENANT, Reach, actor_option, asks_gateway
from whatsapp_egress.cli.tables import put
from whatsapp_egress.message import seconds_of


@click.command(short_help="Send nothing for a tenant.")
@click.argument("tenant", type=TENANT)
@click.option("--reason", required=True, help="Why, for those who find it paused.")
@click.option("--for", "duration", type=Duration(), help="Resume after so long: 90s, 15m, 2h, 1d.")
@click.option("--until", type=Moment(), help="Resume then: an ISO 8601 time.")
@actor_option
@asks_gateway
def pause(
    reach: Reach,
    tenant: str,
    reason: str,
    duration: float | None,
    until: str | None,
    actor: str,
    as_json: bool,
) -> None:
    """Send nothing for TENANT until it is resumed; its messages wait and stay safe."""
    if duration is not None and until is not None:
        raise click.UsageError("Give --for or --until, not both.")
    if not reason.strip():
        raise click.BadParameter("say why, for those who find it paused.", param_hint="--reason")
    if until is not None and seconds_of(until) <= time.time():
        raise click.BadParameter(f"{until} has passed.", param_hint="--until")
    document: dict[str, object] = {"reason": reason, "actor": actor}
    if duration is not None:
        document["seconds"] = duration
    if until is not None:
        document["until"] = until
    lane = reach.run(lambda gateway: gateway.post("lanes", tenant, "pause", document=document))
    if not as_json:
        ends = (lane.get("pause") or {}).get("until")
        tail = f"until {when(ends)}" if ends else f"until `whatsapp-egress resume {tenant}`"
        put(f"{tenant} is paused {tail}.")
    show_lane(lane, as_json)


def _changes(path: tuple[str, ...], done: str, short: str, help_text: str) -> click.Command:
    """A command that has one thing done for a tenant."""

    @click.argument("tenant", type=TENANT)
    @actor_option
    @asks_gateway
    def change(reach: Reach, tenant: str, actor: str, as_json: bool) -> None:
        lane = reach.run(lambda gateway: gateway.post("lanes", tenant, *path, document={"actor": actor}))
        if not as_json:
            put(done.format(tenant=tenant))
        show_lane(lane, as_json)

    return click.command("-".join(path), short_help=short, help=help_text)(change)


resume = _changes(
    ("resume",),
    "{tenant} sends again.",
    "Let a tenant send again.",
    "Let TENANT send again, after a pause.",
)
breaker_reset = _changes(
    ("breaker", "reset"),
    "The breaker of {tenant} is closed.",
    "Close a tenant's breaker.",
    "Close TENANT's breaker now, instead of when its time is over.",
)
credentials_drop = _changes(
    ("credentials", "drop"),
    "The credentials of {tenant} are forgotten; the next message has them fetched.",
    "Have credentials fetched anew.",
    "Forget TENANT's credentials, so that they are fetched anew.",
)
