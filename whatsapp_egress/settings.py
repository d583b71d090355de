"""Reads the environment into one checked record, `Settings`, and declares every setting on the way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import frozen

from whatsapp_egress.setting import BadSettings, Fault, read_settings, setting, shown
from whatsapp_egress.setting_kinds import (
    address,
    base_url,
    certificates,
    choice,
    flag,
    graph_version,
    host,
    is_loopback,
    milliseconds,
    name,
    password,
    path_template,
    positive,
    tenant_service,
    token,
    whole,
)

__all__ = ["BadSettings", "Fault", "Settings"]

_MOST = 1_000_000
_AMQP_PORT, _AMQPS_PORT = 5672, 5671
_HEALTH_PORT, _METRICS_PORT = 8081, 9090
_LARGEST_MESSAGE = 512 * 1024 * 1024
"""Bytes; RabbitMQ takes none that is larger."""
_LEAST_ACTIVE = 20
_MOST_HELD = 2**40
_SHORTEST_ADMIN_TOKEN = 16
"""Characters; a shorter one can be guessed."""
_PUBLIC_PASSWORD = "guest"  # noqa: S105 - RabbitMQ's own default is no secret


@frozen(kw_only=True)
class Settings:
    """The configuration, one attribute per setting, named like it in lower case.

    Times are given as milliseconds and held as seconds (float). `rabbitmq_heartbeat` alone is given, too, in
    seconds. Addresses are held without a slash at the end. The attributes are checked by `from_environment`;
    the constructor takes what it gets.
    """

    rabbitmq_host: str = setting(host(), default="localhost", means="Host of the broker.")
    rabbitmq_tls: bool = setting(
        flag(), default="false", means="Connect with TLS; the broker's certificate is verified."
    )
    rabbitmq_port: int = setting(
        whole(1, 65535),
        default=f"{_AMQP_PORT}, with TLS {_AMQPS_PORT}",
        derive=lambda settings: _AMQPS_PORT if settings.rabbitmq_tls else _AMQP_PORT,
        means="Port of the broker.",
    )
    rabbitmq_user: str = setting(name(), default="guest", means="User at the broker.")
    rabbitmq_password: str = setting(
        password(), default=_PUBLIC_PASSWORD, secret=True, means="Password at the broker."
    )
    rabbitmq_vhost: str = setting(name(), default="/", means="Virtual host at the broker.")
    rabbitmq_ca_file: Path | None = setting(
        certificates(),
        default=None,
        means="Trust roots for the broker, instead of the system's; used with RABBITMQ_TLS.",
    )
    rabbitmq_queue: str = setting(
        name(), default="outbound-processed", means="Queue that messages come from."
    )
    rabbitmq_exchange: str = setting(
        name(), default="whatsapp-exchange", means="Exchange that the queue is bound to."
    )
    rabbitmq_queue_type: str = setting(
        choice("quorum", "classic"), default="quorum", means="Type of the queue, if it must be declared."
    )
    rabbitmq_prefetch: int = setting(
        whole(1, 65535, "messages"), default="500", means="Messages held at once."
    )
    lane_active_limit: int = setting(
        whole(1, 65535, "messages"),
        default=f"a tenth of RABBITMQ_PREFETCH, {_LEAST_ACTIVE} at least",
        derive=lambda settings: max(_LEAST_ACTIVE, settings.rabbitmq_prefetch // 10),
        means="Messages of one tenant held at once; what exceeds it is deferred.",
    )
    defer_after: float = setting(
        milliseconds(2000), default="60000", means="Messages that must wait longer than this are deferred."
    )
    held_max_bytes: int = setting(
        whole(1, _MOST_HELD, "bytes"),
        default="67108864",
        means="Bytes of messages held at once before no more are taken.",
    )
    rabbitmq_heartbeat: int = setting(
        whole(1, 65535, "s"),
        default="30",
        means="Heartbeat asked for, in seconds; it can't be off: a dead link would stay unnoticed.",
    )
    rabbitmq_reconnect_delay: float = setting(
        milliseconds(1),
        default="5000",
        means="First wait after a failed connection; doubles up to 60 s.",
    )

    tenant_service_url: str = setting(
        tenant_service(), means="The Tenant Service, or a JSON file of tenants (file:///path)."
    )
    tenant_service_credentials_path: str = setting(
        path_template("tenantId"),
        default="/api/v1/tenants/{tenantId}/credentials?type=whatsapp",
        means="Path of a tenant's credentials, behind TENANT_SERVICE_URL.",
    )
    tenant_service_token: str | None = setting(
        token(), default=None, secret=True, means="Bearer token for the Tenant Service."
    )
    tenant_service_timeout: float = setting(
        milliseconds(1), default="5000", means="Time for one request to the Tenant Service."
    )
    credential_cache_ttl: float = setting(
        milliseconds(1),
        default="900000",
        means="How long credentials are used before they are fetched again.",
    )
    credential_stale_ttl: float = setting(
        milliseconds(0),
        default="3600000",
        means="Greatest age of credentials used while the Tenant Service fails; 0: none are.",
    )
    credential_negative_ttl: float = setting(
        milliseconds(0),
        default="30000",
        means="How long unknown and suspended tenants are remembered; 0: not at all.",
    )

    meta_api_base_url: str = setting(
        base_url(),
        default="https://graph.facebook.com",
        means="The Graph API; http:// for loopback hosts only, unless META_API_ALLOW_INSECURE.",
    )
    meta_api_version: str = setting(graph_version(), default="v25.0", means="Version of the Graph API.")
    meta_api_ca_file: Path | None = setting(
        certificates(),
        default=None,
        means="More trust roots for the Graph API, for a proxy or a test server.",
    )
    meta_api_allow_insecure: bool = setting(
        flag(), default="false", means="Allow http:// to any host: tokens then travel unencrypted."
    )
    meta_api_timeout: float = setting(
        milliseconds(1), default="10000", means="Time for one exchange with Meta, first byte to last."
    )
    meta_api_max_retries: int = setting(
        whole(0, 100), default="3", means="Attempts after the first one when Meta fails."
    )
    meta_api_retry_delay: float = setting(
        milliseconds(0), default="1000", means="First wait before another attempt; doubles up to 60 s."
    )
    meta_api_retry_ambiguous: bool = setting(
        flag(),
        default="true",
        means="Try again when Meta may have sent the message; false: dead-letter it as in_doubt.",
    )
    meta_api_max_connections: int = setting(
        whole(1, _MOST, "connections"), default="500", means="Connections to Meta, in all."
    )
    meta_api_max_connections_per_tenant: int = setting(
        whole(1, _MOST, "connections"), default="100", means="Connections to Meta, per tenant."
    )
    meta_app_secret: str | None = setting(
        token(), default=None, secret=True, means="Adds an appsecret_proof made with it to each request."
    )

    rate_limit_default_mps: float = setting(
        positive("messages/s"), default="80", means="Rate of a phone number whose credentials name none."
    )
    rate_limit_refill_interval: float = setting(
        milliseconds(1), default="100", means="How often the token buckets are refilled."
    )
    breaker_failure_threshold: int = setting(
        whole(1, _MOST, "failures"), default="5", means="Failures in a row that open a tenant's breaker."
    )
    breaker_reset_timeout: float = setting(
        milliseconds(1), default="60000", means="How long a breaker stays open before it lets one through."
    )

    health_check_port: int = setting(
        whole(0, 65535), default=str(_HEALTH_PORT), means="Port of /health; 0 takes a free one and logs it."
    )
    prometheus_port: int = setting(
        whole(0, 65535), default=str(_METRICS_PORT), means="Port of /metrics; 0 takes a free one and logs it."
    )
    http_bind: str = setting(
        address(), default="127.0.0.1", means="Address that /health and /metrics listen on."
    )
    admin_token: str | None = setting(
        token(_SHORTEST_ADMIN_TOKEN),
        default=None,
        secret=True,
        means="Bearer token for the control API on HEALTH_CHECK_PORT; without one it is off.",
    )
    metrics_max_tenants: int = setting(
        whole(0, _MOST, "tenants"),
        default="1000",
        means="Tenants with a label of their own; the rest share one.",
    )

    log_level: str = setting(
        choice("debug", "info", "warn", "error", "critical", warning="warn"),
        default="info",
        means="Least level that is logged.",
    )
    log_pii: bool = setting(
        flag(), default="false", means="Log phone numbers in full instead of their last 4 digits."
    )

    message_max_bytes: int = setting(
        whole(1, _LARGEST_MESSAGE, "bytes"), default="1048576", means="Largest message that is taken."
    )
    events_enabled: bool = setting(
        flag(), default="true", means="Publish what became of each message to whatsapp-events."
    )
    track_callback_data: bool = setting(
        flag(),
        default="false",
        means="Set biz_opaque_callback_data to the internalId where it is absent.",
    )
    shutdown_timeout: float = setting(
        milliseconds(0), default="30000", means="Time for sends in flight to finish at the end."
    )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Return what `environ` says. Raises `BadSettings`, which tells every fault at once."""
        values, faults = read_settings(cls, environ)
        faults += _faults_between(values, {fault.name for fault in faults})
        if faults:
            raise BadSettings(tuple(faults))
        return cls(**values)

    def secrets(self) -> tuple[str, ...]:
        """Every secret value, for those who must keep them out of what they write.

        RabbitMQ's public default password is not among them: all that says "guest" would be blotted out.
        """
        given = (self.rabbitmq_password, self.tenant_service_token, self.meta_app_secret, self.admin_token)
        return tuple(secret for secret in given if secret and secret != _PUBLIC_PASSWORD)


def _faults_between(values: Mapping[str, Any], faulty: set[str]) -> list[Fault]:
    """Find settings that are right by themselves and wrong together. `values` are those given."""
    faults = []
    url: str = values.get("meta_api_base_url", "")
    allowed = values.get("meta_api_allow_insecure", False) or "META_API_ALLOW_INSECURE" in faulty
    if url.startswith("http://") and not is_loopback(url) and not allowed:
        faults.append(
            Fault(
                "META_API_BASE_URL",
                "META_API_BASE_URL",
                f"is {shown(url)}, and tokens would travel unencrypted",
                "https://, or http:// with a loopback host",
                "META_API_ALLOW_INSECURE=true allows it.",
            )
        )
    health = values.get("health_check_port", _HEALTH_PORT)
    metrics = values.get("prometheus_port", _METRICS_PORT)
    if health == metrics != 0 and not faulty & {"HEALTH_CHECK_PORT", "PROMETHEUS_PORT"}:
        faults.append(
            Fault(
                "PROMETHEUS_PORT",
                "PROMETHEUS_PORT",
                f"is '{metrics}', the same as HEALTH_CHECK_PORT",
                "a port of its own",
            )
        )
    return faults
