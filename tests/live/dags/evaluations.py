# SPDX-License-Identifier: Apache-2.0
"""Evaluations that never end, for a user to end their tasks."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerRunScorecardOperator,
    PromptLayerRunTableOperator,
)

SHEET = {
    "table_id": "5c0a1e00-0000-4000-8000-0000000000e0",
    "sheet_id": "5c0a1e00-0000-4000-8000-0000000000e1",
}

with DAG(
    dag_id="live_endless_evaluations",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    default_args={"retries": 3},
):
    PromptLayerRunTableOperator(task_id="cells", **SHEET)
    PromptLayerRunScorecardOperator(task_id="scorecard", **SHEET)
