# SPDX-License-Identifier: Apache-2.0
"""A connection that leads to another PromptLayer now, where the same id is of another job."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from support.kinds import new_server
from support.modes import FakeTaskInstance, Store, first_event, rebuilt
from support.starts import STARTS, Start, deferred

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.testing import LocalPromptLayer, Reply

Move = Callable[[LocalPromptLayer], None]


@pytest.fixture(params=STARTS)
def start(request: pytest.FixtureRequest) -> Start:
    return STARTS[request.param]


@pytest.fixture
def there() -> Iterator[LocalPromptLayer]:
    with new_server() as other:
        other.start_execution("good")  # it has a run 1 too
        yield other


@pytest.fixture
def lead_to(monkeypatch: pytest.MonkeyPatch) -> Move:
    """Have the connection lead to a server when called."""

    def move(server: LocalPromptLayer) -> None:
        connection = server.airflow_connection_json
        monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", connection)

    return move


def leave(start: Start, store: Store) -> tuple[TaskDeferred, Any]:
    """Start a job and leave the worker; return the deferral and the id."""
    ti = FakeTaskInstance(max_tries=2)
    return deferred(start.make("never"), store, ti), ti.xcoms[start.id_key]


def resume(start: Start, left: TaskDeferred, event: Any, store: Store | None) -> Any:
    context = {"ti": FakeTaskInstance(max_tries=2), "task_state_store": store}
    kwargs = {**(left.kwargs or {}), "event": event}
    return start.make("never").resume_execution(left.method_name, kwargs, context)


def test_a_retry_asks_for_its_job_nowhere_else(
    start: Start, server: LocalPromptLayer, there: LocalPromptLayer, lead_to: Move
) -> None:
    store = Store()
    _, its_id = leave(start, store)
    lead_to(there)
    ending = start.run(store, "never", number=2)
    assert ending.kind == "failed for good"
    assert f"{its_id} was started at {server.url}" in ending.message
    assert f"leads to {there.url} now" in ending.message
    assert there.count() == 0
    lead_to(server)  # corrected, and cleared
    back = start.run(store, "never", number=3, max_tries=5, wait_for_completion=False)
    assert (back.value, server.count("POST")) == (its_id, 1)


def test_a_clear_starts_another(
    start: Start,
    server: LocalPromptLayer,
    there: LocalPromptLayer,
    lead_to: Move,
    log: Callable[[], str],
) -> None:
    store = Store()
    leave(start, store)
    lead_to(there)
    ending = start.run(store, "never", number=2, max_tries=3, wait_for_completion=False)
    assert ending.kind == "success", ending  # for the same arguments
    assert (server.count("POST"), there.count("POST")) == (1, 1)
    assert f"Not cancelling the job that an earlier try started at {server.url}," in log()


@pytest.mark.parametrize("max_tries", [2, 3], ids=["retry", "cleared"])
def test_a_try_that_learns_of_it_from_an_answer(
    start: Start,
    max_tries: int,
    server: LocalPromptLayer,
    there: LocalPromptLayer,
    lead_to: Move,
) -> None:
    """With a key that is refused, the connection is read again, and may lead elsewhere."""
    store = Store()
    leave(start, store)

    def move(_: Any) -> Reply:
        lead_to(there)
        return Reply.of_json({"success": False, "message": "no"}, 401)

    server.script(move, method="GET", times=None)
    ending = start.run(store, "never", number=2, max_tries=max_tries, timeout=60.0)
    assert ending.kind == "failed", ending
    assert there.count() == 0


def test_another_connection_to_the_same_place(
    start: Start, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()
    _, its_id = leave(start, store)
    connection = json.loads(server.airflow_connection_json)
    connection["host"] = connection["host"].replace("http://", "HTTP://") + "/"
    monkeypatch.setenv("AIRFLOW_CONN_SAME", json.dumps(connection))
    ending = start.run(
        store, "never", number=2, promptlayer_conn_id="same", wait_for_completion=False
    )
    assert (ending.value, server.count("POST")) == (its_id, 1)


@pytest.mark.parametrize(
    ("with_store", "keeps", "remedy"),
    [
        (True, True, "clear this task, to go back"),
        (True, False, "clear this task with keep_task_state, to go back"),
        (False, False, "Before you clear this task, which starts another one"),
    ],
    ids=["store", "store, Airflow 3.4", "no store"],
)
def test_a_worker_that_resumes(
    start: Start,
    with_store: bool,
    keeps: bool,
    remedy: str,
    server: LocalPromptLayer,
    there: LocalPromptLayer,
    lead_to: Move,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(version_compat, "CLEAR_KEEPS_STATE", keeps)
    store = Store()
    left, its_id = leave(start, store)
    lead_to(there)
    event = {"version": 1, "id": its_id, "outcome": "ended", "message": ""}
    said = f"{its_id} was started at {server.url}.*{remedy}"
    with pytest.raises(AirflowFailException, match=said):
        resume(start, left, event, store if with_store else None)
    assert there.count() == 0


def test_a_triggerer_that_begins(
    start: Start, server: LocalPromptLayer, there: LocalPromptLayer, lead_to: Move
) -> None:
    store = Store()
    left, its_id = leave(start, store)
    lead_to(there)
    event = asyncio.run(first_event(rebuilt(left.trigger)))
    assert event.payload["outcome"] == "refused"
    with pytest.raises(AirflowFailException, match=f"{its_id} was started at {server.url}"):
        resume(start, left, event.payload, store)
    assert there.count() == 0


def test_a_wait_goes_on_where_it_began(
    start: Start,
    deferrable: bool,
    server: LocalPromptLayer,
    there: LocalPromptLayer,
    lead_to: Move,
    monkeypatch: pytest.MonkeyPatch,
    log: Callable[[], str],
) -> None:
    """Where that is out of reach, no other PromptLayer is asked instead; it may come back."""
    monkeypatch.setattr("airflow_provider_promptlayer.hooks.connection._READ_AGAIN_SECONDS", 0.0)

    def move() -> None:
        server.wait_for(lambda: server.count("GET") >= 2, 60.0)
        lead_to(there)
        server.stop()

    mover = threading.Thread(target=move)
    mover.start()
    ending = start.run(Store(), "never", deferrable=deferrable, max_outage=0.3, timeout=60)
    mover.join()
    assert ending.kind == "failed", ending
    assert there.count() == 0
    assert f"leads to {there.url} now. Still polling where it was started" in log()
