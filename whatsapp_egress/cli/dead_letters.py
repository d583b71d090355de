"""`dead-letters`: look at what failed, send it again, or throw it away."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from whatsapp_egress.cli.dead_letter_pages import details, listing
from whatsapp_egress.cli.durations import Duration
from whatsapp_egress.cli.gateway import Gateway
from whatsapp_egress.cli.privacy import without_numbers
from whatsapp_egress.cli.reach import TENANT, Reach, actor_option, asks_gateway
from whatsapp_egress.cli.replaying import MOST_LISTED, Errand, run_errand
from whatsapp_egress.cli.tables import put, put_json
from whatsapp_egress.policy.verdict import Reason

Command = TypeVar("Command", bound=Callable[..., Any])

_REASONS = [
    *(reason.value for reason in Reason),
    # What RabbitMQ dead-lettered by itself.
    *(f"broker_{why}" for why in ("expired", "rejected", "maxlen", "delivery_limit")),
    "unknown",
]
_ID = re.compile(r"[0-9a-f]{4,128}\Z")
_MOST_PER_SECOND = 10_000


class _LetterId(click.ParamType[str]):
    name = "id"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value).lower()
        if not _ID.match(text):
            self.fail(f"{value!r} is no id of a dead letter: `dead-letters list` shows them.", param, ctx)
        return text


_LETTER_ID = _LetterId()


@click.group(name="dead-letters", short_help="Look at what failed; replay or drop it.")
def dead_letters() -> None:
    """Look at the messages that failed, send them again, or throw them away.

    A dead letter is a message that was given up. It stays in the queue outbound-failed until it is replayed
    or dropped.
    """


def filtered(command: Command) -> Command:
    """Give a command the options that choose dead letters; it gets them as the API's filter."""

    @click.option("--tenant", type=TENANT, help="Of this tenant only.")
    @click.option(
        "--reason", type=click.Choice(_REASONS), metavar="REASON", help=f"One of {', '.join(_REASONS)}."
    )
    @click.option("--code", type=int, help="With this error code of Meta's.")
    @click.option("--older-than", type=Duration(), help="That failed longer ago: 90s, 15m, 1h, 2d.")
    @click.option("--younger-than", type=Duration(), help="That failed since then: 90s, 15m, 1h, 2d.")
    @click.option("--id", "letter_id", type=_LETTER_ID, help="This one only.")
    @functools.wraps(command)
    def with_filter(
        *args: Any,
        tenant: str | None,
        reason: str | None,
        code: int | None,
        older_than: float | None,
        younger_than: float | None,
        letter_id: str | None,
        **options: Any,
    ) -> Any:
        given = {
            "tenantId": tenant,
            "reason": reason,
            "code": code,
            "olderThan": older_than,
            "youngerThan": younger_than,
            "id": letter_id,
        }
        chosen = {name: value for name, value in given.items() if value is not None}
        return command(*args, chosen=chosen, **options)

    return with_filter  # type: ignore[return-value]


@dead_letters.command(name="list")
@filtered
@click.option(
    "--limit",
    type=click.IntRange(1, MOST_LISTED),
    default=50,
    show_default=True,
    help="Show so many at most.",
)
@asks_gateway
def list_(reach: Reach, chosen: dict[str, Any], limit: int, as_json: bool) -> None:
    """List dead letters, with what would become of each if it were sent again."""

    async def ask(gateway: Gateway) -> Any:
        return await gateway.get("dead-letters", **chosen, limit=limit)

    document = reach.run(ask)
    put_json(document) if as_json else put(listing(document))


@dead_letters.command()
@click.argument("letter_id", metavar="ID", type=_LETTER_ID)
@asks_gateway
def show(reach: Reach, letter_id: str, as_json: bool) -> None:
    """Show one dead letter with its message; of phone numbers the last 4 digits."""
    letter = without_numbers(reach.run(lambda gateway: gateway.get("dead-letters", letter_id)))
    put_json(letter) if as_json else put(details(letter))


_dry_run = click.option("--dry-run", is_flag=True, help="Count and foretell, and stop there.")
_yes = click.option("--yes", is_flag=True, help="Don't ask; needed where there is no terminal to ask on.")


@dead_letters.command()
@filtered
@_dry_run
@_yes
@click.option(
    "--rate",
    type=click.FloatRange(0, _MOST_PER_SECOND, min_open=True),
    default=50,
    show_default=True,
    help="Messages per second.",
)
@click.option("--force", is_flag=True, help="Also those that were replayed three times already.")
@actor_option
@asks_gateway
def replay(
    reach: Reach,
    chosen: dict[str, Any],
    dry_run: bool,
    yes: bool,
    rate: float,
    force: bool,
    actor: str,
    as_json: bool,
) -> None:
    """Put dead letters back into the queue they came from, to be sent again.

    First it counts them and foretells what would become of them; then it asks. Each is confirmed by the
    broker before it leaves the dead letters, so that a replay cut short loses nothing. Ctrl-C stops it.
    """
    errand = Errand("replays", chosen, actor, {"rate": rate, "force": force})
    run_errand(reach, errand, dry_run=dry_run, yes=yes, as_json=as_json)


@dead_letters.command()
@filtered
@click.option("--all", "everything", is_flag=True, help="All there are; needed where nothing else chooses.")
@_dry_run
@_yes
@actor_option
@asks_gateway
def drop(
    reach: Reach,
    chosen: dict[str, Any],
    everything: bool,
    dry_run: bool,
    yes: bool,
    actor: str,
    as_json: bool,
) -> None:
    """Throw dead letters away: their messages are never sent.

    First it counts them; then it asks.
    """
    if not chosen and not everything:
        raise click.UsageError("Choose what to drop (--tenant, --reason, --code, ...), or say --all.")
    if chosen and everything:
        raise click.UsageError("--all goes with nothing that chooses.")
    run_errand(reach, Errand("drops", chosen, actor, {}), dry_run=dry_run, yes=yes, as_json=as_json)
