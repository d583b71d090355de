"""The last hop of a messaging platform: takes WhatsApp messages from RabbitMQ and sends them to Meta."""

__version__ = "0.1.0"
