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
    FEW,
    MOST,
    AsyncTransport,
    ConcurrencyLimit,
    SharedTransport,
)
from airflow_provider_promptlayer.transport.settings import Settings
from airflow_provider_promptlayer.transport.tls import ssl_context
from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerWorkflowTrigger

KEY = "pl_geheim_0123456789"
LOOK = Request("GET", "/look", "look")


def keep_alive(flow: Any) -> bool:
    flow.answer(200, b"whole")
    return True


def settings_for(server: Any, **changes: Any) -> Settings:
    return Settings(**{"base_url": server.url, "api_key": KEY, "timeout": 10.0, **changes})


def is_closed(transport: AsyncTransport) -> bool:
    return transport._session is None or transport._session.closed


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 120))
    gc.collect()  # what is unclosed warns here, and a warning is an error


async def until(predicate: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not predicate():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def test_users_share_a_transport_and_its_connections(serve: Any) -> None:
    server = serve(keep_alive)

    async def main() -> None:
        async with SharedTransport(settings_for(server)) as first:
            await first.send(LOOK)
            async with SharedTransport(settings_for(server)) as second:
                assert second is first
                await second.send(LOOK)
            assert not is_closed(first)
            await first.send(LOOK)
        assert is_closed(first)

    run(main())
    assert server.connections == 1
    assert len(server.requests) == 3


def test_looks_that_are_cancelled_at_the_end_of_the_loop_leave_nothing(
    serve: Any, certificates: Any
) -> None:
    """TLS says goodbye and waits for the other side's; nobody may wait for that any more."""
    server = serve(lambda flow: flow.stopping.wait(60), tls=certificates.server)
    settings = settings_for(server, verify=certificates.ca_file)

    async def main() -> None:
        async with SharedTransport(settings) as transport:
            polls = [asyncio.create_task(transport.send(LOOK)) for _ in range(5)]
            await until(lambda: len(server.requests) == len(polls))
            for status in polls:
                status.cancel()
            await asyncio.gather(*polls, return_exceptions=True)

    run(main())


def test_another_kind_of_loop(serve: Any, certificates: Any) -> None:
    """Whose TLS connections take no weak reference."""
    uvloop = pytest.importorskip("uvloop")
    server = serve(keep_alive, tls=certificates.server)
    settings = settings_for(server, verify=certificates.ca_file)

    async def main() -> None:
        async with SharedTransport(settings) as transport:
            for request in (LOOK, Request("POST", "/start", "start", b"{}")):
                assert (await transport.send(request)).body == b"whole"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main(), 120))


def test_the_first_may_leave_before_the_second(serve: Any) -> None:
    server = serve(keep_alive)

    async def main() -> None:
        first, second = (SharedTransport(settings_for(server)) for _ in range(2))
        transport = await first.__aenter__()
        assert await second.__aenter__() is transport
        await first.__aexit__(None, None, None)
        assert (await transport.send(LOOK)).body == b"whole"
        await second.__aexit__(None, None, None)
        assert is_closed(transport)

    run(main())


def test_after_the_last_there_is_a_new_one(serve: Any) -> None:
    server = serve(keep_alive)

    async def main() -> None:
        async with SharedTransport(settings_for(server)) as first:
            await first.send(LOOK)
        async with SharedTransport(settings_for(server)) as second:
            assert second is not first
            await second.send(LOOK)

    run(main())
    assert server.connections == 2


@pytest.mark.parametrize(
    "changes", [{"api_key": "other"}, {"timeout": 5.0}, {"verify": False}], ids=str
)
def test_other_settings_have_their_own(serve: Any, changes: dict[str, Any]) -> None:
    server = serve(keep_alive)

    async def main() -> None:
        async with (
            SharedTransport(settings_for(server)) as first,
            SharedTransport(settings_for(server, **changes)) as second,
        ):
            assert first is not second
            await first.send(LOOK)
            await second.send(LOOK)

    run(main())
    assert server.connections == 2
    keys = [received.headers["x-api-key"] for received in server.requests]
    assert keys == [KEY, changes.get("api_key", KEY)]


