# SPDX-License-Identifier: Apache-2.0
"""Many evaluations that never end, for a user to end all of their tasks at once."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunTableOperator

TABLE_ID = "5c0a1e00-0000-4000-8000-0000000000d0"
SHEET_IDS = [f"5c0a1e00-0000-4000-8000-0000000001{number:02x}" for number in range(30)]

with DAG(
    dag_id="live_many_operations",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_tasks=len(SHEET_IDS),
):
    PromptLayerRunTableOperator.partial(task_id="cells", table_id=TABLE_ID).expand(
        sheet_id=SHEET_IDS
    )
