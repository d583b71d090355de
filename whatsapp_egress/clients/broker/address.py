"""Where RabbitMQ is: the endpoint to connect to, and what to say there."""

from __future__ import annotations

from typing import Any

import pika
from attrs import field, frozen
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import optionsForClientTLS

from whatsapp_egress.clients.tls import ReadyEndpoint, TrustRoot


@frozen
class BrokerAddress:
    """Where RabbitMQ is and who we are there; `heartbeat` in seconds."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    vhost: str
    heartbeat: int
    trust: TrustRoot | None = None
    """Roots to verify the broker with; None means no TLS."""

    def endpoint(self, reactor: Any) -> IStreamClientEndpoint:
        """TCP, and verified TLS when there are roots."""
        endpoint: IStreamClientEndpoint = HostnameEndpoint(reactor, self.host.encode("idna"), self.port)
        if self.trust is not None:
            endpoint = wrapClientTLS(optionsForClientTLS(self.host, trustRoot=self.trust), endpoint)
        return ReadyEndpoint(endpoint, reactor, self.trust is not None)

    def parameters(self, name: str) -> pika.ConnectionParameters:
        """pika's words for it; `name` is what the management page shows."""
        return pika.ConnectionParameters(
            virtual_host=self.vhost,
            credentials=pika.PlainCredentials(self.user, self.password),
            heartbeat=self.heartbeat,
            client_properties={"connection_name": name, "product": "whatsapp-egress"},
        )
