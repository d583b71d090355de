"""Names the services to twistd."""

from twisted.application.service import ServiceMaker

egress = ServiceMaker(
    "whatsapp-egress",
    "whatsapp_egress.tap",
    "Sends WhatsApp messages from RabbitMQ to Meta's Cloud API.",
    "whatsapp-egress",
)

sandbox = ServiceMaker(
    "whatsapp-sandbox",
    "whatsapp_egress.sandbox.tap",
    "A Graph API and a Tenant Service to try the gateway against.",
    "whatsapp-sandbox",
)
