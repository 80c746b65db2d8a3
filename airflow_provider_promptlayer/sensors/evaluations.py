# SPDX-License-Identifier: Apache-2.0
"""The sensors for evaluations that something else started."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_promptlayer.api.reports import FinalReport
from airflow_provider_promptlayer.api.scorecards import SheetCalculation
from airflow_provider_promptlayer.api.tables import SheetOperation
from airflow_provider_promptlayer.evaluation_waiting import (
    PromptLayerReportWaiter,
    PromptLayerScorecardWaiter,
    PromptLayerTableWaiter,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg


class PromptLayerTableOperationSensor(PromptLayerTableWaiter):
    """Wait until a recalculation of a sheet's cells has ended, and fail if it ended badly.

    :param table_id: the table, a UUID. Templated.
    :param sheet_id: the sheet, a UUID. Templated.
    :param operation_id: the recalculation. Templated.
    :param fail_on: ``"any_cell"`` (one failed), ``"all_cells"`` (none succeeded) or ``"never"``.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`.
    :returns: the counts of the cells.
    """

    template_fields: Sequence[str] = (
        "table_id",
        "sheet_id",
        "operation_id",
        "promptlayer_conn_id",
    )

    def __init__(self, *, operation_id: str | XComArg, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.operation_id: Any = operation_id

    def identify(self, context: Context) -> SheetOperation:  # noqa: ARG002
        """Return the operation whose id was given.

        :raises PromptLayerInvalidInputError: if one of the ids is none.
        """
        return self.named(self.operation_id)

    def recall(self, context: Context) -> SheetOperation:
        """Return the operation whose id was given, which does not change."""
        return self.identify(context)


class PromptLayerScorecardSensor(PromptLayerScorecardWaiter):
    """Wait until a scorecard has been calculated, and fail if it does not pass the gate.

    :param table_id: the table, a UUID. Templated.
    :param sheet_id: the sheet, a UUID. Templated.
    :param calculation_id: the calculation, a UUID. Templated.
    :param fail_on_verdict: the verdicts that fail the task. Templated.
    :param min_score: the score that is needed, on the scorecard's own scale; left out for none, and
        None is refused. Templated.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`.
    :returns: score, verdict and summaries.
    """

    template_fields: Sequence[str] = (
        "table_id",
        "sheet_id",
        "calculation_id",
        "fail_on_verdict",
        "min_score",
        "promptlayer_conn_id",
    )

    def __init__(self, *, calculation_id: str | XComArg, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.calculation_id: Any = calculation_id

    def identify(self, context: Context) -> SheetCalculation:  # noqa: ARG002
        """Return the calculation whose id was given.

        :raises PromptLayerInvalidInputError: if one of the ids is no UUID.
        """
        return self.named(self.calculation_id)

    def recall(self, context: Context) -> SheetCalculation:
        """Return the calculation whose id was given, which does not change."""
        return self.identify(context)


class PromptLayerReportSensor(PromptLayerReportWaiter):
    """Wait until a report that a run has made is complete, and fail if it does not pass.

    :param report_id: the report that a run has made, not the pipeline. Templated.
    :param min_score: the score that is needed, from 0 to 100; left out for none, and None is
        refused. Templated.
    :param fail_on: ``"any_cell"`` (one failed), ``"all_cells"`` (none succeeded) or ``"never"``.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`.
    :returns: the score, and the counts of the cells.
    """

    template_fields: Sequence[str] = ("report_id", "min_score", "promptlayer_conn_id")

    def __init__(self, *, report_id: int | str | XComArg, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.report_id: Any = report_id

    def identify(self, context: Context) -> FinalReport:  # noqa: ARG002
        """Return the report whose id was given.

        :raises PromptLayerInvalidInputError: if it is not a positive integer.
        """
        return self.named(self.report_id)

    def recall(self, context: Context) -> FinalReport:
        """Return the report whose id was given, which does not change."""
        return self.identify(context)
