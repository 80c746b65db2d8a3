# SPDX-License-Identifier: Apache-2.0
"""The operators that bring rows into a sheet, and wait until they are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Unpack

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.arguments import (
    exactly_one,
    items,
    text_list,
)
from airflow_provider_promptlayer.api.imports import ImportSource
from airflow_provider_promptlayer.api.request_logs import PARSERS, LogSelection
from airflow_provider_promptlayer.bases.importer import OnEmpty, PromptLayerImporter
from airflow_provider_promptlayer.bases.lineage import (
    REQUEST_LOGS,
    Dataset,
    file_dataset,
    promptlayer_namespace,
)
from airflow_provider_promptlayer.bases.sheet import SHEET_FIELDS
from airflow_provider_promptlayer.files.reading import check_delimiter
from airflow_provider_promptlayer.hooks.imports import SOURCES, source_of_rows

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import ObjectStoragePath, XComArg

    from airflow_provider_promptlayer.bases.arguments import ImporterKwargs


_CONDITIONS: Final = tuple(field.name for field in fields(LogSelection))


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
    :param title: of the new sheet; if left out, the run's id, and the index of a mapped instance.
        Templated.
    :param ensure: create the table, and the sheet, if none has the title; once, like the import.
    :param rows: mappings from the title of a column to a value, as a list or as JSON; or, with
        ``columns``, lists of values, as a SQL operator returns them. Templated.
    :param columns: the titles for such lists. Templated.
    :param file: instead of ``rows``, a path of Airflow's ``ObjectStoragePath`` that ends with
        ``.csv``, ``.json`` (a list of objects), ``.jsonl``, or ``.parquet`` (needs pyarrow).
        Templated.
    :param delimiter: what separates the fields of a CSV file.
    :param on_empty: what to do if there are no rows: ``"fail"``, ``"skip"``, or ``"succeed"``
        without a new sheet.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`; not
        ``mode="reschedule"`` without ``deferrable``.
    :returns: ``table_id``, ``sheet_id``, ``operation_id``, ``rows_added``, and the ``row_count`` of
        the sheet.
    """

    sends_rows = True

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
        on_empty: OnEmpty = "fail",
        **kwargs: Unpack[ImporterKwargs],
    ) -> None:
        super().__init__(on_empty=on_empty, **kwargs)
        self.rows: Any = rows
        self.columns: Any = columns
        self.file: Any = file
        self.delimiter = delimiter
        check_delimiter(delimiter)
        if not version_compat.is_made_from_mapped(self):
            exactly_one(SOURCES, rows=rows, file=file)
        self.refuse_constants(columns=text_list)
        if not isinstance(rows, list):  # a long one would take time at each parse
            self.refuse_constants(rows=items)

    @property
    def sources(self) -> Sequence[Dataset]:
        """The file, if the rows come from one."""
        return () if self.file is None else [file_dataset(self.file)]

    def open_source(self) -> AbstractContextManager[ImportSource]:
        """Return the rows of the list or the file."""
        return source_of_rows(
            rows=self.rows, columns=self.columns, file=self.file, delimiter=self.delimiter
        )


class PromptLayerImportRequestLogsOperator(PromptLayerImporter):
    """Import request logs into a sheet, such as a sample of production, and wait for them.

    At least one condition is needed; a log has to meet all that are given. Times are half-open,
    ``start`` belongs to them and ``end`` does not, so runs with adjoining data intervals import
    each log once. PromptLayer's filters know no scores. The import happens once, as with
    :class:`PromptLayerLoadSheetOperator`, for as long as the conditions are the same.

    :param table: title or UUID of the table. Templated.
    :param sheet: title or UUID of the sheet to which the rows are added; left out for a new one.
        Templated.
    :param table_id: instead of ``table``, a UUID. Templated.
    :param sheet_id: instead of ``sheet``, a UUID. Templated.
    :param title: of the new sheet; if left out, the run's id, and the index of a mapped instance.
        Templated.
    :param ensure: create the table, and the sheet, if none has the title; once, like the import.
    :param start: logs of requests that were sent then or later, such as
        ``"{{ data_interval_start }}"``. Templated.
    :param end: logs of requests that were sent before then. Templated.
    :param prompt: name or id of the prompt template. Templated.
    :param release_label: logs of the version that this label of ``prompt`` leads to when the task
        runs. Templated.
    :param tags: logs that have all of these tags. Templated.
    :param metadata: logs that have all of these values of metadata. Templated.
    :param filter_group: a filter in PromptLayer's own words. Templated.
    :param request_ids: the ids of logs, in place of all conditions. Templated.
    :param limit: the most logs to import, 50,000 at most. Templated.
    :param variables: the input variables that become columns; left out for all. Templated.
    :param fields: further fields of a log that become columns, such as ``"cost"``. Templated.
    :param on_empty: what to do if no log fits: ``"succeed"`` with 0 rows, ``"skip"`` or ``"fail"``.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`; not
        ``mode="reschedule"`` without ``deferrable``.
    :returns: ``table_id``, ``sheet_id``, ``operation_id``, ``rows_added``, and the ``row_count`` of
        the sheet.
    """

    template_fields: Sequence[str] = (
        *SHEET_FIELDS,
        "title",
        *_CONDITIONS,
        "promptlayer_conn_id",
    )

    def __init__(
        self,
        *,
        start: datetime | str | XComArg | None = None,
        end: datetime | str | XComArg | None = None,
        prompt: str | int | XComArg | None = None,
        release_label: str | XComArg | None = None,
        tags: Sequence[str] | str | XComArg | None = None,
        metadata: Mapping[str, Any] | str | XComArg | None = None,
        filter_group: Mapping[str, Any] | str | XComArg | None = None,
        request_ids: Sequence[int] | str | XComArg | None = None,
        limit: int | str | XComArg | None = None,
        variables: Sequence[str] | str | XComArg | None = None,
        fields: Sequence[str] | str | XComArg | None = None,
        on_empty: OnEmpty = "succeed",
        **kwargs: Unpack[ImporterKwargs],
    ) -> None:
        super().__init__(on_empty=on_empty, **kwargs)
        self.start: Any = start
        self.end: Any = end
        self.prompt: Any = prompt
        self.release_label: Any = release_label
        self.tags: Any = tags
        self.metadata: Any = metadata
        self.filter_group: Any = filter_group
        self.request_ids: Any = request_ids
        self.limit: Any = limit
        self.variables: Any = variables
        self.fields: Any = fields
        self.note_given("sheet", "sheet_id", *_CONDITIONS)
        self.refuse_constants(**PARSERS)
        if self.are_constant(*_CONDITIONS):
            self._selection()

    @property
    def sources(self) -> Sequence[Dataset]:
        """The request logs, which are one dataset."""
        return [Dataset(promptlayer_namespace(self.hook.settings.base_url), REQUEST_LOGS)]

    def open_source(self) -> AbstractContextManager[ImportSource]:
        """Return the request logs that meet the conditions."""
        source = self.hook.request_log_source(self._selection(), max_outage=self.max_outage)
        return nullcontext(source)

    def _selection(self) -> LogSelection:
        return LogSelection(**{name: getattr(self, name) for name in _CONDITIONS})
