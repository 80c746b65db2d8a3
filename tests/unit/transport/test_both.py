# SPDX-License-Identifier: Apache-2.0
"""Both transports send and read the same."""

from __future__ import annotations

import gc
import gzip
import threading
import warnings
import zlib
from types import SimpleNamespace
from typing import Any

import pytest
from unit.transport.conftest import BOTH, KEY, POLL, START, Exchange, keep_alive

from airflow_provider_promptlayer import __version__
from airflow_provider_promptlayer.api.http import Request
from airflow_provider_promptlayer.api.workflows import run_workflow
from airflow_provider_promptlayer.exceptions import PromptLayerUnreachableError
from airflow_provider_promptlayer.transport import redaction
from airflow_provider_promptlayer.transport.settings import read_connection

# Answers


@pytest.mark.parametrize(
    "status", [200, 201, 202, 299, 300, 400, 401, 404, 407, 408, 429, 451, 500, 503, 520, 599]
)
def test_an_answer_of_any_status_comes_back_whole(driver: Any, serve: Any, status: int) -> None:
    body = bytes(range(256)) * 10
    server = serve(lambda exchange: exchange.answer(status, body, "Retry-After: 7", "X-ODD: Ä"))
    for response in driver.send(server, POLL, START):
        assert response.status == status
        assert response.body == body
        assert response.headers["retry-after"] == "7"
        assert all(name == name.lower() for name in response.headers)
        assert KEY not in repr(response)


@pytest.mark.parametrize(
    ("status", "headers", "request_id"),
    [
        (500, ["X-Request-ID: 4f2a-1"], "4f2a-1"),
        (422, ["x-amzn-RequestId: 4f2a-1", "CF-Ray: 8c-FRA"], "4f2a-1"),
        (502, ["CF-Ray: 8c-FRA"], "8c-FRA"),
        (500, [], None),
        (500, ["X-Request-ID:"], None),
        (500, [f"X-Request-ID: {KEY}"], None),
        (500, [f"X-Request-ID: {KEY}", "CF-Ray: 8c-FRA"], "8c-FRA"),
        (500, ["X-Request-ID: two words"], None),
        (500, [f"X-Request-ID: {'4' * 129}"], None),
        (200, ["X-Request-ID: 4f2a-1"], None),
    ],
)
def test_the_id_of_a_request(
    driver: Any, serve: Any, status: int, headers: list[str], request_id: str | None
) -> None:
    server = serve(lambda exchange: exchange.answer(status, b"{}", *headers))
    assert driver.get(server).request_id == request_id


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body(driver: Any, serve: Any, status: int) -> None:
    sent = f"HTTP/1.1 {status} Word\r\n\r\n".encode()
    response = driver.get(serve(lambda exchange: exchange.write(sent)))
    assert (response.status, response.body) == (status, b"")


