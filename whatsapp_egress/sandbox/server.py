"""Builds the sandbox: one service that holds the Graph API, the Tenant Service and the control endpoint."""

from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from attrs import define
from twisted.application.service import Service
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.ssl import TLSVersion
from twisted.logger import Logger
from twisted.web.resource import IResource, Resource

from .behaviour import Behaviours
from .control import Connections, ControlResource, Controls
from .graph import GraphApi
from .graph_web import GraphResource
from .record import Record
from .tenants import Tenants, settings_of
from .tenants_web import Fetches, TenantsResource
from .tls import ServerCertificate
from .wire import CountedSite, Deliveries

log = Logger()

BACKLOG = 1024
"""Connections that wait to be accepted. With Twisted's 50, those of a gateway that begins to send overflow
it, and the kernel tries them again only after 1, 3, 7 and 15 s."""


@define(eq=False)
class _Listener:
    """A port that is served, with everything needed to leave it clean."""

    site: CountedSite
    port: Any = None  # twisted.internet.tcp.Port
    number: int = 0  # kept over a stop, so that a start after it serves the same port again

    def listen(self, reactor: Any, port: int, bind: str, tls: Any) -> None:
        wanted = self.number or port
        if tls is None:
            self.port = reactor.listenTCP(wanted, self.site, backlog=BACKLOG, interface=bind)
        else:
            self.port = reactor.listenSSL(wanted, self.site, tls, backlog=BACKLOG, interface=bind)
        self.number = self.port.getHost().port

    async def leave(self) -> None:
        port, self.port = self.port, None
        if port is not None:
            stopped = port.stopListening()
            if isinstance(stopped, Deferred):
                await stopped
        await self.site.close_all()


class Sandbox(Service):
    """A Graph API and a Tenant Service on two ports, and in Python what the control endpoint reaches.

    ``startService`` listens at once, so that :attr:`graph_url` and :attr:`tenants_url` are known after it;
    ``stopService`` returns a Deferred that fires when every port and connection is closed.  It can be
    started again and then serves the same ports, with what it knew and recorded.
    """

    name = "whatsapp-sandbox"

    def __init__(
        self,
        reactor: Any,
        *,
        clock: IReactorTime | None = None,
        tenants: Tenants | None = None,
        graph_port: int = 0,
        tenant_port: int = 0,
        bind: str = "127.0.0.1",
        tls: ServerCertificate | None = None,
        highest_tls: TLSVersion | None = None,
        app_secret: str | None = None,
        tenant_service_token: str | None = None,
        record_limit: int = 100_000,
        keep_alive_s: float = 60.0,
        random: Random | None = None,
        ports_file: Path | None = None,
    ) -> None:
        self._reactor = reactor
        self._bind = bind
        self._wanted_ports = (graph_port, tenant_port)
        self._tls = None if tls is None else tls.options(highest=highest_tls)
        self._ports_file = ports_file
        clock = clock or reactor
        self.tenants = Tenants() if tenants is None else tenants
        self.behaviours = Behaviours(clock, random or Random())
        self.record = Record(record_limit)
        self.fetches = Fetches()
        self.deliveries = Deliveries(clock)
        self.api = GraphApi(self.tenants, self.behaviours, clock, app_secret)
        self.controls = Controls(
            self.tenants, self.behaviours, self.record, self.fetches, self.api, self.connections
        )
        graph = GraphResource(self.api, self.record, self.deliveries, clock)
        tenant_service = TenantsResource(
            self.tenants, self.fetches, self.deliveries, clock, tenant_service_token
        )
        control = ControlResource(self.controls)
        self._graph = _Listener(
            CountedSite(
                _Root(graph, control),
                reactor,
                keep_alive_s,
                lambda path, connection: graph.refuses_early(self.behaviours, path, connection),
            )
        )
        self._tenants = _Listener(CountedSite(_Root(tenant_service, control), reactor, keep_alive_s))

    @property
    def graph_port(self) -> int:
        """The port of the Graph API, known once it has been started."""
        return self._graph.number

    @property
    def tenants_port(self) -> int:
        """The port of the Tenant Service, known once it has been started."""
        return self._tenants.number

    @property
    def graph_url(self) -> str:
        """What the gateway's ``META_API_BASE_URL`` is to be."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{self._host()}:{self.graph_port}"

    @property
    def tenants_url(self) -> str:
        """What the gateway's ``TENANT_SERVICE_URL`` is to be."""
        return f"http://{self._host()}:{self.tenants_port}"

    def connections(self) -> dict[str, Connections]:
        """Return how many connections each port had and has."""
        return {
            "graph": Connections(self._graph.site.opened, self._graph.site.open),
            "tenants": Connections(self._tenants.site.opened, self._tenants.site.open),
        }

    def startService(self) -> None:
        """Listen; raises :class:`twisted.internet.error.CannotListenError` where a port is taken."""
        super().startService()  # type: ignore[no-untyped-call]
        graph_port, tenant_port = self._wanted_ports
        self.start_graph(graph_port)
        self.start_tenants(tenant_port)
        if self._ports_file is not None:
            _write_whole(self._ports_file, {"graph": self.graph_url, "tenants": self.tenants_url})
        log.info(
            "sandbox_listening graph={graph} tenants={tenants}",
            graph=self.graph_url,
            tenants=self.tenants_url,
        )

    def stopService(self) -> "Deferred[None]":
        """Close every port and connection, hanging ones too."""
        super().stopService()  # type: ignore[no-untyped-call]
        return ensureDeferred(self._stop())

    def start_graph(self, port: int = 0) -> None:
        """Listen for the Graph API, on the port it had before if it had one."""
        self._graph.listen(self._reactor, port, self._bind, self._tls)

    def start_tenants(self, port: int = 0) -> None:
        """Listen for the Tenant Service, on the port it had before if it had one."""
        self._tenants.listen(self._reactor, port, self._bind, None)

    async def stop_graph(self) -> None:
        """Close the Graph API's port and connections, so that connecting is refused."""
        await self._graph.leave()

    async def stop_tenants(self) -> None:
        """Close the Tenant Service's port and connections, so that connecting is refused."""
        await self._tenants.leave()

    async def _stop(self) -> None:
        self.deliveries.stop()
        if self._ports_file is not None:
            self._ports_file.unlink(missing_ok=True)
        await self.stop_graph()
        await self.stop_tenants()

    def _host(self) -> str:
        if self._bind in {"", "0.0.0.0"}:  # noqa: S104
            return "127.0.0.1"
        return f"[{self._bind}]" if ":" in self._bind else self._bind


class _Root(Resource):
    """Leads ``/_control`` to the control endpoint and everything else to the API."""

    def __init__(self, api: IResource, control: IResource) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._api = api
        self._control = control

    def getChild(self, path: bytes, _request: object) -> IResource:
        return self._control if path == b"_control" else self._api


def tenants_from(documents: Iterable[dict[str, Any]]) -> Tenants:
    """Return the tenants that JSON *documents* describe, each with its ``tenantId``.

    Raises:
        TenantError, KeyError: a document is not such a description.
    """
    tenants = Tenants()
    for document in documents:
        settings = dict(document)
        tenants.add(settings.pop("tenantId"), **settings_of(settings))
    return tenants


def _write_whole(path: Path, document: object) -> None:
    # Readers wait for the file to be there, so it must be complete from the first moment.
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(msgspec.json.encode(document) + b"\n")
    partial.replace(path)
