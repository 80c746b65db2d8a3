# SPDX-License-Identifier: Apache-2.0
"""Each fault as clients meet it: a bare socket, requests and aiohttp."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import aiohttp
import pytest
import requests
from unit.testing.conftest import GREET, Client, get

from airflow_provider_promptlayer.testing import (
    Close,
    Drip,
    GoAway,
    Huge,
    LocalPromptLayer,
    Raw,
    Reply,
    Reset,
    Silence,
    Slow,
)

RUN = b"POST /workflows/Greet/run HTTP/1.1"
LIST = b"GET /workflows HTTP/1.1"


@pytest.fixture(scope="module", autouse=True)
def nothing_left_behind():
    """Sockets that a fault left open warn when they are collected, and warnings are errors."""
    yield
    gc.collect()


@pytest.fixture
def server():
    with LocalPromptLayer([GREET]) as server:
        yield server


def post(server):
    return Client(server).run()


@contextmanager
def dialled(server, request_line=LIST):
    """A socket on which a request was sent."""
    url = urlsplit(server.url)
    with socket.create_connection((url.hostname, url.port), timeout=60) as connection:
        key = server.api_key.encode()
        connection.sendall(
            request_line + b"\r\nHost: x\r\nConnection: close\r\nX-API-KEY: " + key + b"\r\n"
            b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        )
        yield connection


@contextmanager
def under_way(server, fault):
    """A socket whose request meets this fault."""
    server.script(fault)
    with dialled(server) as connection:
        server.wait_for(lambda: server.count() == 1, 60)
        yield connection


def received(connection):
    """Everything that comes in, and how it ended."""
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionResetError:
        return data, "reset"
    return data, "closed"


def flow(server, request_line=LIST):
    with dialled(server, request_line) as connection:
        return received(connection)


def assert_aiohttp_fails(server):
    async def request():
        async with aiohttp.ClientSession() as session, session.get(server.url) as answer:
            await answer.read()

    with pytest.raises(aiohttp.ClientError):
        asyncio.run(request())


REPLIES = {
    "a header": Reply(429, "{}", {"Retry-After": "7"}),
    "HTML": Reply(502, "<html>", {"content-type": "text/html"}),
    "empty": Reply(500),
    "not UTF-8": Reply(200, b"\xff\xfe"),
    "a lone surrogate": Reply(200, "\ud800"),
    "JSON": Reply.of_json({"success": False, "output": None}, 400, {"X-More": "1"}),
    "a redirect": Reply(307, headers={"Location": "http://127.0.0.1:1/"}),
    "no content": Reply(204),
    "an odd status": Reply(799, "x"),
    "large": Reply(200, b"x" * 10_000_000),
}


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES.keys())
def test_reply(server, reply):
    server.script(reply)
    with requests.Session() as session:
        headers = {"X-API-KEY": server.api_key}
        url = f"{server.url}/workflows"
        found = session.get(url, headers=headers, timeout=60, allow_redirects=False)
        assert (found.status_code, found.content) == (reply.status, reply.content)
        sent = {name.lower(): value for name, value in reply.headers.items()}
        sent.setdefault("content-type", "application/json")
        assert sent.items() <= {n.lower(): v for n, v in found.headers.items()}.items()
        # In good order: the next request uses the same connection.
        assert session.get(url, headers=headers, timeout=60).status_code == 200
    assert server.connections_made == 1
    faulty, true = server.requests
    assert (faulty.status, faulty.fault) == (reply.status, reply)
    assert (true.status, true.fault) == (200, None)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        *(
            (lambda _, status=status: Reply(status), f"status is {status}")
            for status in (199, 1000)
        ),
        (lambda _: Drip(1, 0), "chunk is 0"),
        (lambda server: server.script(), "at least one"),
        (lambda server: server.script(Reply(), times=0), "must be >="),
        (lambda server: server.script(Reply(), after=-1), "must be >="),
    ],
)
def test_a_wrong_argument_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(LocalPromptLayer())


@pytest.mark.parametrize(("fault", "ending"), [(Close, "closed"), (Reset, "reset")])
class TestBrokenOff:
    def test_before_the_answer(self, server, fault, ending):
        server.script(fault())
        assert flow(server) == (b"", ending)
        assert server.requests[0].status == 0

    @pytest.mark.parametrize("count", [0, 1, 50, 10**9])
    def test_in_the_body(self, server, fault, ending, count):
        true = get(server).content
        server.script(fault(after_bytes=count))
        data, ended = flow(server)
        head, _, body = data.partition(b"\r\n\r\n")
        assert ended == ending
        assert f"\r\nContent-Length: {len(true)}\r\n".encode() in head
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == true[: min(count, len(true) - 1)]
        assert server.requests[-1].status == 200

    def test_of_a_reply(self, server, fault, ending):
        server.script(fault(3, Reply(500, "abcdef")))
        data, ended = flow(server)
        assert data.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert data.endswith(b"\r\n\r\nabc")
        assert ended == ending

    def test_as_clients_see_it(self, server, fault, ending):
        for after_bytes in (None, 5):
            with server.script(fault(after_bytes), times=None) as script:
                with pytest.raises(requests.RequestException):
                    get(server)
                assert script.used == 1
                assert_aiohttp_fails(server)
                # aiohttp sends a GET that got no answer a second time, of its own accord.
                assert script.used == (3 if after_bytes is None else 2)


def test_silence_is_bounded(server):
    server.script(Silence(0.1))
    assert flow(server) == (b"", "closed")
    assert server.requests[0].status == 0


def test_slow_is_the_true_answer(server):
    server.script(Slow(0.1), Slow(0.1, Reply(500, "late")))
    started = time.monotonic()
    assert get(server).json()["total"] == 1
    assert time.monotonic() - started >= 0.1
    assert get(server).text == "late"
    assert [record.status for record in server.requests] == [200, 500]


@pytest.mark.parametrize("headers_too", [False, True])
def test_drip_is_the_true_answer_in_pieces(server, headers_too):
    true = get(server)
    server.script(Drip(0.0005, 7, headers_too=headers_too))
    started = time.monotonic()
    assert get(server).content == true.content
    assert time.monotonic() - started >= 0.0005 * len(true.content) / 7


def test_drip_is_bounded(server):
    server.script(Drip(0.02, seconds=0.1), Drip(30, seconds=0.1))
    for _ in range(2):
        started = time.monotonic()
        data, ending = flow(server)
        assert 0.05 < time.monotonic() - started < 60
        head, _, body = data.partition(b"\r\n\r\n")
        assert b"Content-Length: " in head
        assert (ending, len(body) < 10) == ("closed", True)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 65537, 65538, 65539, 5_000_000])
@pytest.mark.parametrize("how", [{}, {"announced": False}, {"compressed": True}])
def test_huge(server, size, how):
    server.script(Huge(size, **how))
    found = get(server)
    assert len(found.content) == size
    assert size == 0 or isinstance(found.json(), str | int)
    assert ("content-length" in found.headers) == (not how)


@pytest.mark.parametrize(
    "data", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nConte", b"\0" * 9]
)
def test_raw(server, data):
    server.script(Raw(data), times=None)
    assert flow(server) == (data, "closed")
    # requests would take headers that are cut off for the end of them.
    assert_aiohttp_fails(server)


@pytest.mark.parametrize("fault", [Silence(), Slow(60), Drip(1), Huge(10**12)], ids=repr)
class TestUnderWay:
    """A fault that takes its time blocks no other client, and ends with the server or client."""

    def test_others_are_answered(self, server, fault):
        with under_way(server, fault):
            assert get(server).status_code == 200

    def test_it_ends_with_the_server(self, server, fault):
        with under_way(server, fault) as connection:
            started = time.monotonic()
            server.stop()
            # Far sooner than the fault would end, however busy the machine is.
            assert time.monotonic() - started < 60
            received(connection)
        assert server.open_connections == 0
        assert "local-promptlayer" not in {thread.name for thread in threading.enumerate()}

    def test_it_ends_with_the_client(self, server, fault):
        with under_way(server, fault):
            pass
        until = time.monotonic() + 60
        while server.open_connections and time.monotonic() < until:
            time.sleep(0.005)
        assert server.open_connections == 0


class TestStarting:
    """The tests of exactly-once rely on whether a run was started."""

    LOST = (Reply(502), Reply(429), Close(), Close(3), Reset(), Raw(b"?"), Huge(9), Silence(0.01))

    @pytest.mark.parametrize("acted_on", [False, True])
    @pytest.mark.parametrize("fault", [*LOST, Slow(0.01, Reply(504)), Drip(0, 99, reply=Reply())])
    def test_before_or_after_acting(self, server, fault, acted_on):
        server.script(fault, method="POST", acted_on=acted_on)
        data, _ = flow(server, RUN)
        assert b"workflow_version_execution_id" not in data
        assert len(server.executions) == int(acted_on)
        assert server.posts_by_origin().total() == int(acted_on)
        assert server.count("POST") == 1
        assert post(server).status == 201

    @pytest.mark.parametrize("fault", [Slow(0.01), Drip(0, 99)])
    @pytest.mark.parametrize("acted_on", [False, True])
    def test_a_late_answer_is_true(self, server, fault, acted_on):
        server.script(fault, acted_on=acted_on)
        assert post(server).json["workflow_version_execution_id"] == 1
        assert len(server.executions) == 1

    def test_what_is_read_of_a_lost_answer(self, server):
        server.script(Close(10**9), Close(10**9, Reply(201, "1234")), method="POST")
        assert b" 503 " in flow(server, RUN)[0]
        assert flow(server, RUN)[0].endswith(b"\r\n\r\n123")
        server.script(Close(10**9), acted_on=True)
        assert b" 201 " in flow(server, RUN)[0]

    def test_acting_still_needs_the_key(self, server):
        server.script(Close(), method="POST", acted_on=True)
        server.rotate_key("another")
        server.api_key = "wrong"
        flow(server, RUN)
        assert server.executions == {}


class TestAway:
    def test_refused_on_the_port_that_is_kept(self, server):
        url = server.url
        get(server)
        with server.away():
            address = urlsplit(url).hostname, urlsplit(url).port
            for _ in range(3):
                with pytest.raises(ConnectionRefusedError):
                    socket.create_connection(address)
            with pytest.raises(OSError, match="in use"), socket.socket() as other:
                other.bind(address)
            server.go_away()
        assert server.url == url
        assert get(server).status_code == 200
        server.come_back()

    def test_open_connections_are_reset(self, server):
        with under_way(server, Silence()) as connection, server.away():
            assert received(connection) == (b"", "reset")

    def test_as_a_fault(self, server):
        server.script(GoAway(), after=1)
        assert get(server).status_code == 200
        assert flow(server) == (b"", "reset")
        with pytest.raises(requests.ConnectionError):
            get(server)
        server.come_back()
        assert get(server).status_code == 200

    def test_stop_and_start_while_away(self, server):
        server.go_away()
        server.stop()
        with pytest.raises(RuntimeError, match="not running"):
            server.come_back()
        server.start()
        assert get(server).status_code == 200

    def test_not_from_a_fault_function(self, server):
        caught = []

        def leave(request):
            try:
                server.go_away()
            except RuntimeError as error:
                caught.append(str(error))

        server.script(leave)
        assert get(server).status_code == 200
        assert "return GoAway()" in caught[0]

    def test_dropped_connections(self, server):
        with under_way(server, Slow(60)) as connection:
            server.drop_connections()
            assert received(connection) == (b"", "reset")
        assert get(server).status_code == 200
