# SPDX-License-Identifier: Apache-2.0
"""What a recalculation has cost, as far as PromptLayer says.

The description ("List Rows") has the price and the tokens of each cell of a prompt column in
``request_metrics``, and in ``execution_id`` the execution that calculated it. The answer to the
start of a recalculation has the ids of its executions. So the cells of one recalculation are told
from the others. Sums over a whole sheet (``execution_metadata_aggregates``) would count the other
cells too, and have no tokens.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from airflow_provider_promptlayer.api.fields import Fields
from airflow_provider_promptlayer.api.job import CallFlow
from airflow_provider_promptlayer.api.pages import PAGE_SIZE, visit_pages
from airflow_provider_promptlayer.api.rows import Row, rows_page
from airflow_provider_promptlayer.api.tables import Sheet, show_count

MAX_ROWS_READ: Final = 10_000
"""How many rows are read where the usage only informs."""


_MAX_PRICE: Final = 1e9
"""US dollars from which on a number cannot be the price of a cell."""


@dataclass(slots=True)
class Usage:
    """What calculating some cells has cost; None for what PromptLayer does not say.

    :param price: US dollars.
    :param requests: how many requests were sent to language models.
    :param unpriced: of how many cells the price is not known, and so not in ``price``: PromptLayer
        does not say it, or another execution has calculated the cell since.
    """

    price: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    requests: int | None = None
    unpriced: int = 0

    def payload(self) -> dict[str, Any]:
        """Return the usage as plain JSON, for XCom."""
        fields = asdict(self)
        del fields["unpriced"]
        return fields

    def add(self, metrics: Fields) -> None:
        """Add the ``request_metrics`` of a cell."""
        price = metrics.number_if_any("price")
        if price is None or not 0 <= price < _MAX_PRICE:
            price = None
            self.unpriced += 1
        # Rounded, as a sum of thousands of fractions of a cent is not exact.
        self.price = None if (total := _sum(self.price, price)) is None else round(total, 9)
        self.input_tokens = _sum(self.input_tokens, metrics.count_if_any("input_tokens"))
        self.output_tokens = _sum(self.output_tokens, metrics.count_if_any("output_tokens"))
        ids = metrics.get("request_ids")
        count = metrics.count_if_any("request_count")
        listed = len(ids) if isinstance(ids, list) else None
        self.requests = _sum(self.requests, listed if count is None else count)

    def __str__(self) -> str:
        """Return a line for people: ``"1.25 USD, 120 requests, 9000 tokens in, 800 out"``."""
        parts = ["an unknown price" if self.price is None else show_price(self.price)]
        if self.requests is not None:
            parts.append(f"{show_count(self.requests)} requests")
        if self.input_tokens is not None:
            parts.append(f"{show_count(self.input_tokens)} tokens in")
        if self.output_tokens is not None:
            parts.append(f"{show_count(self.output_tokens)} tokens out")
        line = ", ".join(parts)
        return line + (
            f"; PromptLayer has no price for {show_count(self.unpriced)} cells"
            if self.unpriced and self.price is not None
            else ""
        )


def show_price(price: float) -> str:
    """Return a price for people."""
    return f"{price:.6g} USD"


def usage_of(
    sheet: Sheet,
    execution_ids: Collection[str],
    *,
    cell_count: int | None = None,
    max_rows: int | None = None,
) -> CallFlow[Usage | None]:
    """Add up what the cells of some executions have cost.

    :param cell_count: how many cells they have calculated; the rows are read, the last one first,
        until all of these are found; None to read all rows.
    :param max_rows: how many rows to read; None for all.
    :returns: None where PromptLayer does not say, or the cells are not among these rows.
    """
    tally = _Tally(frozenset(execution_ids), cell_count, max_rows)
    yield from visit_pages(
        lambda cursor: rows_page(sheet, cursor=cursor, last_first=True),
        lambda page: any(map(tally.add_row, page.items)),
    )
    return tally.usage


class _Tally:
    def __init__(self, execution_ids: Collection[str], cells: int | None, rows: int | None) -> None:
        self._execution_ids = execution_ids
        self._cells_left = math.inf if cells is None else cells
        self._rows_left = math.inf if rows is None else rows
        self._nameless = 0  # cells that were calculated by an execution without an id
        self._names_executions = False
        self._sum: Usage | None = None

    @property
    def usage(self) -> Usage | None:
        """The sum; None where cells with a price may be in rows that were not read."""
        if self._sum is None or (self._cells_left > 0 and not self._rows_left):
            return None
        missing = max(self._cells_left, 0)
        if missing == math.inf:  # how many cells there are is not known
            return self._sum
        return replace(self._sum, unpriced=self._sum.unpriced + int(missing))

    def add_row(self, row: Row) -> bool:
        """Add up the cells of a row; return whether there is no use in reading further ones."""
        for cell in row.cells.values():
            execution_id, metrics = cell.get("execution_id"), cell.get("request_metrics")
            self._names_executions |= execution_id is not None
            self._nameless += execution_id is None and metrics is not None
            if not isinstance(execution_id, str) or execution_id not in self._execution_ids:
                continue
            self._cells_left -= 1
            if isinstance(metrics, dict):
                self._sum = self._sum or Usage()
                self._sum.add(Fields(metrics))
        self._rows_left -= 1
        is_in_vain = self._nameless >= PAGE_SIZE and not self._names_executions
        return self._cells_left <= 0 or not self._rows_left or is_in_vain


def _sum(total: float | None, more: float | None) -> Any:
    return total if more is None else (total or 0) + more
