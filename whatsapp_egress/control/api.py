"""The control API, put together."""

from __future__ import annotations

from attrs import frozen

from whatsapp_egress.control.access import Access
from whatsapp_egress.control.dead_letters import DeadLetterCalls
from whatsapp_egress.control.lanes import Credentials, LaneCalls
from whatsapp_egress.control.letter_view import LetterReader
from whatsapp_egress.control.messages import MessageCalls
from whatsapp_egress.control.replays import Replays
from whatsapp_egress.control.resource import ControlResource
from whatsapp_egress.control.routes import Routes, joined
from whatsapp_egress.observe.overview import Overview
from whatsapp_egress.observe.values import Presenter
from whatsapp_egress.pipeline.lanes import Lanes
from whatsapp_egress.pipeline.recent import Recent
from whatsapp_egress.pipeline.whereabouts import Tracker


@frozen
class Controlled:
    """What it reads and changes."""

    lanes: Lanes
    recent: Recent
    credentials: Credentials
    overview: Overview
    replays: Replays
    presenter: Presenter


def routes(controlled: Controlled) -> Routes:
    """Every call there is."""
    lanes, times = controlled.lanes, controlled.overview.times
    reader = LetterReader(times.now, controlled.overview.words, controlled.presenter)
    return joined(
        (
            LaneCalls(lanes, controlled.overview, controlled.credentials, times).routes(),
            MessageCalls(Tracker(lanes, controlled.recent), lanes, times).routes(),
            DeadLetterCalls(controlled.replays, reader).routes(),
        )
    )


def control_resource(token: str | None, controlled: Controlled) -> ControlResource:
    """What is to be put at /api. `token` is ADMIN_TOKEN; without one the API is off."""
    access = None if token is None else Access.by(token)
    return ControlResource(access, routes(controlled), controlled.overview.json)
