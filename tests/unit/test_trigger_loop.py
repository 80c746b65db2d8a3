# SPDX-License-Identifier: Apache-2.0
"""What waits do to the event loop that they share with all other triggers of a triggerer.

A trigger must not block. The calls that could are watched here: one that runs in the loop's thread
takes long by the loop's clock, and then asyncio names the slow callback. And a wait has the
connection read once, however often it polls.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from airflow.triggers.base import TriggerEvent
from support.modes import first_event
from support.waits import state_for, trigger_for

from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.hooks import sender as sender_module
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.hooks.sender import Sender
from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Workflow
from airflow_provider_promptlayer.transport import aio
from airflow_provider_promptlayer.transport.blocking import BlockingTransport
from airflow_provider_promptlayer.triggers.promptlayer import (
    PromptLayerWorkflowBatchTrigger,
    PromptLayerWorkflowTrigger,
)

try:
    TASK_RUNNER: Any = import_module("airflow.sdk.execution_time.task_runner")
except ImportError:  # Airflow 2: a trigger has the database at hand
    TASK_RUNNER = None

ENDED = [Node("Answer", "true", is_output_node=True)]
ENDLESS = [Node("Answer", duration=math.inf, is_output_node=True)]
LONG = [Node("Answer", "true", duration=0.5, is_output_node=True)]
WORKFLOWS = [Workflow("Ended", ENDED), Workflow("Long", LONG), Workflow("Endless", ENDLESS)]
CONNECTION = "promptlayer_of_the_supervisor"
NEW_KEY = "pl_the_key_after_this_one"

BLOCKED = 1000.0
"""Seconds that a blocking call takes by the clock of the loop."""

LIMIT = 100.0
"""Seconds that a callback may take: no machine takes a process off its CPU for so long."""


@pytest.fixture
def server() -> Iterator[LocalPromptLayer]:
    with LocalPromptLayer(WORKFLOWS, tls="trusted") as server:
        yield server


@dataclass
class Airflow:
    """What reads a connection: the supervisor of Airflow 3, the database of Airflow 2."""

    server: LocalPromptLayer
    lookups: int = 0
    on_the_loop: list[str] = field(default_factory=list)
    """The calls that blocked the thread of the event loop."""

    def send(self, message: Any) -> Any:
        """Answer as a supervisor, to a caller that blocks."""
        self.note_blocking(type(message).__name__)
        return self._answer(message)

    async def asend(self, message: Any) -> Any:
        """Answer as a supervisor, to a coroutine."""
        await asyncio.sleep(0)
        return self._answer(message)

    def get_connection(self, conn_id: str, *args: Any, **kwargs: Any) -> Any:
        """Answer as the database."""
        from airflow.models.connection import Connection

        self.note_blocking("get_connection")
        self.lookups += 1
        return Connection(conn_id=conn_id, **self._fields)

    def _answer(self, message: Any) -> Any:
        from airflow.sdk.execution_time.comms import ConnectionResult

        if type(message).__name__ != "GetConnection":
            return None  # the texts to be masked in logs
        self.lookups += 1
        return ConnectionResult(conn_id=message.conn_id, **self._fields)

    @property
    def _fields(self) -> dict[str, Any]:
        return {
            **dict.fromkeys(["login", "port", "schema"]),
            "conn_type": "promptlayer",
            "host": self.server.url,
            "password": self.server.api_key,
            "extra": f'{{"verify": "{self.server.ca_file}"}}',
        }

    def note_blocking(self, what: str) -> None:
        """Note a call if it runs in the thread of an event loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        self.on_the_loop.append(what)


@pytest.fixture
def airflow(server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch) -> Airflow:
    asked = Airflow(server)
    if TASK_RUNNER is not None:
        monkeypatch.setattr(TASK_RUNNER, "SUPERVISOR_COMMS", asked, raising=False)
    else:
        monkeypatch.setattr(
            "airflow.secrets.metastore.MetastoreBackend.get_connection",
            lambda self, *args, **kwargs: asked.get_connection(*args, **kwargs),
        )
    return asked


def trigger_of(run_id: int, **arguments: Any) -> Any:
    return trigger_for(
        PromptLayerWorkflowTrigger,
        WorkflowRun(run_id),
        **{"promptlayer_conn_id": CONNECTION, "poke_interval": 0.02, **arguments},
    )


def start(run_ids: Iterable[int], **arguments: Any) -> list[asyncio.Task[TriggerEvent]]:
    return [asyncio.create_task(first_event(trigger_of(run_id, **arguments))) for run_id in run_ids]


