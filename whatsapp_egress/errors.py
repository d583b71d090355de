"""What can go wrong between the rooms, each with its meaning."""

from __future__ import annotations


class Unpublished(Exception):
    """The broker did not confirm a publish: no connection, refused, or returned as unroutable."""


class Unroutable(Unpublished):
    """No queue takes it: the broker gave it back, and has it nowhere."""


class QueueTrouble(Exception):
    """Queues could not be reached, or the broker refused; the text says why."""


class ReplayUnderWay(Exception):
    """Somebody replays or drops dead letters, and only one may."""


class TenantNotFound(Exception):
    """The Tenant Service does not know the tenant."""


class CredentialsSuspended(Exception):
    """The tenant may not send: forbidden, suspended or expired. The text says which, in one line."""


class CredentialsUnavailable(Exception):
    """There was no usable answer about a tenant; a later try may bring one. `reason` is one word."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class NotConnected(Exception):
    """No byte of the request was written: name lookup, connecting or the TLS handshake failed."""


class NoReply(Exception):
    """The request was written, in part at least, and the answer's headers never came."""
