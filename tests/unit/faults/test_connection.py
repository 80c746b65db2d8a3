# SPDX-License-Identifier: Apache-2.0
"""A connection that changes or cannot be read while a run is waited for, in every mode."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowNotFoundException
from support.connections import connect
from support.modes import first_event, run_task
from unit.faults.conftest import (
    PATIENCE,
    POKE_INTERVAL,
    WORKFLOWS,
    assert_succeeds,
    trigger_of,
    wait,
)

from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerRunWorkflowBatchOperator,
    PromptLayerRunWorkflowOperator,
)
from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerWorkflowSensor
from airflow_provider_promptlayer.testing import Close, LocalPromptLayer, Reply
from airflow_provider_promptlayer.testing.faults.model import Fault

FOR_EVER = 10**6


def test_a_corrected_host_is_noticed(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_promptlayer.hooks.connection._READ_AGAIN_SECONDS", 0.0)
    with LocalPromptLayer(WORKFLOWS) as wrong, LocalPromptLayer(WORKFLOWS) as right:
        connect(wrong, monkeypatch)

        def correct(_: Any) -> Fault:
            connect(right, monkeypatch)
            return Close()

        wrong.script(correct, times=None)
        assert_succeeds(mode, right.start_execution("Done"))
        assert wrong.count("GET") <= 2  # aiohttp asks twice over a connection that was closed


class TestRotatedKey:
    """The key is changed in the connection while a run is waited for."""

    @pytest.mark.parametrize("status", [401, 403])
    def test_the_connection_is_read_again(
        self,
        mode: str,
        status: int,
        server: LocalPromptLayer,
        run_id: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        old = server.api_key

        def rotate(request: Any) -> Fault | None:
            # Two polls go well; then the key is changed, here and at PromptLayer.
            if len(server.requests) < 2:
                return Reply(204)
            if server.api_key == old:
                server.rotate_key("pl_new_key")
                connect(server, monkeypatch)
            return Reply(status) if request.headers["x-api-key"] == old else None

        server.script(rotate, times=None)
        assert_succeeds(mode, run_id)
        assert [record.status for record in server.requests].count(status) <= 1

    def test_fails_if_the_new_one_is_refused_too(
        self, mode: str, server: LocalPromptLayer, run_id: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def rotate(_: Any) -> Fault | None:
            if len(server.requests) == 2:
                connect(server, monkeypatch, password="pl_mistyped")
                server.rotate_key("pl_new_key")
            return Reply(204) if len(server.requests) < 2 else None

        server.script(rotate, times=None)
        ending = wait(mode, run_id)
        assert ending.kind in ("failed", "failed for good"), ending
        assert "API key" in ending.message
        assert "pl_" not in ending.message
        assert [record.status for record in server.requests].count(401) <= 2


class TestUnusableConnection:
    """The connection has no key for a while, in the middle of a wait in the triggerer."""

    TRIES = 5

    @pytest.fixture
    def event(
        self, server: LocalPromptLayer, run_id: int, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., dict[str, Any]]:
        def event(*, failing_polls: int, times: int = 1) -> dict[str, Any]:
            """Return what the trigger fires where the connection has no key for so many polls.

            :param times: how often that happens; in between, a poll goes well.
            """
            left = 0
            steps = iter(["goes well", "is refused"] * times)

            def play(request: Any) -> Fault | None:
                nonlocal left
                if request.headers["x-api-key"] != server.api_key:
                    left -= 1
                    if left == 0:
                        connect(server, monkeypatch)
                    return None
                step = next(steps, None)
                if step == "is refused":
                    left = failing_polls
                    server.rotate_key(f"{server.api_key}_new")
                    connect(server, monkeypatch, password="")
                return Reply(204) if step == "goes well" else None

            server.script(play, times=None)
            payload: dict[str, Any] = asyncio.run(first_event(trigger_of(run_id))).payload
            return payload

        return event

    @pytest.mark.parametrize("times", [1, 2], ids=["once", "counts anew after a good poll"])
    def test_is_ridden_out(self, event: Callable[..., dict[str, Any]], times: int) -> None:
        assert event(failing_polls=self.TRIES - 1, times=times)["outcome"] == "ended"

    def test_has_an_end(
        self, event: Callable[..., dict[str, Any]], server: LocalPromptLayer
    ) -> None:
        assert "has no API key" in event(failing_polls=100)["message"]
        assert [record.status for record in server.requests].count(401) == self.TRIES


class TestUnreadableConnection:
    """Airflow cannot read, for a while, a connection that was there before."""

    @pytest.fixture(
        params=[
            AirflowNotFoundException("The conn_id `promptlayer_default` isn't defined"),
            RuntimeError("API_SERVER_ERROR"),
        ],
        ids=["as of 3.1", "as of 3.0"],
    )
    def fail_to_read(
        self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
    ) -> Callable[..., None]:
        def fail_to_read(times: int, *, from_read: int = 1, in_worker: bool = False) -> None:
            """Make so many reads of a connection fail, from the given one on."""
            reads = 0

            def check() -> None:
                nonlocal reads
                if in_worker and threading.current_thread() is not threading.main_thread():
                    return  # where Airflow has no coroutine, a trigger reads in another thread
                reads += 1
                if from_read <= reads < from_read + times:
                    raise request.param

            read = PromptLayerHook.get_connection

            def get_connection(conn_id: str) -> Any:
                check()
                return read(conn_id)

            async def aget_connection(conn_id: str) -> Any:
                if not in_worker:
                    check()
                return read(conn_id)

            for function in (get_connection, aget_connection):
                monkeypatch.setattr(
                    PromptLayerHook, function.__name__, staticmethod(function), raising=False
                )

        return fail_to_read

    @pytest.mark.parametrize("times", [6, FOR_EVER])
    def test_after_the_key_was_changed(
        self,
        mode: str,
        times: int,
        server: LocalPromptLayer,
        run_id: int,
        fail_to_read: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def rotate(_: Any) -> Fault | None:
            if len(server.requests) == 1:
                server.rotate_key("pl_new_key")
                connect(server, monkeypatch)
                fail_to_read(times)
            return Reply(204) if not server.requests else None

        server.script(rotate, times=None)
        if times < FOR_EVER:
            assert_succeeds(mode, run_id, max_outage=PATIENCE)
        else:
            ending = wait(mode, run_id, max_outage=0.1)
            assert ending.kind.startswith("failed"), ending
            assert "longer than max_outage" in ending.message

    @pytest.mark.parametrize(
        ("operator", "arguments"),
        [
            (PromptLayerRunWorkflowOperator, {"workflow_id_or_name": "Done"}),
            (
                PromptLayerRunWorkflowBatchOperator,
                {"workflow_id_or_name": "Done", "inputs": [{}, {}]},
            ),
            (PromptLayerWorkflowSensor, {"workflow_version_execution_id": 1}),
        ],
        ids=["run", "batch", "sensor"],
    )
    @pytest.mark.parametrize("in_worker", [True, False], ids=["worker", "triggerer"])
    def test_when_another_process_goes_on(
        self,
        operator: Any,
        arguments: dict[str, Any],
        in_worker: bool,
        server: LocalPromptLayer,
        run_id: int,
        fail_to_read: Callable[..., None],
    ) -> None:
        server.script(Reply(204), method="GET", times=1)  # so that the first worker defers
        assert run_id == 1
        fail_to_read(6, from_read=2, in_worker=in_worker)
        ending = run_task(
            lambda: operator(task_id="task", poke_interval=POKE_INTERVAL, **arguments)
        )
        assert ending.kind == "success", ending
        assert ending.worker_visits > 1
