# SPDX-License-Identifier: Apache-2.0
"""Both transports do the same in every case."""

from __future__ import annotations

import gc
import gzip
import json
import socket
import threading
import time
import warnings
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_promptlayer import __version__
from airflow_provider_promptlayer.api.http import Request
from airflow_provider_promptlayer.api.settings import read_connection
from airflow_provider_promptlayer.api.workflows import run_workflow
from airflow_provider_promptlayer.exceptions import (
    PromptLayerAnswerTooLargeError,
    PromptLayerConfigurationError,
    PromptLayerError,
    PromptLayerUnreachableError,
)
from airflow_provider_promptlayer.transport import blocking, body

KEY = "pl_geheim_0123456789"
SHORT = 1.0
"""A time-out in seconds; nothing below asserts more than that it is not exceeded thirtyfold."""

LOOK = Request("GET", "/look", "look")
START = Request("POST", "/start", "start", b"{}")
BOTH = pytest.mark.parametrize("request_", [LOOK, START], ids=["get", "post"])


def failure(
    driver: Any, where: Any, request: Request = LOOK, **changes: Any
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


# Answers


@pytest.mark.parametrize(
    "status",
    [
        200,
        201,
        202,
        206,
        299,
        300,
        400,
        401,
        402,
        403,
        404,
        405,
        407,
        408,
        409,
        410,
        418,
        422,
        429,
        451,
        500,
        501,
        502,
        503,
        504,
        520,
        599,
    ],
)
def test_an_answer_of_any_status_comes_back_whole(driver: Any, serve: Any, status: int) -> None:
    body = bytes(range(256)) * 10
    server = serve(lambda talk: talk.answer(status, body, "Retry-After: 7", "X-ODD: Ä", "x-e:"))
    for request in (LOOK, START):
        (response,) = driver.send(server, request)
        assert response.status == status
        assert response.body == body
        assert response.headers["retry-after"] == "7"
        assert response.headers["x-e"] == ""
        assert all(name == name.lower() for name in response.headers)


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body(driver: Any, serve: Any, status: int) -> None:
    server = serve(lambda talk: talk.write(f"HTTP/1.1 {status} Word\r\n\r\n".encode()))
    response = driver.get(server)
    assert (response.status, response.body) == (status, b"")


def test_what_is_no_http_is_not_laid_at_a_proxys_door(driver: Any, serve: Any) -> None:
    server = serve(lambda talk: talk.write(b"garbage\r\n\r\n"))
    assert "proxy" not in str(failure(driver, server))


PARTS = (b"wh", b"ole")


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ("Transfer-Encoding: chunked", b"3\r\nwho\r\n2;x=y\r\nle\r\n0\r\n\r\n"),
        ("Connection: close", b"whole"),
        ("Content-Encoding: gzip\r\nConnection: close", gzip.compress(b"whole")),
        ("Content-Encoding: GZip\r\nConnection: close", gzip.compress(b"whole")),
        ("Content-Encoding: x-gzip\r\nContent-Length: 25", gzip.compress(b"whole")),
        ("Content-Encoding: gzip\r\nConnection: close", b"".join(map(gzip.compress, PARTS))),
        ("Content-Encoding: deflate\r\nConnection: close", zlib.compress(b"whole")),
        ("Content-Encoding: deflate\r\nConnection: close", zlib.compress(b"whole")[2:-4]),
        ("Content-Encoding: gzip\r\nConnection: close", gzip.compress(b"whole") + b"\0"),
        ("Content-Encoding: deflate\r\nConnection: close", zlib.compress(b"whole") + b"\r\n"),
        ("Content-Encoding: identity\r\nConnection: close", b"whole"),
    ],
    ids=[
        "chunked",
        "until-closed",
        "gzip",
        "upper-case",
        "x-gzip",
        "gzip-members",
        "deflate",
        "raw-deflate",
        "padded-gzip",
        "padded-deflate",
        "identity",
    ],
)
def test_a_body_is_decoded(driver: Any, serve: Any, headers: str, body: bytes) -> None:
    server = serve(lambda talk: talk.write(f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode() + body))
    assert driver.get(server).body == b"whole"


