# SPDX-License-Identifier: Apache-2.0
"""Recalculating a sheet with given versions of its prompts, which are put back in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException
from support.arguments import AT_RUN_TIME
from support.clocks import timed_by_polls
from support.kinds import Serve
from support.modes import Ending, FakeTaskInstance, Store, rebuilt, run_task
from support.needs import needs_on_kill
from support.starts import deferred

from airflow_provider_promptlayer.exceptions import (
    PromptLayerInvalidInputError,
    PromptLayerSheetChangedError,
)
from airflow_provider_promptlayer.hooks.base import PromptLayerConnectionHook
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunTableOperator
from airflow_provider_promptlayer.testing import (
    Close,
    Column,
    LocalPromptLayer,
    Reply,
    Sheet,
    Table,
)
from airflow_provider_promptlayer.transport.blocking import BlockingTransport
from airflow_provider_promptlayer.version_compat import TRIGGERS_HAVE_ON_KILL

Log = Callable[[], str]
CONFIG = {
    "template": {"name": "Reply", "label": "prod", "workspace": 1},
    "prompt_template_variable_mappings": {"q": "Question"},
    "engine": {"model": "gpt-4o"},
}
STAGED: dict[str, Any] = {"name": "Reply", "workspace": 1, "label": "staging"}
STAGING = {**CONFIG, "template": STAGED}
DEV = {**CONFIG, "template": {"name": "Reply", "workspace": 1, "label": "dev"}}
COLUMNS = [
    Column("Question", type="TEXT"),
    Column("Answer", config=CONFIG, is_stale=False, cell_duration=0.5),
    Column("Is good", type="LLM_ASSERTION", is_stale=False),
]
SHEET = Sheet("Answers", COLUMNS, row_count=3)
TABLE = Table("Support", [SHEET])
PUT_BACK: dict[str, Any] = {"restore": True}


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    return serve(timed_by_polls([], tables=[TABLE]))


def make(**arguments: Any) -> PromptLayerRunTableOperator:
    given = {"column_versions": {"Answer": {"label": "staging"}}, **arguments}
    return PromptLayerRunTableOperator(
        task_id="task", retries=2, table="Support", sheet="Answers", poke_interval=0.02, **given
    )


def run(
    store: Store | None = None, number: int = 1, max_tries: int = 2, **arguments: Any
) -> Ending:
    return run_task(
        lambda: make(**arguments),
        FakeTaskInstance(try_number=number, max_tries=max_tries),
        **({} if store is None else {"task_state_store": store}),
    )


def config(server: LocalPromptLayer) -> Any:
    """Return the configuration of the column now."""
    return server.tables[0].sheets[0].columns[1].config


@pytest.mark.parametrize("deferrable", [True, False])
def test_the_column_uses_the_version(server: LocalPromptLayer, deferrable: bool) -> None:
    ending = run(deferrable=deferrable)
    assert ending.kind == "success", ending
    assert ending.value["cell_count"] == 6  # of the column, and of the one after it
    assert config(server) == STAGING


def test_a_number_and_a_uuid(server: LocalPromptLayer) -> None:
    run(column_versions={COLUMNS[1].id: {"version": "5"}})
    assert config(server)["template"] == {"name": "Reply", "workspace": 1, "version_number": 5}


NUMBER = {**CONFIG, "template": {"name": "Reply", "version_number": 5}}


def test_a_column_at_that_number_is_left_alone(serve: Serve) -> None:
    columns = [COLUMNS[0], replace(COLUMNS[1], config=NUMBER), COLUMNS[2]]
    table = Table("Support", [Sheet("Answers", columns, row_count=3)])
    server = serve(LocalPromptLayer([], tables=[table]))
    ending = run(column_versions={"Answer": {"version": 5}})
    assert ending.value["status"] == "nothing to do"
    assert server.count("PATCH") == 0


AT_PROD: dict[str, Any] = {"column_versions": '{"Answer": {"label": "prod"}}'}


def test_all_is_calculated_where_it_was_at_that_label(
    server: LocalPromptLayer, store: Store | None, deferrable: bool
) -> None:
    """The label may lead to another version than when the cells were calculated."""
    ending = run(store, deferrable=deferrable, **AT_PROD)
    assert (ending.kind, ending.value["cell_count"]) == ("success", 6), ending
    assert server.count("PATCH") == 0


def test_statuses_that_are_given_are_kept(server: LocalPromptLayer) -> None:
    ending = run(statuses=["STALE"], **AT_PROD)
    assert ending.value["status"] == "nothing to do"
    assert server.operations == {}


def test_a_retry_calculates_nothing_twice(server: LocalPromptLayer, store: Store | None) -> None:
    run(store, **AT_PROD)
    again = run(store, number=2, **AT_PROD)
    assert len(server.operations) == 1
    if store is None:
        assert again.kind == "failed for good"
        assert "these were at their label already: column 'Answer'" in again.message
    else:
        assert again.value["cell_count"] == 6


# From 3.3 on such a retry has waited before it starts: test_cancelling.py.
@pytest.mark.skipif(
    TRIGGERS_HAVE_ON_KILL, reason="a retry waits for the end of a cancellation before it starts"
)
def test_a_retry_waits_for_cells_that_are_being_calculated(serve: Serve) -> None:
    columns = [COLUMNS[0], replace(COLUMNS[1], cell_duration=0.3), COLUMNS[2]]
    table = Table("Support", [Sheet("Answers", columns, row_count=3)])
    server = serve(LocalPromptLayer([], tables=[table]))
    deferred(make(**AT_PROD))
    again = run(number=2, **AT_PROD)
    assert again.kind == "success"
    assert len(server.operations) == 1


def test_a_retry_calculates_all_if_nothing_was_started(
    server: LocalPromptLayer, store: Store | None
) -> None:
    with server.script(Reply(422), method="POST", times=None):
        assert run(store, **AT_PROD).error is not None
    again = run(store, number=2, **AT_PROD)
    assert len(server.operations) == (store is not None)
    assert (again.kind == "success") == (store is not None)


def test_a_clear_calculates_all(server: LocalPromptLayer, store: Store | None) -> None:
    """Here for other arguments, as a task of Airflow 3.3 goes back to the same operation."""
    deferred(make(row_ids=[0], **AT_PROD), store)
    cleared = FakeTaskInstance(try_number=2, max_tries=3)
    context = {} if store is None else {"task_state_store": store}
    ending = run_task(lambda: make(**AT_PROD), cleared, **context)
    assert ending.value["cell_count"] == 6
    assert len(server.operations) == 2


def test_is_put_back(server: LocalPromptLayer, store: Store | None, deferrable: bool) -> None:
    ending = run(store, deferrable=deferrable, **PUT_BACK)
    assert (ending.kind, ending.worker_visits) == ("success", 1 + deferrable)
    assert config(server) == CONFIG
    assert server.count("PATCH") == 2
    assert "promptlayer_columns" not in (store or {})


def test_is_put_back_after_a_failure(server: LocalPromptLayer, store: Store | None) -> None:
    with server.script(Close(), method="POST", times=None):
        assert run(store, **PUT_BACK).error is not None
    assert config(server) == CONFIG


def test_a_task_that_cannot_put_it_back_fails(
    server: LocalPromptLayer, store: Store | None, deferrable: bool
) -> None:
    arguments = {"deferrable": deferrable, "max_outage": 0.2, **PUT_BACK}
    with server.script(Reply(503), method="PATCH", after=1, times=None):
        ending = run(store, **arguments)
    assert ending.kind == ("failed for good" if store is None else "failed"), ending
    assert "could not be pointed back: column 'Answer'" in ending.message
    if store is not None:
        assert run(store, number=2, **arguments).kind == "success"
        assert config(server) == CONFIG
    assert len(server.operations) == 1


ANOTHER = {"model": "another"}


@pytest.mark.parametrize(
    ("theirs", "at_the_end"),
    [
        (DEV, DEV),
        ({**STAGING, "template": {"name": "Title", "label": "staging"}}, ...),
        ({**STAGING, "engine": ANOTHER}, {**CONFIG, "engine": ANOTHER}),
        (
            {"template": {**STAGED, "version_number": None}},
            {"template": CONFIG["template"]},
        ),
        (
            {"template": {**STAGED, "version_number": 8}},
            {"template": CONFIG["template"]},
        ),
    ],
    ids=["version", "prompt", "engine", "default", "number of the label"],
)
def test_somebody_elses_change_is_kept(
    server: LocalPromptLayer, theirs: Any, at_the_end: Any, log: Log
) -> None:
    """That of the version keeps it where they put it; the version alone is put back of others."""

    def change(_: Any) -> None:
        if server.count("POST") and config(server) == STAGING:
            server.update_column(TABLE.id, SHEET.id, "Answer", theirs)

    server.script(change, method="GET", times=None)
    assert run(**PUT_BACK).kind == "success"
    assert config(server) == (theirs if at_the_end is ... else at_the_end)
    is_left = "Not pointing column 'Answer' back, as somebody has changed it" in log()
    assert is_left == (at_the_end in (DEV, ...))


def test_what_promptlayer_adds_to_a_configuration(server: LocalPromptLayer) -> None:
    """It is no change of somebody else, whenever it is added, and is kept."""
    more = {"timeout": 60}

    def add(_: Any) -> None:
        if "timeout" not in (now := config(server)):
            added = {**now, **more, "template": {"version_number": None, **now["template"]}}
            server.update_column(TABLE.id, SHEET.id, "Answer", added)

    server.script(add, method="GET", times=None, after=2)
    ending = run(**PUT_BACK)
    assert ending.kind == "success", ending
    assert config(server) == {**CONFIG, **more}


WORKFLOW = {"workflow_id": 12, "workflow_version_number": 3, "input_mappings": {"q": "Question"}}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"label": "staging"}, {"workflow_label": "staging"}),
        ({"version": "5"}, {"workflow_version_number": 5}),
    ],
    ids=str,
)
def test_a_column_of_a_workflow(serve: Serve, wanted: Any, expected: Any) -> None:
    column = replace(COLUMNS[1], type="WORKFLOW", config=WORKFLOW)
    table = Table("Support", [Sheet("Answers", [COLUMNS[0], column, COLUMNS[2]], row_count=3)])
    server = serve(timed_by_polls([], tables=[table]))
    rest = {key: WORKFLOW[key] for key in ("workflow_id", "input_mappings")}
    ending = run(column_versions={"Answer": wanted})
    assert (ending.kind, ending.value["cell_count"]) == ("success", 6), ending
    assert config(server) == {**rest, **expected}
    ending = run(column_versions={"Answer": {"version": 3}}, **PUT_BACK)
    assert ending.value["cell_count"] == 6
    assert config(server) == {**rest, **expected}


def test_another_workflow_meanwhile(serve: Serve, log: Log) -> None:
    column = replace(COLUMNS[1], type="WORKFLOW", config=WORKFLOW)
    table = Table("Support", [Sheet("Answers", [COLUMNS[0], column, COLUMNS[2]], row_count=3)])
    server = serve(timed_by_polls([], tables=[table]))
    theirs = {"workflow_id": 13, "workflow_label": "staging"}

    def change(_: Any) -> None:
        if server.count("POST"):
            server.update_column(table.id, table.sheets[0].id, "Answer", theirs)

    server.script(change, method="GET", times=None)
    run(**PUT_BACK)
    assert config(server) == theirs
    assert "Not pointing column 'Answer' back" in log()


@pytest.mark.parametrize("arguments", [{}, PUT_BACK], ids=str)
def test_none_is_pointed_where_another_has_changed(serve: Serve, arguments: dict[str, Any]) -> None:
    columns = [*COLUMNS, Column("Title", config=CONFIG, is_stale=False)]
    table = Table("Support", [Sheet("Answers", columns, row_count=3)])
    server = serve(LocalPromptLayer([], tables=[table]))
    reads: list[bool] = []

    def change(request: Any) -> None:
        if request.raw_path.endswith("/columns"):
            reads.append(True)
            if len(reads) == 2:
                server.update_column(table.id, table.sheets[0].id, "Title", DEV)

    server.script(change, method="GET", times=None)
    versions = {"Answer": {"label": "staging"}, "Title": {"label": "staging"}}
    ending = run(column_versions=versions, **arguments)
    assert isinstance(ending.error, PromptLayerSheetChangedError)
    assert config(server) == CONFIG
    assert server.count("PATCH") == 0


@pytest.mark.parametrize("theirs", [DEV, {**CONFIG, "engine": ANOTHER}], ids=["version", "engine"])
def test_a_change_in_between_is_not_overwritten(server: LocalPromptLayer, theirs: Any) -> None:
    reads: list[bool] = []

    def change(request: Any) -> None:
        if request.raw_path.endswith("/columns"):
            reads.append(True)
            if len(reads) == 2:
                server.update_column(TABLE.id, SHEET.id, "Answer", theirs)

    server.script(change, method="GET", times=None)
    ending = run()
    if theirs is DEV:
        assert isinstance(ending.error, PromptLayerSheetChangedError)
        assert config(server) == theirs
        assert server.operations == {}
    else:
        assert ending.kind == "success"
        assert config(server) == {**STAGING, "engine": ANOTHER}


class Killed(BaseException):
    """The worker is gone."""


@pytest.mark.parametrize("versions", [{"Title": {"label": "staging"}}, None], ids=str)
def test_a_clear_with_other_columns_puts_back_the_first(
    serve: Serve, versions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker has died once it had pointed a column; then the DAG was changed."""
    columns = [*COLUMNS, Column("Title", config=CONFIG, is_stale=False)]
    table = Table("Support", [Sheet("Answers", columns, row_count=3)])
    server, store = serve(timed_by_polls([], tables=[table])), Store()
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
    configs: list[Any] = []
    server.script(lambda _: configs.append(config(server)), method="POST", times=None)
    ending = run(store, number=2, max_tries=3, column_versions=versions, **PUT_BACK)
    assert ending.kind == "success", ending
    assert configs[0] == config(server) == CONFIG
    assert server.tables[0].sheets[0].columns[3].config == CONFIG
    assert "promptlayer_columns" not in store


