# SPDX-License-Identifier: Apache-2.0
"""Many mapped waits at once: for runs that were started elsewhere, and for runs of its own.

Each task may be retried, so that one which Airflow wrongly took for dead would start a second run,
which the tests would count.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowOperator
from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerWorkflowSensor

HOW = {"poke_interval": 1, "timeout": 900, "retries": 2, "retry_delay": timedelta(seconds=1)}

with DAG(
    dag_id="live_waits",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_tasks=100,
    params={"runs": [], "numbers": []},
):

    @task
    def runs(params: dict) -> list[int]:
        return params["runs"]

    @task
    def inputs(params: dict) -> list[dict[str, int]]:
        return [{"number": number} for number in params["numbers"]]

    PromptLayerWorkflowSensor.partial(task_id="watch", **HOW).expand(
        workflow_version_execution_id=runs()
    )
    PromptLayerRunWorkflowOperator.partial(
        task_id="start", workflow_id_or_name="Held", **HOW
    ).expand(input_variables=inputs())
