"""RabbitMQ: the only room that speaks AMQP."""

from whatsapp_egress.clients.broker.broker import RabbitBroker
from whatsapp_egress.clients.broker.link import BrokerAddress
from whatsapp_egress.clients.broker.topology import Topology

__all__ = ["BrokerAddress", "RabbitBroker", "Topology"]
