# SPDX-License-Identifier: Apache-2.0
"""The operator that exports a sheet to a file, and workers that die while they write it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
    ObjectStoragePath,
)
from support.arguments import AT_RUN_TIME
from support.modes import FakeTaskInstance, run_task

from airflow_provider_promptlayer.exceptions import (
    PromptLayerFileError,
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
    PromptLayerSheetChangedError,
)
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerExportSheetOperator
from airflow_provider_promptlayer.testing import (
    Column,
    LocalPromptLayer,
    Sheet,
    Silence,
    Table,
)

SHEET = Sheet(
    "Cases",
    [Column("Question", type="TEXT"), Column("Answer", is_stale=False, failing_rows=[7])],
    rows=[{"Question": f"Why {number}?"} for number in range(250)],
)
TABLE = Table("Support answers", [SHEET])
ROWS_PATH = f"/api/public/v2/tables/{TABLE.id}/sheets/{SHEET.id}/rows"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalPromptLayer]:
    with LocalPromptLayer(tables=[TABLE]) as server:
        monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", server.airflow_connection_json)
        yield server


def make(to: Any = None, **how: Any) -> PromptLayerExportSheetOperator:
    return PromptLayerExportSheetOperator(
        task_id="task", table=TABLE.title, sheet=SHEET.title, to=to, **how
    )


def lines_of(path: Path) -> int:
    """Return how many rows a whole export has."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["row_index"] for row in rows] == list(range(len(rows)))
    return len(rows)


