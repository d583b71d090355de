"""A no of the control API's: a status, a word for programs and a sentence for people."""

from __future__ import annotations

from collections.abc import Mapping


class Refusal(Exception):
    """The call is refused. `detail` says what to do; neither holds a value that came with the request."""

    def __init__(
        self, status: int, error: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.error = error
        self.detail = detail
        self.headers = dict(headers or {})


def bad_request(detail: str) -> Refusal:
    """The request is not as it must be."""
    return Refusal(400, "bad_request", detail)


def not_found(detail: str) -> Refusal:
    """What was asked for is not there."""
    return Refusal(404, "not_found", detail)
