"""Single parts, made as the settings say; `service` puts them together."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from whatsapp_egress import __version__
from whatsapp_egress.clients.broker import BrokerAddress
from whatsapp_egress.clients.credentials import CredentialCache
from whatsapp_egress.clients.graph import Destination, GraphApi
from whatsapp_egress.clients.http import HttpClient
from whatsapp_egress.clients.tenants import TenantFile, TenantService
from whatsapp_egress.clients.tls import trust
from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.pipeline.attempt import Attempt
from whatsapp_egress.pipeline.observer import Observer
from whatsapp_egress.pipeline.road import Pace
from whatsapp_egress.pipeline.standing import Standings
from whatsapp_egress.pipeline.turns import Turns
from whatsapp_egress.policy import backoff
from whatsapp_egress.policy.breaker import Breaker, State
from whatsapp_egress.policy.credentials import Keeping
from whatsapp_egress.policy.road import RoadWatch
from whatsapp_egress.policy.table import ErrorTable
from whatsapp_egress.policy.verdict import Patience
from whatsapp_egress.policy.window import Window
from whatsapp_egress.settings import Settings

Asked = Callable[[str, str | None, float], None]
"""`Observer.asked`."""

USER_AGENT = f"whatsapp-egress/{__version__}"

IDLE_TENANT_CONNECTIONS = 10
"""Unused connections to the Tenant Service that are kept: each tenant is asked once in a while."""

NEVER = sys.maxsize
"""Failures in a row that open the road's breaker: it is opened by hand, when all tenants fail alike."""


def error_table() -> ErrorTable:
    """Meta's errors, from the package's data."""
    return ErrorTable.parse(files("whatsapp_egress.data").joinpath("errors.json").read_bytes())


def attempt(
    reactor: Any, settings: Settings, redactor: Redactor, table: ErrorTable, observer: Observer
) -> tuple[Attempt, CredentialCache | TenantFile, list[HttpClient]]:
    """What makes attempts, where it has its credentials from, and the HTTP clients under both."""
    meta = meta_client(reactor, settings)
    graph = GraphApi(
        meta,
        Destination.parse(settings.meta_api_base_url, settings.meta_api_version, settings.meta_app_secret),
        USER_AGENT,
        time.time,
        redactor.known,
    )
    credentials, clients = _credentials(reactor, settings, redactor, observer)
    trying = Attempt(
        credentials,
        graph,
        table,
        Patience(settings.meta_api_max_retries, settings.meta_api_retry_ambiguous),
        observer,
        reactor,
        time.time,
    )
    return trying, credentials, [meta, *clients]


def meta_client(reactor: Any, settings: Settings) -> HttpClient:
    """What speaks HTTP with Meta."""
    return HttpClient.over(
        reactor,
        trust(_content(settings.meta_api_ca_file), platform=True),
        timeout=settings.meta_api_timeout,
        most_idle=settings.meta_api_max_connections,
    )


def pace(settings: Settings) -> Pace:
    """How fast lanes go."""
    return Pace(
        default_rate=settings.rate_limit_default_mps,
        refill_interval=settings.rate_limit_refill_interval,
        retry_delay=settings.meta_api_retry_delay,
        most_in_flight=settings.meta_api_max_connections_per_tenant,
        most_active=settings.lane_active_limit,
        defer_after=settings.defer_after,
    )


def turns(reactor: Any, settings: Settings, changed: Callable[[State], None]) -> Turns:
    """Who may send, over all lanes. The road's breaker tries sooner than a tenant's, for everybody waits."""
    reset = partial(backoff.road, longest=settings.breaker_reset_timeout)
    return Turns(
        Window(settings.meta_api_max_connections, reactor),
        Breaker(NEVER, reset, reactor, changed),
        RoadWatch(settings.breaker_failure_threshold, reactor),
        reactor,
    )


def standings(reactor: Any, settings: Settings, observer: Observer) -> Standings:
    """What is known of tenants."""
    return Standings(
        reactor,
        settings.rate_limit_default_mps,
        settings.breaker_failure_threshold,
        settings.breaker_reset_timeout,
        observer.breaker,
    )


def address(settings: Settings) -> BrokerAddress:
    """Where the broker is, and how to get in."""
    roots = trust(_content(settings.rabbitmq_ca_file), platform=False) if settings.rabbitmq_tls else None
    return BrokerAddress(
        host=settings.rabbitmq_host,
        port=settings.rabbitmq_port,
        user=settings.rabbitmq_user,
        password=settings.rabbitmq_password,
        vhost=settings.rabbitmq_vhost,
        heartbeat=settings.rabbitmq_heartbeat,
        trust=roots,
    )


def is_file(settings: Settings) -> bool:
    """Whether a file stands for the Tenant Service."""
    return settings.tenant_service_url.startswith("file:")


def tenant_file(settings: Settings, redactor: Redactor, asked: Asked) -> TenantFile:
    """The file that stands for the Tenant Service."""
    path = Path(url2pathname(urlsplit(settings.tenant_service_url).path))
    return TenantFile(path, settings.credential_stale_ttl, time.time, redactor.know, asked)


def tenant_service(reactor: Any, settings: Settings) -> tuple[TenantService, HttpClient]:
    """The Tenant Service, and the HTTP client under it."""
    client = HttpClient.over(
        reactor,
        trust(None, platform=True),
        timeout=settings.tenant_service_timeout,
        most_idle=IDLE_TENANT_CONNECTIONS,
    )
    source = TenantService(
        client,
        settings.tenant_service_url,
        settings.tenant_service_credentials_path,
        settings.tenant_service_token,
        USER_AGENT,
        time.time,
    )
    return source, client


def _credentials(
    reactor: Any, settings: Settings, redactor: Redactor, observer: Observer
) -> tuple[CredentialCache | TenantFile, list[HttpClient]]:
    """From a file, which is its own cache, or from the Tenant Service with a cache before it."""
    if is_file(settings):
        return tenant_file(settings, redactor, observer.asked), []
    source, client = tenant_service(reactor, settings)
    keeping = Keeping(
        settings.credential_cache_ttl, settings.credential_stale_ttl, settings.credential_negative_ttl
    )
    return CredentialCache(
        source, keeping, reactor, time.time, random.random, redactor.know, observer.asked
    ), [client]


def _content(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()
