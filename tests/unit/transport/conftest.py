# SPDX-License-Identifier: Apache-2.0
"""Servers on loopback that misbehave, and one way to drive both transports."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import select
import socket
import ssl
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
import trustme

from airflow_provider_promptlayer.api.http import Request, Response
from airflow_provider_promptlayer.transport.settings import Settings

KEY = "pl_geheim_0123456789"
GIVE_UP_SECONDS = 60.0
"""Seconds after which a test server gives up, whatever happens."""

POLL = Request("GET", "/poll", "poll")
START = Request("POST", "/start", "start", b"{}")
BOTH = pytest.mark.parametrize("request_", [POLL, START], ids=["get", "post"])

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
    """Have what these tests leave open warn here, and not in other tests."""
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
class Exchange:
    """One request to a :class:`Server`, and the means to answer it badly."""

    request: Received
    socket: socket.socket
    stopping: threading.Event
    number: int

    def write(self, data: bytes) -> None:
        self.socket.sendall(data)

    def write_through(self, data: bytes) -> None:
        """Write, and return once the other side's kernel has acknowledged all of it."""
        self.write(data)
        left = bytearray(4)
        while fcntl.ioctl(self.socket, termios.TIOCOUTQ, left) == 0 and any(left):
            if self.stopping.wait(0.001):
                return

    def answer(self, status: int = 200, body: bytes = b"whole", *headers: str) -> None:
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


Handler = Callable[[Exchange], object]


def answer(exchange: Exchange) -> None:
    """Answer, and close the connection without saying so."""
    exchange.answer()


def keep_alive(exchange: Exchange) -> bool:
    """Answer, and keep the connection."""
    exchange.answer()
    return True


class Server:
    """A server on raw sockets: each request goes to ``handle``, which returns whether to go on."""

    def __init__(self, handle: Handler = answer, tls: ssl.SSLContext | None = None) -> None:
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
            thread.join(GIVE_UP_SECONDS)
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
        connection.settimeout(GIVE_UP_SECONDS)
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
                number = len(self.requests)
                if not self._handle(Exchange(request, connection, self._stopping, number)):
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
        ends = time.monotonic() + GIVE_UP_SECONDS
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

    def address(self, userinfo: str = "") -> str:
        return f"http://{userinfo}127.0.0.1:{self.port}"

    def _forward(self, exchange: Exchange) -> None:
        if self._refuse:
            exchange.answer(407, b"", "Proxy-Authenticate: Basic")
            return
        request = exchange.request
        if request.method == "CONNECT":
            port = int(request.target.rpartition(":")[2])
            first = b""
        else:
            authority, _, path = request.target.removeprefix("http://").partition("/")
            port = int(authority.rpartition(":")[2])
            _, _, rest = request.raw.partition(b"\r\n")
            first = f"{request.method} /{path} HTTP/1.1\r\n".encode() + rest
        with socket.create_connection(("127.0.0.1", port), timeout=GIVE_UP_SECONDS) as upstream:
            if first:
                upstream.sendall(first)
            else:
                exchange.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            ends = time.monotonic() + GIVE_UP_SECONDS
            while not exchange.stopping.is_set() and time.monotonic() < ends:
                for source in select.select([exchange.socket, upstream], [], [], 0.01)[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    other = upstream if source is exchange.socket else exchange.socket
                    other.sendall(data)


@pytest.fixture
def _servers() -> Iterator[ExitStack]:
    with ExitStack() as servers:
        yield servers


@pytest.fixture
def serve(_servers: ExitStack) -> Callable[..., Server]:
    """Start a :class:`Server` for the length of a test."""

    def start(*args: Any) -> Server:
        server = Server(*args)
        _servers.callback(server.stop)
        return server

    return start


@pytest.fixture
def start_proxy(_servers: ExitStack) -> Callable[..., Proxy]:
    """Start a :class:`Proxy` for the length of a test."""

    def start(**how: Any) -> Proxy:
        proxy = Proxy(**how)
        _servers.callback(proxy.stop)
        return proxy

    return start


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve()


@pytest.fixture
def tls_server(serve: Callable[..., Server], certificates: Certificates) -> Server:
    return serve(answer, certificates.server)


def settings_for(where: Server | str, **changes: Any) -> Settings:
    url = where if isinstance(where, str) else where.url
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
        settings = where if isinstance(where, Settings) else settings_for(where, **changes)
        send = self._blocking if self.kind == "blocking" else self._async
        return send(settings, requests, after_each)

    def get(self, where: Server | Settings | str, path: str = "/x", **changes: Any) -> Response:
        return self.send(where, Request("GET", path, "poll"), **changes)[0]

    @staticmethod
    def _blocking(
        settings: Settings, requests: tuple[Request, ...], after_each: Callable[[], object]
    ) -> list[Response]:
        from airflow_provider_promptlayer.transport.blocking import BlockingTransport

        transport, responses = BlockingTransport(settings), []
        try:
            for request in requests:
                responses.append(transport.send(request))
                after_each()
        finally:
            transport.close()
        return responses

    @staticmethod
    def _async(
        settings: Settings, requests: tuple[Request, ...], after_each: Callable[[], object]
    ) -> list[Response]:
        from airflow_provider_promptlayer.transport.aio import AsyncTransport

        responses = []

        async def main() -> None:
            transport = AsyncTransport(settings)
            try:
                for request in requests:
                    responses.append(await transport.send(request))
                    after_each()
            finally:
                await transport.close()

        asyncio.run(main())
        return responses


@pytest.fixture(params=["blocking", "async"])
def driver(request: pytest.FixtureRequest) -> Driver:
    """Both transports, one after the other."""
    return Driver(request.param)


@dataclass(frozen=True)
class Certificates:
    """A CA, a certificate for 127.0.0.1 that it has signed, and another CA."""

    ca_file: str
    server: ssl.SSLContext
    other_ca_file: str


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("certificates")
    ca, other = trustme.CA(), trustme.CA()
    ca_file, other_ca_file = str(folder / "ours.pem"), str(folder / "other.pem")
    ca.cert_pem.write_to_path(ca_file)
    other.cert_pem.write_to_path(other_ca_file)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(server)
    return Certificates(ca_file, server, other_ca_file)


@pytest.fixture
def threads_end() -> Callable[[], None]:
    """Wait, within bounds, for the threads of given-up exchanges to end."""

    def wait() -> None:
        for thread in threading.enumerate():
            if thread.name == "promptlayer-request":
                thread.join(GIVE_UP_SECONDS)
                assert not thread.is_alive()

    return wait