def test_another_loop_has_its_own(serve: Any) -> None:
    server = serve(keep_alive)
    found = []

    async def inner() -> None:
        async with SharedTransport(settings_for(server)) as transport:
            found.append(transport)
            await transport.send(LOOK)

    async def main() -> None:
        async with SharedTransport(settings_for(server)) as transport:
            found.append(transport)
            await transport.send(LOOK)
            await asyncio.to_thread(asyncio.run, inner())
            assert not is_closed(transport)
            await transport.send(LOOK)

    run(main())
    assert found[0] is not found[1]
    assert server.connections == 2


async def many_looks(server: Any) -> None:
    async def poll() -> bytes:
        async with SharedTransport(settings_for(server)) as transport:
            return (await transport.send(LOOK)).body

    async with SharedTransport(settings_for(server)):
        assert await asyncio.gather(*(poll() for _ in range(150))) == [b"whole"] * 150


def test_many_at_once_share_few_connections(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "_PATIENCE", 60.0)  # however slow the machine is
    server = serve(keep_alive)
    run(many_looks(server))
    assert len(server.requests) == 150
    assert server.connections <= FEW


def test_slow_answers_get_more_connections_but_not_one_each(serve: Any) -> None:
    all_there = threading.Barrier(MOST + 1)
    under_way = threading.Semaphore(MOST)

    def handle(flow: Any) -> bool:
        assert under_way.acquire(blocking=False)
        if not may_go_on.is_set():
            all_there.wait(60)
            assert may_go_on.wait(60)
        under_way.release()
        return keep_alive(flow)

    may_go_on = threading.Event()
    server = serve(handle)

    async def main() -> None:
        polls = asyncio.create_task(many_looks(server))
        await asyncio.to_thread(all_there.wait, 60)  # as many as may be are under way
        await asyncio.sleep(3 * aio._PATIENCE)  # and no more come, however long they queue
        may_go_on.set()
        await polls

    run(main())
    assert len(server.requests) == 150
    assert server.connections <= MOST


def test_turns_stay_few_where_nobody_queues_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        few = ConcurrencyLimit(2, 10)
        under_way = most = 0

        async def turn() -> None:
            nonlocal under_way, most
            async with few:
                under_way += 1
                most = max(most, under_way)
                await asyncio.sleep(0)
                under_way -= 1

        # Time stands still in a round, after which the queue is empty, and passes between two;
        # for far longer than patience lasts.
        now = 0.0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
        for _ in range(30):
            await asyncio.gather(*(turn() for _ in range(5)))
            now += aio._PATIENCE / 3
        assert most == 2

    run(main())


