# SPDX-License-Identifier: Apache-2.0
"""Every fault of a start and of a poll, as mapped tasks: in the worker and in the triggerer."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowOperator
from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerWorkflowSensor

CONNECTION = {"promptlayer_conn_id": "{{ params.connection }}"}

with DAG(
    dag_id="live_quoting",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_tasks=100,
    params={"connection": "", "starts": [], "polls": [], "waits": []},
):

    @task
    def starts(params: dict) -> list[str]:
        return params["starts"]

    @task
    def polls(params: dict) -> list[int]:
        return params["polls"]

    @task
    def waits(params: dict) -> list[int]:
        return params["waits"]

    PromptLayerRunWorkflowOperator.partial(
        task_id="start", wait_for_completion=False, **CONNECTION
    ).expand(workflow_id_or_name=starts())
    PromptLayerWorkflowSensor.partial(
        task_id="poll", deferrable=False, timeout=1, poke_interval=1, **CONNECTION
    ).expand(workflow_version_execution_id=polls())
    # Long enough an outage for the triggerer to warn of it first.
    PromptLayerWorkflowSensor.partial(
        task_id="wait", max_outage=2, poke_interval=1, **CONNECTION
    ).expand(workflow_version_execution_id=waits())
