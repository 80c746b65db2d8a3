# SPDX-License-Identifier: Apache-2.0
"""The hook's methods that bring rows into a sheet.

:mod:`..api.imports` says what the results mean. An import is looked up before it is sent, and
again after an answer that was lost, so it happens once under one ``operation_id``.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from errno import ENOSPC
from typing import Any, Final, TypedDict, Unpack
from uuid import uuid4

from airflow_provider_promptlayer.api.arguments import exactly_one, items, texts
from airflow_provider_promptlayer.api.errors import (
    PromptLayerError,
    PromptLayerFileError,
    PromptLayerInvalidInputError,
    PromptLayerUnreachableError,
)
from airflow_provider_promptlayer.api.imports import (
    ImportOrder,
    ImportSource,
    ImportStatus,
    SheetImport,
    file_source,
)
from airflow_provider_promptlayer.api.request_logs import LogSelection
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.times import in_words
from airflow_provider_promptlayer.files.placing import storage_reason
from airflow_provider_promptlayer.files.reading import csv_of_file, csv_of_rows
from airflow_provider_promptlayer.hooks.base import PromptLayerConnectionHook, Wait, twins
from airflow_provider_promptlayer.outcomes.imports import raise_for_import
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import (
    Loop,
    ask_with_backoff,
    each_with_backoff,
    poll_until_ended,
)
from airflow_provider_promptlayer.polling.poller import DEFAULT_MAX_OUTAGE, PollDecision, Poller


class SheetRows(TypedDict, total=False):
    """The rows of an import, and where they go: what :meth:`ImportMethods.load_sheet` takes.

    :param sheet_id: UUID of the sheet to which the rows are added; or
    :param title: of a new sheet.
    :param rows: mappings from the title of a column to a value; or, with ``columns``, lists.
    :param columns: the titles for such lists.
    :param file: instead of ``rows``, a path of Airflow's ``ObjectStoragePath``: CSV, JSON, JSONL
        or Parquet by its ending.
    :param delimiter: what separates the fields of CSV.
    :param operation_id: under one id an import happens once; left out for a new one.
    """

    sheet_id: str | None
    title: str | None
    rows: Sequence[Any] | None
    columns: Sequence[str] | None
    file: Any
    delimiter: str
    operation_id: str | None


class ImportMethods(PromptLayerConnectionHook):
    """The methods for imports of :class:`.PromptLayerHook`."""

    def _start_import(
        self, order: ImportOrder, *, max_outage: float = DEFAULT_MAX_OUTAGE
    ) -> Loop[SheetImport]:
        """Start an import, unless it was started before; return without waiting for it.

        :param order: from :mod:`..api.imports`.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        :returns: the import, which :meth:`wait_for_import` waits for.
        :raises PromptLayerTransientError: if it is not known whether the import was started.
            Ordering it again with the same ``operation_id`` goes back to it.
        """
        policy = retries.POLLING.within(max_outage)

        def find() -> Loop[ImportStatus | None]:
            return ask_with_backoff(Poller.of_call(order.name, policy), order.find_call())

        def find_patiently() -> Loop[ImportStatus | None]:
            failures = 0
            while (found := (yield from find())) is None:
                failures += 1
                pause = retries.FINDING_IMPORT.next_pause(failures, elapsed=0.0)
                if pause is None:
                    break
                yield PollDecision(sleep=pause)
            return found

        found: ImportStatus | None = yield from find()
        if found is not None:
            self.log.info("Going back to %s, which was started before.", order.name)
        sheet_id, failures, began = order.sheet_id, 0, time.monotonic()
        while found is None:
            try:
                sheet_id = yield order.start_call()
            except PromptLayerError as error:
                failures += 1
                elapsed = time.monotonic() - began
                pause = retries.IMPORTING.next_pause(failures, error, elapsed=elapsed)
                if pause is None or self.is_stopping:
                    raise
                started_nothing = (
                    not error.arrived
                    if isinstance(error, PromptLayerUnreachableError)
                    else error.status in (409, 429)  # any other may be the answer of a gateway
                )
                what_next = "Trying again" if started_nothing else "Looking the import up"
                if not started_nothing:
                    # Also when the time is up: else nobody would know of an import that goes on.
                    self._give_up_at = math.inf
                note = f"{str(error).rstrip('.')}. {what_next} in {in_words(pause)}."
                yield PollDecision(sleep=pause, note=note, is_trouble=True)
                found = yield from (find() if started_nothing else find_patiently())
            else:
                self.log.info("PromptLayer started %s into %s.", order.name, order.where)
                break
        if sheet_id is None:
            sheet_id = yield from each_with_backoff(
                order.find_sheet(None if found is None else found.created_at),
                about=f"the sheet of {order.name}",
                policy=policy,
            )
        return SheetImport(order.table_id, sheet_id, order.operation_id)

    start_import, astart_import = twins(_start_import)

    def load_sheet(
        self,
        table_id: str,
        *,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        **what: Unpack[SheetRows],
    ) -> SheetImport:
        """Import rows into a sheet; return without waiting for the import.

        :param table_id: UUID of the table.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        :param what: see :class:`SheetRows`.
        :returns: the import, which :meth:`wait_for_import` waits for.
        :raises PromptLayerInvalidInputError: if the rows cannot be imported; nothing is sent then.
        :raises PromptLayerFileError: if the file cannot be read.
        """
        with _order_of_rows(table_id, **what) as order:
            return self.start_import(order, max_outage=max_outage)

    async def aload_sheet(
        self,
        table_id: str,
        *,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        **what: Unpack[SheetRows],
    ) -> SheetImport:
        """Do what :meth:`load_sheet` does, without blocking the event loop."""
        opened = _order_of_rows(table_id, **what)
        order = await asyncio.to_thread(opened.__enter__)
        try:
            return await self.astart_import(order, max_outage=max_outage)
        finally:
            opened.__exit__(None, None, None)

    def request_log_source(
        self, selection: LogSelection, *, max_outage: float = DEFAULT_MAX_OUTAGE
    ) -> ImportSource:
        """Look up the names in a selection of request logs, and return them as a source."""
        return self._run(self._log_source(selection, max_outage))

    def _log_source(self, selection: LogSelection, max_outage: float) -> Loop[ImportSource]:
        return each_with_backoff(
            selection.source(),
            about="the prompt of request logs",
            policy=retries.POLLING.within(max_outage),
        )

    def _import_request_logs(
        self,
        /,
        table_id: str,
        *,
        sheet_id: str | None = None,
        title: str | None = None,
        operation_id: str | None = None,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        **which: Any,
    ) -> Loop[SheetImport]:
        """Import request logs into a sheet; return without waiting for the import.

        :param table_id: UUID of the table.
        :param sheet_id: UUID of the sheet to which the rows are added; or
        :param title: of a new sheet.
        :param operation_id: under one id an import happens once; None for a new one.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        :param which: the conditions, see :class:`.LogSelection`.
        :returns: the import, which :meth:`wait_for_import` waits for.
        """
        source = yield from self._log_source(LogSelection(**which), max_outage)
        order = ImportOrder(table_id, source, operation_id or str(uuid4()), sheet_id, title)
        return (yield from self._start_import(order, max_outage=max_outage))

    import_request_logs, aimport_request_logs = twins(_import_request_logs)

    def get_import(self, table_id: str, sheet_id: str, operation_id: str) -> ImportStatus:
        """Poll an import once. Does not wait, and does not raise for how it ended."""
        return self.call(SheetImport(table_id, sheet_id, operation_id).fetch_call())

    def _wait_for_import(
        self,
        table_id: str,
        sheet_id: str,
        operation_id: str,
        *,
        timeout: float,
        poke_interval: float | None = None,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        allow_empty: bool = True,
    ) -> Wait[ImportStatus]:
        """Wait for an import to end; for use inside ``@task`` functions. Holds the worker.

        Waits and raises as :meth:`wait_for_table_operation` does.

        :param allow_empty: whether an import that has found no request logs is a success.
        :raises PromptLayerImportFailedError: if the import has failed.
        """
        job = SheetImport(table_id, sheet_id, operation_id)
        poller = self._new_poller(job, timeout, poke_interval, max_outage)

        def loop() -> Loop[ImportStatus]:
            ending = yield from poll_until_ended(poller, job.fetch_call())
            raise_for_import(ending, allow_empty=allow_empty)
            return ending

        return Wait(poller, loop())

    wait_for_import, await_for_import = twins(_wait_for_import)


SOURCES: Final = "the source of the rows"
"""What ``rows`` and ``file`` are, for messages."""


@contextmanager
def source_of_rows(
    *,
    rows: Any = None,
    columns: Sequence[str] | None = None,
    file: Any = None,
    delimiter: str = ",",
) -> Iterator[ImportSource]:
    """Check rows, and return them as a source; see :meth:`ImportMethods.load_sheet`."""
    rows, columns = items("rows", rows), texts("columns", columns)
    exactly_one(SOURCES, rows=rows, file=file)
    if rows is not None:
        with csv_of_rows(rows, columns) as made:
            yield file_source("rows.csv", made.file, made.digest, made.row_count)
        return
    if columns is not None:
        raise PromptLayerInvalidInputError("columns are the titles of rows; a file has its own.")
    with ExitStack() as stack:
        with _opened(file) as source:
            made = stack.enter_context(csv_of_file(source, str(file), delimiter=delimiter))
        name = str(file).rpartition("/")[2].rpartition(".")[0]
        yield file_source(f"{name[-250:]}.csv", made.file, made.digest, made.row_count)


@contextmanager
def _opened(file: Any) -> Iterator[Any]:
    """Open a file for reading.

    :raises PromptLayerInvalidInputError: if there is none, or a folder.
    :raises PromptLayerFileError: if its storage refuses or fails, or the disk here is full.
    """
    # fsspec takes a while to import, and DAG files import this module.
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    shown = one_line(str(file), 200)
    is_open = False
    try:
        path: Any = file if isinstance(file, ObjectStoragePath) else ObjectStoragePath(str(file))
        with path.open("rb") as source:
            is_open = True
            yield source
    except PromptLayerError:
        raise
    except Exception as error:
        if isinstance(error, FileNotFoundError) and not is_open:
            raise PromptLayerInvalidInputError(f"{shown}: there is no such file.") from None
        if isinstance(error, IsADirectoryError):
            raise PromptLayerInvalidInputError(f"{shown}: that is a folder, not a file.") from None
        # A storage raises errors of its own libraries, too, such as those of botocore.
        does = "copy to this disk" if getattr(error, "errno", None) == ENOSPC else "read"
        raise PromptLayerFileError(f"Could not {does} {shown}: {storage_reason(error)}") from error


@contextmanager
def _order_of_rows(
    table_id: str,
    *,
    sheet_id: str | None = None,
    title: str | None = None,
    operation_id: str | None = None,
    **what: Any,
) -> Iterator[ImportOrder]:
    with source_of_rows(**what) as source:
        yield ImportOrder(table_id, source, operation_id or str(uuid4()), sheet_id, title)
