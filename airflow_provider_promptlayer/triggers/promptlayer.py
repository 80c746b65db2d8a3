# SPDX-License-Identifier: Apache-2.0
"""Every trigger."""

from airflow_provider_promptlayer.triggers.batches import PromptLayerWorkflowBatchTrigger
from airflow_provider_promptlayer.triggers.evaluations import (
    PromptLayerReportTrigger,
    PromptLayerScorecardTrigger,
    PromptLayerTableOperationTrigger,
)
from airflow_provider_promptlayer.triggers.workflows import PromptLayerWorkflowTrigger

__all__ = [
    "PromptLayerReportTrigger",
    "PromptLayerScorecardTrigger",
    "PromptLayerTableOperationTrigger",
    "PromptLayerWorkflowBatchTrigger",
    "PromptLayerWorkflowTrigger",
]
