# SPDX-License-Identifier: Apache-2.0
"""Tell somebody when the nightly evaluation is late, with a deadline alert of Airflow.

The alert comes while the DAG run goes on: it does not wait until a task fails. It needs Airflow
3.3, which finds the callback in the DAG file; before that there is no alert here. In the params,
`table` and `sheet` are titles.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunTableOperator

LATE_AFTER = timedelta(hours=2)


def tell(text: str, context: Any) -> None:
    """Send a message. Airflow calls this in a worker, and its log has what is printed."""
    run = context["dag_run"]
    print(f"{text} It is {run['dag_id']}, {run['dag_run_id']}.")


deadline: Any = {}
if not airflow_version.startswith(("2.", "3.0.", "3.1.", "3.2.")):
    from airflow.sdk.definitions.callback import SyncCallback
    from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

    alert = DeadlineAlert(
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=LATE_AFTER,
        callback=SyncCallback(tell, kwargs={"text": "The nightly evaluation is late."}),
    )
    deadline = {"deadline": alert}

# Those of the local PromptLayer. Give your own.
PARAMS: Any = {"table": "Support answers", "sheet": "Regression set"}

with DAG(
    dag_id="promptlayer_deadline_alert",
    schedule=None,  # "0 2 * * *" for every night; the alert counts from when the run is queued
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    doc_md=__doc__,
    tags=["promptlayer", "example"],
    **deadline,
) as dag:
    PromptLayerRunTableOperator(
        task_id="recalculate",
        table="{{ params.table }}",
        sheet="{{ params.sheet }}",
        statuses="all",
        timeout=timedelta(hours=4),  # later than the alert: late is not failed
    )
