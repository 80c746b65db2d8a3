# SPDX-License-Identifier: Apache-2.0
"""Titles of tables, sheets and columns, in place of their UUIDs.

A title is matched exactly, against all that the list endpoints have. PromptLayer lets several
tables, sheets or columns have one title; none of them is chosen then. Facts are those of
PromptLayer's published API description ("List Tables", "List Sheets", "List Columns").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, Final, TypeAlias
from urllib.parse import urlencode

from airflow_provider_promptlayer.api.arguments import (
    encode,
    is_uuid,
    list_of,
    title_or_uuid,
    title_text,
    uuid,
)
from airflow_provider_promptlayer.api.errors import (
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
)
from airflow_provider_promptlayer.api.fields import FieldError, Fields, object_call
from airflow_provider_promptlayer.api.http import Call, Request
from airflow_provider_promptlayer.api.job import CallFlow
from airflow_provider_promptlayer.api.pages import PAGE_SIZE, Page, read_page, visit_items
from airflow_provider_promptlayer.api.submit import submit_call
from airflow_provider_promptlayer.api.tables import Sheet
from airflow_provider_promptlayer.api.text import listed, quoted

TABLES_PATH: Final = "/api/public/v2/tables"

_TITLES_NAMED: Final = 5

Titles: TypeAlias = dict[str, str]
"""UUID → title, in the order of the list."""


def find_table(table: Any) -> CallFlow[str]:
    """Return the UUID of a table.

    :param table: its title, or its UUID, for which nothing is sent.
    :raises PromptLayerNotFoundError: if no table has the title.
    :raises PromptLayerInvalidInputError: if several have it.
    """
    if is_uuid(table):
        return uuid("table", table)
    wanted = title_text("table", table)
    purpose = f"list the tables titled {quoted(wanted)}"
    found = yield from _all_titles(TABLES_PATH, purpose, {"name": wanted})
    if wanted not in found.values():
        first = yield _titles_at(TABLES_PATH, "list the tables", {}, None)
        found |= dict(first.items)  # what the title may have been meant for
    return _only("table", wanted, found)


def find_sheet(table_id: str, sheet: Any, table: str) -> CallFlow[Sheet]:
    """Return a sheet of a table.

    :param sheet: its title, or its UUID, for which nothing is sent.
    :param table: title or UUID of the table, as the user gave it, for messages.
    :raises PromptLayerNotFoundError: if no sheet of the table has the title.
    :raises PromptLayerInvalidInputError: if several have it.
    """
    if is_uuid(sheet):
        return Sheet(table_id, sheet)
    wanted = title_text("sheet", sheet)
    path = f"{TABLES_PATH}/{uuid('table_id', table_id)}/sheets"
    found = yield from _all_titles(path, f"list the sheets of table {table_id}")
    where = f" of table {table_id if is_uuid(table) else quoted(table)}"
    return Sheet(table_id, _only("sheet", wanted, found, where))


def create_table(wanted: str) -> Call[str]:
    """``POST …/tables``: create a table without sheets; returns its UUID.

    PromptLayer lets several tables have one title, so a repeat creates a second one.
    """
    body = {"title": title_text("table", wanted), "create_default_sheet": False}
    return _create(TABLES_PATH, "table", wanted, body)


def create_sheet(table_id: str, wanted: str) -> Call[Sheet]:
    """``POST …/sheets``: create a sheet, with the empty column and row that PromptLayer gives it.

    A repeat creates a second one, as with :func:`create_table`.
    """
    path = f"{TABLES_PATH}/{uuid('table_id', table_id)}/sheets"
    body = {"title": title_text("sheet", wanted)}
    return _create(path, "sheet", wanted, body).then(partial(Sheet, table_id))


def _create(path: str, noun: str, wanted: str, body: dict[str, Any]) -> Call[str]:
    return submit_call(
        Request("POST", path, f"create the {noun} {quoted(wanted)}", encode(noun, body)),
        lambda answer: read_id(answer.object(noun)),
        id_field=noun,
        advice=f"The {noun} may have been created all the same: look in PromptLayer.",
    )


def find_columns(sheet: Sheet, columns: Any) -> CallFlow[list[str] | None]:
    """Return the UUIDs of columns; None for None.

    :param columns: a list of titles and UUIDs, which may be JSON. For UUIDs alone nothing is sent.
    :raises PromptLayerNotFoundError: if no column of the sheet has one of the titles.
    :raises PromptLayerInvalidInputError: if several have it, or if it is no list.
    """
    wanted = list_of(title_or_uuid, "columns", columns)
    if wanted is None or all(map(is_uuid, wanted)):
        return wanted
    path = sheet.request("GET", "columns", "").path
    found = yield from _all_titles(path, f"list the columns of sheet {sheet.sheet_id}")
    return columns_among(found, wanted, sheet)


def columns_among(found: Titles, wanted: Sequence[str], sheet: Sheet) -> list[str]:
    """Return the UUIDs of columns.

    :param found: all columns of the sheet.
    :param wanted: titles and UUIDs; a UUID need not be among those found.
    :raises PromptLayerNotFoundError: if no column has one of the titles.
    :raises PromptLayerInvalidInputError: if several have it.
    """
    where = f" of sheet {sheet.sheet_id}"
    return [
        uuid("columns", column) if is_uuid(column) else _only("column", column, found, where)
        for column in wanted
    ]


def _all_titles(
    path: str, purpose: str, query: Mapping[str, str] | None = None
) -> CallFlow[Titles]:
    found: list[tuple[str, str]] = []
    yield from visit_items(partial(_titles_at, path, purpose, query or {}), found.append)
    return dict(found)  # by id, as an item may move to the next page while the list is read


def _titles_at(
    path: str, purpose: str, query: Mapping[str, str], cursor: str | None
) -> Call[Page[tuple[str, str]]]:
    """Return the call for a page of a list, as pairs of UUID and title."""
    asked = {**query, "limit": str(PAGE_SIZE), **({} if cursor is None else {"cursor": cursor})}
    return object_call(
        Request("GET", f"{path}?{urlencode(asked)}", purpose),
        lambda answer: read_page(
            answer, lambda item: (read_id(item), item.text_if_any("title") or "")
        ),
    )


def read_id(item: Fields) -> str:
    """Return the UUID of a table, a sheet or a column in an answer.

    :raises FieldError: if there is none.
    """
    if not is_uuid(item.get("id")):
        raise FieldError("has no id that is a UUID")
    return uuid("id", item.get("id"))


def _only(noun: str, wanted: str, found: Titles, where: str = "") -> str:
    """Return the id of the only one that has a title."""
    ids = [one for one, its_title in found.items() if its_title == wanted]
    if len(ids) == 1:
        return ids[0]
    if ids:
        which = listed(ids, len(ids), _TITLES_NAMED, ", ")
        raise PromptLayerInvalidInputError(
            f"{len(ids)} {noun}s{where} are titled {quoted(wanted)}: give the UUID of one of them "
            f"instead: {which}."
        )
    titles = {its_title for its_title in found.values() if its_title}
    closest = get_close_matches(wanted, titles, _TITLES_NAMED, cutoff=0.0)
    named = listed(map(quoted, closest), len(titles), _TITLES_NAMED, ", ")
    there = f"these exist: {named}" if titles else f"there are no {noun}s"
    raise PromptLayerNotFoundError(
        f"No {noun}{where} is titled {quoted(wanted)}, and titles are matched exactly; {there}."
    )
