# SPDX-License-Identifier: Apache-2.0
"""Every night: the day's cases into a sheet, judge the answers to them, and the results to S3.

The cases are in PostgreSQL, the connection `warehouse`; `lake` is a connection of type `aws`.
The provider packages `postgres` and `amazon[s3fs]` are needed, and pyarrow.

In the params, `table` and `sheet` are titles, and `lake` is the folder for the results. If the
answers do not pass, `gate` fails and nothing is exported.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, BaseHook, ObjectStoragePath, task
from airflow.providers.common.sql.operators.sql import SQLCheckOperator, SQLExecuteQueryOperator

from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerExportSheetOperator,
    PromptLayerLoadSheetOperator,
    PromptLayerRunScorecardOperator,
    PromptLayerRunTableOperator,
)

PARAMS: Any = {
    "table": "Support answers",
    "sheet": "Regression set",
    "lake": "s3://lake@evaluations",
}


def read_parquet(path: str, fields: list[str]) -> list[tuple[Any, ...]]:
    from pyarrow.parquet import read_table  # not at the top: DAG files are parsed again and again

    with ObjectStoragePath(path).open("rb") as file:
        return [tuple(row[name] for name in fields) for row in read_table(file).to_pylist()]


# A run that is triggered by the API may have no logical date.
DAY = "{{ (dag_run.logical_date or dag_run.run_after) | ds }}"
CASES = f"SELECT question, expected FROM cases WHERE asked_on = '{DAY}'"
CHECK = f"""
    SELECT count(*) > 0, count(*) = count(verdict)
    FROM cases LEFT JOIN answers USING (question) WHERE asked_on = '{DAY}'
"""
FILE = "{{ params.lake }}/" + DAY + ".parquet"
SHEET: dict[str, Any] = {"table": "{{ params.table }}", "sheet": "{{ params.sheet }}"}
with DAG(
    dag_id="promptlayer_evaluation_etl",
    schedule=None,  # yours, such as "0 2 * * *"
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    default_args={"conn_id": "warehouse", "retries": 2, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
    tags=["promptlayer", "example"],
):
    cases = SQLExecuteQueryOperator(task_id="cases", sql=CASES)
    # Adds the rows once, whatever happens. The new ones are stale, so they alone are calculated.
    load = PromptLayerLoadSheetOperator(
        task_id="load", **SHEET, rows=cases.output, columns=["Question", "Expected"]
    )
    recalculate = PromptLayerRunTableOperator(task_id="recalculate", **SHEET, fail_on="never")
    gate = PromptLayerRunScorecardOperator(task_id="gate", **SHEET, min_score=0.8)
    export = PromptLayerExportSheetOperator(task_id="export", **SHEET, to=FILE, scorecard=True)

    @task
    def copy_to_warehouse(exported: dict[str, Any]) -> None:
        fields = ["Question", "Answer", "scorecard_verdict", "scorecard_score"]
        rows = read_parquet(exported["path"], fields)
        columns = ["question", "answer", "verdict", "score"]
        hook = BaseHook.get_hook("warehouse")
        hook.insert_rows("answers", rows, columns, replace=True, replace_index="question")

    check = SQLCheckOperator(task_id="check", sql=CHECK)

    load >> recalculate >> gate >> export >> copy_to_warehouse(export.output) >> check
