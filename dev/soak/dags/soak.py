# SPDX-License-Identifier: Apache-2.0
"""One round of the soak. `dev/soak/load.py` says what each task has to start and to return."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerLoadSheetOperator,
    PromptLayerPromoteOperator,
    PromptLayerRunReportOperator,
    PromptLayerRunScorecardOperator,
    PromptLayerRunTableOperator,
    PromptLayerRunWorkflowBatchOperator,
    PromptLayerRunWorkflowOperator,
)

ROUND = "{{ run_id }}"
RETRIES = 50
WAIT = {"poke_interval": 5, "timeout": timedelta(hours=2)}


def question(number: int) -> dict[str, str]:
    """Return an input that no other task has."""
    return {"question": f"{ROUND} {{{{ ti.task_id }}}} {number}"}


with DAG(
    dag_id="soak",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=6,
    max_active_tasks=200,
    # A try may be lost with each kill.
    default_args={"retries": RETRIES, "retry_delay": timedelta(seconds=10)},
) as dag:
    for task_id, workflow, retries in (
        ("run", "Long", RETRIES),
        ("again", "Failing first", RETRIES),
        ("doomed", "Failing", 1),
    ):
        PromptLayerRunWorkflowOperator(
            task_id=task_id,
            workflow_id_or_name=workflow,
            input_variables=question(0),
            **{**WAIT, "retries": retries},
        )
    PromptLayerRunWorkflowOperator.partial(
        task_id="mapped", workflow_id_or_name="Short", **WAIT
    ).expand(input_variables=[question(number) for number in range(5)])
    PromptLayerRunWorkflowBatchOperator(
        task_id="batch",
        workflow_id_or_name="Short",
        inputs=[question(number) for number in range(9)],
        **WAIT,
    )
    PromptLayerRunTableOperator(task_id="cells", table=ROUND, sheet="Cells", **WAIT)
    PromptLayerRunScorecardOperator(task_id="scorecard", table=ROUND, sheet="Scorecard", **WAIT)
    PromptLayerRunReportOperator(task_id="report", report_id=1, name=ROUND, **WAIT)
    PromptLayerLoadSheetOperator(
        task_id="load",
        table=ROUND,
        sheet="Load",
        rows=[{"Question": f"{ROUND} {number}"} for number in range(10)],
        **WAIT,
    )
    PromptLayerPromoteOperator(task_id="promote_prompt", prompt=ROUND, version=2)
    PromptLayerPromoteOperator(task_id="promote_workflow", workflow=ROUND, version=2)
