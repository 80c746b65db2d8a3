# SPDX-License-Identifier: Apache-2.0
"""Tasks whose links Airflow shows: of one that succeeds, of one that fails, of mapped ones."""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerExportSheetOperator,
    PromptLayerRunScorecardOperator,
    PromptLayerRunWorkflowOperator,
)

WHERE = {"table": "Support answers", "promptlayer_conn_id": "promptlayer_linked"}

with DAG("live_links", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    PromptLayerExportSheetOperator(
        task_id="export", sheet="Regression set", return_rows=True, **WHERE
    )
    PromptLayerRunScorecardOperator(task_id="gate", sheet="Regression set", min_score=1e9, **WHERE)
    PromptLayerRunWorkflowOperator.partial(
        task_id="mapped", promptlayer_conn_id="promptlayer_linked"
    ).expand(workflow_id_or_name=["Good", "Bad"])
    PromptLayerRunWorkflowOperator(task_id="unlinked", workflow_id_or_name="Good")
