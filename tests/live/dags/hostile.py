# SPDX-License-Identifier: Apache-2.0
"""Runs with hostile names and values, and tasks downstream that are handed them by Airflow."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowOperator
from airflow_provider_promptlayer.xcom.outputs import storable_key

COMMON = {"schedule": None, "start_date": datetime(2026, 1, 1), "catchup": False}

# Those of tests/support/hostile.py that are keys of XComs; the test says if they differ.
NAMES = (
    "a/b",
    "50%",
    "🍵",
    "👩\u200d💻 第一\u3000段",
    "n" * 255,
    "🍵" * 255,
    "back\\slash; 'quotes' \"\" [x] {y} + & @ : |",
    " blanks ",
    "Case",
    "case",
    "{{ ds }}<b>",
    "__classname__",
    "nul\ufffd",
)
VALUES = (
    "Plain",
    "Markup",
    "Looks like JSON",
    "Large",
    "Null",
    "Integers",
    "Deep",
    "NUL",
    "Half",
    "Not finite",
    "100 digits",
    "64 bits",
    "Large float",
    "Wrapper",
    "Class",
    "Keys",
    "Twice",
    "5000 digits",
)


@task
def receive(values, everything):
    """Return a digest of each value that Airflow hands to a task, and of those in return_value."""

    def digest(value):
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    return [
        [[name, digest(value)] for name, value in sorted(values.items())],
        [[name, digest(value)] for name, value in sorted(everything.items())],
    ]


@task
def literally(rendered, handed):
    return [rendered, handed]


with DAG("live_hostile", **COMMON):
    for which, names in {"names": NAMES, "values": VALUES}.items():
        run = PromptLayerRunWorkflowOperator(
            task_id=which,
            workflow_id_or_name=which,
            promptlayer_conn_id="promptlayer_raw",
            deferrable=False,
            poke_interval=1,
            retries=1,
        )
        receive.override(task_id=f"receive_{which}")(
            {name: run.output[name] for name in names if storable_key(name)}, run.output
        )
    # Both ways of handing a value to a templated field.
    literally(
        "{{ ti.xcom_pull(task_ids='values', key='Markup', map_indexes=-1) }}", run.output["Markup"]
    )
