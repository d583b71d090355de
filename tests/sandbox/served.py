"""A sandbox on free ports and a client that keeps no connection."""

import msgspec
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool

from whatsapp_egress.sandbox.server import Sandbox


async def eventually(holds):
    """Return once *holds* is true."""
    while not holds():
        await deferLater(reactor, 0.005)


class SandboxTestCase(TestCase):
    """Each test has a sandbox of its own with two tenants, acme and bravo."""

    timeout = 20

    def setUp(self):
        self.sandbox = self.make_sandbox()
        self.acme = self.sandbox.tenants.add()
        self.bravo = self.sandbox.tenants.add()
        self.sandbox.startService()
        self.addCleanup(self.sandbox.stopService)
        self.use_client()

    def make_sandbox(self):
        return Sandbox(reactor)

    def use_client(self, *, persistent=False, policy=None):
        """Send what follows over a pool of its own, by default one that keeps no connection."""
        pool = HTTPConnectionPool(reactor, persistent=persistent)
        self.addCleanup(pool.closeCachedConnections)
        self.client = HTTPClient(Agent(reactor, policy or BrowserLikePolicyForHTTPS(), pool=pool))

    def post(self, to=None, *, payload=None, headers=None, path=None, query=""):
        """Send a text to *to*, or *payload*, as acme; return a Deferred of the response."""
        message = payload or {
            "messaging_product": "whatsapp",
            "to": to,
            "type": "text",
            "text": {"body": "x"},
        }
        return self.client.post(
            self.sandbox.graph_url + (path or f"/v25.0/{self.acme.phone_number_id}/messages") + query,
            data=message if isinstance(message, bytes) else msgspec.json.encode(message),
            headers={"Authorization": f"Bearer {self.acme.token}", "Content-Type": "application/json"}
            | (headers or {}),
            allow_redirects=False,
            unbuffered=True,
        )

    async def send(self, to=None, **how):
        """Send and return status and decoded body."""
        response = await self.post(to, **how)
        return response.code, msgspec.json.decode(await response.content())

    async def control(self, method, path, document=None):
        """Ask the control endpoint; return status and decoded body."""
        response = await self.client.request(
            method,
            f"{self.sandbox.tenants_url}/_control/{path}",
            data=b"" if document is None else msgspec.json.encode(document),
        )
        return response.code, msgspec.json.decode(await response.content())

    def credentials(self, tenant="acme", *, headers=None, query="?type=whatsapp"):
        """Ask the Tenant Service for credentials; return a Deferred of the response."""
        return self.client.get(
            f"{self.sandbox.tenants_url}/api/v1/tenants/{tenant}/credentials{query}", headers=headers or {}
        )

    async def fetch(self, tenant="acme", **how):
        """Ask for credentials; return status and decoded body."""
        response = await self.credentials(tenant, **how)
        return response.code, msgspec.json.decode(await response.content())
