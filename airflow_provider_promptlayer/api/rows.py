# SPDX-License-Identifier: Apache-2.0
"""The rows of a sheet, read page by page.

Facts are those of PromptLayer's published API description ("List Rows"). Its cells have statuses in
lower case and a plain value; those of its libraries have them in upper case, and the value in an
object ``{"value": …}``. Both are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import urlencode

from airflow_provider_promptlayer.api.cells import cell_status
from airflow_provider_promptlayer.api.fields import FieldError, Fields, object_call
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.names import read_id
from airflow_provider_promptlayer.api.pages import PAGE_SIZE, Page, read_page
from airflow_provider_promptlayer.api.tables import Sheet

RawCell: TypeAlias = Mapping[str, Any]
"""A cell as it was answered; the functions of this module read it."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a sheet.

    :param type: such as ``TEXT`` or ``PROMPT_TEMPLATE``, in upper case.
    """

    id: str
    title: str
    type: str

    @property
    def is_text(self) -> bool:
        """Whether its cells hold what was put in, and are not calculated."""
        return self.type == "TEXT"


@dataclass(slots=True)  # frozen ones take three times as long to make, and there are many
class Row:
    """A row of a sheet.

    :param index: zero-based.
    :param cells: id of the column → cell.
    """

    index: int
    cells: Mapping[str, RawCell] = field(repr=False)


@dataclass(frozen=True, slots=True)
class RowsPage(Page[Row]):
    """A page of the rows of a sheet.

    :param columns: of the sheet; empty unless they were asked for.
    :param version: rises with every change of the sheet; None if the answer does not say.
    :param row_count: how many rows the sheet has; None if the answer does not say.
    """

    columns: Sequence[Column]
    version: int | None
    row_count: int | None


def rows_page(
    sheet: Sheet,
    *,
    cursor: str | None = None,
    last_first: bool = False,
    with_columns: bool = False,
) -> Call[RowsPage]:
    """``GET …/rows``: a page of :data:`PAGE_SIZE` rows.

    :param cursor: ``next_cursor`` of the page before, in the same order; None for the first page.
    :param last_first: begin with the last row.
    :param with_columns: whether to answer with the columns, too.
    """
    query: dict[str, Any] = {"limit": PAGE_SIZE, "include_columns": str(with_columns).lower()}
    if last_first:
        query["order"] = "desc"
    if cursor is not None:
        query["cursor"] = cursor

    def build(answer: Fields) -> RowsPage:
        page = read_page(answer, _row)
        return RowsPage(
            page.items,
            page.next_cursor,
            tuple(map(read_column, answer.objects("columns"))) if with_columns else (),
            answer.count_if_any("version"),
            answer.count_if_any("row_count"),
        )

    purpose = f"list the rows of sheet {sheet.sheet_id}"
    path = f"rows?{urlencode(query, errors='backslashreplace')}"  # of a lone surrogate
    return object_call(sheet.request("GET", path, purpose), build)


def read_column(fields: Fields) -> Column:
    """Return the column that an object of an answer describes.

    :raises FieldError: if it is not as documented.
    """
    return Column(
        read_id(fields),
        fields.text_if_any("title") or "",
        (fields.text_if_any("type") or "").upper(),
    )


def value_of(cell: RawCell) -> Any:
    """Return what a cell holds, without the object around it; None for a cell without a value."""
    value = cell.get("value")
    if isinstance(value, dict) and len(value) == 1 and "value" in value:
        value = value["value"]
    return cell.get("display_value") if value is None else value


def status_of(cell: RawCell) -> str | None:
    """Return the status of a cell: ``completed``, ``failed``, ``stale``, … in one vocabulary."""
    status = cell.get("status")
    return cell_status(status) if isinstance(status, str) else None


def error_of(cell: RawCell) -> str | None:
    """Return why a cell could not be calculated."""
    said = cell.get("error_message") or cell.get("error")
    return said if isinstance(said, str) else None


def _row(row: Fields) -> Row:
    cells = row.get("cells")
    if not isinstance(cells, dict) or not set(map(type, cells.values())) <= {dict}:
        raise FieldError("has a row without cells")
    return Row(row.count("row_index"), cells)
