"""Keeps phone numbers out of what is printed, whatever the gateway was told to show."""

from __future__ import annotations

from typing import Any

from whatsapp_egress.observe.numbers import masked, masked_in

_NUMBERS = frozenset(("to", "recipient", "wa_id", "waId", "phone", "phone_number"))
_IDS = frozenset(("id", "tenantId", "phoneNumberId", "internalId", "message_id", "fbtraceId", "wamid"))
"""What may look like a phone number, is none, and is needed as it is."""


def without_numbers(document: Any, name: str = "") -> Any:
    """A JSON value with the phone numbers in it cut to their last 4 digits."""
    if isinstance(document, dict):
        return {key: without_numbers(value, key) for key, value in document.items()}
    if isinstance(document, list):
        return [without_numbers(value, name) for value in document]
    if not isinstance(document, str) or name in _IDS:
        return document
    return masked(document) if name in _NUMBERS and "*" not in document else masked_in(document)