async def outcomes(waits: Iterable[asyncio.Task[TriggerEvent]]) -> set[str]:
    return {event.payload["outcome"] for event in await asyncio.gather(*waits)}


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# What another release has written


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"version": 2}, "has version 2"),
        ({"deadline": None}, "has no deadline"),
        ({"job": {"run": 1}}, "names no WorkflowRun"),
        ({"job_type": "Pipeline"}, "is about a Pipeline"),
    ],
    ids=["version", "field", "ids", "kind of job"],
)
def test_a_state_that_cannot_be_read_ends_its_own_wait_alone(
    change: dict[str, Any], says: str
) -> None:
    """Airflow's triggerer expects no error but a TypeError of a constructor: it fails that trigger.

    Any other error would end the triggerer, and again whenever it takes the wait up.
    """
    state = state_for(WorkflowRun(1)) | change
    with pytest.raises(TypeError, match=says):
        PromptLayerWorkflowTrigger(state=state)


# Its triggerer is handed no workloads. The TypeError, on which this rests, is tested above.
@pytest.mark.skipif(TASK_RUNNER is None, reason="Airflow 2 makes triggers from its database")
@pytest.mark.parametrize("state", [{"version": 2}, None])
def test_the_triggerer_goes_on_where_a_state_cannot_be_read(state: Any) -> None:
    from airflow.jobs.triggerer_job_runner import TriggerRunner
    from airflow.models.trigger import Trigger

    workloads: Any = import_module("airflow.executors.workloads")

    async def main() -> None:
        runner = TriggerRunner()
        path = f"{PromptLayerWorkflowBatchTrigger.__module__}.PromptLayerWorkflowBatchTrigger"
        kwargs = Trigger.encrypt_kwargs({"state": state})
        workload = workloads.RunTrigger(id=1, classpath=path, encrypted_kwargs=kwargs)
        runner.to_create.append(workload)
        await runner.create_triggers()  # raises nothing, so the triggerer's loop goes on
        await asyncio.gather(*(entry["task"] for entry in runner.triggers.values()))

    asyncio.run(main())


# Look-ups


def test_look_ups_of_a_wait(airflow: Airflow, server: LocalPromptLayer) -> None:
    """One when it begins, and one more when the key was refused."""
    run_ids = [server.start_execution("Endless") for _ in range(3)]

    async def main() -> None:
        def polls(more: int) -> Callable[[], bool]:
            count = server.count("GET") + more
            return lambda: server.count("GET") >= count

        waits = start(run_ids)
        await asyncio.to_thread(server.wait_for, polls(60), 30)
        assert airflow.lookups == len(run_ids)
        await cancel(*waits[1:])
        server.rotate_key(NEW_KEY)
        await asyncio.to_thread(server.wait_for, polls(20), 30)
        await cancel(waits[0])

    asyncio.run(main())
    assert airflow.lookups == len(run_ids) + 1
    assert airflow.on_the_loop == []


def test_each_of_several_coroutines_takes_a_changed_key(
    airflow: Airflow, server: LocalPromptLayer
) -> None:
    """The polls of a batch share a hook, and the first to be refused reads the new key."""
    run_ids = [server.start_execution("Endless") for _ in range(10)]

    async def main() -> None:
        hook = PromptLayerHook()
        async with hook.sender() as send:
            await send(WorkflowRun(run_ids[0]).status_call())
            server.rotate_key(NEW_KEY)
            polls = [hook.acall(WorkflowRun(run_id).status_call()) for run_id in run_ids]
            assert not any(status.is_complete for status in await asyncio.gather(*polls))

    asyncio.run(main())


