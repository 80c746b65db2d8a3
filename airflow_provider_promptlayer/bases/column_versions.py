# SPDX-License-Identifier: Apache-2.0
"""How a task points columns of a sheet at versions of what they use, and back at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_promptlayer.api.arguments import mapping
from airflow_provider_promptlayer.api.columns import (
    PointedColumn,
    check_column_versions,
    pointed_columns,
    replace_configs,
    shown_version,
)
from airflow_provider_promptlayer.api.errors import (
    PromptLayerInvalidInputError,
    PromptLayerSheetChangedError,
    PromptLayerStartUncertainError,
    PromptLayerTransientError,
)
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.bases.canceller import PromptLayerCanceller
from airflow_provider_promptlayer.bases.recording import store_trouble
from airflow_provider_promptlayer.bases.sheet import SheetArguments
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import drive
from airflow_provider_promptlayer.submission.task_state import ColumnsState

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg
    from airflow.triggers.base import BaseTrigger


class ColumnVersions(SheetArguments, PromptLayerCanceller[Any]):
    """Base of a task that calculates with given versions of prompts and workflows.

    :param column_versions: title or UUID of a column → ``{"label": …}`` or ``{"version": …}``.
    :param restore: whether to point the columns back when the task ends.
    """

    def __init__(
        self,
        *,
        column_versions: Mapping[str, Any] | str | XComArg | None = None,
        restore: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.column_versions: Any = column_versions
        self.restore = restore
        self.refuse_constants(column_versions=check_column_versions)
        self._pointed: list[PointedColumn] = []
        self._stayed: list[PointedColumn] = []
        self._columns_state: ColumnsState | None = None
        self._is_first_try = True
        self._leaves_pointed = False  # to a retry, which goes back to the job
        if restore and not self.wait_for_completion:
            raise PromptLayerInvalidInputError(
                "restore=True needs wait_for_completion=True: the columns are pointed back at the "
                "end of the wait."
            )
        if restore and not self.cancel_on_kill:
            raise PromptLayerInvalidInputError(
                "restore=True needs cancel_on_kill=True: an operation that goes on after the task "
                "was ended would calculate with the columns that were pointed back."
            )

    def get_job(self, context: Context) -> RemoteJob[Any] | None:
        """Return the job that an earlier try has started, or point the columns and start one."""
        self._columns_state = ColumnsState.of(context)
        self._pointed = [] if self._columns_state is None else self._columns_state.read()
        self._is_first_try = int(context["ti"].try_number) == 1
        try:
            return super().get_job(context)
        except BaseException as error:
            self._point_back_after(context, error)
            raise

    def trigger(self, **how: Any) -> BaseTrigger:
        """Return the trigger, which points the columns back if the task is ended meanwhile."""
        return super().trigger(**how, **self._kept())

    def resume_state(self) -> dict[str, Any]:
        """Return the notes about the start and the columns, to keep them through a deferral."""
        return {**super().resume_state(), **self._kept()}

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Come back from the triggerer; point the columns back, however the wait has ended."""
        self._columns_state = ColumnsState.of(context)
        waiting = (next_kwargs or {}).get("waiting")
        kept = waiting.get("pointed") if isinstance(waiting, dict) else None
        if kept is not None:
            self._pointed = [PointedColumn(**each) for each in kept]
        elif self._columns_state is not None:  # a deferral that Airflow has ended keeps no more
            self._pointed = self._columns_state.read()
        with self._pointing_back(context):
            result = super().resume_execution(next_method, next_kwargs, context)
        with self._airflow_errors(context):
            self._must_point_back()
        return result

    def prepare_start(self) -> None:
        """Point the columns at their versions; what was there is recorded first."""
        super().prepare_start()
        self._stayed = []
        versions = mapping("column_versions", self.column_versions)
        if not (versions or self._pointed):
            return
        sheet, kept = self.found_sheet, {each.column_id: each for each in self._pointed}
        found = drive(pointed_columns(sheet, versions), self._sender())
        self._point_back_others({each.column_id for each in found})
        # After a crash a column may still be where the earlier try has pointed it.
        self._pointed = [
            replace(each, before=earlier.before)
            if (earlier := kept.get(each.column_id))
            and earlier.of == each.of
            and replace(earlier, before=each.before).stays
            else each
            for each in found
        ]
        if self._columns_state is not None and self.restore:
            try:
                if self._pointed:
                    self._columns_state.write(self._pointed)
                else:
                    self._columns_state.forget()
            except Exception as error:
                raise store_trouble(error) from error
        if changed := drive(replace_configs(sheet, found, back=False), self._sender()):
            names = ", ".join(each.name for each in changed)
            raise PromptLayerSheetChangedError(
                f"Somebody has changed {names} while this task was about to: nothing was started."
            )
        # A label may lead to another version than before, which makes no cell stale.
        self._stayed = [each for each in self._pointed if each.stays and "label" in each.after]
        there = ", ".join(each.name for each in self._pointed if each.stays)
        if there and self.restore and not self._is_first_try:
            self.log.warning(
                "At the given version already, so not to be pointed back: %s. If an earlier try of "
                "this task was killed, it has pointed this: then point it back in PromptLayer.",
                there,
            )
        if moved := [
            f"{each.name} at {shown_version(each.after)} (was {shown_version(each.before)})"
            for each in found
            if not each.stays
        ]:
            self.log.info("Pointed at other versions: %s.", ", ".join(moved))

    def calculates_all(self, context: Context) -> bool:
        """Return whether a column was at its label already, and no try has calculated its cells.

        A clear counts as a new beginning. Before Airflow 3.3, only the first try after it knows.
        """
        if not self._stayed:
            return False
        if (state := self._task_state) is not None:
            earlier = self._superseded
            return earlier is None or earlier.clear_epoch != state.clear_epoch
        ti: Any = context["ti"]
        return int(ti.try_number) in (1, int(ti.max_tries or 0) - (self.retries or 0) + 1)

    def refuse_if_unknown(self, is_busy: Call[bool]) -> None:
        """Raise if there is nothing to do, and an earlier try may not have calculated the cells.

        :raises PromptLayerStartUncertainError: to ask a person.
        """
        if not self._stayed or self._task_state is not None or self.hook.call(is_busy):
            return
        names = ", ".join(each.name for each in self._stayed)
        raise PromptLayerStartUncertainError(
            f"No cell is stale, and these were at their label already: {names}. An earlier try may "
            "have calculated the cells, or not, so they were not calculated again: look at the "
            "sheet in PromptLayer, and clear this task to calculate all of them."
        )

    def on_kill(self) -> None:
        """Cancel the job, and point the columns back."""
        super().on_kill()
        if not self._leaves_pointed:
            self._point_back(self.hook.call_from_signal_handler)

    # Not in execute: Airflow 2 takes a call of super().execute for one from outside the task.
    def _go_on(self, context: Context, job: RemoteJob[Any]) -> Any:
        with self._pointing_back(context):
            result = super()._go_on(context, job)
        self._must_point_back()
        return result

    def _kept(self) -> dict[str, Any]:
        """Return the columns to point back, as JSON under their name; empty for none."""
        is_pointed = self.restore and self._pointed
        return {"pointed": [asdict(each) for each in self._pointed]} if is_pointed else {}

    @contextmanager
    def _pointing_back(self, context: Context) -> Iterator[None]:
        """Point the columns back after an error, unless the task only goes to the triggerer."""
        try:
            yield
        except TaskDeferred:
            raise
        except BaseException as error:
            self._point_back_after(context, error)
            raise

    def _point_back_after(self, context: Context, error: BaseException) -> None:
        """Cancel the job if it goes on, and point the columns back.

        Else the rest of its cells would be calculated with the columns that were pointed back, and
        a retry that goes back to the job would take them for those of the given versions.
        """
        is_own = self.submitted_by_this_task and not self.hook.is_stopping
        if self.restore and self._pointed and is_own:
            self._cancel_after(error)
            ti: Any = context["ti"]
            is_retried = int(ti.try_number) <= int(ti.max_tries or 0) and (
                isinstance(error, Exception) and self.may_retry(error)
            )
            goes_on = self._job is not None and not self._is_over
            if goes_on and is_retried and self._columns_state is not None:
                self._leaves_pointed = True
                self.log.warning(
                    "Not pointing these columns back, as %s goes on: %s. The retry goes back to "
                    "it, and points them back then.",
                    self._job,
                    ", ".join(each.name for each in self._pointed),
                )
                return
        self._point_back()

    def _must_point_back(self) -> None:
        """Point the columns back at the end of a task that succeeds otherwise.

        :raises PromptLayerTransientError: if PromptLayer did not let it; a retry goes back to the
            job, and then tries again.
        """
        self._point_back(policy=retries.POLLING.within(self.max_outage))
        if self.restore and self._pointed:
            names = ", ".join(each.name for each in self._pointed)
            raise PromptLayerTransientError(
                f"The cells were calculated, but these columns could not be pointed back: {names}. "
                "Unless a retry does, point them back in PromptLayer."
            )

    def _point_back_others(self, wanted: set[str]) -> None:
        """Point back what an earlier try has pointed and this one, with other arguments, does not.

        :param wanted: the ids of the columns that this one points.
        """
        others = [each for each in self._pointed if each.column_id not in wanted]
        if not (self.restore and others):
            return
        for each in drive(replace_configs(self.found_sheet, others, back=True), self._sender()):
            self._say_left_alone(each)

    def _say_left_alone(self, column: PointedColumn) -> None:
        self.log.warning("Not pointing %s back, as somebody has changed it.", column.name)

    def _sender(self, policy: retries.RetryPolicy | None = None) -> Callable[[Any], Any]:
        policy = policy or retries.POLLING.within(self.max_outage)

        def send(call: Any) -> Any:
            if self.hook.is_stopping:  # no time to retry
                return self.hook.call(call)
            return self.hook.call_with_backoff(call, about="the columns", policy=policy)

        return send

    def _point_back(
        self,
        send: Callable[[Any], Any] | None = None,
        policy: retries.RetryPolicy = retries.CANCELLING_LATE,
    ) -> None:
        """Restore the configurations, but for those that somebody else has changed meanwhile.

        :param send: how :meth:`on_kill` sends requests; the task may be about to point a column.
        :param policy: how long to try, without ``send``: not for long once the task has failed.
        """
        if not (self.restore and self._pointed):
            return
        try:
            sheet = self.found_sheet
            changed = drive(
                replace_configs(sheet, self._pointed, back=True), send or self._sender(policy)
            )
            if self._columns_state is not None and send is None:
                self._columns_state.forget()
        except Exception:
            self.log.exception(
                "Could not point these columns back: %s. Unless a retry does (Airflow 3.3 and "
                "later), point them back in PromptLayer.",
                ", ".join(each.name for each in self._pointed),
            )
            return
        for each in changed:
            self._say_left_alone(each)
        if back := [
            f"{each.name} at {shown_version(each.before)}"
            for each in self._pointed
            if not each.stays and each not in changed
        ]:
            self.log.info("Pointed back: %s.", ", ".join(back))
        if send is None:  # else Airflow may let the task go on, which has to point them back then
            self._pointed = []
