# SPDX-License-Identifier: Apache-2.0
"""The operators that bring rows into a sheet, and wait until they are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from airflow_provider_promptlayer.api.arguments import items, texts
from airflow_provider_promptlayer.api.imports import ImportSource
from airflow_provider_promptlayer.bases.importer import PromptLayerImporter
from airflow_provider_promptlayer.bases.sheet import SHEET_FIELDS
from airflow_provider_promptlayer.hooks.imports import source_of_rows

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath, XComArg


class PromptLayerLoadSheetOperator(PromptLayerImporter):
    """Import rows into a sheet, from an XCom or a file, and wait until they are there.

    The rows are checked before anything is sent: titles that are missing, empty, doubled or longer
    than 255 characters, more than 999 columns, rows with another number of fields, and more than
    100 MB as CSV are refused. A file is copied to disk, and sent from there: memory stays flat.

    An import happens once: a lost answer, a dead worker and a retry go back to it, on every
    Airflow, for as long as the rows are the same. A task that is cleared imports again. PromptLayer
    cannot cancel an import, so ending the task leaves it going on. An import that has failed is not
    retried.

    :param table: title or UUID of the table. Templated.
    :param sheet: title or UUID of the sheet to which the rows are added; left out for a new one.
        Templated.
    :param table_id: instead of ``table``, a UUID. Templated.
    :param sheet_id: instead of ``sheet``, a UUID. Templated.
    :param title: of the new sheet; ``"{{ run_id }}"`` if left out. Templated.
    :param rows: mappings from the title of a column to a value, as a list or as JSON; or, with
        ``columns``, lists of values, as a SQL operator returns them. Templated.
    :param columns: the titles for such lists. Templated.
    :param file: instead of ``rows``, a path of Airflow's ``ObjectStoragePath`` that ends with
        ``.csv``, ``.json`` (a list of objects), ``.jsonl``, or ``.parquet`` (needs pyarrow).
        Templated.
    :param delimiter: what separates the fields of a CSV file.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`; not
        ``mode="reschedule"`` without ``deferrable``.
    :returns: ``table_id``, ``sheet_id``, ``rows_added`` and ``row_count``, that of the sheet.
    """

    template_fields: Sequence[str] = (
        *SHEET_FIELDS,
        "title",
        "rows",
        "columns",
        "file",
        "promptlayer_conn_id",
    )

    def __init__(
        self,
        *,
        rows: Sequence[Mapping[str, Any] | Sequence[Any]] | str | XComArg | None = None,
        columns: Sequence[str] | str | XComArg | None = None,
        file: str | ObjectStoragePath | XComArg | None = None,
        delimiter: str = ",",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rows: Any = rows
        self.columns: Any = columns
        self.file: Any = file
        self.delimiter = delimiter

    def open_source(self) -> AbstractContextManager[ImportSource]:
        """Return the rows of the list or the file."""
        return source_of_rows(
            rows=items("rows", self.rows),
            columns=texts("columns", self.columns),
            file=self.file,
            delimiter=self.delimiter,
        )
