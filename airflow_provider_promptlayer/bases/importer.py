# SPDX-License-Identifier: Apache-2.0
"""How a task imports rows exactly once, on every Airflow: the base of the operators that do.

Other jobs need Airflow's task state, so that a later try finds the job of an earlier one. An import
needs none: PromptLayer takes its id from the client. The id follows from the task instance, its
clears, the sheet and the content, so every try looks the same import up before it starts one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, get_args

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.arguments import one_of, title_text
from airflow_provider_promptlayer.api.errors import (
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
)
from airflow_provider_promptlayer.api.imports import (
    ImportOrder,
    ImportSource,
    ImportStatus,
    SheetImport,
    operation_id_of,
)
from airflow_provider_promptlayer.api.request_logs import MAX_LOGS
from airflow_provider_promptlayer.api.tables import Sheet
from airflow_provider_promptlayer.bases.kind import JobKind, ResultOnly
from airflow_provider_promptlayer.bases.lineage import Dataset, Lineage
from airflow_provider_promptlayer.bases.sheet import SheetArguments
from airflow_provider_promptlayer.bases.waiter import PromptLayerWaiter
from airflow_provider_promptlayer.files.reading import NothingToImportError
from airflow_provider_promptlayer.outcomes.imports import raise_for_import
from airflow_provider_promptlayer.xcom import outputs as xcom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

OnEmpty = Literal["succeed", "skip", "fail"]

_NO_ROWS: Final = {
    "table_id": None,
    "sheet_id": None,
    "operation_id": None,
    "rows_added": 0,
    "row_count": None,
}
"""The result of a task that had no row to import."""

_PUSHED: Final = {
    xcom.TABLE_ID_KEY: "table_id",
    xcom.SHEET_ID_KEY: "sheet_id",
    xcom.OPERATION_ID_KEY: "operation_id",
}
"""XCom key → the id of the import that is pushed under it."""

_NOTHING_FOUND: Final = "No request log meets the conditions."

DEFAULT_TITLE: Final = "{{ run_id }}{% if ti.map_index >= 0 %} {{ ti.map_index }}{% endif %}"
"""A sheet for each DAG run, and for each of its mapped instances.

