# SPDX-License-Identifier: Apache-2.0
"""What a batch notes of the starts that are under way when something ends its task."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from support.batches import Died, answers, each_once, index_of, numbered, retry, run, starts
from support.modes import Store

from airflow_provider_promptlayer.bases import batch_starts
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.hooks.threads import DaemonThreads
from airflow_provider_promptlayer.testing import LocalPromptLayer, Reply

SIZE = 11
together: dict[str, Any] = {"start_concurrency": 4}


class Interruption(BaseException):
    """What Airflow raises in a task at its ``execution_timeout``, or Python at Ctrl-C."""


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_starts, "_LAST_ANSWERS_SECONDS", 60.0)


def once(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, is_it: Callable[..., bool]
) -> None:
    """Interrupt one call of a function, the first for which ``is_it`` returns True."""
    function, interrupted = getattr(owner, name), list[None]()

    def call(*args: Any) -> Any:
        if not interrupted and is_it(*args):
            interrupted.append(None)
            raise Interruption
        return function(*args)

    monkeypatch.setattr(owner, name, call)


def retried(server: LocalPromptLayer, store: Store) -> set[int]:
    """Check that the next try loses no run and doubles none; return the inputs it asks about."""
    ending = run(numbered(SIZE), retry(), store, min_success_rate=0.0, **together)
    errors = ending.xcoms["promptlayer_errors"]
    lost = {index for index, error in enumerate(errors) if error is not None}
    assert ending.value == answers(*(None if n in lost else n for n in range(SIZE)))
    assert {*starts(server).values()} == {1}
    return lost


class TestInterrupted:
    """A retry goes back to all runs, and starts the others."""

    def test_while_starts_are_under_way(
        self, server: LocalPromptLayer, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        once(monkeypatch, batch_starts, "wait", lambda starts, *_: len(starts) == 4)
        with pytest.raises(Interruption):
            run(numbered(SIZE), store=store, **together)
        assert server.count("POST") == 5
        assert not retried(server, store)

    @pytest.mark.parametrize("is_written", [False, True])
    def test_while_they_are_noted(self, server: LocalPromptLayer, is_written: bool) -> None:
        class Interrupted(Store):
            def set(self, key: str, value: Any) -> None:
                is_it = value.get("runs", []).count("sent") == 4 and key not in interrupted
                if is_written or not is_it:
                    super().set(key, value)
                if is_it:
                    interrupted.append(key)
                    raise Interruption

        store, interrupted = Interrupted(), list[str]()
        with pytest.raises(Interruption):
            run(numbered(SIZE), store=store, **together)
        assert server.count("POST") == 1
        assert not retried(server, store)

    @pytest.mark.parametrize("count", [0, 2, 4])
    def test_between_two_sends(
        self,
        server: LocalPromptLayer,
        store: Store,
        count: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Of this one alone it is unknown whether it was sent."""
        sent: list[None] = []

        def is_next(*_: Any) -> bool:
            sent.append(None)
            return len(sent) == count + 1

        once(monkeypatch, DaemonThreads, "submit", is_next)
        with pytest.raises(Interruption):
            run(numbered(SIZE), store=store, **together)
        assert retried(server, store) == {count}

    def test_while_one_hangs(
        self, server: LocalPromptLayer, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is not waited for, and not sent again."""
        monkeypatch.setattr(batch_starts, "_LAST_ANSWERS_SECONDS", 0.0)
        start_run, may_end = PromptLayerHook.start_run, threading.Event()

        def hang(hook: PromptLayerHook, call: Any, *how: Any) -> int:
            run_id = start_run(hook, call, *how)
            if index_of(call) == 3:
                assert may_end.wait(60)
            return run_id

        monkeypatch.setattr(PromptLayerHook, "start_run", hang)
        once(monkeypatch, batch_starts, "wait", lambda starts, *_: len(starts) == 4)
        try:
            with pytest.raises(Interruption):
                run(numbered(SIZE), store=store, **together)
            assert 3 in retried(server, store)
        finally:
            may_end.set()

    def test_by_the_error_of_one_start(
        self, server: LocalPromptLayer, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One that is not PromptLayer's, such as that no thread can be started."""
        start_run, fails = PromptLayerHook.start_run, threading.Event()

        def fail(hook: PromptLayerHook, call: Any, *how: Any) -> int:
            if index_of(call) == 2:
                fails.set()
                raise RuntimeError("can't start new thread")
            if index_of(call) > 0:
                assert fails.wait(60)
            return start_run(hook, call, *how)

        with monkeypatch.context() as patch:
            patch.setattr(PromptLayerHook, "start_run", fail)
            with pytest.raises(RuntimeError, match="new thread"):
                run(numbered(SIZE), store=store, **together)
        assert retried(server, store) == {2}


class TestKilled:
    """The ids of the runs are in the notes while the task waits, as it may be killed any moment."""

    def test_during_the_pause_after_a_429(
        self, server: LocalPromptLayer, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.script(Reply(429, headers={"Retry-After": "50"}), method="POST", times=None, after=3)
        noted: list[Any] = []

        def sleep(_: float) -> None:
            noted.extend(store["promptlayer_batch_0"]["runs"])
            raise Died

        clock = SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=sleep)
        monkeypatch.setattr(batch_starts, "time", clock)
        with pytest.raises(Died):
            run(numbered(SIZE), store=store, **together)
        assert "sent" not in noted
        assert {run_id for run_id in noted if run_id is not None} == {*server.executions}

    def test_while_it_is_being_stopped(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Airflow 3 lets the task go on, and kills it seconds later."""
        start_run, is_noted = PromptLayerHook.start_run, threading.Event()
        were_noted: list[bool] = []

        class Noting(Store):
            def set(self, key: str, value: Any) -> None:
                super().set(key, value)
                if isinstance((value.get("runs") or [None] * 3)[2], int):
                    is_noted.set()

        def stop(hook: PromptLayerHook, call: Any, *how: Any) -> int:
            run_id = start_run(hook, call, *how)
            if index_of(call) == 2:
                hook.stop_starting()
            elif index_of(call) > 0:
                were_noted.append(is_noted.wait(10))  # else when this one is answered, too late
            return run_id

        store = Noting()
        with monkeypatch.context() as patch:
            patch.setattr(PromptLayerHook, "start_run", stop)
            run(numbered(SIZE), None, store, "Slow", deferrable=False, **together)
        assert all(were_noted)
        assert not retried(server, store)
        assert starts(server) == each_once(SIZE)


def test_no_result_is_read_after_the_task_has_failed(server: LocalPromptLayer) -> None:
    """Retries of other reads would go on for as long as ``max_outage``."""

    def fail(request: Any) -> Reply | None:
        run_id = int(request.query["workflow_version_execution_id"])
        if request.query["return_all_outputs"] != "true" or run_id < 4:
            return None
        return Reply.of_json({"message": "no"}, 401) if run_id == 4 else Reply(502)

    server.script(fail, method="GET", times=None)
    ending = run(numbered(SIZE), deferrable=False)
    assert "HTTP 401" in ending.message
    for thread in threading.enumerate():
        if thread.name == "promptlayer-work":
            thread.join(20)
            assert not thread.is_alive()
