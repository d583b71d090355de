"""What is not verified gets no byte of a request."""

import os

import pytest
from twisted.internet.ssl import TLSVersion

from tests.clients.peers import OK, ClientTestCase, post
from tests.sandbox.served import eventually
from whatsapp_egress.errors import NotConnected
from whatsapp_egress.sandbox.tls import Authority


class VerificationTests(ClientTestCase):
    """What isn't verified gets no byte of a request, be it small or larger than every buffer."""

    async def refused(self, certificate, pem, match, highest=None):
        for body in (b"{}", b"x" * 300_000):
            server = self.serve(tls=certificate.options(highest=highest))
            with pytest.raises(NotConnected, match=match):
                await post(self.client(pem), server.url, body)
            await eventually(lambda server=server: server.visitors and not server.open)
            assert server.visitors[0].got == b""

    async def test_a_certificate_for_another_host(self):
        authority = Authority.create()
        certificate = authority.wrong_host()
        await self.refused(certificate, certificate.ca_pem, "VerificationError")

    async def test_a_certificate_for_another_host_with_a_name(self):
        certificate = Authority.create().issue(("127.0.0.1",))
        server = self.serve(tls=certificate.options())

        with pytest.raises(NotConnected, match="VerificationError"):
            await post(self.client(certificate.ca_pem), f"https://localhost:{server.port}")
        assert server.visitors[0].got == b""

    async def test_an_authority_that_nobody_knows(self):
        await self.refused(
            Authority.create().issue(), Authority.create().issue().ca_pem, "certificate verify failed"
        )

    async def test_an_authority_that_the_platform_does_not_know(self):
        await self.refused(Authority.create().issue(), None, "certificate verify failed")

    async def test_a_certificate_that_has_run_out(self):
        certificate = Authority.create().expired()
        await self.refused(certificate, certificate.ca_pem, "certificate verify failed")

    async def test_a_version_of_tls_that_is_too_old(self):
        certificate = Authority.create().issue()
        for version in (TLSVersion.TLSv1_0, TLSVersion.TLSv1_1):
            await self.refused(certificate, certificate.ca_pem, "(?i)protocol", highest=version)

    async def test_tls_1_2_is_good_enough(self):
        certificate = Authority.create().issue()
        server = self.serve(tls=certificate.options(highest=TLSVersion.TLSv1_2))

        assert (await post(self.client(certificate.ca_pem), server.url)).complete

    async def test_a_server_that_speaks_no_tls(self):
        server = self.serve(lambda visitor: None)
        asked = post(self.client(), f"https://127.0.0.1:{server.port}")
        await eventually(lambda: server.visitors and server.visitors[0].got)
        server.visitors[0].write(OK)

        with pytest.raises(NotConnected, match="TLS handshake"):
            await asked
        assert b"POST" not in server.visitors[0].got

    async def test_a_server_that_hangs_up_in_the_handshake(self):
        server = self.serve()
        asked = post(self.client(), f"https://127.0.0.1:{server.port}")
        await eventually(lambda: server.visitors and server.visitors[0].got)
        server.visitors[0].transport.abortConnection()

        with pytest.raises(NotConnected, match="TLS handshake: ConnectionLost"):
            await asked

    async def test_the_platforms_roots_are_trusted_where_no_others_are_named(self):
        certificate = Authority.create().issue()
        self.platform_trusts(certificate)
        server = self.serve(tls=certificate.options())

        assert (await post(self.client(None), server.url)).complete

    def platform_trusts(self, certificate):
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(certificate.ca_pem)
        self.patch_environment("SSL_CERT_FILE", path)

    def patch_environment(self, name, value):
        before = os.environ.get(name)
        os.environ[name] = value
        self.addCleanup(
            lambda: os.environ.pop(name) if before is None else os.environ.__setitem__(name, before)
        )
