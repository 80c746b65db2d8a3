# SPDX-License-Identifier: Apache-2.0
"""One pool of connections for each event loop and settings."""

from __future__ import annotations

import asyncio
import gc
import json
import ssl
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.modes import first_event
from support.waits import trigger_for
from unit.transport.conftest import KEY, POLL, START, Exchange, keep_alive, settings_for

from airflow_provider_promptlayer.api.http import Request
from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.exceptions import (
    PromptLayerConfigurationError,
    PromptLayerUnreachableError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.transport import aio
from airflow_provider_promptlayer.transport.aio import (
    MAX_CONCURRENT_POLLS,
    AsyncTransport,
    SharedTransport,
)
from airflow_provider_promptlayer.transport.settings import Settings
from airflow_provider_promptlayer.transport.tls import ssl_context
from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerWorkflowTrigger


def is_closed(transport: AsyncTransport) -> bool:
    return transport._session is None or transport._session.closed


def run(main: Coroutine[Any, Any, None], loop_factory: Any = None) -> None:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(asyncio.wait_for(main, 120))
    gc.collect()  # what is unclosed warns here, and a warning is an error
    assert not any(aio._shared.values())


async def until(predicate: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not predicate():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def poll(settings: Settings) -> bytes:
    async with SharedTransport.of(settings) as transport:
        return (await transport.send(POLL)).body


@pytest.mark.parametrize("kind", ["cleartext", "tls", "uvloop"])
def test_users_share_connections_until_the_last_has_left(
    serve: Any, certificates: Any, kind: str
) -> None:
    loop_factory = pytest.importorskip("uvloop").new_event_loop if kind == "uvloop" else None
    server = serve(keep_alive, None if kind == "cleartext" else certificates.server)
    settings = settings_for(server, verify=certificates.ca_file)

    async def main() -> None:
        first, second = SharedTransport.of(settings), SharedTransport.of(settings)
        transport = await first.__aenter__()
        await transport.send(POLL)
        assert await second.__aenter__() is transport
        await first.__aexit__()
        assert (await transport.send(POLL)).body == b"whole"
        assert server.connections == 1
        await second.__aexit__()
        assert is_closed(transport)
        assert await poll(settings) == b"whole"
        assert server.connections == 2

    run(main(), loop_factory)


@pytest.mark.parametrize("changes", [{"api_key": "other"}, {"timeout": 5.0}], ids=str)
def test_other_settings_have_their_own_connections(serve: Any, changes: dict[str, Any]) -> None:
    server = serve(keep_alive)

    async def main() -> None:
        async with SharedTransport.of(settings_for(server)) as first:
            await first.send(POLL)
            await poll(settings_for(server, **changes))

    run(main())
    assert server.connections == 2
    keys = [received.headers["x-api-key"] for received in server.requests]
    assert keys == [KEY, changes.get("api_key", KEY)]


def test_another_loop_has_its_own_connections(serve: Any) -> None:
    server = serve(keep_alive)

    async def main() -> None:
        async with SharedTransport.of(settings_for(server)) as transport:
            await transport.send(POLL)
            await asyncio.to_thread(asyncio.run, poll(settings_for(server)))
            await transport.send(POLL)

    run(main())
    assert server.connections == 2


@pytest.mark.parametrize("request_", [POLL, START], ids=["get", "post"])
def test_cancelling_a_request_closes_its_connection_alone(serve: Any, request_: Request) -> None:
    arrived, gone = threading.Event(), threading.Event()

    def handle(exchange: Exchange) -> bool:
        if exchange.number > 1:
            return keep_alive(exchange)
        arrived.set()
        exchange.hang()
        gone.set()
        return False

    settings = settings_for(serve(handle))

    async def main() -> None:
        async with SharedTransport.of(settings) as transport:
            cancelled = asyncio.create_task(transport.send(request_))
            assert await asyncio.to_thread(arrived.wait, 10)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            assert await asyncio.to_thread(gone.wait, 10)
            assert await poll(settings) == b"whole"

    run(main())


@pytest.mark.parametrize("between", [True, False], ids=["between polls", "in a poll"])
def test_a_loop_that_ends_leaves_no_connection_open(
    serve: Any, certificates: Any, between: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A TLS connection would wait for the server to close it too, which this server never does."""

    def answer_twice(exchange: Exchange) -> bool:
        if exchange.number > 2:
            return exchange.stopping.wait(60)
        return keep_alive(exchange)

    servers = serve(answer_twice), serve(answer_twice, certificates.server)
    answered: list[bytes] = []

    async def wait(settings: Settings) -> None:
        async with SharedTransport.of(settings) as transport:
            answered.append((await transport.send(POLL)).body)
            await until(lambda: len(answered) == 4)  # each server answers two
            if between:
                await asyncio.sleep(3600)
            await transport.send(POLL)

    async def main() -> None:
        waits = [
            asyncio.create_task(wait(settings_for(server, verify=certificates.ca_file)))
            for server in servers
            for _ in range(2)
        ]
        expected = 2 if between else 4
        await until(lambda: all(len(server.requests) == expected for server in servers))
        for each in waits[::2]:  # the end of the loop cancels the others
            each.cancel()
        await asyncio.gather(*waits[::2], return_exceptions=True)

    asyncio.run(asyncio.wait_for(main(), 120))
    gc.collect()  # what is unclosed warns here, and a warning is an error
    assert caplog.records == []


# Opening


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Read certificates slowly, and note the thread that does."""
    noted: list[threading.Thread] = []

    def slowly(settings: Settings) -> ssl.SSLContext:
        noted.append(threading.current_thread())
        time.sleep(0.1)
        return ssl_context(settings)

    monkeypatch.setattr(aio, "ssl_context", slowly)
    return noted


def test_users_that_start_together_open_once_and_not_on_the_loop(
    serve: Any, openings: list[threading.Thread]
) -> None:
    settings = settings_for(serve(keep_alive))

    async def main() -> None:
        assert await asyncio.gather(*(poll(settings) for _ in range(20))) == [b"whole"] * 20

    run(main())
    assert len(openings) == 1
    assert openings[0] is not threading.current_thread()


@pytest.mark.parametrize("cancelled", [{0}, {1}, {0, 1}, {0, 1, 2}], ids=str)
def test_a_user_that_is_cancelled_while_opening_affects_no_other(
    serve: Any, openings: list[threading.Thread], cancelled: set[int]
) -> None:
    settings = settings_for(serve(keep_alive))

    async def main() -> None:
        polls = [asyncio.create_task(poll(settings)) for _ in range(3)]
        await until(lambda: bool(openings))
        for index in cancelled:
            polls[index].cancel()
        endings = await asyncio.gather(*polls, return_exceptions=True)
        assert {index for index, ending in enumerate(endings) if ending != b"whole"} == cancelled
        assert await poll(settings) == b"whole"

    run(main())


def test_settings_that_cannot_be_used_leave_nothing_behind(serve: Any) -> None:
    settings = settings_for(serve(keep_alive), verify="/no/such/ca.pem")

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(PromptLayerConfigurationError):
                await poll(settings)

    run(main())


# The limit of concurrent polls


def test_many_polls_share_few_connections(serve: Any) -> None:
    all_there = threading.Barrier(MAX_CONCURRENT_POLLS)
    under_way = threading.Semaphore(MAX_CONCURRENT_POLLS)

    def handle(exchange: Exchange) -> bool:
        assert under_way.acquire(blocking=False)
        all_there.wait(60)
        under_way.release()
        return keep_alive(exchange)

    server = serve(handle)
    count = 5 * MAX_CONCURRENT_POLLS

    async def main() -> None:
        async with SharedTransport.of(settings_for(server)):
            polls = [poll(settings_for(server)) for _ in range(count)]
            assert await asyncio.gather(*polls) == [b"whole"] * count

    run(main())
    assert server.connections <= MAX_CONCURRENT_POLLS


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "MAX_CONCURRENT_POLLS", 1)


@pytest.mark.usefixtures("one_at_a_time")
def test_queueing_is_no_outage(serve: Any) -> None:
    def slowly(exchange: Exchange) -> bool:
        time.sleep(0.15)
        return keep_alive(exchange)

    settings = settings_for(serve(slowly), timeout=1.0)

    async def main() -> None:
        assert await asyncio.gather(*(poll(settings) for _ in range(10))) == [b"whole"] * 10

    run(main())


@pytest.mark.usefixtures("one_at_a_time")
def test_a_poll_that_queues_at_its_deadline_waits_for_one_timeout_more(serve: Any) -> None:
    """If PromptLayer does not answer, each poll in the queue would else wait for all before it."""
    server = serve(lambda exchange: exchange.hang())

    async def main() -> None:
        async with SharedTransport.of(settings_for(server, timeout=0.3)) as transport:
            errors = await asyncio.gather(
                *(transport.send(POLL, wanted_until=0.0) for _ in range(20)), return_exceptions=True
            )
        assert {type(error) for error in errors} == {PromptLayerUnreachableError}
        assert all("within 0.3 s" in str(error) for error in errors)

    run(main())
    assert len(server.requests) <= 2  # the second may get the turn when the time is up


async def end_of_trigger(run_id: int) -> str:
    trigger = trigger_for(
        PromptLayerWorkflowTrigger,
        WorkflowRun(run_id),
        promptlayer_conn_id="silent",
        deadline=time.time(),
    )
    return str((await first_event(trigger)).payload)


async def end_of_hook(run_id: int) -> str:
    with pytest.raises(PromptLayerWaitTimeoutError) as caught:
        await PromptLayerHook("silent").await_for_workflow_results(run_id, timeout=0.001)
    return str(caught.value)


@pytest.mark.parametrize("end_of", [end_of_trigger, end_of_hook])
def test_waits_tell_the_transport_their_deadline(
    monkeypatch: pytest.MonkeyPatch, end_of: Callable[[int], Coroutine[Any, Any, str]]
) -> None:
    fields = {"conn_type": "promptlayer", "password": KEY}
    monkeypatch.setenv("AIRFLOW_CONN_SILENT", json.dumps(fields))
    told: list[float] = []

    async def send(_: Any, *__: Any, wanted_until: float) -> Any:
        told.append(wanted_until)
        raise PromptLayerUnreachableError("No answer", arrived=True)

    monkeypatch.setattr(AsyncTransport, "send", send)

    async def main() -> None:
        assert "did not end within" in await end_of(1)

    run(main())
    assert 0.0 < told[-1] <= time.time()  # the last poll is at the deadline
