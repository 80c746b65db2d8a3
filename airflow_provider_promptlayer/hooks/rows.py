# SPDX-License-Identifier: Apache-2.0
"""The hook's methods that read the rows of a sheet, and write them to a file."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, get_args

from airflow_provider_promptlayer.api.arguments import one_of
from airflow_provider_promptlayer.api.errors import (
    PromptLayerError,
    PromptLayerFileError,
    PromptLayerInvalidInputError,
)
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.records import RecordReader, RecordsPage
from airflow_provider_promptlayer.api.tables import Sheet
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.files.placing import Place, storage_reason
from airflow_provider_promptlayer.files.writing import RecordWriter, writer_for
from airflow_provider_promptlayer.hooks.pages import PagedReading, following_call, loop_for_page
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import drive, retried
from airflow_provider_promptlayer.polling.poller import DEFAULT_MAX_OUTAGE

OnChange = Literal["again", "fail"]
ON_CHANGE: Final[tuple[OnChange, ...]] = get_args(OnChange)

MAX_RETURNED_ROWS: Final = 1_000
"""The most rows that are returned in one list, as for an XCom."""


@dataclass(frozen=True)
class SheetExport:
    """What :meth:`RowMethods.export_rows` has written.

    :param path: the file; None if there is none.
    :param fields: the names of the fields, in their order.
    :param version: of the sheet; it rises with every change.
    :param cell_counts: status → how many calculated cells of the rows have it.
    :param rows: the rows, if they were asked for.
    """

    path: str | None
    row_count: int
    fields: Sequence[str]
    version: int | None
    cell_counts: Mapping[str, int]
    rows: Sequence[Mapping[str, Any]] | None


class RowMethods(PagedReading):
    """The methods of :class:`.PromptLayerHook` for the rows of a sheet."""

    def iter_rows(
        self,
        table_id: str,
        sheet_id: str,
        *,
        columns: Any = None,
        details: bool = True,
        scorecard: bool = False,
        max_outage: float = DEFAULT_MAX_OUTAGE,
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows of a sheet, each as a mapping by the titles of the columns.

        A title that occurred before has a number: ``Answer (2)``. The first field is ``row_index``.

        :param columns: titles or UUIDs of columns, in the order of the fields; None for all.
        :param details: yield also ``Answer_status``, ``_error``, ``_price`` (in USD),
            ``_latency_ms``, ``_input_tokens``, ``_output_tokens`` and ``_request_ids`` of each
            calculated column ``Answer``.
        :param scorecard: yield also ``scorecard_verdict``, ``_score``, ``_reasons`` and ``_error``,
            of the latest calculation. Reasons take a request for each row that has not passed, of
            which eight are sent at once.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        :raises PromptLayerSheetChangedError: if the sheet is changed meanwhile.
        """
        reader = RecordReader(
            Sheet(table_id, sheet_id), columns=columns, details=details, scorecard=scorecard
        )
        return (
            reader.named(record)
            for page in self._pages(reader, max_outage)
            for record in page.items
        )

    async def aiter_rows(
        self,
        table_id: str,
        sheet_id: str,
        *,
        columns: Any = None,
        details: bool = True,
        scorecard: bool = False,
        max_outage: float = DEFAULT_MAX_OUTAGE,
    ) -> AsyncIterator[dict[str, Any]]:
        """Do what :meth:`iter_rows` does, without blocking the event loop."""
        reader = RecordReader(
            Sheet(table_id, sheet_id), columns=columns, details=details, scorecard=scorecard
        )

        async def read(call: Call[RecordsPage]) -> RecordsPage:
            return await self._arun(loop_for_page(reader, call, max_outage))

        calls = reader.page_calls()
        reading = asyncio.create_task(read(next(calls)))
        try:
            while True:
                page = await reading
                following = following_call(calls, page)
                if following is not None:
                    reading = asyncio.create_task(read(following))
                for record in page.items:
                    yield reader.named(record)
                if following is None:
                    return
        finally:
            reading.cancel()

    def export_rows(
        self,
        table_id: str,
        sheet_id: str,
        to: Any,
        *,
        columns: Any = None,
        details: bool = True,
        scorecard: bool = False,
        on_change: OnChange = "again",
        return_rows: bool = False,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        key: str | None = None,
        attempt: int = 1,
    ) -> SheetExport:
        """Write the rows of a sheet to a file, which is there whole or not at all.

        The fields are those of :meth:`iter_rows`. In a CSV file, and in a text column of a Parquet
        file, a value that is no text is its JSON.

        :param to: the path, as text or as Airflow's ``ObjectStoragePath``, with the ending
            ``.jsonl``, ``.csv`` or ``.parquet``; None for no file.
        :param on_change: if the sheet is changed meanwhile, read it ``"again"``, a few times, or
            ``"fail"``.
        :param return_rows: return the rows, too; refused for more than :data:`MAX_RETURNED_ROWS`.
        :param key: names the caller, in place of chance, in the name of the file beside ``to``.
        :param attempt: number of this attempt of the caller; removes the files of earlier ones.
        :raises PromptLayerFileError: if the file cannot be written.
        :raises PromptLayerSheetChangedError: if the sheet is changed meanwhile.
        """
        one_of("on_change", on_change, ON_CHANGE)
        sheet = Sheet(table_id, sheet_id)
        place = None if to is None else _place(to)
        make_writer = None if place is None else writer_for(place.path)
        key = key or secrets.token_hex(8)
        if place is not None:
            _remove_earlier(place, key, attempt)

        def read_whole(_: object) -> SheetExport:
            reader = RecordReader(sheet, columns=columns, details=details, scorecard=scorecard)
            writer: RecordWriter | None = None
            rows: list[dict[str, Any]] = []
            row_count = 0
            with ExitStack() as stack:
                file = place and stack.enter_context(place.open_beside(f"{key}-{attempt}"))
                for records in self._records(reader, max_outage):
                    row_count += len(records)
                    if file and make_writer:
                        writer = writer or make_writer(file, reader.fields)
                        writer.write(records)
                    if return_rows:
                        _refuse_to_return_many(reader)
                        rows += map(reader.named, records)
                if writer is not None:
                    writer.finish()
            return SheetExport(
                None if place is None else place.shown,
                row_count,
                [field.name for field in reader.fields],
                reader.version,
                dict(reader.cell_counts),
                rows if return_rows else None,
            )

        policy = replace(
            retries.READING_SHEET,
            attempts=retries.READING_SHEET.attempts if on_change == "again" else 1,
        )
        again = retried(policy, None, says="{error}. Reading it again in {sleep}.")
        export: SheetExport = drive(again, read_whole, self._pause)
        if others := _not_completed(export.cell_counts):
            self.log.warning("Not all calculated cells are completed: %s.", others)
        return export

    def write_file(self, to: Any, content: bytes, *, key: str, attempt: int = 1) -> str:
        """Write a file, which is there whole or not at all; return what messages call it.

        :param to: the path, as text or as Airflow's ``ObjectStoragePath``.
        :param key: names the caller in the name of the file beside ``to``.
        :param attempt: see :meth:`export_rows`.
        :raises PromptLayerFileError: if the file cannot be written.
        """
        place = _place(to)
        _remove_earlier(place, key, attempt)
        with place.open_beside(f"{key}-{attempt}") as file:
            file.write(content)
        return place.shown


