# SPDX-License-Identifier: Apache-2.0
"""An operation that goes on until the test wants it to end."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunTableOperator

with DAG(
    dag_id="live_held_operation",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
):
    PromptLayerRunTableOperator(
        task_id="cells",
        table_id="5c0a1e00-0000-4000-8000-0000000000e0",
        sheet_id="5c0a1e00-0000-4000-8000-0000000000e1",
        poke_interval=1,
        timeout=900,
    )