@pytest.mark.parametrize("kept", ["kept", "dropped", None], ids=str)
def test_a_crash_that_airflow_does_not_remember(
    server: LocalPromptLayer, kept: str | None, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Airflow 3.3, and on 3.4 after a clear, the next try cannot know: its log says so."""
    send, store = PromptLayerConnectionHook._call_once, None if kept is None else Store()

    def dying(hook: Any, call: Any, over: Any) -> Any:
        answer = send(hook, call, over)
        if server.count("PATCH"):
            raise Killed
        return answer

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(PromptLayerConnectionHook, "_call_once", dying)
        run(store, **PUT_BACK)
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
    send, sent = PromptLayerConnectionHook._call_once, [0]

    def dying(hook: Any, call: Any, over: Any) -> Any:
        sent[0] += 1
        if sent[0] >= at + after:
            raise Killed
        answer = send(hook, call, over)
        if sent[0] >= at:
            raise Killed
        return answer

    store = Store()
    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(PromptLayerConnectionHook, "_call_once", dying)
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

    def ending(transport: Any, request: Any) -> Any:
        sent.append(request)
        if len(sent) == at:
            task.on_kill()
        return send(transport, request)

    monkeypatch.setattr(BlockingTransport, "send", ending)
    run_task(lambda: task, FakeTaskInstance(max_tries=2), task_state_store=store)
    assert len(sent) >= at
    assert config(server) == CONFIG
    assert "promptlayer_columns" not in store


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


@pytest.mark.parametrize(
    ("versions", "says"),
    [
        ({"Anwser": {"label": "x"}}, "No column of sheet"),
        ({"Question": {"label": "x"}}, "Column 'Question' uses no prompt template and no workflow"),
        ({"Answer": {}}, "Give one of version and label"),
        ({"Answer": {"version": 1, "label": "x"}}, "not both"),
        ({"Answer": {"tag": "x"}}, "has 'tag': give a version or a label"),
        ({"Answer": "staging"}, "must be a mapping"),
        ("staging", "column_versions must be a mapping"),
    ],
    ids=str,
)
def test_what_is_refused(server: LocalPromptLayer, versions: Any, says: str) -> None:
    ending = run(column_versions=versions, **AT_RUN_TIME)
    assert ending.kind == "failed for good"
    assert says in ending.message
    assert server.count("PATCH") == server.count("POST") == 0


def test_is_not_put_back_without_waiting() -> None:
    with pytest.raises(PromptLayerInvalidInputError, match="needs wait_for_completion=True"):
        make(restore=True, wait_for_completion=False)