def test_a_connection_that_cannot_be_read_for_a_moment_ends_no_wait(
    airflow: Airflow, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow's API server may answer with any error while it is away."""
    module = import_module("airflow.providers.common.compat.connection")
    read, troubles = module.get_async_connection, [PermissionError("no"), RuntimeError("no")]

    async def read_later(*args: Any) -> Any:
        if troubles:
            raise troubles.pop()
        return await read(*args)

    monkeypatch.setattr(module, "get_async_connection", read_later)
    event = asyncio.run(first_event(trigger_of(server.start_execution("Ended"))))
    assert (event.payload["outcome"], troubles) == ("ended", [])


# Blocking


@pytest.fixture
def everything_is_watched(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    """Note each call that could block the loop, if it runs in the loop's thread."""

    def watch(owner: Any, name: str, unless: Callable[..., bool] = lambda *_, **__: False) -> None:
        function = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            if not unless(*args, **kwargs):
                airflow.note_blocking(name)
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, watched)

    monkeypatch.setattr(sender_module, "_aio", None)  # as in a process that has just started
    watch(sender_module, "import_module")
    watch(aio, "ssl_context")
    watch(aio, "proxy_for")
    watch(BlockingTransport, "send")
    watch(socket, "getaddrinfo", unless_numeric)
    watch(time, "sleep")


def unless_numeric(*args: Any, **kwargs: Any) -> bool:
    return bool(kwargs.get("flags", 0) & socket.AI_NUMERICHOST)


def slow_callbacks(
    main: Coroutine[Any, Any, None], airflow: Airflow, caplog: pytest.LogCaptureFixture
) -> list[str]:
    """Run a coroutine in asyncio's debug mode; return its warnings of slow callbacks."""

    async def timed() -> None:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = LIMIT
        real = loop.time
        # For as long as there is this loop.
        loop.time = lambda: real() + BLOCKED * len(airflow.on_the_loop)  # type: ignore[method-assign]
        await main

    with caplog.at_level(logging.WARNING, logger="asyncio"):
        asyncio.run(timed(), debug=True)
    said = [record.getMessage() for record in caplog.records if record.name == "asyncio"]
    assert all(" took " in message for message in said), said
    return said


async def some_waits(server: LocalPromptLayer) -> None:
    run_ids = [server.start_execution(name) for name in ("Ended", "Long") for _ in range(5)]
    assert await outcomes(start(run_ids)) == {"ended"}


@pytest.mark.usefixtures("everything_is_watched")
def test_nothing_blocks_the_loop(
    server: LocalPromptLayer, airflow: Airflow, caplog: pytest.LogCaptureFixture
) -> None:
    assert slow_callbacks(some_waits(server), airflow, caplog) == []
    assert airflow.on_the_loop == []


def look_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def aget_settings(self: PromptLayerHook) -> Any:
        return self.settings

    monkeypatch.setattr(PromptLayerHook, "aget_settings", aget_settings)


def open_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def to_thread(function: Any, *args: Any) -> Any:
        return function(*args)

    monkeypatch.setattr(asyncio, "to_thread", to_thread)


def ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def send(self: Sender, call: Any) -> Any:
        return self.hook.call(call)

    monkeypatch.setattr(Sender, "__call__", send)


def sleep_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - the mistake that is meant

    monkeypatch.setattr(asyncio, "sleep", sleep)


@pytest.mark.usefixtures("everything_is_watched")
@pytest.mark.parametrize(
    ("mistake", "found"),
    [
        (look_up_at_once, {"GetConnection", "get_connection"}),
        (open_at_once, {"import_module", "ssl_context", "proxy_for"}),
        (ask_at_once, {"send"}),
        (sleep_at_once, {"sleep"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_blocks_would_be_found(
    mistake: Callable[[pytest.MonkeyPatch], None],
    found: set[str],
    server: LocalPromptLayer,
    airflow: Airflow,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run_id = server.start_execution("Ended")
    mistake(monkeypatch)

    async def main() -> None:
        await first_event(trigger_of(run_id))

    assert slow_callbacks(main(), airflow, caplog) != []
    assert set(airflow.on_the_loop) & found


# What is left


async def many_waits(server: LocalPromptLayer) -> None:
    """Have waits end in every way, at once; leaves the loop with none."""
    ending = start(server.start_execution("Ended") for _ in range(60))
    erring = start(range(900_000_000, 900_000_040))
    await cancel(*start(range(1, 61)))  # before they begin
    polling = start((server.start_execution("Endless") for _ in range(40)), poke_interval=0.2)
    asleep = start(range(1, 201), next_poll_at=time.time() + 3600)
    assert await outcomes(ending) == {"ended"}
    assert await outcomes(erring) == {"refused"}
    await cancel(*polling, *asleep)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert not any(aio._shared.values())


def test_waits_share_a_logger() -> None:
    assert trigger_of(1).log is trigger_of(2).log


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as many as there are, without a Path


# CI runs on Linux; macOS has no such folder to count them in.
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files as Linux does")
def test_hundreds_of_triggers_leave_nothing(
    airflow: Airflow, server: LocalPromptLayer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    # What stays for the whole process is imported and opened.
    asyncio.run(first_event(trigger_of(server.start_execution("Ended"))))
    files, threads = open_files(), threading.active_count()

    async def main() -> None:
        for _ in range(2):
            await many_waits(server)

    asyncio.run(main())
    gc.collect()  # what is unclosed warns here, and a warning is an error
    deadline = time.monotonic() + 60
    while open_files() > files and time.monotonic() < deadline:
        time.sleep(0.02)  # the server closes its ends
    assert open_files() <= files
    assert threading.active_count() <= threads
    assert [record.getMessage() for record in caplog.records] == []
