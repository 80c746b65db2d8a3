# SPDX-License-Identifier: Apache-2.0
"""How the hook reads a sheet: a page ahead of its caller, and a large sheet from both ends at once.

Each page has the cursor of the next one, so a sheet that is read in one direction takes the latency
of all its pages. PromptLayer also lists rows from the last one on.
"""

from __future__ import annotations

import math
import pickle
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import Final

from airflow_provider_promptlayer.api.errors import PromptLayerTransientError
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.records import Record, RecordReader, RecordsPage
from airflow_provider_promptlayer.hooks.base import PromptLayerConnectionHook
from airflow_provider_promptlayer.hooks.threads import DaemonThreads, run_together
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import Loop, drive, each_with_backoff
from airflow_provider_promptlayer.polling.poller import PollDecision
from airflow_provider_promptlayer.xcom.storable import storable

_PROGRESS_SECONDS: Final = 10.0
"""The least time between two lines in the log about how far a sheet is read."""

_BOTH_ENDS_FROM: Final = 1_000
"""How many rows a sheet has to have to be read from both ends."""

_IN_MEMORY_BYTES: Final = 8 * 1024 * 1024
"""How much of the rows from the end is kept in memory; the rest is in a temporary file."""


class PagedReading(PromptLayerConnectionHook):
    """The part of :class:`.PromptLayerHook` that reads the pages of a sheet."""

    def _records(self, reader: RecordReader, max_outage: float) -> Iterator[list[Record]]:
        """Yield all records in the order of the rows, some at a time, and log how far that is.

        :raises PromptLayerUnexpectedAnswerError: if rows are missing.
        """
        shown_at, count, last = time.monotonic(), 0, -1
        with (
            SpooledTemporaryFile(_IN_MEMORY_BYTES) as file,
            closing(self._pages_from_end(reader, max_outage)) as pages_from_end,
            closing(self._pages(reader, max_outage)) as pages,
        ):
            end = _RowsFromEnd(reader, pages_from_end, file)
            for page in pages:
                records = reader.take(page, lambda index: index < end.first_index)
                yield records
                count += len(records)
                last = records[-1][0] if records else last
                if len(records) < len(page.items):
                    break
                if (reader.rows_in_all or 0) >= _BOTH_ENDS_FROM and end.read_page(after=last):
                    break
                if time.monotonic() - shown_at >= _PROGRESS_SECONDS:
                    shown_at = time.monotonic()
                    self.log.info("Read %s rows.", _progress(reader, count + end.count))
            yield from end.records()
        reader.check_complete(count + end.count)

    def _pages_from_end(
        self, reader: RecordReader, max_outage: float
    ) -> Generator[RecordsPage, None, None]:
        """Yield the pages from the last one to the first, once the reader has read its first."""
        yield from self._pages(reader.from_the_end(), max_outage)

    def _pages(self, reader: RecordReader, max_outage: float) -> Generator[RecordsPage, None, None]:
        """Yield the pages, each while the next one is read in a thread."""
        is_left = threading.Event()

        def pause(decision: PollDecision) -> None:
            self._log_decision(decision)
            if is_left.wait(decision.sleep):
                raise PromptLayerTransientError("The pages are not wanted any more.")

        def read(call: Call[RecordsPage]) -> RecordsPage:
            return drive(loop_for_page(reader, call, max_outage), self.call, pause, run_together)

        self.warm_up()  # not in a thread: Airflow may not be asked by two at a time
        calls = reader.page_calls()
        with DaemonThreads(1) as page_thread:
            reading = page_thread.submit(partial(read, next(calls)))
            try:
                while True:
                    page = reading.result()
                    following = following_call(calls, page)
                    if self.is_stopping:  # Airflow 3 would let the task go on until it is killed
                        raise PromptLayerTransientError("The task is being stopped.")
                    if following is not None:
                        reading = page_thread.submit(partial(read, following))
                    yield page
                    if following is None:
                        return
            finally:
                is_left.set()


class _RowsFromEnd:
    """The records of a sheet from its last row on, kept until those before them are written."""

    def __init__(
        self, reader: RecordReader, pages: Iterator[RecordsPage], file: SpooledTemporaryFile[bytes]
    ) -> None:
        self.count = 0
        self.first_index: float = math.inf
        """The number of the first of the rows that are kept."""
        self._reader = reader
        self._pages = pages
        self._file = file
        self._sizes: list[int] = []
        self._is_of_use = True

    def read_page(self, *, after: int) -> bool:
        """Keep the rows of one more page; return whether no row is left between them and ``after``.

        Rows up to ``after`` are not kept. Where PromptLayer lists the first rows in either order,
        this does nothing.
        """
        if not self._is_of_use:
            return False
        page = next(self._pages)
        records = self._reader.take(page, lambda index: index > after)
        self._is_of_use = bool(records or self.count)
        if records:
            self.first_index = records[-1][0]
            self._sizes.append(self._file.write(_pickled(records[::-1])))
            self.count += len(records)
        return self._is_of_use and len(records) < len(page.items)

    def records(self) -> Iterator[list[Record]]:
        """Yield the records in the order of the rows, a page at a time."""
        at = sum(self._sizes)
        for size in reversed(self._sizes):
            at -= size
            self._file.seek(at)
            yield pickle.loads(self._file.read(size))  # noqa: S301 - what this process has written


def loop_for_page(
    reader: RecordReader, call: Call[RecordsPage], max_outage: float
) -> Loop[RecordsPage]:
    """Return the loop that reads a page with its scores, and rides out trouble meanwhile."""
    return each_with_backoff(
        reader.read(call),
        about=f"the rows of sheet {reader.sheet.sheet_id}",
        policy=retries.POLLING.within(max_outage),
    )


def following_call(
    calls: Generator[Call[RecordsPage], RecordsPage, None], page: RecordsPage
) -> Call[RecordsPage] | None:
    """Return the call for the page after this one, or None after the last."""
    try:
        return calls.send(page)
    except StopIteration:
        return None


def _pickled(records: list[Record]) -> bytes:
    try:
        return pickle.dumps(records)
    except RecursionError:  # of what is nested very deep, which no file takes as it is
        return pickle.dumps(storable(records).value)


def _progress(reader: RecordReader, count: int) -> str:
    """Return how far a sheet is read: ``"12,300 of 40,000"``."""
    return f"{count:,}" + (f" of {reader.rows_in_all:,}" if reader.rows_in_all is not None else "")
