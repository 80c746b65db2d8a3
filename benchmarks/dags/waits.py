# SPDX-License-Identifier: Apache-2.0
"""DAGs that do nothing but wait for runs that exist already, each in another usual way.

`bench_one_…` waits for `conf["run"]`. `bench_many_…` maps its wait over `conf["runs"]`. All of them
send the same GET, and take HTTP status 200 for the end.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task
from airflow.providers.http.sensors.http import HttpSensor

from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerWorkflowSensor

COMMON = {
    "schedule": None,
    "start_date": datetime(2026, 1, 1),
    "catchup": False,
    # So that the executor is what limits the waits, the same for all.
    "max_active_tasks": 1000,
}
RESULTS = (
    "/workflow-version-execution-results?return_all_outputs=true&workflow_version_execution_id="
)
ONE_POKE_INTERVAL = 10
MANY_POKE_INTERVAL = 30


def ended(response: Any) -> bool:
    return response.status_code == 200


HTTP = {"http_conn_id": "promptlayer_http", "method": "GET", "response_check": ended}

OPTIONS: dict[str, dict[str, Any]] = {
    "promptlayer": {},
    "promptlayer_end": {"end_from_trigger": True},
    "promptlayer_start_and_end": {"start_from_trigger": True, "end_from_trigger": True},
}

for name, arguments in OPTIONS.items():
    with DAG(dag_id=f"bench_one_{name}", **COMMON):
        PromptLayerWorkflowSensor(
            task_id="wait",
            workflow_version_execution_id="{{ dag_run.conf['run'] }}",
            poke_interval=ONE_POKE_INTERVAL,
            **arguments,
        )

for mode in ("poke", "reschedule"):
    with DAG(dag_id=f"bench_one_http_{mode}", **COMMON):
        HttpSensor(
            task_id="wait",
            endpoint=RESULTS + "{{ dag_run.conf['run'] }}",
            mode=mode,
            poke_interval=ONE_POKE_INTERVAL,
            **HTTP,
        )

for name, arguments in OPTIONS.items():
    if "start_from_trigger" in arguments:
        continue  # Airflow starts no mapped task in the triggerer
    with DAG(dag_id=f"bench_many_{name}", **COMMON):

        @task
        def runs(dag_run: Any = None) -> list[int]:
            return list(dag_run.conf["runs"])

        PromptLayerWorkflowSensor.partial(
            task_id="wait", poke_interval=MANY_POKE_INTERVAL, **arguments
        ).expand(workflow_version_execution_id=runs())

with DAG(dag_id="bench_many_http_reschedule", **COMMON):

    @task
    def endpoints(dag_run: Any = None) -> list[str]:
        return [f"{RESULTS}{run}" for run in dag_run.conf["runs"]]

    HttpSensor.partial(
        task_id="wait", mode="reschedule", poke_interval=MANY_POKE_INTERVAL, **HTTP
    ).expand(endpoint=endpoints())
