# SPDX-License-Identifier: Apache-2.0
"""Each kind of work at once: mapped runs, a worker that waits, a batch, and an evaluation."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerExportSheetOperator,
    PromptLayerLoadSheetOperator,
    PromptLayerRunScorecardOperator,
    PromptLayerRunTableOperator,
    PromptLayerRunWorkflowBatchOperator,
    PromptLayerRunWorkflowOperator,
)

SHEET = {"table": "Cases", "sheet": "{{ params.sheet }}"}

with DAG(
    dag_id="distributed_everything",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    params={"sheet": "", "file": "", "runs": 6, "inputs": 6, "rows": 20},
    # Longer than any cable is cut: five minutes.
    default_args={"retries": 15, "retry_delay": timedelta(seconds=20), "poke_interval": 2},
):

    @task
    def numbers(params: dict) -> list[dict[str, int]]:
        return [{"number": number} for number in range(params["runs"])]

    @task
    def inputs(params: dict) -> list[dict[str, int]]:
        return [{"number": number} for number in range(params["inputs"])]

    @task
    def rows(params: dict) -> list[dict[str, str]]:
        return [{"Question": f"{number}?"} for number in range(params["rows"])]

    PromptLayerRunWorkflowOperator.partial(task_id="run", workflow_id_or_name="Held").expand(
        input_variables=numbers()
    )
    # One on each machine, whichever is cut off.
    for machine in (1, 2):
        PromptLayerRunWorkflowOperator(
            task_id=f"in_worker_{machine}",
            workflow_id_or_name="Held",
            input_variables={"number": -1},
            deferrable=False,
            queue=f"machine-{machine}",
        )
    PromptLayerRunWorkflowBatchOperator(
        task_id="batch", workflow_id_or_name="Held", inputs=inputs()
    )
    load = PromptLayerLoadSheetOperator(task_id="load", **SHEET, rows=rows())
    recalculate = PromptLayerRunTableOperator(task_id="recalculate", **SHEET, fail_on="never")
    gate = PromptLayerRunScorecardOperator(task_id="gate", **SHEET, min_score=0.8)
    export = PromptLayerExportSheetOperator(
        task_id="export", **SHEET, to="{{ params.file }}", scorecard=True
    )
    load >> recalculate >> gate >> export
