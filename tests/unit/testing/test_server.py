# SPDX-License-Identifier: Apache-2.0
"""LocalPromptLayer itself: starting, stopping, its records, and use from several threads."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import aiohttp
import pytest
import requests
from unit.testing.conftest import GREET, get, needs_ipv6

from airflow_provider_promptlayer import testing
from airflow_provider_promptlayer.testing import LocalPromptLayer, UnknownWorkflowError


def test_every_exported_name_exists():
    assert set(testing.__all__) <= set(dir(testing))
    for name in testing.__all__:
        assert getattr(testing, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Nope'"):
        _ = testing.Nope


@pytest.mark.parametrize("host", ["0.0.0.0", "", "::", "192.0.2.1", "example.com", "8.8.8.8"])
def test_it_listens_on_loopback_alone(host):
    with pytest.raises(ValueError, match="only listens on loopback"):
        LocalPromptLayer(host=host)


@pytest.mark.parametrize("key", ["", "with space", "schlüssel", "line\nbreak"])
def test_it_refuses_a_key_that_no_header_can_carry(key):
    with pytest.raises(ValueError, match="api_key"):
        LocalPromptLayer(api_key=key)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("localhost", "http://127.0.0.1:"),  # one address, though the name may have two
        pytest.param("::1", "http://[::1]:", marks=needs_ipv6),
    ],
)
def test_the_url_names_one_address(serve, host, url):
    client = serve(host=host)
    assert client.server.url.startswith(url)
    assert client.get("/workflows").status == 200


def threads():
    return {thread for thread in threading.enumerate() if thread.name == "local-promptlayer"}


@pytest.mark.parametrize("end", ["stop", "go_away"])
def test_a_client_that_comes_at_the_last_moment_leaves_nothing_behind(end):
    for _ in range(20):
        with LocalPromptLayer() as server:
            address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
            with socket.create_connection(address):
                getattr(server, end)()
        assert server.open_connections == 0
    gc.collect()  # what is unclosed warns here, and a warning is an error


def test_a_stop_leaves_nothing_behind():
    before = threads()
    with LocalPromptLayer() as server:
        assert len(threads() - before) == 1
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        # A client that keeps its connection open must not hold up the stop.
        with socket.create_connection(address) as idle:
            idle.sendall(b"GET /workflows HTTP/1.1\r\nHost: x\r\n\r\n")
            assert idle.recv(12) == b"HTTP/1.1 401"
            server.stop()
            assert threads() == before
            while idle.recv(4096):
                pass  # What was under way still arrives; then the connection ends.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.url
    # Unclosed sockets and loops warn when collected, and warnings are errors here.
    gc.collect()


def test_a_port_in_use_is_an_error_where_it_was_started():
    before = threads()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = LocalPromptLayer(port=taken.getsockname()[1])
        with pytest.raises(OSError, match="address already in use"):
            server.start()
    assert threads() == before
    server.start()
    server.stop()
    server.stop()


def test_it_cannot_run_twice_at_once_but_again_and_still_knows_its_executions(serve):
    client = serve()
    with pytest.raises(RuntimeError, match="already running"):
        client.server.start()
    client.run("Article pipeline")
    client.server.stop()
    client.server.start()
    assert client.results(1).status == 202
    assert client.server.count("POST") == 1


async def use_from_a_loop():
    async with LocalPromptLayer() as server, aiohttp.ClientSession() as session:
        headers = {"X-API-KEY": server.api_key}
        async with session.get(f"{server.url}/workflows", headers=headers) as response:
            return response.status, await response.json()


def test_it_can_be_used_inside_a_running_loop():
    status, listing = asyncio.run(use_from_a_loop())
    assert (status, listing["total"]) == (200, 3)


def test_requests_are_recorded_without_the_key(serve, clock):
    client = serve(api_key="s3cret-key")
    client.send("GET", "/workflows/a%2Fb?label=x%20y&version=&version=z", key="s3cret-key")
    clock.now += 5
    client.send("POST", "/nowhere", b"{}", key="another-s3cret")
    first, second = client.server.requests
    assert (first.method, first.raw_path, first.status) == ("GET", "/workflows/a%2Fb", 422)
    assert first.query == {"label": "x y", "version": "z"}
    assert (first.key_was_right, second.key_was_right) == (True, False)
    assert (first.arrived_at, second.arrived_at) == (1000, 1005)
    assert (second.method, second.raw_path, second.status) == ("POST", "/nowhere", 401)
    assert second.headers["content-type"] == "application/json"
    assert "s3cret" not in repr(client.server.requests)


def test_records_are_bounded_and_counters_exact(serve):
    client = serve(max_requests=3)
    for number in range(10):
        client.get(f"/workflows/{number}")
    client.run("Article pipeline")
    client.get("/elsewhere")
    assert [record.raw_path for record in client.server.requests] == [
        "/workflows/9",
        "/workflows/Article%20pipeline/run",
        "/elsewhere",
    ]
    server = client.server
    assert server.count() == 12
    assert server.count("GET") == 11
    assert server.count("GET", "/workflows/") == 10
    assert server.count(path_prefix="/workflows/") == 11
    assert server.count("POST", "/workflows/Article%20pipeline") == 1
    assert server.count("DELETE") == 0


def test_starting_without_http(serve):
    server = serve().server
    run = server.start_execution(
        "Article pipeline", {"topic": "x"}, metadata={"a": "b"}, workflow_label_name="production"
    )
    assert server.executions[run].metadata == {"a": "b"}
    assert server.executions[run].input_variables == {"topic": "x"}
    assert server.count() == 0
    with pytest.raises(UnknownWorkflowError, match="Nope"):
        server.start_execution("Nope")
    with pytest.raises(UnknownWorkflowError, match="version 7"):
        server.start_execution("Article pipeline", workflow_version_number=7)


@contextmanager
def promptly():
    """A wait that is not woken polls again at its deadline, after 60 s: too late."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 40


