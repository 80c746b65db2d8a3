# SPDX-License-Identifier: Apache-2.0
"""The same runs twice: as one task, and as one mapped task for each."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerRunWorkflowBatchOperator,
    PromptLayerRunWorkflowOperator,
)

COMMON = {
    "schedule": None,
    "start_date": datetime(2026, 1, 1),
    "catchup": False,
    # So that the executor is what limits the tasks, the same for both.
    "max_active_tasks": 1000,
}


def numbered(dag_run: Any = None) -> list[dict[str, int]]:
    return [{"number": number} for number in range(dag_run.conf["runs"])]


with DAG(dag_id="bench_batch", **COMMON):
    PromptLayerRunWorkflowBatchOperator(
        task_id="run", workflow_id_or_name="some", inputs=task(numbered, task_id="inputs")()
    )

with DAG(dag_id="bench_mapped", **COMMON):
    PromptLayerRunWorkflowOperator.partial(
        task_id="run", workflow_id_or_name="some", push_node_xcoms=False
    ).expand(input_variables=task(numbered, task_id="inputs")())
