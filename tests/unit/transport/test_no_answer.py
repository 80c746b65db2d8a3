# SPDX-License-Identifier: Apache-2.0
"""Without a whole answer, both transports raise the same error, which tells whether it arrived."""

from __future__ import annotations

import gzip
import json
import socket
import time
from contextlib import ExitStack
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
from unit.transport.conftest import (
    BOTH,
    KEY,
    POLL,
    START,
    Driver,
    Exchange,
    Handler,
    Server,
    settings_for,
)

from airflow_provider_promptlayer.api.http import Request
from airflow_provider_promptlayer.exceptions import (
    PromptLayerAnswerTooLargeError,
    PromptLayerConfigurationError,
    PromptLayerError,
    PromptLayerUnreachableError,
)
from airflow_provider_promptlayer.transport import blocking, redaction
from airflow_provider_promptlayer.transport.settings import read_connection

SHORT = 0.4
"""A time-out in seconds; tests assert no more than that it is not exceeded a hundredfold."""


def failure(
    driver: Any, where: Any, request: Request = POLL, **changes: Any
) -> PromptLayerUnreachableError:
    with pytest.raises(PromptLayerUnreachableError) as caught:
        driver.send(where, request, **changes)
    error = caught.value
    text = str(error)
    assert text.startswith(f"Could not {request.purpose}: ")
    assert len(text.splitlines()) == 1
    assert len(text) < 700
    assert KEY not in text + repr(error)
    assert " at 0x" not in text
    assert error.retry_helps
    return error


def connection_to(host: str, **extra: Any) -> Any:
    fields = {"conn_id": "c", "host": host, "port": None, "schema": None, "password": KEY}
    return SimpleNamespace(**fields, extra=json.dumps(extra))


# The request did not arrive


@BOTH
def test_a_refused_connection(driver: Any, request_: Request) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    error = failure(driver, url, request_)
    assert error.arrived is False
    assert str(error) == f"Could not {request_.purpose}: Connection refused ({url})."


