"""AMQP's errors in words: what is wrong, and what to look at."""

from __future__ import annotations

from pika.exceptions import (
    AMQPConnectionError,
    AuthenticationError,
    ChannelClosedByBroker,
    ChannelWrongStateError,
    ConnectionClosedByBroker,
    ProbableAccessDeniedError,
    ProbableAuthenticationError,
)
from twisted.internet.defer import TimeoutError
from twisted.internet.error import ConnectionLost
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.clients.broker.errors import channel_trouble, connection_trouble


class ConnectionTests(SynchronousTestCase):
    def test_a_refusal_names_the_settings_to_look_at(self) -> None:
        for error, settings in (
            (AuthenticationError("PLAIN"), ["RABBITMQ_USER", "RABBITMQ_PASSWORD"]),
            (ProbableAuthenticationError(403, "ACCESS_REFUSED"), ["RABBITMQ_USER", "RABBITMQ_PASSWORD"]),
            (ProbableAccessDeniedError(0, "gone"), ["RABBITMQ_VHOST"]),
            (ConnectionClosedByBroker(403, "ACCESS_REFUSED"), ["RABBITMQ_USER", "RABBITMQ_VHOST"]),
            (ConnectionClosedByBroker(530, "NOT_ALLOWED - no such vhost"), ["RABBITMQ_VHOST"]),
            (TimeoutError(), ["RABBITMQ_TLS"]),
        ):
            assert all(setting in connection_trouble(error) for setting in settings), error

    def test_what_the_broker_says_is_passed_on(self) -> None:
        error = ConnectionClosedByBroker(320, "CONNECTION_FORCED - closed by force")

        assert connection_trouble(error) == "closed by the broker: 320 CONNECTION_FORCED - closed by force"

    def test_everything_else_has_a_name(self) -> None:
        assert connection_trouble(AMQPConnectionError(1)) == "AMQPConnectionError: 1"
        assert connection_trouble(ConnectionLost()).startswith("ConnectionLost: ")
        assert connection_trouble(None) == "connection lost"


class ChannelTests(SynchronousTestCase):
    def test_what_the_broker_says_is_passed_on(self) -> None:
        error = ChannelClosedByBroker(404, "NOT_FOUND - no queue 'x'")

        assert channel_trouble(error) == "404 NOT_FOUND - no queue 'x'"

    def test_everything_else_has_a_name(self) -> None:
        assert channel_trouble(ChannelWrongStateError("Channel is closed.")) == (
            "ChannelWrongStateError: Channel is closed."
        )
