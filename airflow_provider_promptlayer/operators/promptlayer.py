# SPDX-License-Identifier: Apache-2.0
"""Every operator, as DAG files import them."""

from airflow_provider_promptlayer.operators.batches import PromptLayerRunWorkflowBatchOperator
from airflow_provider_promptlayer.operators.evaluations import (
    PromptLayerRunReportOperator,
    PromptLayerRunScorecardOperator,
    PromptLayerRunTableOperator,
)
from airflow_provider_promptlayer.operators.exporting import PromptLayerExportSheetOperator
from airflow_provider_promptlayer.operators.loading import (
    PromptLayerImportRequestLogsOperator,
    PromptLayerLoadSheetOperator,
)
from airflow_provider_promptlayer.operators.promoting import PromptLayerPromoteOperator
from airflow_provider_promptlayer.operators.reporting import PromptLayerEvaluationReportOperator
from airflow_provider_promptlayer.operators.snapshots import PromptLayerSnapshotSheetOperator
from airflow_provider_promptlayer.operators.workflows import (
    PromptLayerRunWorkflowOperator,
    PromptLayerWorkflowResultsOperator,
)

__all__ = [
    "PromptLayerEvaluationReportOperator",
    "PromptLayerExportSheetOperator",
    "PromptLayerImportRequestLogsOperator",
    "PromptLayerLoadSheetOperator",
    "PromptLayerPromoteOperator",
    "PromptLayerRunReportOperator",
    "PromptLayerRunScorecardOperator",
    "PromptLayerRunTableOperator",
    "PromptLayerRunWorkflowBatchOperator",
    "PromptLayerRunWorkflowOperator",
    "PromptLayerSnapshotSheetOperator",
    "PromptLayerWorkflowResultsOperator",
]
