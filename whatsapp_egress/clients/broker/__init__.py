"""RabbitMQ: the only room that speaks AMQP."""

from whatsapp_egress.clients.broker.address import BrokerAddress
from whatsapp_egress.clients.broker.broker import RabbitBroker
from whatsapp_egress.clients.broker.declaring import Look
from whatsapp_egress.clients.broker.topology import Topology

__all__ = ["BrokerAddress", "Look", "RabbitBroker", "Topology"]
