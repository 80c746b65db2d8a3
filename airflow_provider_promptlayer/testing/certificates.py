# SPDX-License-Identifier: Apache-2.0
"""TLS certificates for a server on loopback, made when they are needed: good and bad ones.

The rule here: nothing outlives the folder, and nothing is trusted that did not come from it. The
``cryptography`` package, which Airflow brings, is imported on first use.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

CertificateKind: TypeAlias = Literal["trusted", "self-signed", "expired", "wrong host"]
"""``trusted``: by whoever trusts the CA file, for localhost, 127.0.0.1 and ::1. The others are
not: signed by itself, out of date since yesterday, or for another host."""

_DAY = datetime.timedelta(days=1)


class Certificates:
    """A certificate authority in a temporary folder, and the server that presents its work.

    Args:
        kind: what the server presents.

    Raises:
        ValueError: there is no such kind.

    """

    def __init__(self, kind: CertificateKind) -> None:
        self._folder = TemporaryDirectory(prefix="local-promptlayer-")
        self._ca_key = _new_key()
        self._ca = _certificate("CA of the local PromptLayer", self._ca_key)
        self.ca_file = Path(self._folder.name) / "ca.pem"
        self.ca_file.write_bytes(_pem(self._ca))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            self.use(kind)
        except BaseException:
            self.remove()
            raise

    def use(self, kind: CertificateKind) -> None:
        """Present another certificate from the next handshake on.

        Raises:
            ValueError: there is no such kind.

        """
        if kind not in get_args(CertificateKind):
            kinds = ", ".join(map(repr, get_args(CertificateKind)))
            raise ValueError(f"there is no certificate of kind {kind!r}; there are {kinds}")
        key = _new_key()
        issuer = None if kind == "self-signed" else (self._ca, self._ca_key)
        certificate = _certificate(
            "local PromptLayer",
            key,
            issuer=issuer,
            hosts=("elsewhere.invalid",)
            if kind == "wrong host"
            else ("localhost", "127.0.0.1", "::1"),
            expired=kind == "expired",
        )
        file = Path(self._folder.name) / "server.pem"
        file.touch(mode=0o600)
        file.write_bytes(_private_pem(key) + _pem(certificate))
        self.context.load_cert_chain(file)

    def remove(self) -> None:
        """Delete the folder."""
        self._folder.cleanup()


def _new_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _certificate(
    name: str,
    key: EllipticCurvePrivateKey,
    *,
    issuer: tuple[x509.Certificate, EllipticCurvePrivateKey] | None = None,
    hosts: tuple[str, ...] = (),
    expired: bool = False,
) -> x509.Certificate:
    """Make a certificate: of a CA without ``hosts``, signed by itself without an ``issuer``."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    ca, ca_key = issuer or (None, key)
    now = datetime.datetime.now(datetime.UTC)
    is_ca = not hosts
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject if ca else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 2 * _DAY)
        .not_valid_after(now - _DAY if expired else now + 2 * _DAY)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=is_ca,
                crl_sign=is_ca,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
    )
    if hosts:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False
        ).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return builder.sign(ca_key, hashes.SHA256())


def _general_name(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _private_pem(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
