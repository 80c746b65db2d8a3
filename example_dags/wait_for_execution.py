# SPDX-License-Identifier: Apache-2.0
"""Wait for a run that was started elsewhere, then fetch two of its nodes.

Trigger it with `workflow_version_execution_id`, the id that PromptLayer gave when the run was
started: by an application, by another DAG, by hand.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerWorkflowResultsOperator
from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerWorkflowSensor

PARAMS: Any = {"workflow_version_execution_id": Param(1, type="integer", minimum=1)}

with DAG(
    dag_id="promptlayer_wait_for_execution",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    params=PARAMS,
    doc_md=__doc__,
    tags=["promptlayer", "example"],
):
    wait = PromptLayerWorkflowSensor(
        task_id="wait",
        workflow_version_execution_id="{{ params.workflow_version_execution_id }}",
        timeout=60 * 60,
    )

    # The sensor returns the id, so that it can be chained.
    fetch = PromptLayerWorkflowResultsOperator(
        task_id="fetch",
        workflow_version_execution_id=wait.output,
        nodes=["Summarize", "Translate"],
    )

    @task
    def compare(summary: str, translation: str) -> None:
        print(f"{summary!r} became {translation!r}")

    compare(fetch.output["Summarize"], fetch.output["Translate"])
