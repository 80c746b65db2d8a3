# SPDX-License-Identifier: Apache-2.0
"""A DAG as users write it, for ``make types`` alone: mypy has to refuse each line that says so.

mypy counts a ``type: ignore`` that ignores nothing as an error.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerExportSheetOperator,
    PromptLayerPromoteOperator,
    PromptLayerRunReportOperator,
    PromptLayerRunScorecardOperator,
    PromptLayerRunTableOperator,
    PromptLayerRunWorkflowBatchOperator,
    PromptLayerRunWorkflowOperator,
)
from airflow_provider_promptlayer.sensors.promptlayer import (
    PromptLayerScorecardSensor,
    PromptLayerWorkflowSensor,
)

SHEET: dict[str, Any] = {"table": "Support answers", "sheet": "Regression set"}

with DAG("typed", schedule=None, default_args={"retries": 2}):

    @task
    def half(score: float) -> float:
        return score / 2

    @task
    def results(run_id: int) -> dict[str, Any]:
        hook = PromptLayerHook()
        found = hook.wait_for_workflow_results(run_id, timeout=60, fail_on="any_node")
        hook.wait_for_workflow_results(run_id)  # type: ignore[call-arg]
        return found.outputs

    run = PromptLayerRunWorkflowOperator(
        task_id="run",
        workflow_id_or_name="Article pipeline",
        input_variables={"topic": "tea"},
        nodes=["Summarize"],
        retries=3,
        retry_delay=timedelta(minutes=1),
        on_failure_callback=len,
        poke_interval=timedelta(seconds=30),
        timeout=600,
        durable=True,
    )
    mapped = PromptLayerRunWorkflowOperator.partial(
        task_id="mapped", workflow_id_or_name="Article pipeline"
    ).expand(input_variables=run.output["Summarize"])
    batch = PromptLayerRunWorkflowBatchOperator(
        task_id="batch", workflow_id_or_name="Article pipeline", inputs=run.output["Topics"]
    )
    wait = PromptLayerWorkflowSensor(
        task_id="wait",
        workflow_version_execution_id=run.output["promptlayer_execution_id"],
        deferrable=False,
        mode="reschedule",
    )
    gate = PromptLayerRunScorecardOperator(task_id="gate", **SHEET, min_score=0.8, max_drop=0.02)
    report = PromptLayerRunReportOperator(task_id="report", report_id=1, name="{{ ds }}")
    promote = PromptLayerPromoteOperator(
        task_id="promote", prompt="Support reply", from_label="staging", label="prod"
    )
    export = PromptLayerExportSheetOperator(task_id="export", **SHEET, to="s3://bucket/rows.csv")
    run >> gate >> [promote, half(gate.output["promptlayer_score"])]
    results(run.output["promptlayer_execution_id"]) >> [export, report, batch, wait, mapped]

    PromptLayerRunWorkflowOperator(task_id="a")  # type: ignore[call-arg]
    PromptLayerRunWorkflowOperator(workflow_id_or_name="w")  # type: ignore[call-arg]
    PromptLayerRunWorkflowOperator(
        task_id="b",
        workflow_id_or_name="w",
        max_outtage=60,  # type: ignore[call-arg]
        timeout="1 h",  # type: ignore[arg-type]
        fail_on="any_cell",  # type: ignore[arg-type]
        retries="2",  # type: ignore[arg-type]
        metadata=3,  # type: ignore[arg-type]
    )
    PromptLayerRunTableOperator(
        task_id="c",
        **SHEET,
        fail_on="no_output",  # type: ignore[arg-type]
        deferrable="no",  # type: ignore[arg-type]
        wait_for_completion="no",  # type: ignore[arg-type]
    )
    PromptLayerScorecardSensor(
        task_id="d",
        **SHEET,
        calculation_id="…",
        min_score=[0.8],  # type: ignore[arg-type]
        mode="defer",  # type: ignore[arg-type]
    )
    PromptLayerScorecardSensor(
        task_id="e",
        **SHEET,
        calculation_id="…",
        wait_for_completion=False,  # type: ignore[call-arg]
    )
