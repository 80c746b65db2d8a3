# SPDX-License-Identifier: Apache-2.0
"""From PostgreSQL through a sheet to S3 and back, on a real PostgreSQL and an S3 server."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
from live.etl import BUCKET, CASES, FIRST, RUNS, support_cases
from live.runs import Run, watch

from airflow_provider_promptlayer.testing import LocalPromptLayer
from dev.airflow_stack import AirflowStack
from dev.s3_server import S3Server
from dev.warehouse import Warehouse

ETL, MAPPED, CRASHES = RUNS
BILLING, REFUNDS = CASES.values()


@pytest.fixture(scope="module")
def runs(stack: AirflowStack, early_runs: dict[str, str]) -> dict[str, Run]:
    found = {dag: Run(stack, dag, early_runs[dag]) for dag in RUNS}
    watch(stack, [*found.values()])
    return found


def read(lake: S3Server, folder: str) -> list[list[dict[str, Any]]]:
    """Return the rows of each file of a folder of the bucket."""
    filesystem = lake.filesystem
    selector = import_module("pyarrow.fs").FileSelector(f"{BUCKET}/{folder}", recursive=True)
    paths = sorted(one.path for one in filesystem.get_file_info(selector) if one.is_file)
    parquet = import_module("pyarrow.parquet")
    return [parquet.read_table(path, filesystem=filesystem).to_pylist() for path in paths]


def rows_added(promptlayer: LocalPromptLayer, title: str) -> list[int | None]:
    """Return how many rows each import has brought into a sheet of the table."""
    (sheet,) = [one for one in support_cases().sheets if one.title == title]
    return [one.rows_added for one in promptlayer.imports if one.sheet_id == sheet.id]


def test_the_example(
    runs: dict[str, Run], lake: S3Server, warehouse: Warehouse, promptlayer: LocalPromptLayer
) -> None:
    assert runs[ETL].state == "success"
    assert rows_added(promptlayer, "Nightly") == [3]
    (rows,) = read(lake, "nightly")
    assert {row["Question"] for row in rows} == {FIRST, *BILLING, *REFUNDS}
    assert {row["Answer_status"] for row in rows} == {"completed"}
    fields = ("Question", "Answer", "scorecard_verdict", "scorecard_score")
    assert set(warehouse.answers()) == {tuple(row[name] for name in fields) for row in rows}
    assert {row["scorecard_verdict"] for row in rows} == {"pass"}


def test_the_mapped_example(
    runs: dict[str, Run], lake: S3Server, promptlayer: LocalPromptLayer
) -> None:
    assert runs[MAPPED].state == "success"
    questions = [{row["Question"] for row in rows} for rows in read(lake, "mapped")]
    assert questions == [{FIRST, *BILLING}, {FIRST, *REFUNDS}]
    assert rows_added(promptlayer, "Billing") == [1]
    assert rows_added(promptlayer, "Refunds") == [2]


def test_dead_workers_import_once_and_leave_one_whole_file(
    runs: dict[str, Run], lake: S3Server, promptlayer: LocalPromptLayer
) -> None:
    run = runs[CRASHES]
    assert run.state == "success"
    for task in ("load", "export"):
        assert run.stack.task_log(run.dag_id, run.run_id, task, try_number=2)
    assert rows_added(promptlayer, "Crashes") == [500]
    (rows,) = read(lake, "crashes")
    assert [row["Question"] for row in rows] == [FIRST, *(f"{number}?" for number in range(500))]
