# SPDX-License-Identifier: Apache-2.0
"""Load, evaluate and export several sheets, as `evaluation_etl.py` does one.

In the params, `topics` are the titles of the sheets, and of the cases for each; `table` is the
title of their table, and `lake` the folder for the results. A sheet that fails its gate keeps none
of the others from being exported.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task, task_group
from airflow.providers.common.sql.operators.sql import SQLExecuteQueryOperator

from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerExportSheetOperator,
    PromptLayerLoadSheetOperator,
    PromptLayerRunScorecardOperator,
    PromptLayerRunTableOperator,
)

# A run that is triggered by the API may have no logical date.
DAY = "{{ (dag_run.logical_date or dag_run.run_after) | ds }}"

PARAMS: Any = {
    "table": "Support answers",
    "topics": ["Regression set", "Hard questions"],
    "lake": "s3://lake@evaluations",
}

with DAG(
    dag_id="promptlayer_evaluation_etl_mapped",
    schedule=None,  # yours, such as "0 2 * * *"
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
    tags=["promptlayer", "example"],
) as dag:

    @task
    def list_topics(params: Any = None) -> list[str]:
        topics: list[str] = params["topics"]
        return topics

    @task_group
    def evaluate(topic: str) -> None:
        table = "{{ params.table }}"
        cases = SQLExecuteQueryOperator(
            task_id="cases",
            conn_id="warehouse",
            sql="SELECT question FROM cases WHERE asked_on = %(day)s AND topic = %(topic)s",
            parameters={"day": DAY, "topic": topic},
        )
        load = PromptLayerLoadSheetOperator(
            task_id="load", table=table, sheet=topic, rows=cases.output, columns=["Question"]
        )
        recalculate = PromptLayerRunTableOperator(
            task_id="recalculate", table=table, sheet=topic, fail_on="never"
        )
        gate = PromptLayerRunScorecardOperator(
            task_id="gate", table=table, sheet=topic, min_score=0.8
        )
        export = PromptLayerExportSheetOperator(
            task_id="export",
            table=table,
            sheet=topic,
            to="{{ params.lake }}/" + DAY + "/{{ ti.map_index }}.parquet",
            scorecard=True,
        )
        load >> recalculate >> gate >> export

    evaluate.expand(topic=list_topics())
