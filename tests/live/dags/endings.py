# SPDX-License-Identifier: Apache-2.0
"""DAGs that end in the other ways: failures, retries, skips, reschedules, templates."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerRunWorkflowOperator,
    PromptLayerWorkflowResultsOperator,
)
from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerWorkflowSensor

COMMON = {"schedule": None, "start_date": datetime(2026, 1, 1), "catchup": False}

with DAG(dag_id="live_failed_run", **COMMON):
    started = PromptLayerRunWorkflowOperator(
        task_id="started",
        workflow_id_or_name="Broken report",
        input_variables={"report": "r"},
        poke_interval=0.5,
        retries=1,
        retry_delay=timedelta(seconds=1),
    )

    @task(trigger_rule="all_failed")
    def alert(statuses: dict[str, str]) -> dict[str, str]:
        return statuses

    alert(started.output["promptlayer_node_statuses"])

with DAG(dag_id="live_watched_run", params={"run": 1}, **COMMON):
    sensor = PromptLayerWorkflowSensor(
        task_id="sensor",
        workflow_version_execution_id="{{ params.run }}",
        poke_interval=0.5,
        retries=3,
        retry_delay=timedelta(seconds=1),
    )
    soft = PromptLayerWorkflowSensor(
        task_id="soft",
        workflow_version_execution_id="{{ params.run }}",
        poke_interval=0.5,
        soft_fail=True,
    )
    late = PromptLayerWorkflowSensor(
        task_id="late", workflow_version_execution_id="{{ params.run }}", timeout=0, retries=3
    )

with DAG(dag_id="live_modes", params={"run": 1}, **COMMON):
    # Another run, and a short one: Airflow 2's SequentialExecutor does nothing else meanwhile.
    start = PromptLayerRunWorkflowOperator(
        task_id="start",
        workflow_id_or_name="Article pipeline",
        input_variables={"topic": "rain"},
        wait_for_completion=False,
    )
    poke = PromptLayerWorkflowSensor(
        task_id="poke",
        workflow_version_execution_id=start.output,
        deferrable=False,
        poke_interval=1,
    )
    # Airflow fails a task that is back before the scheduler has noticed that it went away, so the
    # intervals are longer than that takes on a busy machine.
    reschedule = PromptLayerWorkflowSensor(
        task_id="reschedule",
        workflow_version_execution_id="{{ params.run }}",
        deferrable=False,
        mode="reschedule",
        poke_interval=10,
    )
    reschedule_late = PromptLayerWorkflowSensor(
        task_id="reschedule_late",
        workflow_version_execution_id="{{ params.run }}",
        deferrable=False,
        mode="reschedule",
        poke_interval=10,
        timeout=11,
    )
    for sensor in (poke, reschedule):
        fetch = PromptLayerWorkflowResultsOperator(
            task_id=f"fetch_after_{sensor.task_id}",
            workflow_version_execution_id=sensor.output,
            deferrable=False,
        )

with DAG(dag_id="live_mapped", **COMMON):

    @task
    def runs() -> list[int]:
        from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook

        hook = PromptLayerHook()
        return [
            hook.run_workflow("Triage ticket", input_variables={"ticket": text})
            for text in ("a", "b")
        ]

    PromptLayerWorkflowSensor.partial(task_id="sensor", poke_interval=0.5).expand(
        workflow_version_execution_id=runs()
    )