@pytest.mark.parametrize("request_", [LOOK, Request("POST", "/x", "start", b"{}")], ids=str)
def test_cancellation_while_waiting_closes_the_connection(serve: Any, request_: Request) -> None:
    arrived, gone = threading.Event(), threading.Event()

    def handle(flow: Any) -> None:
        arrived.set()
        flow.hang()
        gone.set()

    server = serve(handle)
    kept: list[AsyncTransport] = []

    async def wait() -> None:
        async with SharedTransport(settings_for(server)) as transport:
            kept.append(transport)
            await transport.send(request_)

    async def main() -> None:
        task = asyncio.create_task(wait())
        assert await asyncio.to_thread(arrived.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert is_closed(kept[0])
        assert await asyncio.to_thread(gone.wait, 10)

    run(main())


def test_the_cancellation_of_one_does_not_touch_the_other(serve: Any) -> None:
    arrived = threading.Event()

    def handle(flow: Any) -> bool:
        if flow.number == 1:
            arrived.set()
            flow.hang()
            return False
        return keep_alive(flow)

    server = serve(handle)

    async def poll() -> bytes:
        async with SharedTransport(settings_for(server)) as transport:
            return (await transport.send(LOOK)).body

    async def main() -> None:
        first = asyncio.create_task(poll())
        assert await asyncio.to_thread(arrived.wait, 10)
        async with SharedTransport(settings_for(server)) as transport:
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert not is_closed(transport)
            assert (await transport.send(LOOK)).body == b"whole"

    run(main())


def test_an_error_inside_closes_too(serve: Any) -> None:
    server = serve(lambda flow: None)

    async def main() -> None:
        with pytest.raises(PromptLayerUnreachableError):
            async with SharedTransport(settings_for(server)) as transport:
                await transport.send(LOOK)
        assert is_closed(transport)

    run(main())


def test_settings_that_cannot_be_used_leave_nothing_behind(serve: Any) -> None:
    server = serve(keep_alive)

    async def main() -> None:
        for _ in range(2):
            with pytest.raises(PromptLayerConfigurationError):
                async with SharedTransport(settings_for(server, verify="/no/such/ca.pem")):
                    pass

    run(main())


def test_tls_connections_are_closed_with_the_pool(serve: Any, certificates: Any) -> None:
    server = serve(keep_alive, certificates.server)

    async def main() -> None:
        async with SharedTransport(settings_for(server, verify=certificates.ca_file)) as shared:
            await asyncio.gather(*(shared.send(LOOK) for _ in range(5)))

    run(main())


# Opening


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Have the reading of certificates take its time, and note the thread that it blocks."""
    noted: list[threading.Thread] = []

    def slowly(settings: Settings) -> ssl.SSLContext:
        noted.append(threading.current_thread())
        time.sleep(0.2)
        return ssl_context(settings)

    monkeypatch.setattr(aio, "ssl_context", slowly)
    return noted


def test_those_that_start_together_open_once_and_not_on_the_loop(
    serve: Any, openings: list[threading.Thread]
) -> None:
    server = serve(keep_alive)

    async def poll() -> AsyncTransport:
        async with SharedTransport(settings_for(server)) as transport:
            await transport.send(LOOK)
            return transport

    async def main() -> None:
        assert len(set(await asyncio.gather(*(poll() for _ in range(20))))) == 1

    run(main())
    assert len(openings) == 1
    assert openings[0] is not threading.current_thread()


@pytest.mark.parametrize("cancelled", [[0], [1], [0, 1], [0, 1, 2]], ids=str)
def test_whoever_is_cancelled_while_it_opens_the_others_have_it(
    serve: Any, openings: list[threading.Thread], cancelled: list[int]
) -> None:
    server = serve(keep_alive)

    async def poll() -> bytes:
        async with SharedTransport(settings_for(server)) as transport:
            return (await transport.send(LOOK)).body

    async def main() -> None:
        polls = [asyncio.create_task(poll()) for _ in range(3)]
        await until(lambda: bool(openings))
        for index in cancelled:
            polls[index].cancel()
        endings = await asyncio.gather(*polls, return_exceptions=True)
        for index, ending in enumerate(endings):
            if index in cancelled:
                assert isinstance(ending, asyncio.CancelledError)
            else:
                assert ending == b"whole"
        assert await poll() == b"whole"

    run(main())


# Turns


def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aio, "ConcurrencyLimit", lambda: ConcurrencyLimit(1, 1))


def test_to_queue_for_a_turn_is_no_outage(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one_at_a_time(monkeypatch)

    def slowly(flow: Any) -> bool:
        time.sleep(0.4)
        return keep_alive(flow)

    server = serve(slowly)

    async def main() -> None:
        async with SharedTransport(settings_for(server, timeout=3.0)) as transport:
            answers = await asyncio.gather(*(transport.send(LOOK) for _ in range(10)))
        assert [answer.body for answer in answers] == [b"whole"] * 10

    run(main())


def test_who_queues_at_a_deadline_waits_for_one_timeout_more(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody is answered, one after the other would wait for as long."""
    one_at_a_time(monkeypatch)
    server = serve(lambda flow: flow.hang())

    async def main() -> None:
        async with SharedTransport(settings_for(server, timeout=0.5)) as transport:
            errors = await asyncio.gather(
                *(transport.send(LOOK, wanted_for=0.0) for _ in range(20)), return_exceptions=True
            )
        assert {type(error) for error in errors} == {PromptLayerUnreachableError}
        assert all("within 0.5 s" in str(error) for error in errors)

    run(main())
    assert len(server.requests) <= 2  # the second gets the turn when the time is up


async def end_of_trigger(run_id: int) -> str:
    trigger = trigger_for(
        PromptLayerWorkflowTrigger,
        WorkflowRun(run_id),
        promptlayer_conn_id="deaf",
        deadline=time.time(),
    )
    return str((await first_event(trigger)).payload)


async def end_of_hook(run_id: int) -> str:
    with pytest.raises(PromptLayerWaitTimeoutError) as caught:
        await PromptLayerHook("deaf").await_for_workflow_results(run_id, timeout=0.001)
    return str(caught.value)


@pytest.mark.parametrize("end_of", [end_of_trigger, end_of_hook])
def test_waits_tell_the_queue_their_deadline(
    monkeypatch: pytest.MonkeyPatch, end_of: Callable[[int], Coroutine[Any, Any, str]]
) -> None:
    fields = {"conn_type": "promptlayer", "password": KEY}
    monkeypatch.setenv("AIRFLOW_CONN_DEAF", json.dumps(fields))
    told: list[float | None] = []

    async def send(_: Any, __: Any, *, wanted_for: float | None = None) -> Any:
        told.append(wanted_for)
        raise PromptLayerUnreachableError("Nothing was heard", arrived=True)

    monkeypatch.setattr(AsyncTransport, "send", send)

    async def main() -> None:
        assert "did not end within" in await end_of(1)

    run(main())
    assert told[-1] == 0.0  # the last poll is at the deadline


def test_first_come_first_served(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    one_at_a_time(monkeypatch)
    server = serve(keep_alive)
    paths = [f"/{number}" for number in range(30)]

    async def main() -> None:
        async with SharedTransport(settings_for(server)) as transport:
            await asyncio.gather(*(transport.send(Request("GET", path, "look")) for path in paths))

    run(main())
    assert [received.target for received in server.requests] == paths


def test_who_is_cancelled_in_the_queue_hands_its_turn_on(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_at_a_time(monkeypatch)
    arrived, go_on = threading.Event(), threading.Event()

    def handle(flow: Any) -> bool:
        arrived.set()
        assert go_on.wait(60)
        return keep_alive(flow)

    server = serve(handle)

    async def main() -> None:
        async with SharedTransport(settings_for(server)) as transport:
            polls = [asyncio.create_task(transport.send(LOOK)) for _ in range(5)]
            assert await asyncio.to_thread(arrived.wait, 10)
            for number in (0, 1, 3):  # one under way, two in the queue
                polls[number].cancel()
            go_on.set()
            endings = await asyncio.gather(*polls, return_exceptions=True)
        cancelled = [isinstance(ending, asyncio.CancelledError) for ending in endings]
        assert cancelled == [True, True, False, True, False]

    run(main())


# Endings in which nobody says goodbye


def tls_too(serve: Any, certificates: Any, handle: Callable[[Any], object]) -> list[Settings]:
    """Return the settings for two servers, without and with TLS."""
    server, tls_server = serve(handle), serve(handle, certificates.server)
    return [settings_for(server), settings_for(tls_server, verify=certificates.ca_file)]


def answer_twice(flow: Any) -> bool:
    if flow.number > 2:
        flow.hang()
        return False
    return keep_alive(flow)


@pytest.mark.parametrize("between", [True, False], ids=["between looks", "in a look"])
def test_a_loop_that_ends_with_waits_under_way(
    serve: Any, certificates: Any, between: bool, caplog: pytest.LogCaptureFixture
) -> None:
    looked: list[Settings] = []

    async def wait(settings: Settings) -> None:
        async with SharedTransport(settings) as transport:
            await transport.send(LOOK)
            looked.append(settings)
            await until(lambda: len(looked) == 4)  # the server answers each of them once
            while True:
                if between:
                    await asyncio.sleep(3600)
                await transport.send(LOOK)

    async def main() -> None:
        waits = [
            asyncio.create_task(wait(settings))
            for settings in tls_too(serve, certificates, answer_twice)
            for _ in range(2)
        ]
        await until(lambda: len(looked) == len(waits))

    run(main())
    assert caplog.records == []
