# SPDX-License-Identifier: Apache-2.0
"""The session for users' own calls: the key goes to PromptLayer and nowhere else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import requests
from unit.transport.conftest import KEY, Exchange, keep_alive, settings_for

from airflow_provider_promptlayer.api.http import Request
from airflow_provider_promptlayer.exceptions import PromptLayerUnreachableError
from airflow_provider_promptlayer.transport.blocking import BlockingTransport, PromptLayerSession
from airflow_provider_promptlayer.transport.settings import read_connection


@pytest.fixture
def session(server: Any) -> Iterator[PromptLayerSession]:
    with PromptLayerSession(settings_for(f"{server.url}/prefix")) as session:
        yield session


BELOW = ["/prefix", "/prefix/", "/prefix/x?y=z", "/prefix/a%2Fb", "/x/../prefix/x", "/%70refix/x"]
NOT_BELOW = ["/", "/other", "/prefixed/x", "/prefix.evil/x", "/prefix/%2e%2E/other"]
NOT_BELOW += ["/prefix/../other"]


@pytest.mark.parametrize("path", BELOW + NOT_BELOW)
def test_the_key_goes_to_promptlayers_path_alone(
    server: Any, session: PromptLayerSession, path: str
) -> None:
    assert session.get(server.url + path, timeout=60).content == b"whole"
    assert server.requests[0].headers.get("x-api-key") == (KEY if path in BELOW else None)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("pl.example.com:443", "https://PL.example.com/x"),
        ("pl.example.com", "https://pl.example.com:443/x"),
        ("M\u00fcnchen.example", "https://m\u00fcnchen.example/x"),
        ("pl.example.com/a/../b/%7e", "https://pl.example.com/b/~/x"),
        ("pl.example.com/a/../b/%7e", "https://pl.example.com/a/../b/%7E/x"),
    ],
)
def test_the_key_goes_to_promptlayer_however_its_url_is_written(host: str, url: str) -> None:
    fields = {"conn_id": "c", "host": host, "port": None, "schema": None, "extra": None}
    settings = read_connection(SimpleNamespace(**fields, password=KEY))
    with PromptLayerSession(settings) as session:
        prepared = session.prepare_request(requests.Request("GET", url))
    assert prepared.headers["X-API-KEY"] == KEY


def test_the_key_does_not_go_to_another_host(
    serve: Any, server: Any, session: PromptLayerSession
) -> None:
    elsewhere = serve()
    session.get(elsewhere.url + "/prefix/x", timeout=60)
    session.get(f"http://localhost:{server.port}/prefix/x", timeout=60)
    assert "x-api-key" not in elsewhere.requests[0].headers
    assert "x-api-key" not in server.requests[0].headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    ("target", "is_within"),
    [("/prefix/y", True), ("/other", False), ("/prefix/../other", False), ("elsewhere", False)],
)
def test_the_key_follows_no_redirect_elsewhere(
    serve: Any, status: int, target: str, is_within: bool
) -> None:
    def handle(exchange: Exchange) -> bool:
        if exchange.request.target != "/prefix/x":
            return keep_alive(exchange)
        location = target.replace("elsewhere", f"{elsewhere.url}/prefix/y")
        exchange.answer(status, b"", f"Location: {location}")
        return True

    server, elsewhere = serve(handle), serve()
    with PromptLayerSession(settings_for(f"{server.url}/prefix")) as session:
        assert session.get(f"{server.url}/prefix/x", timeout=60).content == b"whole"
    first, second = server.requests + elsewhere.requests
    assert first.headers["x-api-key"] == KEY
    assert second.headers.get("x-api-key") == (KEY if is_within else None)


def test_an_interrupted_exchange_does_not_spoil_the_next(serve: Any) -> None:
    """Airflow ends a task at its execution_timeout, or on SIGTERM, by raising in it."""
    arrived = threading.Event()

    def handle(exchange: Exchange) -> bool:
        if exchange.number == 1:
            arrived.set()
            exchange.hang()
            return False
        exchange.answer()
        return True

    class Stop(BaseException):
        pass

    server = serve(handle)
    transport = BlockingTransport(settings_for(server, timeout=60.0))
    outcome: Any = None

    def interrupt(*args: Any, **kwargs: Any) -> Any:
        assert arrived.wait(60)
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "airflow_provider_promptlayer.transport.blocking.SimpleQueue",
            type("Queue", (), {"get": interrupt, "put": lambda self, item: None}),
        )
        with pytest.raises(Stop):
            transport.send(Request("GET", "/x", "poll"))
    try:
        outcome = transport.send(Request("GET", "/x", "poll"))
    finally:
        transport.close()
    assert outcome.body == b"whole"


# Threads


def in_threads(*calls: Callable[[], Any]) -> list[Any]:
    """Return what each call returned or raised, of calls that are made at the same time."""

    def outcome(call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - compared by the test
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(outcome, calls))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_threads_that_share_a_transport_get_their_own_answers(
    serve: Any, method: Literal["GET", "POST"]
) -> None:
    all_there = threading.Barrier(4)

    def handle(exchange: Exchange) -> bool:
        all_there.wait(10)  # no thread waits for another's answer
        exchange.answer(200, exchange.request.target.encode())
        return True

    server = serve(handle)
    transport = BlockingTransport(settings_for(server))
    body = None if method == "GET" else b"{}"
    requests_ = [Request(method, f"/{number}", "poll", body) for number in range(4)]
    try:
        for _ in range(3):
            answers = in_threads(*(partial(transport.send, request) for request in requests_))
            assert [answer.body for answer in answers] == [b"/0", b"/1", b"/2", b"/3"]
        assert server.connections == (4 if method == "GET" else 12)
    finally:
        transport.close()


def test_an_exchange_that_fails_does_not_touch_another_threads(serve: Any) -> None:
    both_there = threading.Barrier(2)
    failed = threading.Event()

    def handle(exchange: Exchange) -> bool:
        both_there.wait(10)
        if exchange.request.target == "/fails":
            return False
        assert failed.wait(10)
        exchange.answer()
        return True

    server = serve(handle)
    transport = BlockingTransport(settings_for(server))

    def fail() -> None:
        with pytest.raises(PromptLayerUnreachableError):
            transport.send(Request("GET", "/fails", "poll"))
        transport.close()  # as a thread may do that has done with the hook
        failed.set()

    _, answered = in_threads(fail, lambda: transport.send(Request("GET", "/x", "poll")))
    transport.close()
    assert answered.body == b"whole"


def test_a_transport_that_is_closed_meanwhile_keeps_no_connection(serve: Any) -> None:
    def handle(exchange: Exchange) -> bool:
        transport.close()
        exchange.answer()
        return True

    server = serve(handle)
    transport = BlockingTransport(settings_for(server))
    assert transport.send(Request("GET", "/x", "poll")).body == b"whole"
    assert server.hung_up.acquire(timeout=10)
