# SPDX-License-Identifier: Apache-2.0
"""Columns that a task has pointed at other versions, when its worker dies or it is ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from support.clocks import timed_by_polls
from support.columns import (
    COLUMNS,
    CONFIG,
    DEV,
    PUT_BACK,
    SHEET,
    STAGING,
    TABLE,
    config,
    make,
    run,
)
from support.killing import Killed, kill_at
from support.kinds import Serve
from support.modes import FakeTaskInstance, Store, rebuilt, run_task
from support.needs import needs_on_kill
from support.starts import deferred

from airflow_provider_promptlayer.hooks.base import PromptLayerConnectionHook
from airflow_provider_promptlayer.testing import (
    Column,
    LocalPromptLayer,
    Reply,
    Sheet,
    Table,
)
from airflow_provider_promptlayer.transport.blocking import BlockingTransport

Log = Callable[[], str]


def test_a_person_points_the_column_before_the_retry(
    server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The retry puts back what it has found, not what the first try has found."""
    store = Store()
    die_once_pointed(server, monkeypatch, store)
    server.update_column(TABLE.id, SHEET.id, "Answer", DEV)
    assert run(store, number=2, **PUT_BACK).kind == "success"
    assert config(server) == DEV


def die_once_pointed(
    server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch, store: Store | None
) -> None:
    """Run a try whose worker dies once it has pointed the column, before it notes a start."""
    send = PromptLayerConnectionHook._call_once

    def dying(hook: Any, call: Any, over: Any) -> Any:
        answer = send(hook, call, over)
        if server.count("PATCH"):
            raise Killed
        return answer

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(PromptLayerConnectionHook, "_call_once", dying)
        run(store, **PUT_BACK)
    assert config(server) == STAGING


