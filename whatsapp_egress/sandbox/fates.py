"""The eight tenants of the demo: what is wrong with each, what it sends, and how that must end."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from attrs import field, frozen

from whatsapp_egress.sandbox import cards

Json = dict[str, Any]

_NOT_ON_WHATSAPP = 131026
_NO_SUCH_TEMPLATE = 132001


@frozen
class Fate:
    """One tenant, and what befalls it.

    `behaviour` is what its phone number meets at the sandbox's Graph API (``PUT /_control/behaviour/…``) and
    ends after `lasts` seconds if that is given; `credentials` is what the Tenant Service tells wrongly
    (``PATCH /_control/tenants/…``).  `sent` and `dead_lettered`, by reason, say how its messages must end.
    """

    tenant: str
    phone_number_id: str
    words: str
    payloads: Sequence[Json]
    sent: int
    dead_lettered: Mapping[str, int] = field(factory=dict)
    behaviour: Mapping[str, Any] | None = None
    lasts: float | None = None
    credentials: Mapping[str, Any] | None = None

    def messages(self, run: str) -> Iterator[tuple[str, bytes]]:
        """Give each message's id and body.  *run* makes the ids differ from those of other runs."""
        for number, payload in enumerate(self.payloads, 1):
            internal_id = f"demo-{run}-{self.tenant}-{number:03d}"
            metadata = {
                "tenantId": self.tenant,
                "phoneNumberId": self.phone_number_id,
                "internalId": internal_id,
            }
            # Meta hands this field back in its webhooks; the sandbox's record shows with it what arrived.
            marked = {**payload, "biz_opaque_callback_data": internal_id}
            yield internal_id, json.dumps({"metadata": metadata, "wabaPayload": marked}).encode()


def internal_id_of(body: bytes) -> str:
    """Return the id of a message in the queue, or an empty string where it has none."""
    try:
        return str(json.loads(body)["metadata"]["internalId"])
    except (ValueError, TypeError, KeyError):
        return ""


def _message(to: str, kind: str, content: Json) -> Json:
    return {"messaging_product": "whatsapp", "to": to, "type": kind, kind: content}


def _text(to: str, body: str = "Your parcel is on its way.") -> Json:
    return _message(to, "text", {"body": body})


def _template(to: str, name: str) -> Json:
    return _message(to, "template", {"name": name, "language": {"code": "en_US"}})


def _assorted(count: int) -> list[Json]:
    contents: list[tuple[str, Json]] = [
        ("text", {"body": "Grüße aus der Werkstatt 🙂"}),
        ("template", {"name": "hello_world", "language": {"code": "en_US"}}),
        ("image", {"link": "https://example.com/parcel.jpg", "caption": "Here it is."}),
        ("location", {"latitude": 52.5, "longitude": 13.4, "name": "Shop"}),
        ("document", {"link": "https://example.com/invoice.pdf", "filename": "invoice.pdf"}),
    ]
    return [_message(cards.ordinary(number), *contents[number % len(contents)]) for number in range(count)]


def the_eight() -> list[Fate]:
    """Return the demo's tenants; the sandbox's default ones, but for ``nobody``."""
    to = cards.ordinary
    bad_recipients = [
        _text(cards.always(_NOT_ON_WHATSAPP, who=number) if number % 2 else to(number))
        for number in range(40)
    ]
    return [
        Fate("acme", "100000001", "all is fine", _assorted(60), sent=60),
        Fate(
            "bravo",
            "100000002",
            "fast: 150 at once",
            [_text(to(number)) for number in range(150)],
            sent=150,
        ),
        Fate(
            "cielo",
            "100000003",
            "throttled (130429)",
            [_text(to(number)) for number in range(50)],
            sent=50,
            behaviour={"messages_per_second": 20},
        ),
        Fate(
            "delta",
            "100000004",
            "wrong token (190)",
            [_text(to(number)) for number in range(10)],
            sent=0,
            dead_lettered={"auth_failed": 10},
            credentials={"servedToken": "EAAsandboxwrongZD"},
        ),
        Fate(
            "nobody",
            "100000099",
            "unknown",
            [_text(to(number)) for number in range(30)],
            sent=0,
            dead_lettered={"tenant_not_found": 30},
        ),
        Fate(
            "ember",
            "100000005",
            "bad numbers (131026)",
            bad_recipients,
            sent=20,
            dead_lettered={"rejected": 20},
        ),
        Fate(
            "fjord",
            "100000006",
            "no template (132001)",
            [_template(cards.always(_NO_SUCH_TEMPLATE, who=number), "spring_sale") for number in range(30)],
            sent=0,
            dead_lettered={"rejected": 30},
        ),
        Fate(
            "grove",
            "100000007",
            "Meta down 6 s (503)",
            [_text(to(number)) for number in range(40)],
            sent=40,
            behaviour={"mode": "html", "http_status": 503},
            lasts=6.0,
        ),
    ]