@pytest.mark.parametrize("encode", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_a_large_body_is_decoded_in_steps(
    driver: Any, serve: Any, encode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not on the thread of the event loop, which a small chunk would hold up for long."""
    added: list[tuple[int, bool]] = []
    add = body.Body._add

    def note(self: Any, piece: bytes) -> None:
        added.append((len(piece), threading.current_thread() is threading.main_thread()))
        add(self, piece)

    monkeypatch.setattr(body.Body, "_add", note)
    sent = b"[" + b"1," * 2_000_000 + KEY.encode() + b"]"
    encoding = f"Content-Encoding: {'gzip' if encode is gzip.compress else 'deflate'}"
    server = serve(lambda talk: talk.answer(200, encode(sent), encoding))
    assert driver.get(server).body == sent.replace(KEY.encode(), b"***")
    assert max(size for size, _ in added) <= body.CHUNK
    assert not any(on_the_loop for _, on_the_loop in added)


def test_a_large_body_comes_back_whole(driver: Any, serve: Any) -> None:
    body = bytes(range(256)) * 20_000
    assert driver.get(serve(lambda talk: talk.answer(200, body))).body == body


def test_a_repeated_header_is_joined(driver: Any, serve: Any) -> None:
    # As RFC 9110 has it. Which of two contradicting values counts must not depend on the library.
    server = serve(lambda talk: talk.answer(429, b"", "Retry-After: 5", "Retry-After: 6"))
    assert driver.get(server).headers["retry-after"] == "5, 6"


# What is sent


@BOTH
def test_what_is_on_the_wire(driver: Any, serve: Any, request_: Request) -> None:
    server = serve(lambda talk: talk.answer())
    driver.send(server, request_)
    (received,) = server.requests
    assert received.method == request_.method
    assert received.target == request_.path
    assert received.body == (request_.body or b"")
    assert received.headers["x-api-key"] == KEY
    assert received.headers["accept"] == "application/json"
    assert received.headers["user-agent"] == f"airflow-provider-promptlayer/{__version__}"
    assert received.headers["host"] == f"127.0.0.1:{server.port}"
    packed = driver.kind == "blocking"
    assert received.headers["accept-encoding"] == ("gzip, deflate" if packed else "identity")
    assert received.headers.get("content-type") == (
        "application/json" if request_.body is not None else None
    )
    assert {"authorization", "cookie"}.isdisjoint(received.headers)
    assert received.raw.lower().count(b"x-api-key") == 1


@pytest.mark.parametrize("prefix", ["", "/prefix", "/a%2Fb/c%20d", "/a;b=c"])
@pytest.mark.parametrize(
    "name",
    [
        "a/b",
        "a?b",
        "a#b",
        "100%",
        "%2F",
        "a b",
        "a+b",
        "a\\b",
        "größe",
        "🎉",
        "...",
        "../x",
        "~a'()*!",
        "a\nb\x00",
        "[x]{y}|z^`",
        "a&b=c;d:e@f,g$h",
    ],
)
def test_a_path_arrives_exactly_as_it_was_built(
    driver: Any, serve: Any, name: str, prefix: str
) -> None:
    server = serve(lambda talk: talk.answer())
    call = run_workflow(name)
    driver.send(server.url + prefix, call.request)
    assert server.requests[0].target == prefix + call.request.path


@pytest.mark.parametrize(
    ("prefix", "sent"),
    [
        ("/a b", "/a%20b"),
        ("/ü", "/%C3%BC"),
        ('/"x"', "/%22x%22"),
        ("/a/../b/./c/%2e%2E/d", "/b/d"),
        ("/%7Eme/a%2fb", "/~me/a%2Fb"),
        ("//a", "/a"),
        ("/100%", "/100%25"),
    ],
)
def test_a_prefix_is_the_same_path_however_it_is_written(
    driver: Any, serve: Any, prefix: str, sent: str
) -> None:
    server = serve(lambda talk: talk.answer())
    driver.get(read_connection(connection_to(server.url + prefix)), "/x%2Fy")
    assert server.requests[0].raw.startswith(f"GET {sent}/x%2Fy HTTP/1.1\r\n".encode())


def connection_to(host: str, **extra: Any) -> Any:
    fields = {"conn_id": "c", "host": host, "port": None, "schema": None, "password": KEY}
    return SimpleNamespace(**fields, extra=json.dumps(extra))


def test_a_query_arrives_exactly_as_it_was_built(driver: Any, serve: Any) -> None:
    server = serve(lambda talk: talk.answer())
    for path in ("/x?a=%2F%3F%23%25&b=1+2%20", "/x?a=b?c/d:e@f"):
        driver.get(server, path)
        assert server.requests[-1].target == path


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@BOTH
def test_no_redirect_is_followed(driver: Any, serve: Any, status: int, request_: Request) -> None:
    elsewhere = serve(lambda talk: talk.answer())
    server = serve(lambda talk: talk.answer(status, b"body", f"Location: {elsewhere.url}/y"))
    (response,) = driver.send(server, request_)
    assert response.status == status
    assert response.body == b"body"
    assert len(server.requests) == 1
    assert elsewhere.connections == 0


@pytest.mark.parametrize("location", ["http://[/x", "http://a\u2100b.com/", "http://\xff/"])
@BOTH
def test_a_redirect_to_nowhere_is_a_redirect(
    driver: Any, serve: Any, location: str, request_: Request
) -> None:
    head = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 4\r\n\r\nbody"
    server = serve(lambda talk: talk.write(head.encode()))
    (response,) = driver.send(server, request_)
    assert (response.status, response.body) == (302, b"body")


def test_cookies_are_not_kept(driver: Any, serve: Any) -> None:
    def handle(talk: Any) -> bool:
        talk.answer(200, b"", "Set-Cookie: a=b; Path=/")
        return True

    server = serve(handle)
    driver.send(server, LOOK, LOOK, START)
    assert all("cookie" not in received.headers for received in server.requests)


def test_looks_share_a_connection_and_a_start_has_its_own(driver: Any, serve: Any) -> None:
    def handle(talk: Any) -> bool:
        talk.answer()
        return True

    server = serve(handle)
    driver.send(server, LOOK, LOOK, LOOK)
    assert server.connections == 1
    driver.send(server, LOOK, START, START)
    assert server.connections == 4


EXTRA = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"


@pytest.mark.parametrize(
    "extra",
    [EXTRA, EXTRA[:20], b"\r\n", EXTRA.replace(b"5", b"12000").replace(b"other", b"o" * 12_000)],
    ids=["answer", "half", "blank", "large"],
)
@pytest.mark.parametrize("together", [True, False], ids=["with the answer", "later"])
@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
def test_bytes_on_an_idle_connection_are_no_answer(
    driver: Any, serve: Any, certificates: Any, extra: bytes, together: bool, tls: bool
) -> None:
    """Else the next request, which asks about another run, would get them."""
    sent = threading.Semaphore(0)

    def handle(talk: Any) -> bool:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole"
        if talk.number > 1:
            talk.write(answer)
        elif together:
            talk.write(answer + extra)
            sent.release()
        else:
            talk.write(answer)
            assert received.acquire(timeout=10)
            talk.write(extra)
            sent.release()
        return True

    def let_it_arrive() -> None:
        received.release()
        if len(server.requests) == 1:
            # The event loop does nothing meanwhile: the bytes wait in the kernel.
            assert sent.acquire(timeout=10)

    received = threading.Semaphore(0)
    server = serve(handle, certificates.server if tls else None)
    verify = certificates.ca_file if tls else True
    responses = driver.send(server, LOOK, LOOK, after_each=let_it_arrive, verify=verify)
    assert [response.body for response in responses] == [b"whole", b"whole"]
    if not together:
        assert server.connections == 2


# No answer


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


@pytest.mark.parametrize(
    "host",
    [
        "a..b",
        f"{'x' * 64}.example",
        "my host",
        "pl.exam\x00ple.com",
        "*",
        "a%b",
        "-",
        "<b>",
        "256.256.256.256",
        "münchen..de",
        "a,b",
        "xn--\u00e4",
        "[::1%25nope]",
    ],
)
def test_a_host_that_cannot_be(driver: Any, host: str, monkeypatch: pytest.MonkeyPatch) -> None:
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


def _reset(talk: Any) -> None:
    talk.reset()


def _reset_in_headers(talk: Any) -> None:
    talk.write(b"HTTP/1.1 200 OK\r\nContent-")
    talk.reset()


def _reset_in_body(talk: Any) -> None:
    talk.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    talk.reset()


BROKEN: dict[str, Callable[[Any], object]] = {
    "reset": _reset,
    "reset-in-headers": _reset_in_headers,
    "reset-in-body": _reset_in_body,
    "closed": lambda talk: None,
    "closed-in-body": lambda talk: talk.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
    "closed-in-chunk": lambda talk: talk.write(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf"
    ),
    "closed-between-chunks": lambda talk: talk.write(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
    ),
    "no-chunk-length": lambda talk: talk.write(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhalf\r\n0\r\n\r\n"
    ),
    "negative-chunk-length": lambda talk: talk.write(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhalf\r\n0\r\n\r\n"
    ),
    "another-protocol": lambda talk: talk.write(b"HTTP/1.1 101 Switching\r\n\r\n"),
    "status-of-nothing": lambda talk: talk.answer(0),
    "no-gzip": lambda talk: talk.answer(200, b"no gzip at all", "Content-Encoding: gzip"),
    "half-gzip": lambda talk: talk.answer(
        200, gzip.compress(b'"whole"')[:-10], "Content-Encoding: gzip"
    ),
    "half-gzip-until-closed": lambda talk: talk.write(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b'"whole"')[:-10]
    ),
    "brotli": lambda talk: talk.answer(200, b"\x0b\x02\x80{}\x03", "Content-Encoding: br"),
    "zstd": lambda talk: talk.answer(200, b"{}", "Content-Encoding: zstd"),
    "gzip-twice": lambda talk: talk.answer(
        200, gzip.compress(gzip.compress(b"{}")), "Content-Encoding: gzip, gzip"
    ),
    "no-http": lambda talk: talk.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
    "no-status": lambda talk: talk.write(b"HTTP/1.1 word\r\n\r\n"),
    "endless-header": lambda talk: talk.write(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000),
    "many-headers": lambda talk: talk.write(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000),
}


@pytest.mark.parametrize("name", BROKEN)
@BOTH
def test_a_broken_answer_may_have_arrived(
    driver: Any, serve: Any, name: str, request_: Request, threads_end: Any
) -> None:
    server = serve(BROKEN[name])
    error = failure(driver, server, request_)
    assert error.arrived is True
    threads_end()
    if request_.method == "POST":
        assert len(server.requests) == 1


ODD: dict[str, Callable[[Any], object]] = {
    "odd-length": lambda talk: talk.write(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
    "closed-in-headers": lambda talk: talk.write(b"HTTP/1.1 200 OK\r\nContent-"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_the_libraries_let_pass_is_no_json(driver: Any, serve: Any, name: str) -> None:
    try:
        body = driver.post(serve(ODD[name])).body
    except PromptLayerUnreachableError as error:
        found: object = error.arrived
    else:
        found = not is_json(body)
    assert found is True


def is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


SLOW: dict[str, Callable[[Any], object]] = {
    "no-answer": lambda talk: talk.hang(),
    "stuck-in-headers": lambda talk: (talk.write(b"HTTP/1.1 200 OK\r\nX-A: "), talk.hang()),
    "stuck-in-body": lambda talk: (
        talk.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"),
        talk.hang(),
    ),
    "dripping-body": lambda talk: (
        talk.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"),
        talk.drip(b"x" * 9999),
    ),
    "dripping-chunks": lambda talk: (
        talk.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        talk.drip(b"1\r\nx\r\n" * 999),
    ),
    "dripping-headers": lambda talk: talk.drip(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 999),
    "dripping-continues": lambda talk: talk.drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 99),
}


@pytest.mark.parametrize("name", SLOW)
@BOTH
def test_a_slow_answer_is_given_up(
    driver: Any, serve: Any, name: str, request_: Request, threads_end: Any
) -> None:
    server = serve(SLOW[name])
    began = time.monotonic()
    error = failure(driver, server, request_, timeout=SHORT)
    assert time.monotonic() - began < 30 * SHORT
    assert error.arrived is True
    threads_end()  # although the server still drips
    assert len(server.requests) == 1


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
            # Nobody asks whether a look arrived: there it may say that it cannot tell.
            assert error.arrived is False or request_ is LOOK
        finally:
            for each in waiting:
                each.close()


def test_the_message_of_a_time_out_names_the_limit(driver: Any, serve: Any) -> None:
    assert f"within {SHORT:g} s" in str(failure(driver, serve(SLOW["no-answer"]), timeout=SHORT))


@pytest.mark.parametrize("timeout", [1e-6, 1e6, 1e12, 1e300])
def test_an_odd_time_out_is_refused_or_used(driver: Any, serve: Any, timeout: float) -> None:
    # An answer that is there before anybody looks at the clock may count.
    server = serve(SLOW["no-answer"] if timeout < 1 else lambda talk: talk.answer(200, b"whole"))
    try:
        settings = read_connection(connection_to(server.url, timeout=timeout))
    except PromptLayerConfigurationError:
        return
    if timeout < 1:
        failure(driver, settings)
    else:
        assert driver.get(settings).body == b"whole"


def test_a_transport_is_good_again_after_a_failure(serve: Any) -> None:
    from airflow_provider_promptlayer.api.settings import Settings

    def handle(talk: Any) -> None:
        if talk.number == 1:
            talk.hang()
        talk.answer(200, b"whole")

    server = serve(handle)
    transport = blocking.BlockingTransport(Settings(server.url, KEY, timeout=SHORT))
    try:
        with pytest.raises(PromptLayerUnreachableError):
            transport.send(LOOK)
        assert transport.send(LOOK).body == b"whole"
    finally:
        transport.close()


def test_a_kept_connection_that_died_costs_no_look(driver: Any, serve: Any) -> None:
    # The server closes after each answer, without saying so.
    server = serve(lambda talk: talk.answer(200, b"whole"))
    responses = driver.send(
        server, LOOK, LOOK, LOOK, START, after_each=lambda: server.hung_up.acquire(timeout=60)
    )
    assert [response.body for response in responses] == [b"whole"] * 4


# Too large


@pytest.mark.parametrize(
    "encode",
    [lambda body: (body, "X: y"), lambda body: (gzip.compress(body), "Content-Encoding: gzip")],
    ids=["plain", "gzip"],
)
def test_an_answer_that_is_too_large(
    driver: Any, serve: Any, encode: Any, monkeypatch: pytest.MonkeyPatch, threads_end: Any
) -> None:
    monkeypatch.setattr(body, "MAX_BODY_BYTES", 200_000)
    fits, large = encode(b"x" * 200_000), encode(b"x" * 200_001)
    server = serve(lambda talk: talk.answer(200, *(fits if talk.number == 1 else large)))
    assert len(driver.get(server).body) == 200_000
    with pytest.raises(PromptLayerAnswerTooLargeError, match="larger than") as caught:
        driver.get(server)
    assert not caught.value.retry_helps
    threads_end()


def test_an_endless_answer_is_given_up_at_the_limit(
    driver: Any, serve: Any, monkeypatch: pytest.MonkeyPatch, threads_end: Any
) -> None:
    monkeypatch.setattr(body, "MAX_BODY_BYTES", 200_000)

    def flood(talk: Any) -> None:
        talk.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        while not talk.stopping.is_set():
            talk.write(b"x" * 65536)

    with pytest.raises(PromptLayerAnswerTooLargeError):
        driver.get(serve(flood))
    threads_end()


# Tidiness


def test_nothing_is_left_open(driver: Any, serve: Any, threads_end: Any) -> None:
    def handle(talk: Any) -> bool:
        talk.answer(200, b"whole")
        return True

    with warnings.catch_warnings(action="ignore"):
        gc.collect()  # what others left
    server = serve(handle)
    driver.send(server, LOOK, START, LOOK)
    failure(driver, serve(BROKEN["closed-in-body"]), START)
    threads_end()
    gc.collect()  # an unclosed socket or session warns here, and a warning is an error


def test_reprs_and_headers_hold_no_key(driver: Any, serve: Any) -> None:
    response = driver.get(serve(lambda talk: talk.answer()))
    assert KEY not in repr(response) + repr(LOOK)


def test_a_key_that_is_quoted_back_is_blotted_out(driver: Any, serve: Any) -> None:
    server = serve(lambda talk: talk.answer(400, f'{{"message": "bad {KEY}"}}'.encode()))
    response = driver.get(server)
    assert response.body == b'{"message": "bad ***"}'
    assert response.redactions == 1


def test_an_encoding_that_quotes_the_key_is_not_quoted(driver: Any, serve: Any) -> None:
    error = failure(driver, serve(lambda talk: talk.answer(200, b"", f"Content-Encoding: {KEY}")))
    assert "'***', which was not asked for" in str(error)


def test_a_key_is_blotted_out_wherever_a_large_answer_has_it(driver: Any, serve: Any) -> None:
    parts = [b"x" * length for length in range(65_000, 65_600, 20)]
    server = serve(lambda talk: talk.answer(200, KEY.encode().join(parts)))
    response = driver.get(server)
    assert response.body == b"***".join(parts)
    assert response.redactions == len(parts) - 1