@pytest.mark.parametrize("versions", [{"Title": {"label": "staging"}}, None], ids=str)
def test_a_clear_with_other_columns_puts_back_the_first(
    serve: Serve, versions: Any, deferrable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker has died once it had pointed a column; then the DAG was changed."""
    columns = [*COLUMNS, Column("Title", config=CONFIG, is_stale=False)]
    table = Table("Support", [Sheet("Answers", columns, row_count=3)])
    server, store = serve(timed_by_polls([], tables=[table])), Store()
    die_once_pointed(server, monkeypatch, store)
    configs: list[Any] = []
    server.script(lambda _: configs.append(config(server)), method="POST", times=None)
    given = {"column_versions": versions, "deferrable": deferrable, **PUT_BACK}
    ending = run(store, number=2, max_tries=3, **given)
    assert ending.kind == "success", ending
    assert configs[0] == config(server) == CONFIG
    assert server.tables[0].sheets[0].columns[3].config == CONFIG
    assert "promptlayer_columns" not in store


@pytest.mark.parametrize("kept", ["kept", "dropped", None], ids=str)
def test_a_crash_that_airflow_does_not_remember(
    server: LocalPromptLayer, kept: str | None, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Airflow 3.3, and on 3.4 after a clear, the next try cannot know: its log says so."""
    store = None if kept is None else Store()
    die_once_pointed(server, monkeypatch, store)
    if kept == "dropped":
        store = Store()
    assert run(store, number=2, **PUT_BACK).error is None
    assert config(server) == (CONFIG if kept == "kept" else STAGING)
    says = "so not to be pointed back: column 'Answer'. If an earlier try of this task was killed"
    assert (says in log()) == (kept != "kept")


@pytest.mark.parametrize("after", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("at", range(4, 14))
def test_a_crash_is_made_good_by_the_retry(
    server: LocalPromptLayer, at: int, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker dies before or after its nth request."""
    store = Store()
    with monkeypatch.context() as patch, suppress(Killed):
        kill_at(patch, at, after=after)
        run(store, **PUT_BACK)
    store_before = dict(store)
    ending = run(store, number=2, **PUT_BACK)
    assert config(server) == CONFIG, (at, ending, store_before)
    assert "promptlayer_columns" not in store
    assert len(server.operations) <= 1


def test_a_task_that_is_ended_puts_it_back(server: LocalPromptLayer) -> None:
    task = make(deferrable=False, **PUT_BACK)

    def end(_: Any) -> None:
        if server.operations and not ended:
            ended.append(True)
            assert config(server) == STAGING
            task.on_kill()
            assert config(server) == CONFIG

    ended: list[bool] = []
    poll = task.poll

    def dying_poll(job: Any) -> Any:
        end(job)
        return poll(job)

    task.poll = dying_poll  # type: ignore[method-assign]
    run_task(lambda: task)
    assert ended
    assert config(server) == CONFIG


@pytest.mark.parametrize("at", range(1, 10))
def test_a_task_that_is_ended_at_a_request_leaves_nothing(
    server: LocalPromptLayer, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow 3 lets the task go on, so the request is sent all the same."""
    task, store, send = make(deferrable=False, **PUT_BACK), Store(), BlockingTransport.send
    sent: list[Any] = []

    def ending(transport: Any, request: Any, *how: Any) -> Any:
        sent.append(request)
        if len(sent) == at:
            task.on_kill()
        return send(transport, request, *how)

    monkeypatch.setattr(BlockingTransport, "send", ending)
    run_task(lambda: task, FakeTaskInstance(max_tries=2), task_state_store=store)
    assert len(sent) >= at
    assert config(server) == CONFIG
    assert "promptlayer_columns" not in store


def test_a_task_that_is_ended_while_it_points_the_column_and_dies(
    server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has noted stays until the column was pointed back by the task itself."""
    task, store, send = make(deferrable=False, **PUT_BACK), Store(), BlockingTransport.send

    def ending(transport: Any, request: Any, *how: Any) -> Any:
        if server.count("PATCH"):
            raise Killed
        if request.method != "PATCH":
            return send(transport, request, *how)
        task.on_kill()
        send(transport, request, *how)
        raise Killed

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(BlockingTransport, "send", ending)
        run_task(lambda: task, FakeTaskInstance(max_tries=2), task_state_store=store)
    assert config(server) == STAGING
    run(store, number=2, **PUT_BACK)
    assert config(server) == CONFIG


def test_a_task_that_is_ended_while_it_notes_the_column(server: LocalPromptLayer) -> None:
    task = make(deferrable=False, **PUT_BACK)

    class EndingStore(Store):
        def set(self, key: str, value: Any) -> None:
            super().set(key, value)
            if key == "promptlayer_columns":
                task.on_kill()

    ending = run_task(lambda: task, FakeTaskInstance(max_tries=2), task_state_store=EndingStore())
    assert "The task is being stopped" in ending.message
    assert server.count("PATCH") == server.count("POST") == 0
    assert config(server) == CONFIG


@needs_on_kill
def test_a_deferred_task_that_is_ended_puts_it_back(server: LocalPromptLayer) -> None:
    trigger = rebuilt(deferred(make(**PUT_BACK)).trigger)
    assert config(server) == STAGING
    asyncio.run(trigger.on_kill())
    assert config(server) == CONFIG


@needs_on_kill
def test_a_deferred_task_that_is_ended_keeps_it(server: LocalPromptLayer) -> None:
    trigger = rebuilt(deferred(make()).trigger)
    asyncio.run(trigger.on_kill())
    assert config(server) == STAGING


def test_is_put_back_after_a_deferral_that_airflow_ended(server: LocalPromptLayer) -> None:
    store = Store()
    task = make(**PUT_BACK)
    deferred(task, store)
    context: Any = {"ti": FakeTaskInstance(max_tries=2), "task_state_store": store}
    with pytest.raises(AirflowException):
        make(**PUT_BACK).resume_execution("__fail__", {"error": "Trigger timeout"}, context)
    assert config(server) == CONFIG


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_a_wait_that_fails_leaves_no_operation_to_the_columns_of_before(
    server: LocalPromptLayer, is_cancelled: bool, log: Log
) -> None:
    """Else the retry would take cells of the production version for those of the given one."""
    store = Store()
    deferred(make(defer_after=0, **PUT_BACK), store)
    if not is_cancelled:
        server.script(Reply(403), method="DELETE")
    context: Any = {"ti": FakeTaskInstance(max_tries=2), "task_state_store": store}
    with pytest.raises(AirflowException, match="failure"):
        make(**PUT_BACK).resume_execution("__fail__", {"error": "Trigger failure"}, context)
    assert config(server) == (CONFIG if is_cancelled else STAGING)
    at_polls: dict[str, list[Any]] = {}
    server.script(
        lambda request: at_polls.setdefault(request.raw_path, []).append(config(server)), times=None
    )
    assert run(store, number=2, deferrable=False, **PUT_BACK).kind == "success"
    assert config(server) == CONFIG
    assert len(server.operations) == (2 if is_cancelled else 1)
    (polls,) = (at for path, at in at_polls.items() if path.endswith(list(server.operations)[-1]))
    assert all(at == STAGING for at in polls)
    assert ("Not pointing these columns back" in log()) != is_cancelled
