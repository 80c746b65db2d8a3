# SPDX-License-Identifier: Apache-2.0
"""The hook: its connection, the Test button, and single requests."""

from __future__ import annotations

import asyncio
import gc
import json
import math
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any
from unittest.mock import Mock

import pytest

from airflow_provider_promptlayer.api.http import LARGE, Call, Request, Response
from airflow_provider_promptlayer.api.workflows import workflow_count
from airflow_provider_promptlayer.exceptions import (
    PromptLayerConfigurationError,
    PromptLayerError,
    PromptLayerNotFoundError,
    PromptLayerRunFailedError,
    PromptLayerUnreachableError,
)
from airflow_provider_promptlayer.hooks import connection
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.poller import Poller
from airflow_provider_promptlayer.polling.schedule import Throttle
from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Reply, Workflow
from airflow_provider_promptlayer.transport.settings import Settings


def connect(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> PromptLayerHook:
    """Return a hook for a connection of these fields."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_PROMPTLAYER_DEFAULT", json.dumps({"conn_type": "promptlayer", **fields})
    )
    return PromptLayerHook()


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that refuses connections, and that no other process is given meanwhile."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        yield deaf.getsockname()[1]


def what_is_wrong(hook: PromptLayerHook) -> str:
    works, said = hook.test_connection()
    assert not works
    return said


class TestTestButton:
    """The Test button says what is wrong."""

    def test_works(self, promptlayer_connection: str, promptlayer_server: LocalPromptLayer) -> None:
        works, says = PromptLayerHook().test_connection()
        assert works
        assert f"answers at {promptlayer_server.url}" in says
        assert "3 workflows" in says
        assert promptlayer_server.count("GET", "/workflows") == promptlayer_server.count() == 1

    def test_bad_key(
        self, promptlayer_server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = what_is_wrong(connect(monkeypatch, host=promptlayer_server.url, password="pl_wrong"))
        assert "PromptLayer refused the API key" in said
        assert "the password of Airflow connection 'promptlayer_default'" in said
        assert "pl_wrong" not in said

    @pytest.mark.parametrize("status", [200, 401, 403, 404, 502])
    def test_another_web_server(
        self, status: int, promptlayer_server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        promptlayer_server.script(Reply(status, "<html>Intranet"))
        url = promptlayer_server.url
        said = what_is_wrong(connect(monkeypatch, host=url, password="pl_key"))
        assert f"{url} (Airflow connection 'promptlayer_default') is not PromptLayer's" in said
        assert "Intranet" not in said

    @pytest.mark.parametrize("path", ["/somewhere", "/workflows/Article%20pipeline"])
    def test_another_path(
        self, path: str, promptlayer_server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        host, key = promptlayer_server.url + path, promptlayer_server.api_key
        said = what_is_wrong(connect(monkeypatch, host=host, password=key))
        assert "not PromptLayer" in said

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"host": "http://127.0.0.1"}, "no API key"),
            ({"host": "ftp://x", "password": "k"}, "host name or an http(s) URL"),
            ({"host": "x", "password": "k", "extra": {"timeout": "soon"}}, "'timeout'"),
            ({"host": "x", "password": "k", "extra": {"verify": "/no/such/ca.pem"}}, "no CA file"),
            ({"host": "http://127.0.0.1:{deaf}", "password": "k"}, ":{deaf} is not reachable"),
        ],
    )
    def test_unusable_connection(
        self, fields: dict[str, Any], says: str, deaf_port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fields = {**fields, "host": fields["host"].replace("{deaf}", str(deaf_port))}
        said = what_is_wrong(connect(monkeypatch, **fields))
        assert says.replace("{deaf}", str(deaf_port)) in said
        assert "\n" not in said


class TestResults:
    """A run polled once, by both twins."""

    @pytest.fixture
    def promptlayer_workflows(self) -> list[Workflow]:
        return [
            Workflow(
                "W",
                [
                    Node("First", status="FAILED", error_message="e", raw_error_message="raw"),
                    Node("Second", {"x": [1]}, is_output_node=True),
                    Node("Third", "no", is_output_node=True),
                    Node("Fourth", status="SKIPPED", is_output_node=None),
                ],
            ),
            Workflow("Endless", [Node("Only", duration=math.inf, is_output_node=True)]),
        ]

    @pytest.fixture(params=["blocking", "async"])
    def poll(self, request: pytest.FixtureRequest, promptlayer_connection: str) -> Any:
        def poll(run_id: int, **arguments: Any) -> Any:
            hook = PromptLayerHook()
            if request.param == "async":
                return asyncio.run(hook.aget_workflow_results(run_id, **arguments))
            try:
                return hook.get_workflow_results(run_id, **arguments)
            finally:
                hook.close()

        return poll

    def test_of_a_running_run(self, poll: Any, promptlayer_server: LocalPromptLayer) -> None:
        results = poll(promptlayer_server.start_execution("Endless"))
        assert not results.is_complete
        assert results.outputs == {}
        assert results.nodes["Only"].status == "RUNNING"
        assert promptlayer_server.count() == 1

    def test_all_outputs(self, poll: Any, promptlayer_server: LocalPromptLayer) -> None:
        results = poll(promptlayer_server.start_execution("W"))
        assert results.is_complete
        assert results.outputs == {"Second": {"x": [1]}, "Third": "no"}
        assert results.final_output == {"x": [1]}
        first = results.nodes["First"]
        said = (first.status, first.error_message, first.raw_error_message)
        assert said == ("FAILED", "e", "raw")
        are_output = [node.is_output_node for node in results.nodes.values()]
        assert are_output == [False, True, True, None]

    def test_main_output_alone(self, poll: Any, promptlayer_server: LocalPromptLayer) -> None:
        results = poll(promptlayer_server.start_execution("W"), return_all_outputs=False)
        assert (results.is_complete, results.final_output, results.nodes) == (True, {"x": [1]}, {})

    def test_a_wait_raises_with_the_results(
        self, promptlayer_connection: str, promptlayer_server: LocalPromptLayer
    ) -> None:
        hook, run_id = PromptLayerHook(), promptlayer_server.start_execution("W")
        with pytest.raises(PromptLayerRunFailedError) as raised:
            hook.wait_for_workflow_results(run_id, timeout=60, fail_on="any_node")
        hook.close()
        assert raised.value.results.outputs == {"Second": {"x": [1]}, "Third": "no"}


def test_both_twins_start_runs(
    promptlayer_connection: str, promptlayer_server: LocalPromptLayer
) -> None:
    hook = PromptLayerHook()
    assert hook.run_workflow("Triage ticket", input_variables={"ticket": "x"}) == 1
    assert asyncio.run(hook.arun_workflow("Triage ticket", input_variables={"ticket": "x"})) == 2
    hook.close()
    first, second = promptlayer_server.executions.values()
    assert first.input_variables == second.input_variables == {"ticket": "x"}


@pytest.mark.parametrize("is_async", [False, True])
def test_a_start_is_retried_while_airflow_cannot_read_the_connection(
    is_async: bool, promptlayer_connection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook, failures = PromptLayerHook(), [RuntimeError("away"), RuntimeError("away")]
    module = import_module("airflow.providers.common.compat.connection")
    read, aread = PromptLayerHook.get_connection, module.get_async_connection

    def read_later(conn_id: str) -> Any:
        if failures:
            raise failures.pop()
        return read(conn_id)

    async def aread_later(*args: Any) -> Any:
        if failures:
            raise failures.pop()
        return await aread(*args)

    monkeypatch.setattr(PromptLayerHook, "get_connection", staticmethod(read_later))
    monkeypatch.setattr(module, "get_async_connection", aread_later)
    how: dict[str, Any] = {"input_variables": {"ticket": "x"}}
    if is_async:
        assert asyncio.run(hook.arun_workflow("Triage ticket", **how)) == 1
    else:
        assert hook.run_workflow("Triage ticket", **how) == 1
        hook.close()
    assert failures == []


def test_unknown_workflow(promptlayer_connection: str) -> None:
    hook = PromptLayerHook()
    with pytest.raises(PromptLayerNotFoundError, match="start workflow 'nope'"):
        hook.run_workflow("nope")


def test_session_sends_the_key_to_promptlayer_alone(
    promptlayer_connection: str, promptlayer_server: LocalPromptLayer
) -> None:
    with PromptLayerHook().get_conn() as session, LocalPromptLayer() as stranger:
        url = f"{promptlayer_server.url}/workflows"
        assert session.get(url, timeout=60).status_code == 200
        assert session.get(f"{stranger.url}/workflows", timeout=60).status_code == 401
    assert [seen.key_was_right for seen in promptlayer_server.requests] == [True]


def test_a_warning_of_an_unencrypted_key(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def warned(host: str) -> bool:
        caplog.clear()
        _ = connect(monkeypatch, host=host, password="pl_key").settings
        return "unencrypted" in capsys.readouterr().out + caplog.text

    assert warned("http://promptlayer.example.com")
    assert not warned("promptlayer.example.com")
    assert not warned("http://localhost:8080")


def test_threads_share_a_hook(
    promptlayer_connection: str,
    promptlayer_server: LocalPromptLayer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each gets the run that it has started, also while the key changes.

    One of them alone asks Airflow for the connection, as 3.0 and 3.1 mix up two questions.
    """
    hook = PromptLayerHook()
    together = threading.Barrier(8)
    reads: list[str] = []
    read = PromptLayerHook.get_connection

    def get_connection(conn_id: str) -> Any:
        reads.append(conn_id)
        time.sleep(0.05)  # long enough for the other threads to ask as well
        return read(conn_id)

    monkeypatch.setattr(PromptLayerHook, "get_connection", staticmethod(get_connection))

    def start(_: int) -> int:
        together.wait(20)
        return hook.run_workflow("Triage ticket", input_variables={"ticket": "x"})

    with ThreadPoolExecutor(8) as pool:
        run_ids = list(pool.map(start, range(8)))
        promptlayer_server.rotate_key("pl_new_key")
        connect(monkeypatch, host=promptlayer_server.url, password="pl_new_key")
        run_ids += pool.map(start, range(8))
    hook.close()
    assert sorted(run_ids) == list(range(1, 17))
    assert len(promptlayer_server.executions) == 16
    assert len(reads) == 2


def test_another_key_brings_its_throttle_along(
    monkeypatch: pytest.MonkeyPatch, promptlayer_server: LocalPromptLayer
) -> None:
    old = connect(monkeypatch, host=promptlayer_server.url, password=promptlayer_server.api_key)
    assert old.settings.api_key == promptlayer_server.api_key
    throttle = old.throttle
    promptlayer_server.rotate_key("pl_new_key")
    new = connect(monkeypatch, host=promptlayer_server.url, password="pl_new_key")
    new.throttle.hold_for(60, now=1000.0)
    assert throttle.delay(now=1000.0) == 0
    old.call(workflow_count())  # reads the key again
    assert throttle.delay(now=1000.0) >= 60
    old.close()


def test_threads_may_read_the_connection_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = connect(monkeypatch, password="pl_key")
    throttle = hook.throttle
    delays: list[float] = []
    other = threading.Thread(target=lambda: delays.append(throttle.delay(now=1000.0)))

    class ReadByAnotherThread(Throttle):
        def __init__(self) -> None:
            super().__init__()
            if other.ident is None:
                other.start()
                other.join(0.2)  # it ends, or waits until this thread has read the connection

    monkeypatch.setattr(connection, "Throttle", ReadByAnotherThread)
    assert hook.settings.base_url
    other.join()
    assert delays == [0.0]


def test_a_wait_gets_the_throttle_of_another_key(
    monkeypatch: pytest.MonkeyPatch, promptlayer_server: LocalPromptLayer
) -> None:
    old = connect(monkeypatch, host=promptlayer_server.url, password=promptlayer_server.api_key)
    poller = Poller.of_call("a run", retries.POLLING)

    async def main() -> None:
        async with old.sender(poller) as send:
            promptlayer_server.rotate_key("pl_new_key")
            new = connect(monkeypatch, host=promptlayer_server.url, password="pl_new_key")
            new.throttle.hold_for(60, now=1000.0)
            assert poller.throttle.delay(now=1000.0) == 0
            await send(workflow_count())  # reads the key again
            assert poller.throttle.delay(now=1000.0) >= 60

    asyncio.run(main())


@pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "async"])
def test_an_outage_reads_the_connection_again_but_not_at_each_poll(
    is_async: bool, deaf_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = "airflow_provider_promptlayer.hooks.connection"
    read = Mock(wraps=import_module(connection).read_connection)
    monkeypatch.setattr(f"{connection}.read_connection", read)
    hook = connect(monkeypatch, host=f"http://127.0.0.1:{deaf_port}", password="x")

    def poll() -> None:
        for _ in range(3):
            with pytest.raises(PromptLayerUnreachableError):
                asyncio.run(hook.acall(workflow_count())) if is_async else hook.call(
                    workflow_count()
                )

    poll()
    assert read.call_count == 1
    monkeypatch.setattr(f"{connection}._READ_AGAIN_SECONDS", 0.0)
    poll()
    assert read.call_count == 4


def test_no_key_outlives_its_last_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_kept() -> bool:
        gc.collect()
        # Not isinstance(), for which Airflow's lazy proxies import modules that do not exist.
        return any(
            type(each) is Settings and each.api_key == "pl_forgotten" for each in gc.get_objects()
        )

    hook: Any = connect(monkeypatch, password="pl_forgotten")
    assert hook.throttle.delay(now=0.0) == 0
    assert hook.settings is connect(monkeypatch, password="pl_forgotten").settings
    assert is_kept()
    hook = None
    assert not is_kept()


def test_missing_connection() -> None:
    with pytest.raises(PromptLayerConfigurationError, match="no Airflow connection 'nowhere'"):
        _ = PromptLayerHook("nowhere").settings


class TestLargeAnswers:
    """An event loop goes on while a large answer is read."""

    @pytest.mark.parametrize("status", [200, 400, 503])
    @pytest.mark.parametrize(("size", "on_the_loop"), [(LARGE, True), (LARGE + 1, False)])
    def test_are_read_off_the_loop(
        self,
        promptlayer_connection: str,
        promptlayer_server: LocalPromptLayer,
        size: int,
        on_the_loop: bool,
        status: int,
    ) -> None:
        promptlayer_server.script(Reply(status, b" " * size))

        def read(response: Response, _now: float) -> tuple[int, bool]:
            return len(response.body), threading.current_thread() is threading.main_thread()

        poll = Call(Request("GET", "/x", "poll"), read)
        assert asyncio.run(PromptLayerHook().acall(poll)) == (size, on_the_loop)

    @pytest.mark.parametrize("reply", [Reply(400, b"x" * 2_000_000), Reply(200, b"x" * 2_000_000)])
    def test_mean_the_same_in_both_modes(
        self, promptlayer_connection: str, promptlayer_server: LocalPromptLayer, reply: Reply
    ) -> None:
        promptlayer_server.script(reply, times=None)
        hook = PromptLayerHook()
        with pytest.raises(PromptLayerError) as blocking:
            hook.get_workflow_results(1)
        hook.close()
        with pytest.raises(PromptLayerError) as coroutine:
            asyncio.run(hook.aget_workflow_results(1))
        assert repr(blocking.value) == repr(coroutine.value)
        assert len(str(blocking.value)) < 1_000
