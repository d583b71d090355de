"""Certificates for the sandbox: a certificate authority of its own, and what it signs, good or bad."""

from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL.crypto import FILETYPE_PEM, X509, load_privatekey
from twisted.internet.ssl import CertificateOptions, TLSVersion

LOCAL = ("localhost", "127.0.0.1", "::1")
_LIFE = timedelta(days=365)
_SLACK = timedelta(hours=1)  # clocks differ


@frozen
class ServerCertificate:
    """A certificate with its key, and the authority that vouches for it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)
    authority: x509.Certificate

    @property
    def ca_pem(self) -> bytes:
        """The authority's certificate, for those who are to trust it."""
        return self.authority.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The server's private key, not encrypted."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def certificate_pem(self) -> bytes:
        """The server's certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    def options(self, *, highest: TLSVersion | None = None) -> CertificateOptions:
        """Return what a TLS server needs; with *highest*, nothing newer than that version is spoken."""
        key = load_privatekey(FILETYPE_PEM, self.key_pem)
        certificate = X509.from_cryptography(self.certificate)
        if highest is None:
            return CertificateOptions(privateKey=key, certificate=certificate)
        options = CertificateOptions(
            privateKey=key,
            certificate=certificate,
            insecurelyLowerMinimumTo=TLSVersion.TLSv1_0,
            lowerMaximumSecurityTo=highest,
        )
        # OpenSSL speaks nothing before TLS 1.2 at its usual level of security.
        options.getContext().set_cipher_list(b"DEFAULT:@SECLEVEL=0")
        return options


@frozen
class Authority:
    """A certificate authority that nobody trusts until told to."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def create(cls, name: str = "whatsapp-sandbox") -> "Authority":
        """Make a new one."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(timezone.utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 10 * _LIFE)  # so that it can vouch for what has expired
            .not_valid_after(now + _LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, SHA256())
        )
        return cls(certificate, key)

    def issue(
        self,
        hosts: tuple[str, ...] = LOCAL,
        *,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
    ) -> ServerCertificate:
        """Sign a certificate for *hosts* (names and addresses), valid for a year from now by default."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(timezone.utc)
        names = x509.SubjectAlternativeName([_name(host) for host in hosts])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])]))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before or now - _SLACK)
            .not_valid_after(not_after or now + _LIFE)
            .add_extension(names, critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(issuer, critical=False)
            .sign(self.key, SHA256())
        )
        return ServerCertificate(certificate, key, self.certificate)

    def wrong_host(self) -> ServerCertificate:
        """Sign a certificate for a host that is not this one."""
        return self.issue(("graph.somewhere-else.example",))

    def expired(self) -> ServerCertificate:
        """Sign a certificate that ran out yesterday."""
        now = datetime.now(timezone.utc)
        return self.issue(not_before=now - timedelta(days=30), not_after=now - timedelta(days=1))


def write_ca(folder: Path, certificate: ServerCertificate) -> Path:
    """Write the authority's certificate to ``ca.pem`` in *folder*, made if missing; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "ca.pem"
    path.write_bytes(certificate.ca_pem)
    return path


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
