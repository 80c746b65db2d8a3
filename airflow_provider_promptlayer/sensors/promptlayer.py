# SPDX-License-Identifier: Apache-2.0
"""Every sensor, as DAG files import them."""

from airflow_provider_promptlayer.sensors.evaluations import (
    PromptLayerReportSensor,
    PromptLayerScorecardSensor,
    PromptLayerTableOperationSensor,
)
from airflow_provider_promptlayer.sensors.workflows import PromptLayerWorkflowSensor

__all__ = [
    "PromptLayerReportSensor",
    "PromptLayerScorecardSensor",
    "PromptLayerTableOperationSensor",
    "PromptLayerWorkflowSensor",
]
