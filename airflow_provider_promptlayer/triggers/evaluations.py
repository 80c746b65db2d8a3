# SPDX-License-Identifier: Apache-2.0
"""The waits for evaluations in the triggerer."""

from __future__ import annotations

from typing import Any

from airflow_provider_promptlayer.api.arguments import opaque_text, positive, uuid
from airflow_provider_promptlayer.api.reports import FinalReport
from airflow_provider_promptlayer.api.scorecards import SheetCalculation
from airflow_provider_promptlayer.api.tables import SheetOperation
from airflow_provider_promptlayer.triggers.base import PromptLayerTrigger


class PromptLayerTableOperationTrigger(PromptLayerTrigger):
    """Wait in the triggerer until a recalculation of a sheet's cells has ended.

    :param table_id: the table.
    :param sheet_id: the sheet.
    :param operation_id: the recalculation.
    :param kwargs: how to wait, see :class:`.base.PromptLayerTrigger`.
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

    def subject(self) -> SheetOperation:
        """Return the operation."""
        return SheetOperation(
            uuid("table_id", self.table_id),
            uuid("sheet_id", self.sheet_id),
            opaque_text("operation_id", self.operation_id),
        )


class PromptLayerScorecardTrigger(PromptLayerTrigger):
    """Wait in the triggerer until a scorecard has been calculated.

    :param table_id: the table.
    :param sheet_id: the sheet.
    :param calculation_id: the calculation.
    :param kwargs: how to wait, see :class:`.base.PromptLayerTrigger`.
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

    def subject(self) -> SheetCalculation:
        """Return the calculation."""
        return SheetCalculation(
            uuid("table_id", self.table_id),
            uuid("sheet_id", self.sheet_id),
            uuid("calculation_id", self.calculation_id),
        )


class PromptLayerReportTrigger(PromptLayerTrigger):
    """Wait in the triggerer until a report has ended.

    :param report_id: the report.
    :param kwargs: how to wait, see :class:`.base.PromptLayerTrigger`.
    """

    def __init__(self, *, report_id: int | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.report_id = report_id

    def ids(self) -> dict[str, Any]:
        """Return the report's id."""
        return {"report_id": self.report_id}

    def subject(self) -> FinalReport:
        """Return the report."""
        return FinalReport(positive("report_id", self.report_id))