def _remove_earlier(place: Place, key: str, attempt: int) -> None:
    for earlier in range(1, attempt):
        place.remove(f"{key}-{earlier}")


def _place(to: Any) -> Place:
    """Return the place that a path of Airflow's object storage names.

    :raises PromptLayerInvalidInputError: if there is no such storage here.
    :raises PromptLayerFileError: if its connection cannot be read, or does not work.
    """
    from airflow.providers.common.compat.sdk import ObjectStoragePath

    shown = one_line(str(to), 200)
    try:
        path = to if isinstance(to, ObjectStoragePath) else ObjectStoragePath(str(to))
        return Place(path.fs, path.path, shown)
    except PromptLayerError:
        raise
    except (ValueError, ImportError) as error:
        # The scheme is unknown, or the package of its provider is missing.
        raise PromptLayerInvalidInputError(
            f"Cannot write to {shown!r}: {storage_reason(error)}"
        ) from error
    except Exception as error:
        raise PromptLayerFileError(f"Could not write {shown}: {storage_reason(error)}") from error


def _not_completed(cell_counts: Mapping[str, int]) -> str:
    """Return how many cells are not completed, and why: ``"118 stale, 2 failed"``."""
    others = {status: count for status, count in cell_counts.items() if status != "completed"}
    return ", ".join(f"{count:,} {one_line(status, 40)}" for status, count in others.items())


def _refuse_to_return_many(reader: RecordReader) -> None:
    count = max(reader.row_count, reader.rows_in_all or 0)
    if count > MAX_RETURNED_ROWS:
        raise PromptLayerInvalidInputError(
            f"return_rows is for sheets of at most {MAX_RETURNED_ROWS:,} rows, and this one has "
            f"{count:,}: give a file in to= instead."
        )
