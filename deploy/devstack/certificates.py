"""A CA for development, and certificates for services, workers, NATS, its subscribers and a client; nothing here is for production."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import Name, NameAttribute
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from devstack.config import SERVICES
from devstack.identities import GATEWAY_URI, OPERATOR_URI, service_uri, subscriber_uri, worker_uri
from devstack.state import write_private

_DAY = dt.timedelta(days=1)
CA_DAYS, DAYS = 365, 30
_CA = "ca.pem"


class Authority:
    """A CA with its key in memory."""

    def __init__(self, name: str = "OptAIC development CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        now = dt.datetime.now(dt.UTC)
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        self._certificate = (
            _begin(self._name, self._name, self._key.public_key(), now - _DAY, now + CA_DAYS * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(
        self,
        name: str,
        uri: str = "",
        hosts: Sequence[str] = ("localhost", "127.0.0.1"),
        begins: dt.timedelta = -_DAY,
        ends: dt.timedelta = DAYS * _DAY,
    ) -> tuple[str, str]:
        """Return a certificate for some hosts and its key, as PEM; it is valid from `begins` to `ends` from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        names: list[x509.GeneralName] = [_host(host) for host in hosts]
        names += [x509.UniformResourceIdentifier(uri)] if uri else []
        certificate = (
            _begin(_named(name), self._name, key.public_key(), now + begins, now + ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode(), pem.decode()


def write_development_certificates(
    folder: Path, tenants: Sequence[str] = ("default",), hosts: Sequence[str] = ()
) -> list[Path]:
    """Write a new CA and its certificates into a folder, each with its key; the CA's own key is kept nowhere.

    Raises:
        OSError: The folder cannot be written.
    """
    authority = Authority()
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / _CA]
    write_private(written[0], authority.pem)
    for name, uri in _holders(tenants).items():
        certificate, key = authority.issue(name, uri, ("localhost", "127.0.0.1", *hosts))
        for ending, text in (("pem", certificate), ("key", key)):
            path = folder / f"{name}.{ending}"
            write_private(path, text)
            written.append(path)
    return written


def ensure_development_certificates(folder: Path, tenants: Sequence[str]) -> None:
    """Write them anew if one is missing, or if half of the time is over for which they are valid.

    Raises:
        OSError: The folder cannot be read or written.
    """
    try:
        present = [(folder / f"{name}.pem").read_bytes() for name in _holders(tenants)]
        ends = [x509.load_pem_x509_certificate(pem).not_valid_after_utc for pem in present]
        is_good = (folder / _CA).exists() and min(ends) > dt.datetime.now(dt.UTC) + DAYS / 2 * _DAY
    except (FileNotFoundError, ValueError):
        is_good = False
    if not is_good:
        write_development_certificates(folder, tenants)


def _holders(tenants: Sequence[str]) -> dict[str, str]:
    """Return the name of each certificate with the URI in it."""
    return {
        **{f"{service}-service": service_uri(service) for service in SERVICES},
        **{f"worker-{tenant}": worker_uri(tenant) for tenant in tenants},
        **{f"subscriber-{tenant}": subscriber_uri(tenant) for tenant in tenants},
        "gateway": GATEWAY_URI,
        "operator": OPERATOR_URI,
        "nats": "",
        "client": "",
    }


def _named(name: str) -> Name:
    return Name([NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _begin(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    begins: dt.datetime,
    ends: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
    )
