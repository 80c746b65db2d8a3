# SPDX-License-Identifier: Apache-2.0
"""The counts of a sheet's cells, whichever task has calculated them.

Facts are those of PromptLayer's published API description ("List Table Sheet Operations"); what it
leaves open is noted where it matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from airflow_provider_promptlayer.api.fields import object_call
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.api.tables import (
    Sheet,
    TableOperation,
    progress_of_cells,
    read_operation,
)

_SYNONYMS: Final = {"error": "failed", "canceled": "cancelled"}
"""A status of a cell → the word for it that most answers have.

The description has two vocabularies for cells, and PromptLayer's own library has more words.
"""

_PENDING: Final = frozenset({"queued", "dispatched", "running", "pending"})

_COUNTED: Final = frozenset({"completed", "failed", "cancelled", "stale", "pending"})
"""The counts of a sheet."""


@lru_cache(maxsize=64)
def cell_status(status: str) -> str:
    """Return the status of a cell in one vocabulary: ``completed``, ``failed``, ``stale``, …."""
    status = status.strip().lower()
    return _SYNONYMS.get(status, status)


def _count_of(status: str) -> str:
    """Return which count of a sheet a status of a cell belongs to."""
    word = cell_status(status)
    return "pending" if word in _PENDING else word


@dataclass(frozen=True, slots=True)
class SheetOperations:
    """The counts of a sheet's cells, and the operations that are under way on it.

    :param pending_count: cells that are queued or being calculated.
    :param status_counts: cell status → number of cells.
    """

    total_cells: int
    pending_count: int
    status_counts: Mapping[str, int]
    active_operations: tuple[TableOperation, ...]

    @property
    def is_complete(self) -> bool:
        """Whether no cell is queued or being calculated, and no operation is under way."""
        return not (
            self.pending_count
            or self._count("pending")
            or any(not operation.is_complete for operation in self.active_operations)
        )

    @property
    def completed_count(self) -> int:
        """The cells that have a value: those that were calculated, and those that hold text."""
        return self._count("completed")

    @property
    def failed_count(self) -> int:
        """The cells that failed."""
        return self._count("failed")

    @property
    def cancelled_count(self) -> int:
        """The cells whose calculation was cancelled."""
        return self._count("cancelled")

    @property
    def stale_count(self) -> int:
        """The cells that are to be calculated; also those that no status counts."""
        return self._count("stale") + max(0, self.total_cells - sum(self.status_counts.values()))

    @property
    def unknown_count(self) -> int:
        """The cells of a status that this release does not know."""
        return sum(self.status_counts.values()) - sum(map(self._count, _COUNTED))

    @property
    def progress(self) -> str:
        """One line for people: ``"37 of 120 cells done, 2 failed"``."""
        return progress_of_cells(
            self.completed_count + self.failed_count, self.total_cells, self.failed_count
        )

    def _count(self, name: str) -> int:
        return sum(
            count for status, count in self.status_counts.items() if _count_of(status) == name
        )


@dataclass(frozen=True)
class SheetCells(Sheet, RemoteJob[SheetOperations]):
    """All that calculates cells of a sheet, to be waited for until no cell is pending.

    Other tasks may have started it, so there is no :meth:`cancel`.
    """

    noun = "the calculation of sheet"
    counted_as = "recalculation"

    @property
    def remote_ids(self) -> tuple[()]:
        """Nothing, as these may be any operations."""
        return ()

    def fetch_call(self) -> Call[SheetOperations]:
        """``GET …/operations``: ask for the counts; a finished operation is not listed."""
        return object_call(
            self.request("GET", "operations", f"list the operations of sheet {self.sheet_id}"),
            lambda answer: SheetOperations(
                answer.count("total_cells"),
                answer.count("pending_count"),
                answer.counts("status_counts"),
                tuple(map(read_operation, answer.objects("active_operations"))),
            ),
        )
