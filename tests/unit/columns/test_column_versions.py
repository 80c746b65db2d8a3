# SPDX-License-Identifier: Apache-2.0
"""Recalculating a sheet with given versions of its prompts, which are put back in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from support.arguments import AT_RUN_TIME
from support.clocks import timed_by_polls
from support.columns import (
    COLUMNS,
    CONFIG,
    DEV,
    PUT_BACK,
    SHEET,
    STAGED,
    STAGING,
    TABLE,
    config,
    make,
    run,
)
from support.kinds import Serve
from support.modes import FakeTaskInstance, Store, run_task
from support.starts import deferred

from airflow_provider_promptlayer.exceptions import (
    PromptLayerInvalidInputError,
    PromptLayerSheetChangedError,
)
from airflow_provider_promptlayer.testing import (
    Close,
    Column,
    LocalPromptLayer,
    Reply,
    Sheet,
    Table,
)
from airflow_provider_promptlayer.version_compat import TRIGGERS_HAVE_ON_KILL

Log = Callable[[], str]


@pytest.mark.parametrize("deferrable", [True, False])
def test_the_column_uses_the_version(server: LocalPromptLayer, deferrable: bool, log: Log) -> None:
    ending = run(deferrable=deferrable)
    assert ending.kind == "success", ending
    assert ending.value["cell_count"] == 6  # of the column, and of the one after it
    assert config(server) == STAGING
    assert log().count("column 'Answer' at label 'staging' (was label 'prod').") == 1
    assert "Pointed back" not in log()


def test_a_number_and_a_uuid(server: LocalPromptLayer, log: Log) -> None:
    run(column_versions={COLUMNS[1].id: {"version": "5"}})
    assert "column 'Answer' at version 5 (was label 'prod')." in log()
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


def test_is_put_back(
    server: LocalPromptLayer, store: Store | None, deferrable: bool, log: Log
) -> None:
    ending = run(store, deferrable=deferrable, **PUT_BACK)
    assert log().count("Pointed back: column 'Answer' at label 'prod'.") == 1
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


def test_one_that_somebody_has_changed_leaves_the_others(serve: Serve) -> None:
    columns = [*COLUMNS, Column("Title", config=CONFIG, is_stale=False)]
    table = Table("Support", [Sheet("Answers", columns, row_count=3)])
    server = serve(timed_by_polls([], tables=[table]))

    def change(_: Any) -> None:
        if server.count("POST"):
            server.update_column(table.id, table.sheets[0].id, "Answer", DEV)

    server.script(change, method="GET", times=None)
    versions = {"Answer": {"label": "staging"}, "Title": {"label": "staging"}}
    assert run(column_versions=versions, **PUT_BACK).kind == "success"
    assert config(server) == DEV
    assert server.tables[0].sheets[0].columns[3].config == CONFIG


@pytest.mark.parametrize(
    ("versions", "says"),
    [
        ({"Anwser": {"label": "x"}}, "No column of sheet"),
        ({str(UUID(int=0)): {"label": "x"}}, f"has no column {UUID(int=0)}"),
        ({COLUMNS[1].id: {"version": 1}, "Answer": {"label": "x"}}, "has column 'Answer' twice"),
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
