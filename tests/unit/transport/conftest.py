# SPDX-License-Identifier: Apache-2.0
"""Servers that misbehave on loopback, and one way to drive both transports."""

from __future__ import annotations

import asyncio
import datetime
import gc
import ipaddress
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_promptlayer.api.http import Request, Response
from airflow_provider_promptlayer.transport.settings import Settings

KEY = "pl_geheim_0123456789"
PATIENCE = 60.0
"""Seconds after which a test server gives up, whatever happens."""

ENVIRONMENT = [
    *(f"{scheme}_proxy" for scheme in ("http", "https", "all", "no")),
    *(f"{scheme}_PROXY" for scheme in ("HTTP", "HTTPS", "ALL", "NO")),
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True, scope="module")
def _nothing_unclosed() -> Iterator[None]:
    """Have what these tests leave open warn here, and not in tests of something else."""
    yield
    gc.collect()


@dataclass
class Received:
    """A request as it was on the wire; header names in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    raw: bytes = field(repr=False)


@dataclass
class CallFlow:
    """One request to a :class:`Server`, and the means to answer it badly."""

    request: Received
    socket: socket.socket
    stopping: threading.Event
    number: int

    def write(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, status: int = 200, body: bytes = b"", *headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Word", *headers, f"Content-Length: {len(body)}", "", ""]
        self.write("\r\n".join(lines).encode("latin-1") + body)

    def drip(self, data: bytes) -> None:
        """Write byte by byte until the other side hangs up."""
        for index in range(len(data)):
            if self.stopping.wait(0.03):
                return
            self.write(data[index : index + 1])

    def hang(self) -> None:
        """Say nothing until the other side hangs up."""
        while not self.stopping.is_set():
            if select.select([self.socket], [], [], 0.01)[0] and not self.socket.recv(1024):
                return

    def reset(self) -> None:
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


class Server:
    """A server on raw sockets: each request goes to ``handle``, which returns whether to go on."""

    def __init__(
        self, handle: Callable[[CallFlow], object], tls: ssl.SSLContext | None = None
    ) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self.hung_up = threading.Semaphore(0)
        self._handle = handle
        self._tls = tls
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.01)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        self._listener.close()

    def _accept(self) -> None:
        while not self._stopping.is_set():
            with suppress(TimeoutError):
                connection, _ = self._listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        with ExitStack() as stack, suppress(OSError, _HungUpError):
            stack.callback(self.hung_up.release)  # the last thing to happen
            stack.enter_context(connection)
            if self._tls is not None:
                connection = stack.enter_context(
                    self._tls.wrap_socket(connection, server_side=True)
                )
            while True:
                request = self._read(connection)
                self.requests.append(request)
                flow = CallFlow(request, connection, self._stopping, len(self.requests))
                if not self._handle(flow):
                    return

    def _read(self, connection: socket.socket) -> Received:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive(connection)
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        while len(body) < int(headers.get("content-length", 0)):
            body += self._receive(connection)
        method, target, _ = first.split(" ", 2)
        return Received(method, target, headers, body, head + b"\r\n\r\n" + body)

    def _receive(self, connection: socket.socket) -> bytes:
        ends = time.monotonic() + PATIENCE
        while not self._stopping.is_set() and time.monotonic() < ends:
            pending = isinstance(connection, ssl.SSLSocket) and connection.pending()
            if pending or select.select([connection], [], [], 0.01)[0]:
                data = connection.recv(65536)
                if data:
                    return data
                break
        raise _HungUpError


class _HungUpError(Exception):
    pass


class Proxy(Server):
    """An HTTP proxy that takes CONNECT and absolute targets, on loopback only."""

    def __init__(self, refuse: bool = False) -> None:
        self._refuse = refuse
        super().__init__(self._forward)

    def _forward(self, flow: CallFlow) -> None:
        if self._refuse:
            flow.answer(407, b"", "Proxy-Authenticate: Basic")
            return
        if flow.request.method == "CONNECT":
            port = int(flow.request.target.rpartition(":")[2])
            first = b""
        else:
            authority, _, path = flow.request.target.removeprefix("http://").partition("/")
            port = int(authority.rpartition(":")[2])
            _, _, rest = flow.request.raw.partition(b"\r\n")
            first = f"{flow.request.method} /{path} HTTP/1.1\r\n".encode() + rest
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as upstream:
            if first:
                upstream.sendall(first)
            else:
                flow.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            ends = time.monotonic() + PATIENCE
            while not flow.stopping.is_set() and time.monotonic() < ends:
                for source in select.select([flow.socket, upstream], [], [], 0.01)[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    (upstream if source is flow.socket else flow.socket).sendall(data)


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Start a :class:`Server` for the length of a test."""
    with ExitStack() as servers:

        def start(
            handle: Callable[[CallFlow], object], tls: ssl.SSLContext | None = None
        ) -> Server:
            server = Server(handle, tls)
            servers.callback(server.stop)
            return server

        yield start


