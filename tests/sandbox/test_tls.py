"""TLS: the certificate that is right, and those that are wrong on purpose."""

import socket

import pytest
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.ssl import Certificate, TLSVersion, trustRootFromCertificates
from twisted.internet.threads import deferToThread
from twisted.web._newclient import RequestTransmissionFailed
from twisted.web.client import BrowserLikePolicyForHTTPS

from tests.sandbox.served import SandboxTestCase
from whatsapp_egress.sandbox.server import Sandbox
from whatsapp_egress.sandbox.tls import Authority


class _TLSTestCase(SandboxTestCase):
    def make_sandbox(self):
        self.certificate = self.issue(Authority.create())
        return Sandbox(reactor, tls=self.certificate)

    def issue(self, authority):
        return authority.issue()

    def trust(self, pem):
        root = trustRootFromCertificates([Certificate.loadPEM(pem)])
        self.use_client(policy=BrowserLikePolicyForHTTPS(trustRoot=root))


class GoodCertificateTests(_TLSTestCase):
    async def test_who_trusts_the_authority_is_served(self):
        self.trust(self.certificate.ca_pem)

        assert self.sandbox.graph_url.startswith("https://127.0.0.1:")
        assert (await self.send("1"))[0] == 200

    async def test_the_certificate_is_for_localhost_too(self):
        self.trust(self.certificate.ca_pem)
        response = await self.client.get(f"https://localhost:{self.sandbox.graph_port}/_control/summary")

        assert response.code == 200

    async def test_who_trusts_another_authority_is_not(self):
        self.trust(Authority.create().issue().ca_pem)

        with pytest.raises(RequestTransmissionFailed, match="certificate verify failed"):
            await self.post("1")
        assert len(self.sandbox.record) == 0


class WrongHostTests(_TLSTestCase):
    def issue(self, authority):
        return authority.wrong_host()

    async def test_a_certificate_for_another_host_is_refused(self):
        self.trust(self.certificate.ca_pem)

        with pytest.raises(RequestTransmissionFailed, match="VerificationError"):
            await self.post("1")


class ExpiredTests(_TLSTestCase):
    def issue(self, authority):
        return authority.expired()

    async def test_a_certificate_that_has_run_out_is_refused(self):
        self.trust(self.certificate.ca_pem)

        with pytest.raises(RequestTransmissionFailed, match="certificate verify failed"):
            await self.post("1")


class OldVersionTests(_TLSTestCase):
    def make_sandbox(self):
        self.certificate = Authority.create().issue()
        return Sandbox(reactor, tls=self.certificate, highest_tls=TLSVersion.TLSv1_1)

    def connect(self, lowest):
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_cipher_list(b"DEFAULT:@SECLEVEL=0")
        context.set_min_proto_version(lowest)
        connection = SSL.Connection(context, socket.create_connection(("127.0.0.1", self.sandbox.graph_port)))
        connection.set_connect_state()
        try:
            connection.do_handshake()
            return connection.get_protocol_version_name()
        finally:
            connection.close()

    async def test_who_asks_for_an_old_version_is_served_with_it(self):
        assert await deferToThread(self.connect, SSL.TLS1_VERSION) == "TLSv1.1"

    async def test_who_wants_a_newer_version_is_not(self):
        with pytest.raises(SSL.Error):
            await deferToThread(self.connect, SSL.TLS1_2_VERSION)
