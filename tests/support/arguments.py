# SPDX-License-Identifier: Apache-2.0
"""Every operator and sensor, with the arguments that it cannot do without."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_promptlayer.operators import promptlayer as operators
from airflow_provider_promptlayer.sensors import promptlayer as sensors

NAMED = {"table": "Support answers", "sheet": "Regression set"}
NEEDED: dict[Any, dict[str, Any]] = {
    operators.PromptLayerExportSheetOperator: {**NAMED, "to": "file:///tmp/rows.csv"},
    operators.PromptLayerImportRequestLogsOperator: {"table": "Support answers", "tags": ["a"]},
    operators.PromptLayerLoadSheetOperator: {"table": "Support answers", "rows": [{"a": 1}]},
    operators.PromptLayerPromoteOperator: {"prompt": "Reply", "version": 3},
    operators.PromptLayerRunReportOperator: {"report_id": 1, "name": "Nightly"},
    operators.PromptLayerRunScorecardOperator: NAMED,
    operators.PromptLayerRunTableOperator: NAMED,
    operators.PromptLayerRunWorkflowBatchOperator: {"workflow_id_or_name": "w", "inputs": []},
    operators.PromptLayerRunWorkflowOperator: {"workflow_id_or_name": "w"},
    operators.PromptLayerEvaluationReportOperator: {**NAMED, "to": "{{ ds }}.html"},
    operators.PromptLayerSnapshotSheetOperator: {**NAMED, "name": "{{ run_id }}"},
    operators.PromptLayerWorkflowResultsOperator: {"workflow_version_execution_id": 1},
    sensors.PromptLayerReportSensor: {"report_id": 1},
    sensors.PromptLayerScorecardSensor: {**NAMED, "calculation_id": "{{ params.id }}"},
    sensors.PromptLayerSheetImportSensor: {**NAMED, "operation_id": "{{ params.id }}"},
    sensors.PromptLayerTableOperationSensor: {**NAMED, "operation_id": "{{ params.id }}"},
    sensors.PromptLayerVersionSensor: {"prompt": "Reply"},
    sensors.PromptLayerWorkflowSensor: {"workflow_version_execution_id": 1},
}
AT_RUN_TIME: dict[str, Any] = {"_airflow_from_mapped": True}
"""Makes a task as Airflow makes an instance of a mapped one: what it takes is known when it runs.

So a wrong value is not refused when the DAG is parsed, just as one that a template renders to.
"""

every_class = pytest.mark.parametrize("cls", NEEDED, ids=lambda cls: cls.__name__)
