# SPDX-License-Identifier: Apache-2.0
"""How a task names the table and the sheet that it works on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from airflow_provider_promptlayer.api.arguments import is_uuid, title_or_uuid, uuid
from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.links import Page
from airflow_provider_promptlayer.api.tables import Sheet
from airflow_provider_promptlayer.bases.lineage import Dataset, sheet_dataset
from airflow_provider_promptlayer.bases.task import PromptLayerTask
from airflow_provider_promptlayer.submission.task_state import SheetState

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

T = TypeVar("T")

SHEET_FIELDS: Final = ("table", "sheet", "table_id", "sheet_id")
"""The template fields of :class:`SheetArguments`."""


class SheetArguments(PromptLayerTask):
    """The arguments that name a table and a sheet, for tasks of every base.

    Titles are looked up once per task, before anything else is sent. A task that comes back to a
    job, from the triggerer or in a retry, takes the UUIDs from the job.

    :param table: title or UUID of the table; exactly one of ``table`` and ``table_id``.
    :param sheet: title or UUID of the sheet; exactly one of ``sheet`` and ``sheet_id``.
    :param table_id: UUID of the table.
    :param sheet_id: UUID of the sheet.
    """

    ensure: bool = False
    """Whether to create the table if none has the title; for tasks that fill it."""

    needs_sheet: ClassVar[bool] = True
    """Whether a sheet has to be named, and not the table alone."""

    def __init__(
        self,
        *,
        table: str | XComArg | None = None,
        sheet: str | XComArg | None = None,
        table_id: str | XComArg | None = None,
        sheet_id: str | XComArg | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.table: Any = table
        self.sheet: Any = sheet
        self.table_id: Any = table_id
        self.sheet_id: Any = sheet_id
        # One that is left out is None; so may one that is given be, once it is rendered.
        self._names_table_by = _one_of("table", table, "table_id", table_id)
        self._names_sheet_by = (
            _one_of("sheet", sheet, "sheet_id", sheet_id)
            if self.needs_sheet or (sheet, sheet_id) != (None, None)
            else None
        )
        self.refuse_constants(
            table=title_or_uuid, sheet=title_or_uuid, table_id=uuid, sheet_id=uuid
        )
        self._found_table: tuple[Any, str] | None = None  # what was looked up, and its UUID
        self._found_sheet: tuple[Any, Sheet] | None = None
        self._sheet: Sheet | None = None  # the one that was asked for last

    @property
    def found_table(self) -> str:
        """The UUID of the table that the rendered arguments name.

        :raises PromptLayerNotFoundError: if no table has the title.
        :raises PromptLayerInvalidInputError: if several have it, or an argument cannot be used.
        """
        job: object = self.known_job
        if isinstance(job, Sheet):
            return job.table_id
        if self._names_table_by == "table_id":
            return uuid("table_id", self.table_id)
        if self._found_table is None or self._found_table[0] != self.table:
            find = self.hook.ensure_table if self.ensure else self.hook.find_table
            self._found_table = self.table, find(self.table, max_outage=self.max_outage)
        return self._found_table[1]

    @property
    def page(self) -> Page | None:
        """The web page of the sheet, once it is known."""
        return super().page or (None if self._sheet is None else self._sheet.page)

    @property
    def found_sheet(self) -> Sheet:
        """The sheet that the rendered arguments name.

        :raises PromptLayerNotFoundError: if no table or no sheet has the title.
        :raises PromptLayerInvalidInputError: if several have it, or an argument cannot be used.
        """
        self._sheet = self._find_sheet()
        return self._sheet

    def _find_sheet(self) -> Sheet:
        job: object = self.known_job
        if isinstance(job, Sheet):
            return Sheet(job.table_id, job.sheet_id)
        if self._names_sheet_by == "sheet_id":
            sheet_id = uuid("sheet_id", self.sheet_id)  # before the table is looked up
            return Sheet(self.found_table, sheet_id)
        wanted = self.found_table, self.sheet
        if self._found_sheet is None or self._found_sheet[0] != wanted:
            found = self.hook.find_sheet(
                *wanted, table_title=self.table, max_outage=self.max_outage
            )
            self._found_sheet = wanted, found
        return self._found_sheet[1]

    def note_sheet(self, context: Context) -> None:
        """Find the sheet now, or take the one that this try found before it was rescheduled.

        For a task that is another process at each poll; before Airflow 3.3 it looks titles up anew.
        """
        names = self.table or self.table_id, self.sheet or self.sheet_id
        state = None if all(map(is_uuid, names)) else SheetState.of(context)
        if state is None:
            return
        titles = [str(name) for name in names]
        if (noted := state.read(titles)) is None:
            sheet = self.found_sheet
            state.write(titles, sheet.table_id, sheet.sheet_id)
        else:
            sheet = Sheet(*noted)
            self._found_table = self.table, sheet.table_id
            self._found_sheet = (sheet.table_id, self.sheet), sheet

    def dataset(self, **facts: Any) -> Dataset:
        """Return the sheet as a dataset, see :func:`.sheet_dataset`."""
        return sheet_dataset(self.hook.settings.base_url, self.found_sheet, **facts)

    def on_sheet(self, make: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Return what ``make`` returns for the sheet's two UUIDs and further arguments."""
        sheet = self.found_sheet
        return make(sheet.table_id, sheet.sheet_id, *args, **kwargs)


def _one_of(name: str, value: Any, id_name: str, its_id: Any) -> str:
    if (value is None) == (its_id is None):
        raise PromptLayerInvalidInputError(
            f"Give one of {name}, a title or a UUID, and {id_name}, a UUID; not "
            f"{'none' if value is None else 'both'}."
        )
    return name if its_id is None else id_name
