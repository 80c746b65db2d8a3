# SPDX-License-Identifier: Apache-2.0
"""Each fault as clients meet it: a bare socket, requests and aiohttp."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
import requests

from airflow_provider_promptlayer.testing import (
    Close,
    Drip,
    GoAway,
    Huge,
    LocalPromptLayer,
    Node,
    Raw,
    Reply,
    Reset,
    Silence,
    Slow,
    Workflow,
)

RESULTS = "/workflow-version-execution-results"
WORKFLOW = Workflow("W", [Node("Answer", "true", is_output_node=True)])
RUN = b"POST /workflows/W/run HTTP/1.1"
LIST = b"GET /workflows HTTP/1.1"


@pytest.fixture
def server():
    with LocalPromptLayer([WORKFLOW]) as server:
        yield server
    # Whatever a fault left behind warns when it is collected, and warnings are errors here.
    gc.collect()


def get(server, path="/workflows", timeout=60, **options):
    headers = {"X-API-KEY": server.api_key}
    return requests.get(server.url + path, headers=headers, timeout=timeout, **options)


def post(server, metadata=None):
    return requests.post(
        f"{server.url}/workflows/W/run",
        json={"metadata": metadata or {}},
        headers={"X-API-KEY": server.api_key},
        timeout=60,
    )


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


REPLIES = {
    "429 with seconds": Reply(429, "{}", {"Retry-After": "7"}),
    "429 with a date": Reply(429, "{}", {"Retry-After": "Wed, 21 Oct 2037 07:28:00 GMT"}),
    "429 with nonsense": Reply(429, "{}", {"Retry-After": "soon"}),
    "429 with nothing": Reply(429),
    "HTML": Reply(502, "<html>", {"content-type": "text/html"}),
    "empty": Reply(500),
    "truncated JSON": Reply(200, '{"A": {"status": "SUC'),
    "keys twice": Reply(200, '{"A": 1, "A": 2}'),
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


@pytest.mark.parametrize("status", [0, 100, 101, 199, 1000])
def test_a_reply_has_a_status(status):
    with pytest.raises(ValueError, match=f"status is {status}"):
        Reply(status)


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
        async def ask():
            async with aiohttp.ClientSession() as session, session.get(server.url) as answer:
                await answer.read()

        for after_bytes in (None, 5):
            with server.script(fault(after_bytes), times=None) as script:
                with pytest.raises(requests.RequestException):
                    get(server)
                assert script.used == 1
                with pytest.raises(aiohttp.ClientError):
                    asyncio.run(ask())
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
    with pytest.raises(ValueError, match="chunk is 0"):
        Drip(1, 0)


@pytest.mark.parametrize("size", [0, 1, 2, 3, 65537, 65538, 65539, 5_000_000])
@pytest.mark.parametrize("how", [{}, {"announced": False}, {"compressed": True}])
def test_huge(server, size, how):
    server.script(Huge(size, **how))
    found = get(server)
    assert len(found.content) == size
    assert size == 0 or isinstance(found.json(), str | int)
    assert ("content-length" in found.headers) == (not how)


def test_huge_is_not_all_in_memory_and_ends_when_the_client_leaves(server):
    server.script(Huge(10**12))
    with dialled(server) as connection:
        assert connection.recv(1000)
        assert get(server).status_code == 200
        assert server.open_connections >= 1
    server.wait_for(lambda: get(server) and server.open_connections <= 1, 60)


@pytest.mark.parametrize(
    "data", [b"", b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1 200 OK\r\nConte", b"\0" * 9]
)
def test_raw(server, data):
    server.script(Raw(data), times=None)
    assert flow(server) == (data, "closed")

    async def ask():
        async with aiohttp.ClientSession() as session, session.get(server.url) as answer:
            await answer.read()

    # aiohttp, because requests takes headers that are cut off for the end of them.
    with pytest.raises(aiohttp.ClientError):
        asyncio.run(ask())


@pytest.mark.parametrize("fault", [Silence(), Slow(60), Drip(1), Huge(10**12)], ids=repr)
class TestUnderWay:
    """What takes its time: blocks nobody, and ends at once with the server or the client."""

    def test_others_are_answered(self, server, fault):
        server.script(fault)
        with dialled(server):
            server.wait_for(lambda: server.count() == 1, 60)
            assert get(server).status_code == 200

    def test_it_ends_with_the_server(self, server, fault):
        server.script(fault)
        with dialled(server) as connection:
            server.wait_for(lambda: server.count() == 1, 60)
            started = time.monotonic()
            server.stop()
            # Far sooner than the fault would end, however busy the machine is.
            assert time.monotonic() - started < 60
            received(connection)
        assert server.open_connections == 0
        assert "local-promptlayer" not in {thread.name for thread in threading.enumerate()}

    def test_it_ends_with_the_client(self, server, fault):
        server.script(fault)
        with dialled(server):
            server.wait_for(lambda: server.count() == 1, 60)
        until = time.monotonic() + 60
        while server.open_connections and time.monotonic() < until:
            time.sleep(0.005)
        assert server.open_connections == 0


class TestStarting:
    """Whether a run has started is what exactly-once rests on."""

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
        assert post(server).status_code == 201

    @pytest.mark.parametrize("fault", [Slow(0.01), Drip(0, 99)])
    @pytest.mark.parametrize("acted_on", [False, True])
    def test_a_late_answer_is_true(self, server, fault, acted_on):
        server.script(fault, acted_on=acted_on)
        assert post(server).json()["workflow_version_execution_id"] == 1
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

    def test_posts_by_origin(self, server):
        origin = {
            "airflow_dag_id": "d",
            "airflow_run_id": "r",
            "airflow_task_id": "t",
            "airflow_map_index": "-1",
        }
        post(server, origin)
        post(server, {**origin, "airflow_try_number": "2"})
        post(server, {**origin, "airflow_map_index": "3"})
        post(server, {**origin, "airflow_batch_index": "7"})
        post(server)
        server.start_execution("W", metadata=origin)
        counts = server.posts_by_origin()
        assert counts == {
            ("d", "r", "t", "-1", ""): 2,
            ("d", "r", "t", "3", ""): 1,
            ("d", "r", "t", "-1", "7"): 1,
            ("", "", "", "", ""): 1,
        }
        assert max(counts).airflow_task_id == "t"


class TestRules:
    def statuses(self, server, *paths):
        return [get(server, path).status_code for path in paths]

    def test_in_order(self, server):
        first = server.script(Reply(501), times=2)
        second = server.script(Reply(502), Reply(503), times=2)
        found = self.statuses(server, *["/workflows"] * 7)
        assert found == [501, 501, 502, 503, 502, 503, 200]
        assert (first.used, second.used) == (2, 4)
        assert first.is_used_up
        assert second.is_used_up

    def test_for_ever_until_removed(self, server):
        with server.script(Reply(501), times=None) as script:
            assert self.statuses(server, *["/workflows"] * 5) == [501] * 5
            assert not script.is_used_up
        assert self.statuses(server, "/workflows") == [200]
        script.remove()
        assert script.used == 5
        server.script(Reply(501))
        server.clear_scripts()
        assert self.statuses(server, "/workflows") == [200]

    def test_after(self, server):
        server.script(Reply(501), path_prefix="/workflows/", after=1)
        paths = ["/workflows", "/workflows/W", "/workflows", "/workflows/W", "/workflows/W"]
        assert self.statuses(server, *paths) == [200, 200, 200, 501, 200]

    def test_selection(self, server):
        one, two = server.start_execution("W"), server.start_execution("W")
        server.script(Reply(501), execution_id=two, times=None)
        server.script(Reply(502), method="POST", times=None)
        query = f"{RESULTS}?return_all_outputs=true&workflow_version_execution_id="
        paths = ["/workflows", query + str(one), query + str(two)]
        assert self.statuses(server, *paths) == [200, 200, 501]
        assert post(server).status_code == 502

    def test_a_function_decides(self, server):
        script = server.script(
            lambda request: Reply(501) if request.query.get("page") == "1" else None, times=2
        )
        server.script(Reply(502), times=None, path_prefix="/workflows/")
        paths = ["/workflows?page=2", "/workflows?page=1", "/workflows/W", "/workflows?page=1"]
        assert self.statuses(server, *paths) == [200, 501, 502, 501]
        assert script.used == 2
        assert self.statuses(server, "/workflows?page=1") == [200]

    def test_before_the_key_is_looked_at(self, server):
        server.script(Reply(502))
        assert requests.get(server.url, timeout=60).status_code == 502
        assert not server.requests[0].key_was_right

    @pytest.mark.parametrize("options", [{"times": 0}, {"times": -1}, {"after": -1}])
    def test_numbers_that_make_no_sense(self, server, options):
        with pytest.raises(ValueError, match="must be >="):
            server.script(Reply(), **options)

    def test_no_fault(self, server):
        with pytest.raises(ValueError, match="at least one"):
            server.script()

    def test_from_many_threads_each_fault_is_used_once(self, server):
        script = server.script(Reply(501), times=100)
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda _: get(server).status_code, range(150)))
        assert (found.count(501), found.count(200), script.used) == (100, 50, 100)


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
        server.script(Silence())
        with dialled(server) as connection:
            server.wait_for(lambda: server.count() == 1, 60)
            with server.away():
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
        server.script(Slow(60))
        with dialled(server) as connection:
            server.wait_for(lambda: server.count() == 1, 60)
            server.drop_connections()
            assert received(connection) == (b"", "reset")
        assert get(server).status_code == 200


def test_connections_are_counted(server):
    with requests.Session() as session:
        for _ in range(3):
            session.get(server.url, timeout=60)
        assert (server.open_connections, server.connections_made) == (1, 1)
    get(server)
    assert server.connections_made == 2
    server.stop()
    assert server.open_connections == 0
    server.start()
    get(server)
    assert server.connections_made == 3


def test_requests_have_the_time_of_their_arrival(serve, clock):
    client = serve()
    client.get("/workflows")
    clock.now += 5
    client.get("/workflows")
    assert [record.arrived_at for record in client.server.requests] == [1000, 1005]


def test_key_rotation(serve):
    client = serve(api_key="one")
    server = client.server

    def taken():
        return [k for k in ("one", "two", "three") if client.send("GET", "/", key=k).status != 401]

    assert taken() == ["one"]
    server.rotate_key("two", keep_old=True)
    assert taken() == ["one", "two"]
    assert server.api_key == json.loads(server.airflow_connection_json)["password"] == "two"
    server.rotate_key("two")
    assert taken() == ["two"]
    server.rotate_key("three")
    assert taken() == ["three"]
    with pytest.raises(ValueError, match="api_key"):
        server.rotate_key("")
    assert server.api_key == "three"


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


class TestTls:
    HOSTS = ("127.0.0.1", "localhost", "::1")

    @pytest.mark.parametrize("host", HOSTS)
    def test_a_trusted_certificate(self, host):
        if host == "::1" and not has_ipv6():
            pytest.skip("no IPv6 loopback on this machine")
        with LocalPromptLayer([WORKFLOW], tls="trusted", host=host) as server:
            assert server.url.startswith("https://")
            assert get(server, verify=server.ca_file).status_code == 200
            connection = json.loads(server.airflow_connection_json)
            assert connection["extra"] == {"verify": server.ca_file}
            with pytest.raises(requests.exceptions.SSLError):
                get(server)
            by_name = server.url.replace("127.0.0.1", "localhost")
            assert requests.get(by_name, verify=server.ca_file, timeout=60).status_code == 401

    REASONS = (
        ("self-signed", "self-signed certificate"),
        ("expired", "certificate has expired"),
        ("wrong host", "IP address mismatch"),
    )

    @pytest.mark.parametrize(("kind", "reason"), REASONS)
    def test_bad_certificates(self, kind, reason):
        with LocalPromptLayer(tls=kind) as server:
            url = urlsplit(server.url)
            context = ssl.create_default_context(cafile=server.ca_file)
            with (
                socket.create_connection((url.hostname, url.port), timeout=60) as plain,
                pytest.raises(ssl.SSLCertVerificationError, match=reason),
            ):
                context.wrap_socket(plain, server_hostname=url.hostname)
            assert server.count() == 0
            server.use_certificate("trusted")
            assert get(server, verify=server.ca_file).status_code == 200

    @pytest.mark.parametrize("fault", [Close(), Close(3), Reset(), Reset(3), Raw(b"x"), Huge(9)])
    def test_faults(self, fault):
        with LocalPromptLayer(tls="trusted") as server:
            server.script(fault)
            try:
                assert len(get(server, verify=server.ca_file).content) == 9
            except requests.RequestException:
                assert not isinstance(fault, Huge)
            assert get(server, verify=server.ca_file).status_code == 200

    def test_files_go_with_the_server(self):
        with LocalPromptLayer(tls="trusted") as server:
            path = Path(server.ca_file)
            first = path.read_text()
        with pytest.raises(RuntimeError, match="TLS"):
            _ = server.ca_file
        assert not path.parent.exists()
        with server:
            assert Path(server.ca_file).read_text() != first

    def test_mistakes(self, server):
        with pytest.raises(RuntimeError, match="TLS"):
            _ = server.ca_file
        with pytest.raises(RuntimeError, match="TLS"):
            server.use_certificate("trusted")
        with pytest.raises(ValueError, match="'nope'; there are 'trusted'"):
            LocalPromptLayer(tls="nope").start()  # type: ignore[arg-type]  # refused


def nested(depth, value=1):
    for level in range(depth):
        value = [value] if level % 2 else {"deeper": value}
    return value


HOSTILE_VALUES = {
    "deep": nested(1000),
    "very deep": nested(20_000),
    "NaN": [math.inf, -math.inf, math.nan],
    "surrogate": "\ud800 and \udfff",
    "NUL": "\0",
    "100 digits": 10**100,
    "10 MB": "ü" * 10_000_000,
    "HTML": "<script>{{ macros }}</script>\x1b[31m",
    "odd keys": nested(2000, {"": 1, "\0": 2, "a\nb": 3, '"': 4}),
}


def flattened(value):
    """The innermost value and the depth: too deep to be compared by ==."""
    depth = 0
    while isinstance(value, dict | list) and len(value) == 1:
        value = value["deeper"] if isinstance(value, dict) else value[0]
        depth += 1
    return depth, value


@pytest.mark.parametrize("value", HOSTILE_VALUES.values(), ids=HOSTILE_VALUES.keys())
def test_hostile_values_are_served(value):
    made = Node("Made", lambda inputs, values: value)
    with LocalPromptLayer([Workflow("W", [Node("N", value, is_output_node=True), made])]) as server:
        run = server.start_execution("W")
        found = get(
            server, f"{RESULTS}?workflow_version_execution_id={run}&return_all_outputs=true"
        )
        assert found.status_code == 200
        if flattened(value)[0] < 100:
            nodes = found.json()
            for node in nodes.values():
                # repr, because NaN is not equal to itself.
                assert (node["status"], repr(node["value"])) == ("SUCCESS", repr(value))
        else:
            assert found.text.count("deeper") == flattened(value)[0]
            innermost = json.dumps(flattened(value)[1])
            assert innermost in found.text


NAMES = ["", " ", "a/b", "a?b", "a#b", "a%2Fb", "..", "a\nb", "\0\x1b[31m", "🎉", "x" * 5000]
NAMES += ["return_value", "Same", "same", "SAME", "\ud800", "{{ ds }}"]


def test_hostile_names_are_served():
    nodes = [Node(name, number, is_output_node=True) for number, name in enumerate(NAMES)]
    with LocalPromptLayer([Workflow("W", nodes)]) as server:
        run = server.start_execution("W")
        found = get(
            server, f"{RESULTS}?workflow_version_execution_id={run}&return_all_outputs=true"
        )
        assert [*found.json()] == NAMES
        described = get(server, "/workflows/W").json()
        assert [node["name"] for node in described["nodes"]] == NAMES


def test_what_is_not_json_is_refused_at_any_depth():
    with pytest.raises(ValueError, match="not JSON"):
        Node("N", nested(3000, {1, 2}))
    circle: list[object] = []
    circle.append(nested(3000, circle))
    with pytest.raises(ValueError, match="Circular"):
        Node("N", circle)