def test_what_the_task_returns(server: LocalPromptLayer, tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    ending = run_task(lambda: make(str(path), columns=["Question"]))
    assert ending.value == {
        "table_id": TABLE.id,
        "sheet_id": SHEET.id,
        "path": str(path),
        "row_count": 250,
        "fields": ["row_index", "Question"],
        "version": 1,
        "cell_counts": {},
        "rows": None,
    }
    assert lines_of(path) == 250
    assert os.listdir(tmp_path) == ["cases.jsonl"]  # noqa: PTH208


def test_rows_alone_are_returned_as_airflow_can_store_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sheet = Sheet(SHEET.title, SHEET.columns, rows=[{"Question": "NUL \0"}])
    with LocalPromptLayer(tables=[Table(TABLE.title, [sheet])]) as server:
        monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", server.airflow_connection_json)
        ending = run_task(lambda: make(return_rows=True, details=False))
    row = {"row_index": 0, "Question": "NUL \ufffd", "Answer": "Answer 0"}
    assert ending.value["rows"] == [row]
    assert ending.value["path"] is None
    assert ending.value["cell_counts"] == {"completed": 1}


@pytest.mark.parametrize(
    ("how", "airflows", "ours"),
    [
        ({"to": "{folder}/cases.xlsx"}, AirflowFailException, PromptLayerInvalidInputError),
        ({"to": ""}, AirflowFailException, PromptLayerInvalidInputError),
        ({"to": "{folder}/no/cases.csv"}, AirflowFailException, PromptLayerInvalidInputError),
        ({"columns": ["Nothing"]}, AirflowFailException, PromptLayerNotFoundError),
        ({"scorecard": True}, AirflowFailException, PromptLayerInvalidInputError),
    ],
)
def test_what_goes_wrong(
    how: dict[str, Any],
    airflows: type[Exception],
    ours: type[Exception],
    server: LocalPromptLayer,
    tmp_path: Path,
) -> None:
    how = {"to": "{folder}/cases.csv"} | how
    how["to"] = how["to"].format(folder=tmp_path)
    ending = run_task(lambda: make(**how, **AT_RUN_TIME))
    assert isinstance(ending.error, ours)
    assert isinstance(ending.error, airflows)
    assert isinstance(ending.error, AirflowFailException) == (airflows is AirflowFailException)
    assert "\n" not in str(ending.error)
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_a_sheet_that_changes(server: LocalPromptLayer, tmp_path: Path) -> None:
    server.script(
        lambda _: server.add_rows(TABLE.id, SHEET.id, [{}]), path_prefix=ROWS_PATH, times=None
    )
    ending = run_task(lambda: make(tmp_path / "cases.csv", on_change="fail"))
    assert isinstance(ending.error, PromptLayerSheetChangedError)
    assert ending.kind == "failed"


@pytest.mark.parametrize("wrong", [{}, {"to": "x.csv", "on_change": "ignore"}])
def test_arguments_that_the_dag_processor_refuses(wrong: dict[str, Any]) -> None:
    with pytest.raises(PromptLayerInvalidInputError):
        make(**wrong)


def test_paths_are_templated(server: LocalPromptLayer, tmp_path: Path) -> None:
    with DAG("dag", schedule=None):
        task = make("file://{{ folder }}/{{ ds }}.jsonl", columns="{{ columns }}")
    context: Any = {"folder": tmp_path, "ds": "2026-11-26", "columns": '["Answer"]'}
    task.render_template_fields(context)
    assert task.execute({"ti": FakeTaskInstance()})["row_count"] == 250  # type: ignore[typeddict-item]
    assert lines_of(tmp_path / "2026-11-26.jsonl") == 250
    path = ObjectStoragePath(f"file://{tmp_path}/path.csv")
    assert run_task(lambda: make(path)).value["path"] == str(path)


def test_a_task_that_is_being_stopped_leaves_nothing(
    server: LocalPromptLayer, tmp_path: Path
) -> None:
    task = make(tmp_path / "cases.csv")
    server.script(lambda _: task.on_kill(), path_prefix=ROWS_PATH, after=1, times=None)
    with pytest.raises(AirflowException, match="is being stopped"):
        task.execute({"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_tasks_that_write_at_the_same_time_do_not_remove_each_others_files(
    server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys: list[str] = []

    def export(*_: Any, key: str, **__: Any) -> None:
        keys.append(key)
        raise PromptLayerFileError("no room")

    monkeypatch.setattr(PromptLayerHook, "export_rows", export)
    others: list[dict[str, Any]] = [
        {"dag_id": "b"},
        {"run_id": "b"},
        {"task_id": "b"},
        {"map_index": 1},
    ]
    for changes in ({}, {"try_number": 2}, *others):
        run_task(lambda: make("x.csv"), FakeTaskInstance(**changes))
    assert keys[0] == keys[1]
    assert len(set(keys)) == 1 + len(others)


WORKER = """
import sys, time
from fsspec.implementations.local import LocalFileSystem
from support.modes import FakeTaskInstance
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerExportSheetOperator

def wait(*_):
    print("about to move", flush=True)
    time.sleep(60)

if sys.argv[3] == "before the move":
    LocalFileSystem.mv = wait
table_id, sheet_id = sys.argv[1].split("/")
PromptLayerExportSheetOperator(
    task_id="task", table_id=table_id, sheet_id=sheet_id, to=sys.argv[2]
).execute({"ti": FakeTaskInstance()})
"""
"""A task in a process of its own, which prints a line where it is to be killed."""


@pytest.mark.parametrize("moment", ["mid-page", "before the move"])
def test_a_worker_that_is_killed_leaves_the_file_as_it_was(
    moment: str, server: LocalPromptLayer, tmp_path: Path
) -> None:
    path = tmp_path / "cases.jsonl"
    path.write_text("an older export")
    if moment == "mid-page":
        server.script(Silence(), path_prefix=ROWS_PATH, after=2, times=1)
    command = [sys.executable, "-c", WORKER, f"{TABLE.id}/{SHEET.id}", str(path), moment]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as worker:
        if moment == "mid-page":
            server.wait_for(lambda: server.count("GET", ROWS_PATH) == 3, timeout=60)
        else:
            assert worker.stdout is not None
            assert "about to move\n" in iter(worker.stdout.readline, "")
        worker.kill()
    left = sorted(file.name for file in tmp_path.iterdir())
    assert [name.endswith(".part") for name in left] == [True, False]
    assert path.read_text() == "an older export"

    ending = run_task(lambda: make(str(path)), FakeTaskInstance(try_number=2))
    assert ending.value["row_count"] == lines_of(path) == 250
    assert os.listdir(tmp_path) == ["cases.jsonl"]  # noqa: PTH208
