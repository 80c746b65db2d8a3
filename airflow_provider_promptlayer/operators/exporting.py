# SPDX-License-Identifier: Apache-2.0
"""The operator that exports a sheet: its rows, their scores, and what they have cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

from airflow_provider_promptlayer.api.arguments import list_of, one_of, title_or_uuid
from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.bases.caller import PromptLayerCaller
from airflow_provider_promptlayer.bases.lineage import Lineage, file_dataset
from airflow_provider_promptlayer.bases.sheet import SHEET_FIELDS, SheetArguments
from airflow_provider_promptlayer.files.writing import check_ending
from airflow_provider_promptlayer.hooks.rows import ON_CHANGE, OnChange
from airflow_provider_promptlayer.xcom.storable import storable

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath, XComArg

    from airflow_provider_promptlayer.bases.arguments import SheetKwargs


class PromptLayerExportSheetOperator(SheetArguments, PromptLayerCaller):
    """Write the rows of a sheet to a file: JSONL, CSV or Parquet, by the ending of its name.

    The file is written beside its place and moved there once it is whole. A worker that dies leaves
    no half file in that place, and a retry writes the file anew, and removes what the worker left.

    A row has the field ``row_index``, one for each column, by its title, and for each calculated
    column ``Answer`` also ``Answer_status``, ``_error``, ``_price`` (in USD), ``_latency_ms``,
    ``_input_tokens``, ``_output_tokens`` and ``_request_ids``. A title that occurred before has a
    number: ``Answer (2)``. In a CSV file, and in a text column of a Parquet file, a value that is
    no text is its JSON.

    :param table: the table, by its title or UUID; or ``table_id``, its UUID. Templated.
    :param sheet: the sheet, by its title or UUID; or ``sheet_id``, its UUID. Templated.
    :param to: a path of Airflow's object storage, such as ``s3://aws_default@bucket/{{ ds }}.csv``,
        with the ending ``.jsonl``, ``.csv`` or ``.parquet`` (which needs pyarrow). Templated.
    :param columns: titles or UUIDs of the columns to export, in this order; None for all.
        Templated.
    :param details: whether calculated columns have fields besides the value.
    :param scorecard: add ``scorecard_verdict``, ``scorecard_score``, ``scorecard_reasons`` and
        ``scorecard_error`` of each row, from the latest calculation. Reasons take a request for
        each row that has not passed, of which eight are sent at once.
    :param on_change: if the sheet is changed meanwhile, read it ``"again"``, a few times, or
        ``"fail"``; a retry of the task can help then.
    :param return_rows: return the rows, too, of a sheet that has at most 1,000; ``to`` may be left
        out then.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param max_outage: seconds (or a ``timedelta``) for which PromptLayer may be out of reach before
        the task fails.
    :returns: ``path``, ``row_count``, ``fields``, ``cell_counts`` (status → calculated cells),
        ``version`` of the sheet, ``table_id``, ``sheet_id``, and ``rows``, None unless asked for.
    """

    template_fields: Sequence[str] = (*SHEET_FIELDS, "to", "columns", "promptlayer_conn_id")

    describes_outlets = True

    def __init__(
        self,
        *,
        to: str | ObjectStoragePath | XComArg | None = None,
        columns: Sequence[str] | str | XComArg | None = None,
        details: bool = True,
        scorecard: bool = False,
        on_change: OnChange = "again",
        return_rows: bool = False,
        **kwargs: Unpack[SheetKwargs],
    ) -> None:
        super().__init__(**kwargs)
        if to is None and not return_rows:
            raise PromptLayerInvalidInputError(
                "Give a file to write in to=, or return_rows=True for a small sheet."
            )
        one_of("on_change", on_change, ON_CHANGE)
        self.to: Any = to
        self.columns: Any = columns
        self.details = details
        self.scorecard = scorecard
        self.on_change: OnChange = on_change
        self.return_rows = return_rows
        self.refuse_constants(
            to=lambda _, path: check_ending(path), columns=partial(list_of, title_or_uuid)
        )
        self._writes_file = to is not None  # None may also be what an XCom renders to

    def perform(self, context: Context) -> dict[str, Any]:
        """Export the sheet."""
        if self._writes_file and not self.to:
            raise PromptLayerInvalidInputError("The path of the file, to=, is empty.")
        sheet = self.found_sheet
        export = self.hook.export_rows(
            sheet.table_id,
            sheet.sheet_id,
            self.to,
            columns=self.columns,
            details=self.details,
            scorecard=self.scorecard,
            on_change=self.on_change,
            return_rows=self.return_rows,
            max_outage=self.max_outage,
            key=self.file_key(context),
            attempt=context["ti"].try_number,
        )
        path, rows = export.path, export.row_count
        self.note_lineage(
            lambda: Lineage([self.dataset()], [file_dataset(path, row_count=rows)] if path else [])
        )
        result = storable({"table_id": sheet.table_id, "sheet_id": sheet.sheet_id} | asdict(export))
        if result.changes:
            self.log.warning(
                "The result was changed so that Airflow can store it: %s.",
                ", ".join(result.changes),
            )
        to = f" to {export.path}" if export.path else ""
        self.outcome = f"Exported {export.row_count:,} rows of sheet {sheet.sheet_id}{to}."
        stored: dict[str, Any] = result.value
        return stored
