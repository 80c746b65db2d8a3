# SPDX-License-Identifier: Apache-2.0
"""DAGs whose one task starts a run and waits for it, each in another usual way.

How long the run takes is in `conf["seconds"]`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.http.hooks.http import HttpHook
from airflow.providers.http.sensors.http import HttpSensor

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowOperator

COMMON: dict[str, Any] = {"schedule": None, "start_date": datetime(2026, 1, 1), "catchup": False}
OURS: dict[str, dict[str, Any]] = {
    "promptlayer": {},
    "promptlayer_at_once": {"defer_after": 0},
    "promptlayer_later": {"defer_after": 30},
    "promptlayer_poke": {"deferrable": False},
}
HTTP_POKE_INTERVAL = 5
OTHERS: dict[str, dict[str, Any]] = {
    "http_poke": {},
    "http_reschedule": {"mode": "reschedule"},
    "http_deferrable": {"deferrable": True},
    # One poll, then a deferral, and the default interval of DbtCloudRunJobOperator.
    "dbt_cloud": {"deferrable": True, "poke_interval": 60},
}
CONNECTION = "short_runs"


class StartAndWait(HttpSensor):
    """Starts what it waits for; a request to start what has been started does nothing."""

    def pre_execute(self, context: Any) -> None:
        """Start the run that bears the id of the DAG run."""
        self.endpoint = f"/runs/{context['run_id']}"
        seconds = context["dag_run"].conf["seconds"]
        HttpHook(method="POST", http_conn_id=CONNECTION).run(f"{self.endpoint}?seconds={seconds}")


for name, arguments in OURS.items():
    with DAG(dag_id=f"bench_short_{name}", **COMMON):
        PromptLayerRunWorkflowOperator(
            task_id="run", workflow_id_or_name="{{ dag_run.conf['seconds'] }} s", **arguments
        )

for name, arguments in OTHERS.items():
    with DAG(dag_id=f"bench_short_{name}", **COMMON):
        StartAndWait(
            task_id="run",
            http_conn_id=CONNECTION,
            endpoint="",
            **{"deferrable": False, "poke_interval": HTTP_POKE_INTERVAL, **arguments},
        )