@pytest.fixture
def start_proxy() -> Iterator[Callable[..., Proxy]]:
    """Start a :class:`Proxy` for the length of a test."""
    with ExitStack() as servers:

        def start(*, refuse: bool = False) -> Proxy:
            proxy = Proxy(refuse)
            servers.callback(proxy.stop)
            return proxy

        yield start


def settings_for(url: str, **changes: Any) -> Settings:
    return Settings(**{"base_url": url, "api_key": KEY, "timeout": 10.0, **changes})


class Driver:
    """Sends requests through one of the transports, from opening it to closing it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def send(
        self,
        where: Server | Settings | str,
        *requests: Request,
        after_each: Callable[[], object] = lambda: None,
        **changes: Any,
    ) -> list[Response]:
        """Send ``requests`` one after the other through one transport."""
        if isinstance(where, Server):
            where = where.url
        settings = settings_for(where, **changes) if isinstance(where, str) else where
        if self.kind == "blocking":
            return self._blocking(settings, requests, after_each)
        return asyncio.run(self._async(settings, requests, after_each))

    def get(self, where: Server | Settings | str, path: str = "/x", **changes: Any) -> Response:
        return self.send(where, Request("GET", path, "look"), **changes)[0]

    def post(self, where: Server | Settings | str, body: bytes = b"{}", **changes: Any) -> Response:
        return self.send(where, Request("POST", "/x", "start", body), **changes)[0]

    def _blocking(
        self, settings: Settings, requests: tuple[Request, ...], after_each: Callable[[], object]
    ) -> list[Response]:
        from airflow_provider_promptlayer.transport.blocking import BlockingTransport

        transport = BlockingTransport(settings)
        try:
            return [self._then(after_each, transport.send(request)) for request in requests]
        finally:
            transport.close()

    async def _async(
        self, settings: Settings, requests: tuple[Request, ...], after_each: Callable[[], object]
    ) -> list[Response]:
        from airflow_provider_promptlayer.transport.aio import AsyncTransport

        transport = AsyncTransport(settings)
        try:
            return [self._then(after_each, await transport.send(request)) for request in requests]
        finally:
            await transport.close()

    @staticmethod
    def _then(after_each: Callable[[], object], response: Response) -> Response:
        after_each()
        return response


@pytest.fixture(params=["blocking", "async"])
def driver(request: pytest.FixtureRequest) -> Driver:
    """Both transports, one after the other."""
    return Driver(request.param)


@dataclass(frozen=True)
class Certificates:
    """A CA, and a certificate for 127.0.0.1 that it has signed."""

    ca_file: str
    server: ssl.SSLContext
    other_ca_file: str


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    pytest.importorskip("cryptography")
    folder = tmp_path_factory.mktemp("certificates")
    ca_file, chain_file = _issue(folder, "ours")
    other_ca_file, _ = _issue(folder, "other")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(chain_file)
    return Certificates(str(ca_file), server, str(other_ca_file))


def _issue(folder: Path, name: str) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Test CA {name}")])
    ca_id = x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key())

    def certificate(job: x509.Name, public_key: Any) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(job)
            .issuer_name(ca_name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )

    usage = dict.fromkeys(
        [
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ],
        False,
    )
    ca = (
        certificate(ca_name, ca_key.public_key())
        .add_extension(x509.BasicConstraints(True, 0), True)
        .add_extension(
            x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, **usage), True
        )
        .add_extension(ca_id, False)
        .sign(ca_key, hashes.SHA256())
    )
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    leaf = (
        certificate(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")]), key.public_key()
        )
        .add_extension(x509.SubjectAlternativeName([address, x509.DNSName("localhost")]), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(ca_id), False)
        .sign(ca_key, hashes.SHA256())
    )
    ca_file, chain_file = folder / f"{name}-ca.pem", folder / f"{name}-chain.pem"
    ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    chain_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + leaf.public_bytes(serialization.Encoding.PEM)
    )
    return ca_file, chain_file


def request_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "promptlayer-request"]


@pytest.fixture
def threads_end() -> Callable[[], None]:
    """Wait, within bounds, for the threads of given-up exchanges to end."""

    def wait() -> None:
        ends = time.monotonic() + PATIENCE
        for thread in request_threads():
            thread.join(max(0.0, ends - time.monotonic()))
        assert not request_threads()

    return wait