def coded(headers: str, body: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\n{headers}\r\n\r\n".encode() + body


GZIP = gzip.compress(b"whole")
DEFLATE = zlib.compress(b"whole")
CODED = {
    "chunked": coded("Transfer-Encoding: chunked", b"3\r\nwho\r\n2;x=y\r\nle\r\n0\r\n\r\n"),
    "until-closed": coded("Connection: close", b"whole"),
    "gzip": coded("Content-Encoding: gzip", GZIP),
    "upper-case": coded("Content-Encoding: GZip", GZIP),
    "x-gzip": coded("Content-Encoding: x-gzip\r\nContent-Length: 25", GZIP),
    "gzip-members": coded("Content-Encoding: gzip", gzip.compress(b"wh") + gzip.compress(b"ole")),
    "deflate": coded("Content-Encoding: deflate", DEFLATE),
    "raw-deflate": coded("Content-Encoding: deflate", DEFLATE[2:-4]),
    "padded-gzip": coded("Content-Encoding: gzip", GZIP + b"\0"),
    "padded-deflate": coded("Content-Encoding: deflate", DEFLATE + b"\r\n"),
    "identity": coded("Content-Encoding: identity", b"whole"),
}


@pytest.mark.parametrize("sent", CODED.values(), ids=CODED)
def test_a_body_is_decoded(driver: Any, serve: Any, sent: bytes) -> None:
    assert driver.get(serve(lambda exchange: exchange.write(sent))).body == b"whole"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_large_body_is_decoded_in_steps(
    driver: Any, serve: Any, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not on the thread of the event loop, which a small chunk would hold up for long."""
    added: list[tuple[int, bool]] = []
    add = redaction.Body._add

    def note(self: Any, piece: bytes) -> None:
        added.append((len(piece), threading.current_thread() is threading.main_thread()))
        add(self, piece)

    monkeypatch.setattr(redaction.Body, "_add", note)
    sent = b"[" + b"1," * 2_000_000 + KEY.encode() + b"]"
    encoded = (gzip if encoding == "gzip" else zlib).compress(sent)
    server = serve(lambda exchange: exchange.answer(200, encoded, f"Content-Encoding: {encoding}"))
    assert driver.get(server).body == sent.replace(KEY.encode(), b"***")
    assert max(size for size, _ in added) <= redaction.CHUNK
    assert not any(on_the_loop for _, on_the_loop in added)


def test_a_large_body_comes_back_whole(driver: Any, serve: Any) -> None:
    body = bytes(range(256)) * 20_000
    assert driver.get(serve(lambda exchange: exchange.answer(200, body))).body == body


def test_a_repeated_header_is_joined(driver: Any, serve: Any) -> None:
    """As RFC 9110 has it: which value counts must not depend on the library."""
    headers = ("Retry-After: 5", "Retry-After: 6")
    server = serve(lambda exchange: exchange.answer(429, b"", *headers))
    assert driver.get(server).headers["retry-after"] == "5, 6"


# What is sent


@BOTH
def test_what_is_on_the_wire(driver: Any, server: Any, request_: Request) -> None:
    driver.send(server, request_)
    (received,) = server.requests
    assert received.method == request_.method
    assert received.target == request_.path
    assert received.body == (request_.body or b"")
    assert received.headers["x-api-key"] == KEY
    assert received.headers["accept"] == "application/json"
    assert received.headers["user-agent"] == f"airflow-provider-promptlayer/{__version__}"
    assert received.headers["host"] == f"127.0.0.1:{server.port}"
    accepted = "gzip, deflate" if driver.kind == "blocking" else "identity"
    assert received.headers["accept-encoding"] == accepted
    assert received.headers.get("content-type") == (
        "application/json" if request_.body is not None else None
    )
    assert {"authorization", "cookie"}.isdisjoint(received.headers)
    assert received.raw.lower().count(b"x-api-key") == 1


NAMES = ["a/b", "a?b", "a#b", "100%", "%2F", "a b", "a+b", "a\\b", "größe", "🎉", "..."]
NAMES += ["../x", "~a'()*!", "a\nb\x00", "[x]{y}|z^`", "a&b=c;d:e@f,g$h"]


@pytest.mark.parametrize("prefix", ["", "/prefix", "/a%2Fb/c%20d", "/a;b=c"])
def test_a_path_arrives_exactly_as_it_was_built(driver: Any, serve: Any, prefix: str) -> None:
    server = serve(keep_alive)
    requests = [run_workflow(name).request for name in NAMES]
    requests += [Request("GET", f"/x?{query}", "poll") for query in QUERIES]
    driver.send(server.url + prefix, *requests)
    assert [received.target for received in server.requests] == [
        prefix + request.path for request in requests
    ]


QUERIES = ["a=%2F%3F%23%25&b=1+2%20", "a=b?c/d:e@f"]


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
    driver: Any, server: Any, prefix: str, sent: str
) -> None:
    connection = {"conn_id": "c", "host": server.url + prefix, "port": None, "schema": None}
    settings = read_connection(SimpleNamespace(**connection, password=KEY, extra=None))
    driver.get(settings, "/x%2Fy")
    assert server.requests[0].raw.startswith(f"GET {sent}/x%2Fy HTTP/1.1\r\n".encode())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@BOTH
def test_no_redirect_is_followed(driver: Any, serve: Any, status: int, request_: Request) -> None:
    elsewhere = serve()
    location = f"Location: {elsewhere.url}/y"
    server = serve(lambda exchange: exchange.answer(status, b"body", location))
    (response,) = driver.send(server, request_)
    assert (response.status, response.body) == (status, b"body")
    assert len(server.requests) == 1
    assert elsewhere.connections == 0


@pytest.mark.parametrize("location", ["http://[/x", "http://a\u2100b.com/", "http://\xff/"])
def test_a_redirect_to_nowhere_is_a_redirect(driver: Any, serve: Any, location: str) -> None:
    head = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 4\r\n\r\nbody"
    server = serve(lambda exchange: exchange.write(head.encode()))
    for response in driver.send(server, POLL, START):
        assert (response.status, response.body) == (302, b"body")


def test_cookies_are_not_kept(driver: Any, serve: Any) -> None:
    def handle(exchange: Exchange) -> bool:
        exchange.answer(200, b"", "Set-Cookie: a=b; Path=/")
        return True

    server = serve(handle)
    driver.send(server, POLL, POLL, START)
    assert all("cookie" not in received.headers for received in server.requests)


# Connections


def test_polls_share_a_connection_and_a_start_has_its_own(driver: Any, serve: Any) -> None:
    server = serve(keep_alive)
    driver.send(server, POLL, POLL, POLL)
    assert server.connections == 1
    driver.send(server, POLL, START, START)
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
    """Else the next request, which is about another run, would get them."""
    sent = threading.Semaphore(0)

    def handle(exchange: Exchange) -> bool:
        answer = EXTRA.replace(b"other", b"whole")
        if exchange.number > 1:
            exchange.write(answer)
        elif together:
            exchange.write_through(answer + extra)
            sent.release()
        else:
            exchange.write(answer)
            assert received.acquire(timeout=10)
            exchange.write_through(extra)
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
    responses = driver.send(server, POLL, POLL, after_each=let_it_arrive, verify=verify)
    assert [response.body for response in responses] == [b"whole", b"whole"]
    if not together:
        assert server.connections == 2


def test_a_kept_connection_that_died_costs_no_poll(driver: Any, server: Any) -> None:
    """The server closes after each answer, without saying so."""
    responses = driver.send(
        server, POLL, POLL, POLL, START, after_each=lambda: server.hung_up.acquire(timeout=60)
    )
    assert [response.body for response in responses] == [b"whole"] * 4


@pytest.mark.parametrize("tls", [False, True], ids=["cleartext", "tls"])
def test_nothing_is_left_open(
    driver: Any, serve: Any, certificates: Any, tls: bool, threads_end: Any
) -> None:
    with warnings.catch_warnings(action="ignore"):
        gc.collect()  # what others left
    how = (certificates.server,) if tls else ()
    for request in (POLL, START):
        driver.send(serve(keep_alive, *how), POLL, request, verify=certificates.ca_file)
        with pytest.raises(PromptLayerUnreachableError):
            driver.send(serve(lambda _: None, *how), request, verify=certificates.ca_file)
    threads_end()
    gc.collect()  # an unclosed socket or session warns here, and a warning is an error
