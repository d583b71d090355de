"""What operators steer with, put together: the control API and what it needs for itself."""

from __future__ import annotations

import time
from typing import Any

from attrs import define

from whatsapp_egress.clients.broker import BrokerAddress, Topology
from whatsapp_egress.clients.broker.dead_letters import DeadLetterQueue
from whatsapp_egress.control.api import Controlled, control_resource
from whatsapp_egress.control.known import Known
from whatsapp_egress.control.lanes import Credentials
from whatsapp_egress.control.replays import Replays
from whatsapp_egress.control.resource import ControlResource
from whatsapp_egress.observe.overview import Overview
from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.observe.values import Presenter
from whatsapp_egress.pipeline.lanes import Lanes
from whatsapp_egress.pipeline.recent import Recent
from whatsapp_egress.policy.table import ErrorTable
from whatsapp_egress.settings import Settings


@define(eq=False)
class Steer:
    """The control API, and the errands that operators have begun."""

    resource: ControlResource
    replays: Replays

    async def stop(self) -> None:
        """Begin nothing more, and end what is under way."""
        await self.replays.end()
        self.resource.stop()


@define(eq=False)
class Steered:
    """What is steered, and looked at."""

    lanes: Lanes
    recent: Recent
    credentials: Credentials
    overview: Overview


def steer(
    reactor: Any,
    settings: Settings,
    redactor: Redactor,
    table: ErrorTable,
    broker: tuple[BrokerAddress, Topology],
    steered: Steered,
) -> Steer:
    """Put it together, once there is something to steer."""
    known = Known(steered.lanes, steered.overview.times)
    replays = Replays(
        DeadLetterQueue(reactor, *broker, time.time),
        table,
        known.hold,
        steered.recent.sent,
        reactor,
        time.time,
    )
    controlled = Controlled(
        steered.lanes,
        steered.recent,
        steered.credentials,
        steered.overview,
        replays,
        Presenter(redactor, settings.log_pii),
    )
    return Steer(control_resource(settings.admin_token, controlled), replays)