Not ``ds``, which a run without a logical date does not have.
"""


class ImportTask(SheetArguments, PromptLayerWaiter[ImportStatus]):
    """Base of the tasks that wait for an import into a sheet.

    :param on_empty: what to do if there is nothing to import.
    :param kwargs: which table and sheet, see :class:`.SheetArguments`; how to wait, see
        :class:`.PromptLayerWaiter`.
    """

    sends_rows: ClassVar[bool] = False
    """Whether the task has sent rows, so that an import which adds none has failed."""

    def __init__(self, *, on_empty: OnEmpty = "succeed", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        one_of("on_empty", on_empty, get_args(OnEmpty))
        self.on_empty: OnEmpty = on_empty
        self._rows_sent: int | None = None

    @property
    def sources(self) -> Sequence[Dataset]:
        """Where the rows come from, as far as that is a dataset."""
        return ()

    def new_kind(self) -> JobKind[ImportStatus]:
        """Return imports into the sheet."""

        def check(ending: ImportStatus) -> None:
            on_empty = "fail" if self.sends_rows else self.on_empty
            if ending.found_nothing and on_empty == "skip":
                raise AirflowSkipException(_NOTHING_FOUND)
            raise_for_import(ending, allow_empty=on_empty == "succeed")
            if not self.sends_rows and ending.rows_added == MAX_LOGS:
                self.log.warning(
                    "PromptLayer imports at most %d request logs at once: more may meet the "
                    "conditions. Import shorter times.",
                    MAX_LOGS,
                )
            sent, added = self._rows_sent, ending.rows_added
            if sent is not None and added is not None and added < sent:
                self.log.warning(
                    "PromptLayer has added %s of the %s rows that were sent, and does not say why. "
                    "It skips empty ones. Look at the sheet before you clear the task: a cleared "
                    "task sends all rows again.",
                    f"{added:,}",
                    f"{sent:,}",
                )

        return JobKind(
            job_types=(SheetImport,),
            id_key=xcom.OPERATION_ID_KEY,
            trigger="PromptLayerSheetImportTrigger",
            job_from_id=partial(self.on_sheet, SheetImport),
            raise_for_outcome=check,
            outputs=lambda ending: ResultOnly(_result(self.found_sheet, ending)),
            lineage=lambda ending, _: Lineage(
                self.sources, [self.dataset(row_count=ending.rows_added)]
            ),
            unsubmitted_result=dict(_NO_ROWS),
        )


class PromptLayerImporter(ImportTask):
    """Base of every task that imports rows into a sheet, a new one unless one is named.

    A subclass says where the rows come from: :meth:`open_source`.

    :param title: of the new sheet.
    :param ensure: create the table, and the sheet, if none has the title.
    :param kwargs: see :class:`ImportTask`.
    """

    needs_sheet = False
    starts_what_it_waits_for = True

    def __init__(
        self,
        *,
        title: str | XComArg | None = None,
        ensure: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.ensure = ensure
        self._is_new_sheet = self.sheet is None and self.sheet_id is None
        if title is not None and not self._is_new_sheet:
            raise PromptLayerInvalidInputError(
                "title is that of a new sheet: leave it out, or leave out the sheet."
            )
        self.title: Any = DEFAULT_TITLE if title is None and self._is_new_sheet else title
        self.note_given("sheet", "sheet_id")
        self.refuse_constants(title=title_text)

    @abstractmethod
    def open_source(self) -> AbstractContextManager[ImportSource]:
        """Return where the rows come from, checked and open until the import is started.

        :raises NothingToImportError: if there are certainly no rows.
        :raises PromptLayerInvalidInputError: for rows that cannot be imported.
        """

    def get_job(self, context: Context) -> SheetImport | None:
        """Return the import, started by an earlier try or by this one; None for no rows."""
        self.refuse_missing()
        try:
            with self.open_source() as source:
                order = self._order(context, source)
                self.hook.warm_up()
                job = self.hook.start_import(order, max_outage=self.max_outage)
        except NothingToImportError as error:
            if self.on_empty == "fail":
                raise
            if self.on_empty == "skip":
                raise AirflowSkipException(str(error)) from None
            self.log.info("%s", error)
            return None
        self._job = job
        self._rows_sent = source.row_count
        self._stay_at(self.hook.settings.base_url, job.name)
        for key, name in _PUSHED.items():
            self._push(context, key, getattr(job, name))
        return job

    def restore_job(self, context: Context) -> SheetImport | None:
        """Return the import whose ids were pushed; sends nothing."""
        ids = {name: xcom.pull_own(context, key) for key, name in _PUSHED.items()}
        return None if None in ids.values() else SheetImport(**ids)

    def resume_state(self) -> dict[str, Any]:
        """Return how many rows were sent, to compare it with the number of those added."""
        return {**super().resume_state(), "rows_sent": self._rows_sent}

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Come back from the triggerer."""
        waiting = (next_kwargs or {}).get("waiting")
        kept = waiting.get("rows_sent") if isinstance(waiting, dict) else None
        self._rows_sent = kept if isinstance(kept, int) else None
        return super().resume_execution(next_method, next_kwargs, context)

    @property
    def reattaches_after_clear(self) -> bool:
        """Return False: a clear asks for another import."""
        return False

    def _order(self, context: Context, source: ImportSource) -> ImportOrder:
        table_id = self.found_table
        sheet_id, title = self._place()
        ti = context["ti"]
        operation_id = operation_id_of(
            self.hook.settings.base_url,
            ti.dag_id,
            ti.run_id,
            ti.task_id,
            ti.map_index,
            version_compat.clear_epoch(ti),
            table_id,
            # A later try finds the sheet that the import of an earlier one has made.
            *((None, str(self.sheet)) if self._may_make_sheet else (sheet_id, title)),
            source.digest,
        )
        return ImportOrder(table_id, source, operation_id, sheet_id, title)

    @property
    def _may_make_sheet(self) -> bool:
        return self.ensure and self.sheet is not None

    def _place(self) -> tuple[str | None, str | None]:
        """Return the UUID of the sheet that gets the rows and None, or None and a new one's title.

        A sheet that is missing is made by the import, without the empty row of a blank sheet.
        """
        if self._is_new_sheet:
            return None, title_text("title", self.title)
        try:
            return self.found_sheet.sheet_id, None
        except PromptLayerNotFoundError:
            if not self._may_make_sheet:
                raise
            return None, title_text("sheet", self.sheet)


def _result(sheet: Sheet, ending: ImportStatus) -> dict[str, Any]:
    return {
        "table_id": sheet.table_id,
        "sheet_id": sheet.sheet_id,
        "operation_id": ending.operation_id,
        "rows_added": 0 if ending.found_nothing else ending.rows_added,
        "row_count": ending.row_count,
    }