@pytest.mark.parametrize("how", ["a request", "without HTTP"])
def test_wait_for_is_woken_by_each_change(serve, how):
    client = serve()
    server = client.server
    evaluated = threading.Event()

    def has_happened():
        found = server.count("GET") >= 2 or bool(server.executions)
        evaluated.set()
        return found

    with promptly(), ThreadPoolExecutor() as pool:
        waiting = pool.submit(server.wait_for, has_happened, 60)
        assert evaluated.wait(60)
        if how == "a request":
            client.get("/workflows")
            assert not waiting.done()
            client.get("/workflows")
        else:
            server.start_execution("Article pipeline")
        waiting.result(timeout=60)


def test_wait_for_misses_no_change_between_evaluating_and_waiting(serve):
    server = serve().server
    seen = []

    def changes_while_evaluated():
        seen.append(len(server.executions))
        server.start_execution("Article pipeline")
        return len(seen) == 2

    with promptly():
        server.wait_for(changes_while_evaluated, 60)
    assert seen == [0, 1]


def test_wait_for_has_a_deadline_and_lets_its_predicate_use_the_server(serve):
    client = serve()
    with pytest.raises(TimeoutError, match=r"0\.05 s"):
        client.server.wait_for(lambda: client.get("/workflows").status == 500, 0.05)
    client.server.wait_for(lambda: client.get("/workflows").status == 200, 0)


def test_runs_from_many_threads_all_count(serve):
    client = serve()
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: client.run("Article pipeline"), range(200)))
    ids = {reply.json["workflow_version_execution_id"] for reply in replies}
    assert ids == set(client.server.executions) == set(range(1, 201))
    assert client.server.count("POST") == 200


def test_the_airflow_connection(serve):
    server = serve(api_key="k'ey").server
    assert json.loads(server.airflow_connection_json) == {
        "conn_type": "promptlayer",
        "password": "k'ey",
        "host": server.url,
    }


def test_connections_are_counted(serve):
    server = serve().server
    with requests.Session() as session:
        for _ in range(3):
            session.get(server.url, timeout=60)
        assert (server.open_connections, server.connections_made) == (1, 1)
    server.stop()
    assert server.open_connections == 0
    server.start()
    get(server)
    assert server.connections_made == 2


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
    with pytest.raises(ValueError, match="api_key"):
        server.rotate_key("")
    assert server.api_key == "two"


def test_posts_by_origin(serve):
    client = serve(GREET)
    server = client.server
    origin = {"airflow_dag_id": "d", "airflow_run_id": "r", "airflow_task_id": "t"}
    unmapped = {**origin, "airflow_map_index": "-1"}

    def start(metadata):
        client.run("Greet", {"metadata": metadata})

    start(unmapped)
    start({**unmapped, "airflow_try_number": "2"})
    start({**origin, "airflow_map_index": "3"})
    start({**unmapped, "airflow_batch_index": "7"})
    start({})
    server.start_execution("Greet", metadata=unmapped)
    counts = server.posts_by_origin()
    assert counts == {
        ("d", "r", "t", "-1", ""): 2,
        ("d", "r", "t", "3", ""): 1,
        ("d", "r", "t", "-1", "7"): 1,
        ("", "", "", "", ""): 1,
    }
    assert max(counts).airflow_task_id == "t"
