"""What arrived at the Graph API, in the order in which it came."""

from base64 import b64encode
from collections import Counter, deque
from collections.abc import Callable, Iterator

from attrs import define, field, frozen
from twisted.internet.defer import Deferred


@define
class Arrival:
    """One request and what became of it."""

    number: int  # 1 for the first that ever came
    time: float  # the clock's seconds when its last byte was read
    connection: int  # which connection brought it, counted from 1
    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]  # the token in Authorization replaced by a digest
    body: bytes
    phone_number_id: str | None
    tenant: str | None  # whose token it carried
    to: str | None  # "to", else "recipient"
    status: int | None  # None: no answer was meant to be complete
    wamid: str | None
    error_code: int | None
    error_subcode: int | None
    wire: str  # how the answer was delivered; "whole" but for a fault
    finished_at: float | None = None  # when the answer was out or the connection gone

    def header(self, name: str) -> str | None:
        """Return the first header of this name."""
        return next((value for each, value in self.headers if each.lower() == name.lower()), None)

    def document(self) -> dict[str, object]:
        """Return the JSON form, the body as base64."""
        return {
            "number": self.number,
            "time": self.time,
            "connection": self.connection,
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "headers": self.headers,
            "body": b64encode(self.body).decode(),
            "phone_number_id": self.phone_number_id,
            "tenant": self.tenant,
            "to": self.to,
            "status": self.status,
            "wamid": self.wamid,
            "error_code": self.error_code,
            "error_subcode": self.error_subcode,
            "wire": self.wire,
            "finished_at": self.finished_at,
        }


@frozen
class _Wanted:
    holds: Callable[[], bool]
    told: "Deferred[None]"


@define
class Record:
    """The last *limit* arrivals, with counts of all that ever came."""

    limit: int = 100_000
    count: int = field(default=0, init=False)
    accepted: int = field(default=0, init=False)
    by_status: Counter[str] = field(factory=Counter, init=False)
    by_error_code: Counter[str] = field(factory=Counter, init=False)
    by_tenant: Counter[str] = field(factory=Counter, init=False)
    accepted_by_tenant: Counter[str] = field(factory=Counter, init=False)
    by_phone_number_id: Counter[str] = field(factory=Counter, init=False)
    by_wire: Counter[str] = field(factory=Counter, init=False)
    _kept: deque[Arrival] = field(init=False)
    _wanted: list[_Wanted] = field(factory=list, init=False)

    def __attrs_post_init__(self) -> None:
        self._kept = deque(maxlen=self.limit)

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Arrival]:
        return iter(self._kept)

    def add(self, arrival: Arrival) -> None:
        """Keep an arrival, let the oldest go where there are too many, and tell who waited for it."""
        self.count = arrival.number
        self._kept.append(arrival)
        self.by_wire[arrival.wire] += 1
        self.by_tenant[arrival.tenant or ""] += 1
        self.by_phone_number_id[arrival.phone_number_id or ""] += 1
        self.by_status["none" if arrival.status is None else str(arrival.status)] += 1
        if arrival.error_code is not None:
            self.by_error_code[str(arrival.error_code)] += 1
        if arrival.wamid is not None:
            self.accepted += 1
            self.accepted_by_tenant[arrival.tenant or ""] += 1
        self._tell()

    def select(
        self, *, since: int = 0, phone_number_id: str | None = None, to: str | None = None
    ) -> list[Arrival]:
        """Return the arrivals after number *since*, of one phone number, to one recipient."""
        return [
            arrival
            for arrival in self._kept
            if arrival.number > since
            and (phone_number_id is None or arrival.phone_number_id == phone_number_id)
            and (to is None or arrival.to == to)
        ]

    def clear(self) -> None:
        """Forget what arrived; the numbering goes on."""
        self._kept.clear()
        self.accepted = 0
        for counter in (
            self.by_status,
            self.by_error_code,
            self.by_tenant,
            self.accepted_by_tenant,
            self.by_phone_number_id,
            self.by_wire,
        ):
            counter.clear()

    def when(self, holds: Callable[[], bool]) -> "Deferred[None]":
        """Return a Deferred that fires once *holds* is true, asked now and after each arrival."""
        told: Deferred[None] = Deferred(self._forget)
        self._wanted.append(_Wanted(holds, told))
        self._tell()
        return told

    def reached(self, count: int, *, phone_number_id: str | None = None) -> "Deferred[None]":
        """Return a Deferred that fires once *count* arrivals (of one phone number) have come."""
        if phone_number_id is None:
            return self.when(lambda: self.by_wire.total() >= count)
        return self.when(lambda: self.by_phone_number_id[phone_number_id] >= count)

    def _tell(self) -> None:
        if not self._wanted:
            return
        ready = [wanted for wanted in self._wanted if wanted.holds()]
        self._wanted = [wanted for wanted in self._wanted if wanted not in ready]
        for wanted in ready:
            wanted.told.callback(None)

    def _forget(self, cancelled: "Deferred[None]") -> None:
        self._wanted = [wanted for wanted in self._wanted if wanted.told is not cancelled]
