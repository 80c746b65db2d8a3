# SPDX-License-Identifier: Apache-2.0
"""Waits that begin or end in the triggerer, with callbacks and templates.

A task's log shows how many workers ran it; callbacks write a line to the file that
`PROMPTLAYER_CALLBACKS` names.
"""

from __future__ import annotations

import os
import warnings
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerWorkflowSensor

COMMON = {"schedule": None, "start_date": datetime(2026, 1, 1), "catchup": False}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "end": {"end_from_trigger": True},
    "start": {"start_from_trigger": True},
    "both": {"start_from_trigger": True, "end_from_trigger": True},
}

# Before Airflow 3.3, start_from_trigger warns; here every version gets it.
warnings.filterwarnings("ignore", message=".*start_from_trigger=True, which needs Airflow 3.3")


def note(kind: str) -> Any:
    def callback(context: Any) -> None:
        with Path(os.environ["PROMPTLAYER_CALLBACKS"]).open("a") as file:
            file.write(f"{context['run_id']} {context['ti'].task_id} {kind}\n")

    return callback


CALLBACKS = {f"on_{kind}_callback": note(kind) for kind in ("success", "failure", "skipped")}


@task
def pass_on(run: int) -> int:
    return run


with DAG("live_ends", params={"run": 1, "broken": 1}, **COMMON):
    started = pass_on("{{ params.run }}")  # type: ignore[arg-type]
    for way, options in WAYS.items():
        (
            PromptLayerWorkflowSensor(
                task_id=f"good_{way}",
                workflow_version_execution_id=started,
                poke_interval=1,
                **options,
                **CALLBACKS,
            )
            >> task(lambda: "after", task_id=f"after_{way}")()
        )
        PromptLayerWorkflowSensor(
            task_id=f"bad_{way}",
            workflow_version_execution_id="{{ params.broken }}",
            poke_interval=1,
            retries=2,
            retry_delay=timedelta(seconds=1),
            **options,
            **CALLBACKS,
        )
        PromptLayerWorkflowSensor(
            task_id=f"soft_{way}",
            workflow_version_execution_id="{{ params.broken }}",
            poke_interval=1,
            soft_fail=True,
            **options,
            **CALLBACKS,
        )
    PromptLayerWorkflowSensor.partial(task_id="mapped", end_from_trigger=True).expand(
        workflow_version_execution_id=["{{ params.run }}"] * 2
    )

with DAG("live_ends_templates", params={"run": 1}, render_template_as_native_obj=True, **COMMON):
    started = pass_on("{{ params.run }}")  # type: ignore[arg-type]
    both = WAYS["both"]
    arguments: dict[str, dict[str, Any]] = {
        "params": {"workflow_version_execution_id": "{{ params.run }}"},
        "conf": {"workflow_version_execution_id": "{{ dag_run.conf['run'] }}"},
        "pull": {
            "workflow_version_execution_id": (
                "{{ ti.xcom_pull(task_ids='pass_on', map_indexes=-1) }}"
            )
        },
        "output": {"workflow_version_execution_id": started},
        "connection": {
            "workflow_version_execution_id": "{{ params.run }}",
            "promptlayer_conn_id": "{{ var.value.get('none_such', 'promptlayer_default') }}",
        },
        "error": {"workflow_version_execution_id": "{{ dag_run.conf.nothing.of_that_kind }}"},
        "no_number": {"workflow_version_execution_id": "{{ run_id }}"},
        "no_run": {"workflow_version_execution_id": 4711},
        "no_connection": {
            "workflow_version_execution_id": "{{ params.run }}",
            "promptlayer_conn_id": "none_such",
        },
    }
    sensors = {
        task_id: PromptLayerWorkflowSensor(task_id=task_id, **both, **given)
        for task_id, given in arguments.items()
    }
    started >> sensors["pull"]

with DAG("live_ends_late", params={"run": 1}, **COMMON):
    PromptLayerWorkflowSensor(
        task_id="late",
        workflow_version_execution_id="{{ params.run }}",
        timeout=60,
        poke_interval=1,
        **WAYS["both"],
    )
