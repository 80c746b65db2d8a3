# SPDX-License-Identifier: Apache-2.0
"""Every trigger."""

from __future__ import annotations

from typing import Any

from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_provider_promptlayer.api.arguments import execution_id, opaque_text, positive, uuid
from airflow_provider_promptlayer.api.cells import SheetCells
from airflow_provider_promptlayer.api.errors import PromptLayerError
from airflow_provider_promptlayer.api.job import RemoteJob, unless_large
from airflow_provider_promptlayer.api.reports import FinalReport
from airflow_provider_promptlayer.api.scorecards import SheetCalculation
from airflow_provider_promptlayer.api.tables import SheetOperation
from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.outcomes.workflows import FailOn, raise_for_outcome
from airflow_provider_promptlayer.triggers.base import PromptLayerTrigger
from airflow_provider_promptlayer.triggers.batches import PromptLayerWorkflowBatchTrigger


class PromptLayerTableOperationTrigger(PromptLayerTrigger):
    """Wait in the triggerer until a recalculation of a sheet's cells has ended.

    :param table_id: the table.
    :param sheet_id: the sheet.
    :param operation_id: the recalculation.
    :param kwargs: how to wait, see :class:`.PromptLayerTrigger`.
    """

    def __init__(self, *, table_id: str, sheet_id: str, operation_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table_id = table_id
        self.sheet_id = sheet_id
        self.operation_id = operation_id

    def ids(self) -> dict[str, Any]:
        """Return the ids of the table, the sheet and the operation."""
        return {
            "table_id": self.table_id,
            "sheet_id": self.sheet_id,
            "operation_id": self.operation_id,
        }

    def job(self) -> SheetOperation:
        """Return the operation."""
        return SheetOperation(
            uuid("table_id", self.table_id),
            uuid("sheet_id", self.sheet_id),
            opaque_text("operation_id", self.operation_id),
        )


class PromptLayerSheetCellsTrigger(PromptLayerTrigger):
    """Wait in the triggerer until no cell of a sheet is being calculated.

    :param table_id: the table.
    :param sheet_id: the sheet.
    :param kwargs: how to wait, see :class:`.PromptLayerTrigger`.
    """

    def __init__(self, *, table_id: str, sheet_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table_id = table_id
        self.sheet_id = sheet_id

    def ids(self) -> dict[str, Any]:
        """Return the ids of the table and the sheet."""
        return {"table_id": self.table_id, "sheet_id": self.sheet_id}

    def job(self) -> SheetCells:
        """Return the sheet's cells."""
        return SheetCells(uuid("table_id", self.table_id), uuid("sheet_id", self.sheet_id))


class PromptLayerScorecardTrigger(PromptLayerTrigger):
    """Wait in the triggerer until a scorecard has been calculated.

    :param table_id: the table.
    :param sheet_id: the sheet.
    :param calculation_id: the calculation.
    :param kwargs: how to wait, see :class:`.PromptLayerTrigger`.
    """

    def __init__(self, *, table_id: str, sheet_id: str, calculation_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table_id = table_id
        self.sheet_id = sheet_id
        self.calculation_id = calculation_id

    def ids(self) -> dict[str, Any]:
        """Return the ids of the table, the sheet and the calculation."""
        return {
            "table_id": self.table_id,
            "sheet_id": self.sheet_id,
            "calculation_id": self.calculation_id,
        }

    def job(self) -> SheetCalculation:
        """Return the calculation."""
        return SheetCalculation(
            uuid("table_id", self.table_id),
            uuid("sheet_id", self.sheet_id),
            uuid("calculation_id", self.calculation_id),
        )


class PromptLayerReportTrigger(PromptLayerTrigger):
    """Wait in the triggerer until a report has ended.

    :param report_id: the report.
    :param kwargs: how to wait, see :class:`.PromptLayerTrigger`.
    """

    def __init__(self, *, report_id: int | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.report_id = report_id

    def ids(self) -> dict[str, Any]:
        """Return the report's id."""
        return {"report_id": self.report_id}

    def job(self) -> FinalReport:
        """Return the report."""
        return FinalReport(positive("report_id", self.report_id))


class PromptLayerWorkflowTrigger(PromptLayerTrigger):
    """Wait in the triggerer until a workflow run has ended.

    :param workflow_version_execution_id: the run.
    :param end_from_trigger: end the task here if the run is a success; all else goes to a worker.
    :param fail_on: what counts as a success, see :data:`.FailOn`.
    :param kwargs: how to wait, see :class:`.PromptLayerTrigger`.
    """

    def __init__(
        self,
        *,
        workflow_version_execution_id: int | str,
        end_from_trigger: bool = False,
        fail_on: FailOn = "no_output",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.workflow_version_execution_id = workflow_version_execution_id
        self.end_from_trigger = end_from_trigger
        self.fail_on: FailOn = fail_on

    def ids(self) -> dict[str, Any]:
        """Return the run's id."""
        return {"workflow_version_execution_id": self.workflow_version_execution_id}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments that make it anew."""
        path, kwargs = super().serialize()
        if self.end_from_trigger:  # a triggerer of an earlier release does not know these
            kwargs |= {"end_from_trigger": True, "fail_on": self.fail_on}
        return path, kwargs

    def job(self) -> WorkflowRun:
        """Return the run."""
        return WorkflowRun(execution_id(self.workflow_version_execution_id))

    async def ended(self, hook: PromptLayerHook, job: RemoteJob[Any]) -> TriggerEvent:
        """Return the event for a run that has ended: the end of the task, if that is sure."""
        if self.end_from_trigger and await self._is_success(hook, job):
            self.log.info("%s has ended well. The task ends here, without a worker.", job)
            return TaskSuccessEvent()
        return await super().ended(hook, job)

    async def _is_success(self, hook: PromptLayerHook, job: RemoteJob[Any]) -> bool:
        """Return whether the run is a success for certain; where not, a worker finds out."""
        try:
            results = await hook.acall(unless_large(job.fetch_call()))
            if results is None:
                self.log.info("A worker takes over, to read a large answer and end the task.")
                return False
            raise_for_outcome(results, self.fail_on)
        except PromptLayerError as error:
            self.log.info("A worker takes over, to end the task: %s", error)
            return False
        return bool(results.is_complete)


__all__ = [
    "PromptLayerReportTrigger",
    "PromptLayerScorecardTrigger",
    "PromptLayerSheetCellsTrigger",
    "PromptLayerTableOperationTrigger",
    "PromptLayerWorkflowBatchTrigger",
    "PromptLayerWorkflowTrigger",
]
