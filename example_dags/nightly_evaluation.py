# SPDX-License-Identifier: Apache-2.0
"""Every night: recalculate a table, judge it by its scorecard, and raise the alarm if it fails."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerRunScorecardOperator,
    PromptLayerRunTableOperator,
)

with DAG(
    dag_id="promptlayer_nightly_evaluation",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    # Those of the local PromptLayer. Give your own: both are in the URL of a sheet.
    params={
        "table_id": "5c0a1e00-0000-4000-8000-000000000001",
        "sheet_id": "5c0a1e00-0000-4000-8000-000000000011",
        "min_score": 0.8,
    },
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    tags=["promptlayer", "example"],
):
    recalculate = PromptLayerRunTableOperator(
        task_id="recalculate",
        table_id="{{ params.table_id }}",
        sheet_id="{{ params.sheet_id }}",
        # A cell that failed last night is calculated again. If it fails again, the scorecard says
        # what a row without an answer is worth.
        statuses=["STALE", "FAILED"],
        fail_on="never",
        timeout=timedelta(hours=4),
    )

    # The gate: neither an outage nor a crash, but the verdict alone, fails it for good.
    gate = PromptLayerRunScorecardOperator(
        task_id="gate",
        table_id="{{ params.table_id }}",
        sheet_id="{{ params.sheet_id }}",
        min_score="{{ params.min_score }}",
        timeout=timedelta(hours=1),
    )

    # What the scorecard found is in XCom whether or not it passed; without it there is none.
    @task(trigger_rule="one_failed", retries=0)
    def alert(ti: Any = None) -> None:
        score, verdict, criteria = (
            ti.xcom_pull(task_ids="gate", key=f"promptlayer_{name}")
            for name in ("score", "verdict", "criterion_summaries")
        )
        if verdict is None:
            print("The nightly evaluation has no verdict: the log of the failed task says why.")
        else:
            # Unchanged: PromptLayer does not document their shape.
            print(f"The nightly evaluation scored {score} ({verdict}). Criteria: {criteria}")

    recalculate >> gate >> alert()
