"""The options of ``twistd whatsapp-sandbox`` and the service made from them."""

from pathlib import Path
from typing import Any, ClassVar

import msgspec
from twisted.application.service import IService
from twisted.python import usage

from .server import Sandbox, tenants_from
from .tenants import TenantError, Tenants
from .tls import Authority, write_ca

_MOST_TENANTS = 100_000


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError("a port is a number from 0 to 65535")
    return port


def _count(text: str) -> int:
    count = int(text)
    if not 0 <= count <= _MOST_TENANTS:
        raise ValueError(f"a number from 0 to {_MOST_TENANTS} is expected")
    return count


class Options(usage.Options):
    """What can be said on the command line."""

    longdesc = (
        "Serves a Graph API and a Tenant Service to try the gateway against. The recipient's last digits "
        "choose what the Graph API answers; /_control on either port sets faults and limits and tells what "
        "arrived. See docs/sandbox.md."
    )
    optParameters: ClassVar[list[list[object]]] = [
        ["graph-port", None, None, "Port of the Graph API, 0: a free one [8480, with --tls 8443]", _port],
        ["tenant-port", None, 8481, "Port of the Tenant Service, 0: a free one", _port],
        ["bind", None, "127.0.0.1", "Address to listen on"],
        ["tls-dir", None, "sandbox-tls", "Folder that ca.pem is written to, with --tls"],
        ["tenants", None, 8, "How many default tenants there are", _count],
        ["tenants-file", None, None, "JSON list of tenants to have instead of the default ones"],
        ["app-secret", None, None, "Demand an appsecret_proof made with this secret"],
        ["tenant-service-token", None, None, "Demand this bearer token at the Tenant Service"],
        ["record-limit", None, 100_000, "How many requests the record keeps", int],
        ["ports-file", None, None, "JSON file to write the addresses to once they are served"],
    ]
    optFlags: ClassVar[list[list[object]]] = [
        ["tls", None, "Serve the Graph API over TLS with a certificate made at the start"]
    ]

    def postOptions(self) -> None:
        """Read the tenants, so that a bad file stops the start."""
        if self["graph-port"] is None:
            self["graph-port"] = 8443 if self["tls"] else 8480
        path = self["tenants-file"]
        if path is None:
            self["directory"] = Tenants()
            for _ in range(self["tenants"]):
                self["directory"].add()
            return
        try:
            documents = msgspec.json.decode(Path(path).read_bytes(), type=list[dict[str, Any]])
            self["directory"] = tenants_from(documents)
        except (OSError, msgspec.MsgspecError, TenantError) as error:
            raise usage.UsageError(f"--tenants-file {path}: {error}") from error
        except KeyError as error:
            raise usage.UsageError(f"--tenants-file {path}: a tenant has no {error}") from error


def makeService(options: Options) -> IService:
    """Return the sandbox that *options* describe."""
    from twisted.internet import reactor  # noqa: PLC0415 - the reactor may be chosen until here

    tls = None
    if options["tls"]:
        tls = Authority.create().issue()
        write_ca(Path(options["tls-dir"]), tls)
    ports_file = options["ports-file"]
    return Sandbox(
        reactor,
        tenants=options["directory"],
        graph_port=options["graph-port"],
        tenant_port=options["tenant-port"],
        bind=options["bind"],
        tls=tls,
        app_secret=options["app-secret"],
        tenant_service_token=options["tenant-service-token"],
        record_limit=options["record-limit"],
        ports_file=None if ports_file is None else Path(ports_file).resolve(),
    )
