# SPDX-License-Identifier: Apache-2.0
"""TLS certificates for a server on loopback, good and bad ones, made by trustme.

trustme and its ``cryptography`` are imported by the first server that uses TLS.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias, get_args

CertificateKind: TypeAlias = Literal["trusted", "self-signed", "expired", "wrong host"]
"""``trusted``: by a client that trusts the CA file, for localhost, 127.0.0.1 and ::1. The others
are not: signed by itself, expired yesterday, or for another host."""

_HOSTS = ("localhost", "127.0.0.1", "::1")


class Certificates:
    """A certificate authority, its CA file in a temporary folder, and a server's TLS context."""

    def __init__(self, kind: CertificateKind) -> None:
        import trustme

        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority = trustme.CA()
        self.use(kind)
        self._folder = TemporaryDirectory(prefix="local-promptlayer-")
        self.ca_file = Path(self._folder.name) / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca_file)

    def use(self, kind: CertificateKind) -> None:
        """Present a certificate of this kind from the next handshake on."""
        import trustme

        if kind not in get_args(CertificateKind):
            kinds = ", ".join(map(repr, get_args(CertificateKind)))
            raise ValueError(f"there is no certificate of kind {kind!r}; there are {kinds}")
        match kind:
            case "trusted":
                certificate = self._authority.issue_cert(*_HOSTS)
            case "expired":
                yesterday = datetime.now(UTC) - timedelta(days=1)
                certificate = self._authority.issue_cert(*_HOSTS, not_after=yesterday)
            case "wrong host":
                certificate = self._authority.issue_cert("elsewhere.invalid")
            case "self-signed":
                # The certificate of an authority that no client knows is signed by itself.
                stranger = trustme.CA()
                pem = trustme.Blob(stranger.private_key_pem.bytes() + stranger.cert_pem.bytes())
                with pem.tempfile() as path:
                    self.context.load_cert_chain(path)
                return
        certificate.configure_cert(self.context)

    def remove(self) -> None:
        """Delete the folder."""
        self._folder.cleanup()