@BOTH
def test_an_unknown_host(driver: Any, request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: Any, **kwargs: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = failure(driver, "http://nowhere.invalid", request_)
    assert error.arrived is False


HOSTS = ["a..b", f"{'x' * 64}.example", "my host", "pl.exam\x00ple.com", "*", "a%b", "-", "<b>"]
HOSTS += ["256.256.256.256", "münchen..de", "a,b", "xn--\u00e4", "[::1%25nope]"]


@pytest.mark.parametrize("host", HOSTS)
def test_an_impossible_host(driver: Any, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def never_ask_the_network(name: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(name, str):
            name.encode("idna")  # what the real one does first
        if kwargs.get("flags", 0) & socket.AI_NUMERICHOST:
            return real(name, *args, **kwargs)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", never_ask_the_network)

    with pytest.raises(PromptLayerError) as caught:  # refused when read, or when used
        driver.send(read_connection(connection_to(host, timeout=5)), START)
    assert getattr(caught.value, "arrived", False) is False


def test_another_address_of_the_host(
    driver: Any, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one answers nothing, as IPv6 addresses do where such packets are dropped."""
    with socket.socket() as full, ExitStack() as waiting:
        full.bind(("127.0.0.2", server.port))
        full.listen(0)
        for _ in range(3):  # the kernel takes no more, and drops what comes then
            each = waiting.enter_context(socket.socket())
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        look_up = socket.getaddrinfo

        def addresses(host: Any, *args: Any, **kwargs: Any) -> Any:
            if host not in ("two.test", b"two.test"):
                return look_up(host, *args, **kwargs)
            kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [(*kind, (address, server.port)) for address in ("127.0.0.2", "127.0.0.1")]

        monkeypatch.setattr(socket, "getaddrinfo", addresses)
        assert driver.get(f"http://two.test:{server.port}", timeout=3.0).status == 200


class _SlowReader(Server):
    def _receive(self, connection: socket.socket) -> bytes:
        time.sleep(0.005)
        return super()._receive(connection)


def test_a_large_body_has_the_time_that_it_takes() -> None:
    """Sending it takes a worker longer than an attempt to connect may."""
    server = _SlowReader()
    try:
        server._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        large = Request("POST", "/start", "start", b"a" * 16_000_000)
        assert Driver("blocking").send(server, large, timeout=0.9)[0].status == 200
    finally:
        server.stop()


@BOTH
def test_a_connection_that_is_never_made_did_not_arrive(driver: Any, request_: Request) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        try:
            for _ in range(8):  # until the kernel takes no more
                waiting.append(socket.socket())
                waiting[-1].settimeout(0.2)
                try:
                    waiting[-1].connect(listener.getsockname())
                except TimeoutError:
                    break
            else:
                pytest.skip("this system takes connections beyond the backlog")
            error = failure(
                driver, f"http://127.0.0.1:{listener.getsockname()[1]}", request_, timeout=SHORT
            )
            # Whether a poll arrived does not matter: aiohttp may not tell.
            assert error.arrived is False or request_ is POLL
        finally:
            for each in waiting:
                each.close()


# The request may have arrived


def resets_after(sent: bytes) -> Handler:
    def handle(exchange: Exchange) -> None:
        exchange.write(sent)
        exchange.reset()

    return handle


def closes_after(sent: bytes) -> Handler:
    return lambda exchange: exchange.write(sent)


def answers(*answer: Any) -> Handler:
    return lambda exchange: exchange.answer(*answer)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
GZIP = "Content-Encoding: gzip"

BROKEN: dict[str, Handler] = {
    "reset": resets_after(b""),
    "reset-in-headers": resets_after(OK + b"Content-"),
    "reset-in-body": resets_after(OK + b"Content-Length: 100\r\n\r\nhalf"),
    "closed": closes_after(b""),
    "closed-in-headers": closes_after(OK + b"Content-"),
    "closed-in-body": closes_after(OK + b"Content-Length: 9\r\n\r\nhalf"),
    "closed-in-chunk": closes_after(CHUNKED + b"9\r\nhalf"),
    "closed-between-chunks": closes_after(CHUNKED + b"4\r\nhalf\r\n"),
    "no-chunk-length": closes_after(CHUNKED + b"zz\r\nhalf\r\n0\r\n\r\n"),
    "negative-chunk-length": closes_after(CHUNKED + b"-5\r\nhalf\r\n0\r\n\r\n"),
    "another-protocol": closes_after(b"HTTP/1.1 101 Switching\r\n\r\n"),
    "status-of-nothing": answers(0),
    "no-gzip": answers(200, b"no gzip at all", GZIP),
    "half-gzip": answers(200, gzip.compress(b'"whole"')[:-10], GZIP),
    "half-gzip-until-closed": closes_after(
        OK + f"{GZIP}\r\n\r\n".encode() + gzip.compress(b'"whole"')[:-10]
    ),
    "brotli": answers(200, b"\x0b\x02\x80{}\x03", "Content-Encoding: br"),
    "zstd": answers(200, b"{}", "Content-Encoding: zstd"),
    "gzip-twice": answers(200, gzip.compress(gzip.compress(b"{}")), f"{GZIP}, gzip"),
    "no-http": closes_after(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
    "no-status": closes_after(b"HTTP/1.1 word\r\n\r\n"),
    "endless-header": closes_after(OK + b"X: " + b"x" * 300_000),
    "many-headers": closes_after(OK + b"X: y\r\n" * 100_000),
}


@pytest.mark.parametrize("name", BROKEN)
@BOTH
def test_a_broken_answer(
    driver: Any, serve: Any, name: str, request_: Request, threads_end: Any
) -> None:
    server = serve(BROKEN[name])
    error = failure(driver, server, request_)
    assert error.arrived is True
    assert "proxy" not in str(error)
    threads_end()
    if request_ is START:
        assert len(server.requests) == 1


def hangs_after(sent: bytes) -> Handler:
    def handle(exchange: Exchange) -> None:
        exchange.write(sent)
        exchange.hang()

    return handle


def drips(sent: bytes, dripped: bytes) -> Handler:
    def handle(exchange: Exchange) -> None:
        exchange.write(sent)
        exchange.drip(dripped)

    return handle


SLOW: dict[str, Handler] = {
    "no-answer": hangs_after(b""),
    "stuck-in-headers": hangs_after(OK + b"X-A: "),
    "stuck-in-body": hangs_after(OK + b"Content-Length: 9\r\n\r\nhalf"),
    "dripping-body": drips(OK + b"Content-Length: 9999\r\n\r\n", b"x" * 9999),
    "dripping-chunks": drips(CHUNKED, b"1\r\nx\r\n" * 999),
    "dripping-headers": drips(OK, b"X-A: b\r\n" * 999),
    "dripping-continues": drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 99),
}


@pytest.mark.parametrize("name", SLOW)
@BOTH
def test_a_slow_answer(
    driver: Any, serve: Any, name: str, request_: Request, threads_end: Any
) -> None:
    server = serve(SLOW[name])
    began = time.monotonic()
    error = failure(driver, server, request_, timeout=SHORT)
    assert time.monotonic() - began < 100 * SHORT
    assert error.arrived is True
    assert f"no whole answer within {SHORT:g} s" in str(error)
    threads_end()  # although the server still drips
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", ["no-answer", "stuck-in-headers", "stuck-in-body"])
def test_a_slow_answer_that_the_socket_gives_up_first(
    serve: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine the thread that waits may wake up after the one that reads."""

    class Late(SimpleQueue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            return super().get()

    monkeypatch.setattr(blocking, "SimpleQueue", Late)
    error = failure(Driver("blocking"), serve(SLOW[name]), START, timeout=SHORT)
    assert error.arrived is True
    assert f"no whole answer within {SHORT:g} s" in str(error)


@pytest.mark.parametrize("timeout", [1e-6, 1e6, 1e12, 1e300])
def test_an_odd_time_out_is_refused_or_used(driver: Any, serve: Any, timeout: float) -> None:
    # With so short a time-out, an answer that is there at once might count.
    server = serve(SLOW["no-answer"] if timeout < 1 else answers())
    try:
        settings = read_connection(connection_to(server.url, timeout=timeout))
    except PromptLayerConfigurationError:
        return
    if timeout < 1:
        failure(driver, settings)
    else:
        assert driver.get(settings).body == b"whole"


def test_a_connection_that_was_given_up_carries_no_request_any_more() -> None:
    """Its caller was told that nothing had been sent, and may send the request again."""
    connection = blocking.AbortableConnection()
    connection.abort()
    with pytest.raises(ConnectionAbortedError):
        connection.ready()
    assert not connection.is_ready


def test_a_transport_works_after_a_failure(serve: Any) -> None:
    def handle(exchange: Exchange) -> None:
        if exchange.number == 1:
            exchange.hang()
        exchange.answer()

    transport = blocking.BlockingTransport(settings_for(serve(handle), timeout=SHORT))
    try:
        with pytest.raises(PromptLayerUnreachableError):
            transport.send(POLL)
        assert transport.send(POLL).body == b"whole"
    finally:
        transport.close()


# Too large


@pytest.mark.parametrize(
    "encode",
    [lambda body: (body, "X: y"), lambda body: (gzip.compress(body), "Content-Encoding: gzip")],
    ids=["plain", "gzip"],
)
def test_an_answer_that_is_too_large(
    driver: Any, serve: Any, encode: Any, monkeypatch: pytest.MonkeyPatch, threads_end: Any
) -> None:
    monkeypatch.setattr(redaction, "MAX_BODY_BYTES", 200_000)
    fits, large = encode(b"x" * 200_000), encode(b"x" * 200_001)
    server = serve(
        lambda exchange: exchange.answer(200, *(fits if exchange.number == 1 else large))
    )
    assert len(driver.get(server).body) == 200_000
    with pytest.raises(PromptLayerAnswerTooLargeError, match="larger than") as caught:
        driver.get(server)
    assert not caught.value.retry_helps
    threads_end()


def test_an_endless_answer_is_given_up_at_the_limit(
    driver: Any, serve: Any, monkeypatch: pytest.MonkeyPatch, threads_end: Any
) -> None:
    monkeypatch.setattr(redaction, "MAX_BODY_BYTES", 200_000)

    def flood(exchange: Exchange) -> None:
        exchange.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while not exchange.stopping.is_set():
            exchange.write(b"x" * 65536)

    with pytest.raises(PromptLayerAnswerTooLargeError):
        driver.get(serve(flood))
    threads_end()


def test_an_encoding_that_quotes_the_key_is_not_quoted(driver: Any, serve: Any) -> None:
    error = failure(driver, serve(answers(200, b"", f"Content-Encoding: {KEY}")))
    assert "'***', which was not asked for" in str(error)
