# SPDX-License-Identifier: Apache-2.0
"""Every sensor, as DAG files import them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, ClassVar, Final, Unpack

from airflow.providers.common.compat.sdk import PokeReturnValue

from airflow_provider_promptlayer import version_compat
from airflow_provider_promptlayer.api.arguments import opaque_text, positive, uuid
from airflow_provider_promptlayer.api.errors import (
    PromptLayerInvalidInputError,
    PromptLayerTransientError,
)
from airflow_provider_promptlayer.api.imports import ImportStatus
from airflow_provider_promptlayer.api.job import L, RemoteJob
from airflow_provider_promptlayer.api.reports import Report
from airflow_provider_promptlayer.api.scorecards import ScorecardCalculation
from airflow_provider_promptlayer.api.version_watch import SeenVersion
from airflow_provider_promptlayer.api.workflows import WorkflowResults
from airflow_provider_promptlayer.bases.deferral import airflow_timeout
from airflow_provider_promptlayer.bases.evaluation import ReportTask, ScorecardTask, TableTask
from airflow_provider_promptlayer.bases.importer import ImportTask, OnEmpty
from airflow_provider_promptlayer.bases.kind import JobKind
from airflow_provider_promptlayer.bases.sheet import SHEET_FIELDS, SheetArguments
from airflow_provider_promptlayer.bases.waiter import PromptLayerWaiter
from airflow_provider_promptlayer.bases.watcher import VersionTask
from airflow_provider_promptlayer.bases.workflow import WorkflowTask
from airflow_provider_promptlayer.polling.event import Outcome, WaitEvent
from airflow_provider_promptlayer.sensors.trigger_templates import for_triggerer

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg
    from airflow.triggers.base import StartTriggerArgs

    from airflow_provider_promptlayer.bases.arguments import (
        CellsKwargs,
        ReportKwargs,
        RunSensorKwargs,
        ScorecardKwargs,
        SheetWaitKwargs,
        VersionKwargs,
    )


class _Sensor(PromptLayerWaiter[L]):
    """What all sensors share: they are given the id of the job, and can be poked by hand."""

    id_field: ClassVar[str]
    """The name of the argument that has the job's id."""

    def get_job(self, context: Context) -> RemoteJob[L]:  # noqa: ARG002
        """Return the job whose id was given.

        :raises PromptLayerInvalidInputError: if it cannot be an id.
        """
        return self.kind.job_from_id(getattr(self, self.id_field))

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll once, without waiting; a failed poll counts as 'not yet'."""
        with self._airflow_errors(context):
            job = self._job or self.get_job(context)
            try:
                status = self.poll(job)
            except PromptLayerTransientError as error:
                self.log.warning("%s", error)
                return PokeReturnValue(is_done=False)
            return PokeReturnValue(is_done=status.is_complete, xcom_value=self.poked(job, status))

    def poked(self, job: RemoteJob[L], status: L) -> Any:  # noqa: ARG002
        """Return what :meth:`poke` hands on."""
        return job.id


class _SheetSensor(SheetArguments, _Sensor[L]):
    """What the sensors for the jobs of a sheet share."""

    def get_job(self, context: Context) -> RemoteJob[L]:
        """Return the job whose id was given, on the sheet that is looked up once."""
        if self.is_rescheduled:
            self.note_sheet(context)
        return super().get_job(context)


class _OperationSensor(_SheetSensor[L]):
    """What the sensors for the operations of a sheet share."""

    template_fields: Sequence[str] = (
        *SHEET_FIELDS,
        "operation_id",
        "promptlayer_conn_id",
    )

    id_field = "operation_id"

    def __init__(self, *, operation_id: str | XComArg, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.operation_id: Any = operation_id
        self.refuse_constants(operation_id=opaque_text)


class PromptLayerTableOperationSensor(_OperationSensor[Any], TableTask):
    """Wait until a recalculation of a sheet's cells has ended, and fail if it ended badly.

    :param table: title or UUID of the table. Templated.
    :param sheet: title or UUID of the sheet. Templated.
    :param table_id: UUID of the table, in place of ``table``. Templated.
    :param sheet_id: UUID of the sheet, in place of ``sheet``. Templated.
    :param operation_id: the recalculation. Templated.
    :param fail_on: ``"any_cell"`` (one failed), ``"all_cells"`` (none succeeded) or ``"never"``.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`.
    :returns: the counts of the cells.
    """

    def __init__(self, *, operation_id: str | XComArg, **kwargs: Unpack[CellsKwargs]) -> None:
        super().__init__(operation_id=operation_id, **kwargs)


class PromptLayerSheetImportSensor(_OperationSensor[ImportStatus], ImportTask):
    """Wait until an import into a sheet has ended, and fail if it has failed.

    :param table: title or UUID of the table. Templated.
    :param sheet: title or UUID of the sheet. Templated.
    :param table_id: UUID of the table, in place of ``table``. Templated.
    :param sheet_id: UUID of the sheet, in place of ``sheet``. Templated.
    :param operation_id: the import. Templated.
    :param on_empty: what to do if it has found no request logs: ``"succeed"``, ``"skip"`` or
        ``"fail"``.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`.
    :returns: ``table_id``, ``sheet_id``, ``operation_id``, ``rows_added``, and the ``row_count`` of
        the sheet.
    """

    def __init__(
        self,
        *,
        operation_id: str | XComArg,
        on_empty: OnEmpty = "succeed",
        **kwargs: Unpack[SheetWaitKwargs],
    ) -> None:
        super().__init__(operation_id=operation_id, on_empty=on_empty, **kwargs)


class PromptLayerScorecardSensor(_SheetSensor[ScorecardCalculation], ScorecardTask):
    """Wait until a scorecard has been calculated, and fail if it does not pass the gate.

    :param table: title or UUID of the table. Templated.
    :param sheet: title or UUID of the sheet. Templated.
    :param table_id: UUID of the table, in place of ``table``. Templated.
    :param sheet_id: UUID of the sheet, in place of ``sheet``. Templated.
    :param calculation_id: the calculation, a UUID. Templated.
    :param fail_on_verdict: the verdicts that fail the task. Templated.
    :param min_score: the score that is needed, on the scorecard's own scale; left out for none, and
        None is refused. Templated.
    :param max_drop: how far the score may be below an earlier one, on the same scale; left out for
        any, and None is refused. Templated.
    :param baseline: whose score that is: ``"previous"`` for the last one, or the name of a saved
        version of the sheet, of which the newest counts. Templated.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`.
    :returns: score, verdict, summaries, and the ``version`` of the sheet that was judged.
    """

    template_fields: Sequence[str] = (
        *SHEET_FIELDS,
        "calculation_id",
        "fail_on_verdict",
        "min_score",
        "max_drop",
        "baseline",
        "promptlayer_conn_id",
    )

    id_field = "calculation_id"

    def __init__(self, *, calculation_id: str | XComArg, **kwargs: Unpack[ScorecardKwargs]) -> None:
        super().__init__(**kwargs)
        self.calculation_id: Any = calculation_id
        self.refuse_constants(calculation_id=uuid)


class PromptLayerReportSensor(_Sensor[Report], ReportTask):
    """Wait until a report that a run has made is complete, and fail if it does not pass.

    :param report_id: the report that a run has made, not the pipeline. Templated.
    :param min_score: the score that is needed, from 0 to 100; left out for none, and None is
        refused. Templated.
    :param fail_on: ``"any_cell"`` (one failed), ``"all_cells"`` (none succeeded) or ``"never"``.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`.
    :returns: the score, and the counts of the cells.
    """

    template_fields: Sequence[str] = ("report_id", "min_score", "promptlayer_conn_id")

    id_field = "report_id"

    def __init__(self, **kwargs: Unpack[ReportKwargs]) -> None:
        super().__init__(**kwargs)


class PromptLayerVersionSensor(VersionTask, _Sensor[SeenVersion]):
    """Wait until a release label moves, or until there is a newer version.

    Without ``newer_than`` the wait is for any other version than there is when the task begins: a
    label may also be moved back to an older one. From Airflow 3.3 on, a retry goes on with the
    version that the first try has seen; a clear begins anew. A label that is not there yet is
    waited for. The version counts that is there at a poll, so a label that is moved and moved back
    between two polls has not moved.

    :param prompt: name or id of a prompt template; exactly one of ``prompt`` and ``workflow``.
        Templated.
    :param workflow: name or id of a workflow. Templated.
    :param release_label: the label to watch; left out for the latest version. Templated.
    :param newer_than: the number of a version: wait until the label leads to a newer one, or until
        there is one; at once if so. Left out for any change from now on, which
        ``mode="reschedule"`` can wait for from Airflow 3.3 on. Templated.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`.
    :returns: ``version``, ``label`` and ``previous_version``: the numbers of the version and of the
        one before, which is ``newer_than`` where that is given, and None for a new label.
    """

    template_fields: Sequence[str] = (
        "prompt",
        "workflow",
        "release_label",
        "newer_than",
        "promptlayer_conn_id",
    )

    def __init__(self, **kwargs: Unpack[VersionKwargs]) -> None:
        super().__init__(**kwargs)

    def poked(self, job: RemoteJob[SeenVersion], status: SeenVersion) -> Any:
        """Return the result of the task, once there is another version."""
        self._job = job  # the next poke by hand goes on with the same watch
        return self._result(status) if status.is_complete else None


_RENDERED_THERE: Final = ("workflow_version_execution_id", "promptlayer_conn_id")
"""The templated arguments of the trigger; a subclass may have template fields besides."""


class PromptLayerWorkflowSensor(_Sensor[WorkflowResults], WorkflowTask):
    """Wait until a workflow run has ended, and fail if it ended badly.

    Polls in the worker first, then waits in the triggerer; with ``deferrable=False`` in the worker
    (``mode="poke"``) or between reschedules (``mode="reschedule"``). A run that has ended cannot
    get better, so its failure does not use up the task's retries.

    A deferred wait occupies a worker twice: for ``defer_after`` before it, and for a moment after
    it. Two options, both off by default, save these workers.

    ``end_from_trigger=True`` lets the triggerer end the task if the run is a success by
    ``fail_on``; a worker ends it otherwise, as without the option. The triggerer fetches all
    outputs for this, once, and leaves them to a worker if they are larger than 256 KiB. A success
    without a worker lacks what Airflow does in one: the task returns nothing, so that its
    ``output`` is None; no ``on_success_callback`` (Airflow 2 calls it in the DAG processor), no
    listener, no ``post_execute``, no event for the assets in ``outlets``, no metrics of the task's
    end. The task's state, end date and duration are there, and downstream tasks run.

    ``start_from_trigger=True`` lets the scheduler hand the wait straight to the triggerer. No
    worker comes before: no ``pre_execute``, no ``on_execute_callback``, no listener, no slot of a
    pool. The triggerer renders the arguments; a template or output that it cannot render is refused
    when the DAG is parsed, see :mod:`.trigger_templates`. A template error fails the task as it
    would in a worker. ``timeout`` counts from the hand-over of each try, and outlives a restart of
    the triggerer; a shorter ``execution_timeout`` ends the wait too, which is Airflow's rule for
    such tasks. Mapped tasks cannot start there. Before Airflow 3.3 the option warns, and the task
    defers itself from a worker, with the same result.

    :param workflow_version_execution_id: the run, as int or digits in a string. Templated.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param deferrable: wait in the triggerer, without holding a worker.
    :param defer_after: seconds (or a ``timedelta``) for which a deferrable task polls in its worker
        first, so that a short job needs no second one; 0 to defer at once. None for 10, and for 0
        where the sensor is mapped.
    :param fail_on: ``"no_output"`` (no output node succeeded), ``"any_node"`` (that, or any node
        failed) or ``"never"``.
    :param poke_interval: seconds (or a ``timedelta``) between two polls, kept to exactly. None for
        intervals that grow with the wait, from 2 s to 60 s; always 60 s with
        ``mode="reschedule"``.
    :param timeout: seconds (or a ``timedelta``) after which the wait fails; the run goes on.
    :param max_outage: seconds (or a ``timedelta``) for which PromptLayer may be out of reach.
    :param start_from_trigger: begin in the triggerer, without a worker.
    :param end_from_trigger: end in the triggerer, without a worker, if the run is a success.
    :param kwargs: what Airflow's sensors take, such as ``mode``, ``soft_fail``, ``never_fail``,
        ``exponential_backoff`` and ``max_wait``.
    :returns: the id of the run, so that tasks can be chained.
    :raises PromptLayerInvalidInputError: if the triggerer cannot do what these two options ask.
    """

    template_fields: Sequence[str] = _RENDERED_THERE
    id_field = "workflow_version_execution_id"

    def __init__(
        self,
        *,
        workflow_version_execution_id: int | str | XComArg,
        start_from_trigger: bool = False,
        end_from_trigger: bool = False,
        **kwargs: Unpack[RunSensorKwargs],
    ) -> None:
        super().__init__(**kwargs)
        self.workflow_version_execution_id = workflow_version_execution_id
        self.refuse_constants(workflow_version_execution_id=positive)
        if (start_from_trigger or end_from_trigger) and not self.deferrable:
            raise PromptLayerInvalidInputError(
                "start_from_trigger and end_from_trigger are about a wait in the triggerer: "
                "set deferrable=True, or leave them out."
            )
        self.end_from_trigger = end_from_trigger
        self.start_from_trigger = False
        if start_from_trigger:
            args = self._start_trigger_args()  # refuses the same on every Airflow
            if version_compat.STARTS_IN_TRIGGERER:
                self.start_from_trigger, self.start_trigger_args = True, args
            else:
                warnings.warn(
                    f"Task {self.task_id!r} has start_from_trigger=True, which needs Airflow 3.3. "
                    "Here it defers itself from a worker, with the same result.",
                    stacklevel=2,
                )

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:  # Airflow lets subclasses define it
        """Return what ``expand`` makes mapped tasks from.

        :raises PromptLayerInvalidInputError: with ``start_from_trigger``.
        """
        if kwargs.get("start_from_trigger"):
            raise PromptLayerInvalidInputError(
                "A mapped task cannot start in the triggerer: Airflow would silently send it to a "
                "worker. Leave start_from_trigger out; end_from_trigger works."
            )
        return super().partial(**kwargs)

    def _start_trigger_args(self) -> StartTriggerArgs:
        from airflow.triggers.base import StartTriggerArgs

        timeout = airflow_timeout(self.timeout)
        # Airflow's rule, which it does not tell the trigger.
        ends_after = min(timeout, self.execution_timeout or timeout)
        return StartTriggerArgs(
            trigger_cls="airflow_provider_promptlayer.triggers.promptlayer.PromptLayerWorkflowTrigger",
            trigger_kwargs={
                **{name: for_triggerer(name, getattr(self, name)) for name in _RENDERED_THERE},
                **asdict(self._schedule()),
                **self._how_to_end(),
                "max_outage": self.max_outage,
                "timeout": self.timeout,
                "airflow_timeout": ends_after.total_seconds(),
            },
            next_method="execute_complete",
            timeout=timeout,
        )

    def execute_complete(
        self, context: Context, event: Any = None, waiting: dict[str, Any] | None = None
    ) -> Any:
        """Go on after the triggerer has fired; raises what :meth:`execute` raises.

        :param event: the trigger's event; from ``dag.test()`` also the name of the state in which
            the trigger has ended the task, as that resumes a task whatever its trigger fired.
        :param waiting: the state of the wait, as this task kept it when it deferred.
        """
        if self.end_from_trigger and event == "success":
            with self._airflow_errors(context):
                event = WaitEvent(self.get_job(context).id, Outcome.ENDED, "").payload()
        return super().execute_complete(context, event, waiting)

    def new_kind(self) -> JobKind[WorkflowResults]:
        """Return workflow runs, which may end the task in the triggerer."""
        return replace(super().new_kind(), trigger_arguments=self._how_to_end())

    def _how_to_end(self) -> dict[str, Any]:
        """Return the arguments of the trigger that say whether it may end the task."""
        # The triggerer judges by fail_on alone; a subclass that judges by more needs a worker.
        judges_alike = type(self).raise_for_outcome is PromptLayerWaiter.raise_for_outcome
        return {
            "end_from_trigger": self.end_from_trigger and judges_alike,
            "fail_on": self.fail_on,
        }


__all__ = [
    "PromptLayerReportSensor",
    "PromptLayerScorecardSensor",
    "PromptLayerSheetImportSensor",
    "PromptLayerTableOperationSensor",
    "PromptLayerVersionSensor",
    "PromptLayerWorkflowSensor",
]
