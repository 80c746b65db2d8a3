# SPDX-License-Identifier: Apache-2.0
"""The hook: connection, Test button, one look."""

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
from typing import Any

import pytest

from airflow_provider_promptlayer.api.http import Call, Request, Response
from airflow_provider_promptlayer.api.json_body import LARGE
from airflow_provider_promptlayer.api.settings import Settings
from airflow_provider_promptlayer.api.workflows import workflow_count
from airflow_provider_promptlayer.exceptions import (
    PromptLayerConfigurationError,
    PromptLayerError,
    PromptLayerNotFoundError,
    PromptLayerRunFailedError,
    PromptLayerStartUncertainError,
    PromptLayerUnreachableError,
)
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.testing import LocalPromptLayer, Node, Reply, Workflow


def connect(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> PromptLayerHook:
    """Return a hook for a connection of these fields."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_PROMPTLAYER_DEFAULT", json.dumps({"conn_type": "promptlayer", **fields})
    )
    return PromptLayerHook()


@pytest.fixture
def deaf_port() -> Iterator[int]:
    """A port that refuses connections, and that nobody else is given meanwhile."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        yield deaf.getsockname()[1]


class TestTestButton:
    """The Test button says who is wrong."""

    def test_works(self, promptlayer_connection: str, promptlayer_server: LocalPromptLayer) -> None:
        works, says = PromptLayerHook().test_connection()
        assert works
        assert f"answers at {promptlayer_server.url}" in says
        assert "3 workflows" in says
        assert promptlayer_server.count("GET", "/workflows") == promptlayer_server.count() == 1

    def test_bad_key(
        self, promptlayer_server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hook = connect(monkeypatch, host=promptlayer_server.url, password="pl_wrong")
        works, says = hook.test_connection()
        assert not works
        assert "PromptLayer refused the API key" in says
        assert "the password of Airflow connection 'promptlayer_default'" in says
        assert "pl_wrong" not in says

    def test_unreachable_host(self, deaf_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        hook = connect(monkeypatch, host=f"http://127.0.0.1:{deaf_port}", password="pl_key")
        works, says = hook.test_connection()
        assert not works
        assert f"127.0.0.1:{deaf_port} is not reachable" in says

    @pytest.mark.parametrize("status", [200, 401, 403, 404, 502])
    def test_another_web_server(
        self, status: int, promptlayer_server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        promptlayer_server.script(Reply(status, "<html>Intranet"))
        hook = connect(monkeypatch, host=promptlayer_server.url, password="pl_key")
        works, says = hook.test_connection()
        assert not works
        named = f"{promptlayer_server.url} (Airflow connection 'promptlayer_default')"
        assert f"{named} is not PromptLayer's" in says
        assert "Intranet" not in says

    @pytest.mark.parametrize("path", ["/somewhere", "/workflows/Article%20pipeline"])
    def test_not_promptlayer(
        self, path: str, promptlayer_server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hook = connect(
            monkeypatch, host=promptlayer_server.url + path, password=promptlayer_server.api_key
        )
        works, says = hook.test_connection()
        assert not works
        assert "not PromptLayer" in says

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"host": "http://127.0.0.1"}, "no API key"),
            ({"host": "ftp://x", "password": "k"}, "host name or an http(s) URL"),
            ({"host": "x", "password": "k", "extra": {"timeout": "soon"}}, "'timeout'"),
            ({"host": "x", "password": "k", "extra": {"verify": "/no/such/ca.pem"}}, "no CA file"),
        ],
    )
    def test_unusable_connection(
        self, fields: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        works, said = connect(monkeypatch, **fields).test_connection()
        assert not works
        assert says in said
        assert "\n" not in said


class TestResults:
    """What a look returns, from both twins."""

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

    def test_looks_once_and_never_waits(
        self, promptlayer_connection: str, promptlayer_server: LocalPromptLayer
    ) -> None:
        run_id = promptlayer_server.start_execution("Endless")
        hook = PromptLayerHook()
        results = hook.get_workflow_results(run_id)
        hook.close()
        assert not results.is_complete
        assert results.outputs == {}
        assert results.nodes["Only"].status == "RUNNING"
        assert results == asyncio.run(PromptLayerHook().aget_workflow_results(run_id))
        assert promptlayer_server.count() == 2

    @pytest.fixture(params=["blocking", "async"])
    def look(
        self,
        request: pytest.FixtureRequest,
        promptlayer_connection: str,
        promptlayer_server: LocalPromptLayer,
    ) -> Any:
        run_id = promptlayer_server.start_execution("W")

        def look(**arguments: Any) -> Any:
            hook = PromptLayerHook()
            if request.param == "async":
                return asyncio.run(hook.aget_workflow_results(run_id, **arguments))
            try:
                return hook.get_workflow_results(run_id, **arguments)
            finally:
                hook.close()

        return look

    def test_all_outputs(self, look: Any) -> None:
        results = look()
        assert results.is_complete
        assert results.outputs == {"Second": {"x": [1]}, "Third": "no"}
        assert results.final_output == {"x": [1]}
        first = results.nodes["First"]
        assert (first.status, first.error_message, first.raw_error_message) == (
            "FAILED",
            "e",
            "raw",
        )
        assert [node.is_output_node for node in results.nodes.values()] == [
            False,
            True,
            True,
            None,
        ]

    def test_main_output_alone(self, look: Any) -> None:
        results = look(return_all_outputs=False)
        assert results.is_complete
        assert results.final_output == {"x": [1]}
        assert results.nodes == {}


def test_waiting_in_a_task_raises_with_the_results(
    promptlayer_connection: str, promptlayer_server: LocalPromptLayer
) -> None:
    run_id = promptlayer_server.start_execution("Broken report", input_variables={"report": "x"})
    hook = PromptLayerHook()
    with pytest.raises(PromptLayerRunFailedError) as raised:
        hook.wait_for_workflow_results(run_id, timeout=60, poke_interval=0.1)
    hook.close()
    assert raised.value.results.outputs == {"Render report": "# x"}


def test_a_start_that_did_not_arrive_says_so(
    deaf_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = connect(monkeypatch, host=f"http://127.0.0.1:{deaf_port}", password="pl_key")
    with pytest.raises(PromptLayerUnreachableError) as raised:
        hook.run_workflow("W")
    assert not raised.value.arrived


def test_a_start_without_an_answer_warns_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hook = connect(
            monkeypatch,
            host=f"http://127.0.0.1:{silent.getsockname()[1]}",
            password="pl_key",
            extra={"timeout": 0.3},
        )
        with pytest.raises(PromptLayerStartUncertainError, match="may have started"):
            hook.run_workflow("W")
        with pytest.raises(PromptLayerStartUncertainError, match="may have started"):
            asyncio.run(hook.arun_workflow("W"))


def test_both_twins_start_runs(
    promptlayer_connection: str, promptlayer_server: LocalPromptLayer
) -> None:
    hook = PromptLayerHook()
    assert hook.run_workflow("Triage ticket", input_variables={"ticket": "x"}) == 1
    assert asyncio.run(hook.arun_workflow("Triage ticket", input_variables={"ticket": "x"})) == 2
    hook.close()
    first, second = promptlayer_server.executions.values()
    assert first.input_variables == second.input_variables == {"ticket": "x"}


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


def test_unencrypted_key_is_warned_of_but_for_loopback(
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

    And Airflow is asked for the connection by one of them, as 3.0 and 3.1 mix up two questions.
    """
    hook = PromptLayerHook()
    together = threading.Barrier(8)
    reads: list[str] = []
    read = PromptLayerHook.get_connection

    def get_connection(conn_id: str) -> Any:
        reads.append(conn_id)
        time.sleep(0.05)  # long enough for the others to ask as well, if they would
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


def test_a_wait_that_goes_on_with_another_key_heeds_the_brake_of_that_key(
    monkeypatch: pytest.MonkeyPatch, promptlayer_server: LocalPromptLayer
) -> None:
    old = connect(monkeypatch, host=promptlayer_server.url, password=promptlayer_server.api_key)
    assert old.settings.api_key == promptlayer_server.api_key
    brake = old.throttle
    promptlayer_server.rotate_key("pl_new_key")
    new = connect(monkeypatch, host=promptlayer_server.url, password="pl_new_key")
    new.throttle.hold_for(60, now=1000.0)
    assert brake.delay(now=1000.0) == 0
    old.call(workflow_count())  # is told that the key has changed
    assert brake.delay(now=1000.0) >= 60
    old.close()


def test_no_key_outlives_its_last_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_kept() -> bool:
        gc.collect()
        # Not isinstance(): that wakes Airflow's lazy proxies, which import what is not there.
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

        look = Call(Request("GET", "/x", "look"), read)
        assert asyncio.run(PromptLayerHook().acall(look)) == (size, on_the_loop)

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
