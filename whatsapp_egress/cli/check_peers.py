"""Checks the Tenant Service and Meta: each is asked once, for nothing that matters."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from hyperlink import URL
from twisted.web.http_headers import Headers

from whatsapp_egress import parts
from whatsapp_egress.cli.durations import lasting
from whatsapp_egress.cli.findings import Finding, failed, ok, warning
from whatsapp_egress.cli.trouble import plain
from whatsapp_egress.errors import (
    CredentialsSuspended,
    CredentialsUnavailable,
    NoReply,
    NotConnected,
    TenantNotFound,
)
from whatsapp_egress.observe.redaction import Redactor
from whatsapp_egress.policy.credentials import Credentials
from whatsapp_egress.settings import Settings

NOBODY = "00000000-0000-0000-0000-000000000000"
"""A tenant id that no tenant has: the nil UUID."""

_TENANTS, _META = "Tenant Service", "Meta"


async def tenant_findings(
    reactor: Any, settings: Settings, redactor: Redactor, tenant: str | None
) -> list[Finding]:
    """Ask for the credentials of a tenant, or of one that can't exist."""
    if parts.is_file(settings):
        file = parts.tenant_file(settings, redactor, lambda *_: None)
        return [await _ask_for(tenant, settings, file.get)]
    service, client = parts.tenant_service(reactor, settings)
    try:
        return [await _ask_for(tenant, settings, service.fetch)]
    finally:
        await client.close()


async def _ask_for(
    tenant: str | None, settings: Settings, fetch: Callable[[str], Awaitable[Credentials]]
) -> Finding:
    url, began = settings.tenant_service_url, time.monotonic()
    try:
        credentials = await fetch(tenant or NOBODY)
    except TenantNotFound:
        if tenant is None:
            return ok(_TENANTS, f"{url} answers{_after(began)}, and knows no tenant {NOBODY}, as it should")
        return failed(
            _TENANTS, f"{url} knows no tenant {tenant}", "Check the id, or create the tenant there."
        )
    except CredentialsSuspended as error:
        if tenant is None:
            return failed(
                _TENANTS, f"{url}: {plain(error)}", "Is TENANT_SERVICE_TOKEN right, and may it read?"
            )
        return failed(_TENANTS, f"tenant {tenant} may not send: {error}", "See to it at the Tenant Service.")
    except CredentialsUnavailable as error:
        return failed(_TENANTS, f"{url}: {plain(error)}", _tenant_advice(error.reason))
    if tenant is None:
        return warning(
            _TENANTS,
            f"{url} has credentials for {NOBODY}, a tenant that can't exist",
            "Check TENANT_SERVICE_CREDENTIALS_PATH: does it ask about the tenant?",
        )
    rate = credentials.messages_per_second or settings.rate_limit_default_mps
    return ok(_TENANTS, f"{url} has credentials for tenant {tenant}{_after(began)}: {rate:g} messages/s")


def _tenant_advice(reason: str) -> str:
    if reason == "http_401":
        return "It refused the token: check TENANT_SERVICE_TOKEN."
    if reason == "connect":
        return "Check TENANT_SERVICE_URL, and whether it may be reached from here."
    if reason == "no_answer":
        return "It took the request and did not answer in TENANT_SERVICE_TIMEOUT."
    if reason == "file":
        return "The file must be a JSON object: tenant id to the Tenant Service's answer."
    if reason.startswith("http_5"):
        return "It is in trouble itself: look at its log."
    return "Check TENANT_SERVICE_URL and TENANT_SERVICE_CREDENTIALS_PATH: is it the Tenant Service?"


async def meta_findings(reactor: Any, settings: Settings) -> list[Finding]:
    """Ask Meta for its root without a token: whatever it answers, DNS, TCP and TLS are well."""
    client, began = parts.meta_client(reactor, settings), time.monotonic()
    base = settings.meta_api_base_url
    url = URL.from_text(base).child(settings.meta_api_version, "")
    try:
        reply = await client.exchange("GET", url, Headers({"User-Agent": [parts.USER_AGENT]}))
    except NotConnected as error:
        return [failed(_META, f"{base}: {plain(error)}", _meta_advice(str(error), base))]
    except NoReply as error:
        return [failed(_META, f"{base}: {plain(error)}", "A proxy or a firewall may stand between.")]
    finally:
        await client.close()
    what = f"{base} answers{_after(began)} (HTTP {reply.status}; asked without a token)"
    if reply.status >= 500:
        return [
            warning(_META, what, "It has trouble of its own: https://metastatus.com/whatsapp-business-api")
        ]
    if 300 <= reply.status < 400:
        return [warning(_META, what, "A redirect is not followed: check META_API_BASE_URL.")]
    return [ok(_META, what)]


def _meta_advice(trouble: str, base: str) -> str:
    if "certificate" in trouble:
        return "If a proxy or a test server stands there, META_API_CA_FILE must hold its authority."
    host = urlsplit(base).hostname
    return f"Check META_API_BASE_URL, and whether {host} may be reached from here."


def _after(began: float) -> str:
    return f" after {lasting(time.monotonic() - began)}"
