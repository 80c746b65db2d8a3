# SPDX-License-Identifier: Apache-2.0
"""The hook's methods that find, and create, tables, sheets and columns by their titles."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from airflow_provider_promptlayer.api import names
from airflow_provider_promptlayer.api.errors import PromptLayerError, PromptLayerNotFoundError
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.job import CallFlow
from airflow_provider_promptlayer.api.links import Page
from airflow_provider_promptlayer.api.tables import Sheet
from airflow_provider_promptlayer.hooks.base import PromptLayerConnectionHook, twins
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import Loop, drive, each_with_backoff
from airflow_provider_promptlayer.polling.poller import DEFAULT_MAX_OUTAGE

T = TypeVar("T")


class TableMethods(PromptLayerConnectionHook):
    """The methods of :class:`.PromptLayerHook` that find tables by their titles, or create them."""

    def _find_table(self, table: str, *, max_outage: float = DEFAULT_MAX_OUTAGE) -> Loop[str]:
        """Return the UUID of a table.

        :param table: its title, matched exactly; or its UUID, for which nothing is sent.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        :raises PromptLayerNotFoundError: if no table has the title.
        :raises PromptLayerInvalidInputError: if several have it; names their UUIDs.
        """
        return _found(names.find_table(table), "the tables", max_outage)

    find_table, afind_table = twins(_find_table)

    def _find_sheet(
        self,
        table: str,
        sheet: str,
        *,
        table_title: str | None = None,
        max_outage: float = DEFAULT_MAX_OUTAGE,
    ) -> Loop[Sheet]:
        """Return a sheet, with the UUIDs of its table and its own.

        :param table: title or UUID of the table.
        :param sheet: title or UUID of the sheet.
        :param table_title: what errors call a table that ``table`` names by its UUID.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        :raises PromptLayerNotFoundError: if no table or no sheet has the title.
        :raises PromptLayerInvalidInputError: if several have it; names their UUIDs.
        """

        def flow() -> CallFlow[Sheet]:
            table_id = yield from names.find_table(table)
            return (yield from names.find_sheet(table_id, sheet, table_title or table))

        return _found(flow(), "the sheets", max_outage)

    find_sheet, afind_sheet = twins(_find_sheet)

    def _ensure_table(self, table: str, *, max_outage: float = DEFAULT_MAX_OUTAGE) -> Loop[str]:
        """Return the UUID of a table; create it, without sheets, if no table has the title.

        Two callers at the same time may create two tables.

        :param table: see :meth:`find_table`.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        :raises PromptLayerInvalidInputError: if several tables have the title; names their UUIDs.
        :raises PromptLayerStartUncertainError: if the table may have been created and is not found.
        """
        return self._ensured(
            lambda: names.find_table(table), lambda: names.create_table(table), "table", max_outage
        )

    ensure_table, aensure_table = twins(_ensure_table)

    def _ensure_sheet(
        self, table: str, sheet: str, *, max_outage: float = DEFAULT_MAX_OUTAGE
    ) -> Loop[Sheet]:
        """Return a sheet; create it, and its table, if nothing has the title.

        PromptLayer gives a new sheet an empty column, ``Column A``, with one row.

        :param table: see :meth:`find_sheet`.
        :param sheet: see :meth:`find_sheet`.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        :raises PromptLayerInvalidInputError: if several have the title; names their UUIDs.
        :raises PromptLayerStartUncertainError: if one may have been created and is not found.
        """
        table_id = yield from self._ensure_table(table, max_outage=max_outage)
        return (
            yield from self._ensured(
                lambda: names.find_sheet(table_id, sheet, table),
                lambda: names.create_sheet(table_id, sheet),
                "sheet",
                max_outage,
            )
        )

    ensure_sheet, aensure_sheet = twins(_ensure_sheet)

    def _find_columns(
        self, sheet: Sheet, columns: Any, *, max_outage: float = DEFAULT_MAX_OUTAGE
    ) -> Loop[list[str] | None]:
        """Return the UUIDs of columns of a sheet; None for None.

        :param sheet: see :meth:`find_sheet`.
        :param columns: a list of titles and UUIDs.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        :raises PromptLayerNotFoundError: if no column has one of the titles.
        :raises PromptLayerInvalidInputError: if several have it; names their UUIDs.
        """
        return _found(names.find_columns(sheet, columns), "the columns", max_outage)

    find_columns, afind_columns = twins(_find_columns)

    def find_url(self, page: Page) -> str | None:
        """Return the URL of a web page of PromptLayer; None if it cannot be told.

        Sends one request at most, once: a link is not worth waiting for.
        """
        try:
            return drive(self.settings.dashboard.find_url(page), self.call)
        except PromptLayerError as error:
            self.log.debug("There is no link to PromptLayer: %s", error)
            return None

    def _ensured(
        self,
        find: Callable[[], CallFlow[T]],
        create: Callable[[], Call[T]],
        noun: str,
        max_outage: float,
    ) -> Loop[T]:
        """Return what has a title; create it once if nothing has the title.

        See :meth:`_sent_once` for a lost answer.
        """
        about = f"the {noun}s"
        found = yield from _found_or_none(find(), about, max_outage)
        if found is None:
            found = yield from self._sent_once(
                create, lambda: _found_or_none(find(), about, max_outage)
            )
            self.log.info("Created the %s, as there was none yet.", noun)
        return found


def _found_or_none(flow: CallFlow[T], about: str, max_outage: float) -> Loop[T | None]:
    try:
        return (yield from _found(flow, about, max_outage))
    except PromptLayerNotFoundError as error:
        if error.status is not None:  # what has the list is not there: its table, or its sheet
            raise
        return None


def _found(flow: CallFlow[T], about: str, max_outage: float) -> Loop[T]:
    """Send the calls of a flow that finds a title."""
    return each_with_backoff(
        flow,
        about=about,
        policy=retries.POLLING.within(max_outage),
        deadline=time.time() + max_outage + retries.FINDING_SECONDS,
    )
