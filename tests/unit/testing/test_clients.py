# SPDX-License-Identifier: Apache-2.0
"""Clients that misbehave: bodies without a key or an end, encoded bodies, invalid HTTP."""

from __future__ import annotations

import gzip
import socket
import struct
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
from unit.testing.conftest import GREET

RUN = b"POST /workflows/Greet/run HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
KEY = b"X-API-KEY: pl_local_key\r\n"
LONG = b"Content-Length: 1000000000\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

with_and_without_key = pytest.mark.parametrize("key", [b"", KEY], ids=["no key", "key"])


@pytest.fixture
def client(serve):
    return serve(GREET)


@contextmanager
def dialled(client):
    url = urlsplit(client.server.url)
    with socket.create_connection((url.hostname, url.port), timeout=60) as connection:
        yield connection


def answer(client, request):
    """Send these bytes, and nothing after them; return what is answered at once."""
    with dialled(client) as connection:
        connection.sendall(request)
        return connection.recv(10_000)


@pytest.mark.parametrize("key", [b"", b"X-API-KEY: wrong\r\n"], ids=["no key", "wrong key"])
@pytest.mark.parametrize("length", [LONG, CHUNKED], ids=["length", "chunked"])
def test_without_the_key_no_body_is_waited_for(client, key, length):
    assert answer(client, RUN + key + length + b"\r\n").startswith(b"HTTP/1.1 401 ")
    assert client.server.count("POST") == 1


BODIES = {"falsely": b"{}", "truly": gzip.compress(b"{}"), "bomb": gzip.compress(b" " * 10_000_000)}


@pytest.mark.parametrize("body", BODIES.values(), ids=list(BODIES))
@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"nonsense"])
@with_and_without_key
def test_an_encoded_body_is_refused_as_it_is(client, body, encoding, key):
    headers = b"Content-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (encoding, len(body))
    status = b"415" if key else b"401"
    assert answer(client, RUN + key + headers + body).startswith(b"HTTP/1.1 %b " % status)
    assert client.server.executions == {}


def test_a_body_that_is_declared_as_not_encoded_is_taken(client):
    request = RUN + KEY + b"Content-Encoding: Identity\r\nContent-Length: 2\r\n\r\n{}"
    assert answer(client, request).startswith(b"HTTP/1.1 201 ")


def test_a_body_may_be_too_long(client, monkeypatch):
    longest = "airflow_provider_promptlayer.testing.http.app._LONGEST_BODY"
    monkeypatch.setattr(longest, 1000)
    client.server.stop()
    client.server.start()
    reply = client.run(body={"input_variables": {"text": "x" * 1000}})
    assert (reply.status, reply.json["success"]) == (413, False)
    assert client.server.executions == {}
    assert client.run().status == 201


NO_HTTP = {
    "no version": b"GET / HTTP/9.9\r\n\r\n",
    "no length": RUN + KEY + b"Content-Length: x\r\n\r\n{}",
    "two lengths": RUN + KEY + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
    "no header": b"GET /workflows HTTP/1.1\r\nHost: x\r\nnonsense\r\n\r\n",
    "long header": b"GET /workflows HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 10_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("request_", NO_HTTP.values(), ids=list(NO_HTTP))
def test_invalid_http_is_400_and_logs_nothing(client, caplog, request_):
    assert answer(client, request_).startswith(b"HTTP/1.0 400 ")
    assert client.get("/workflows").status == 200
    assert caplog.records == []


@with_and_without_key
@pytest.mark.parametrize("how", ["closed", "reset"])
@pytest.mark.parametrize(
    "rest", [LONG + b"\r\n{", CHUNKED + b"\r\n9\r\n{", b"X-Foo"], ids=["body", "chunk", "header"]
)
def test_a_client_that_leaves_in_mid_request_logs_nothing(client, caplog, key, how, rest):
    with dialled(client) as connection:
        # The answer to the first request tells that the server has met the second as well.
        connection.sendall(b"GET /workflows HTTP/1.1\r\nHost: x\r\n\r\n" + RUN + key + rest)
        assert connection.recv(10_000).startswith(b"HTTP/1.1 401 ")
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    until = time.monotonic() + 60
    while client.server.open_connections and time.monotonic() < until:
        time.sleep(0.005)
    client.server.stop()
    assert client.server.executions == {}
    assert caplog.records == []


def test_an_error_of_the_server_itself_is_logged(client, caplog):
    def fault(request):
        raise LookupError(request.method)

    client.server.script(fault)
    assert client.get("/workflows").status == 500
    (record,) = caplog.records
    assert record.exc_info[0] is LookupError
