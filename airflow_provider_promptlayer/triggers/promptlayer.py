# SPDX-License-Identifier: Apache-2.0
"""Every trigger."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Unpack

from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_provider_promptlayer.api.cells import SheetCells
from airflow_provider_promptlayer.api.columns import PointedColumn, replace_configs
from airflow_provider_promptlayer.api.errors import PromptLayerError
from airflow_provider_promptlayer.api.imports import SheetImport
from airflow_provider_promptlayer.api.job import RemoteJob, unless_large
from airflow_provider_promptlayer.api.reports import FinalReport
from airflow_provider_promptlayer.api.scorecards import SheetCalculation
from airflow_provider_promptlayer.api.tables import Sheet, SheetOperation
from airflow_provider_promptlayer.api.version_watch import VersionWatch
from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.hooks import metrics
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.hooks.sender import Sender
from airflow_provider_promptlayer.outcomes.workflows import FailOn, raise_for_outcome
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import adrive, poll_until_ended
from airflow_provider_promptlayer.polling.poller import Poller
from airflow_provider_promptlayer.polling.state import PollState
from airflow_provider_promptlayer.triggers.base import PromptLayerTrigger, TriggerKwargs
from airflow_provider_promptlayer.triggers.batches import PromptLayerWorkflowBatchTrigger
from airflow_provider_promptlayer.triggers.watching import PromptLayerVersionEventTrigger


class PromptLayerTableOperationTrigger(PromptLayerTrigger):
    """Wait in the triggerer until a recalculation of a sheet's cells has ended.

    If the task had nothing to start: until no cell of the sheet is being calculated.

    :param pointed: the fields of each :class:`.PointedColumn` to point back if the task is ended.
    :param kwargs: how to wait, see :class:`.PromptLayerTrigger`.
    """

    job_types = (SheetOperation, SheetCells)

    def __init__(
        self, *, pointed: Sequence[Mapping[str, Any]] = (), **kwargs: Unpack[TriggerKwargs]
    ) -> None:
        super().__init__(**kwargs)
        self.pointed = [PointedColumn(**fields) for fields in pointed]

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments that recreate the trigger."""
        path, arguments = super().serialize()
        pointed = {"pointed": [asdict(each) for each in self.pointed]} if self.pointed else {}
        return path, {**arguments, **pointed}

    @property
    def undoes_more(self) -> str:
        """Which columns are to be pointed back, for people."""
        names = ", ".join(each.name for each in self.pointed)
        return f"point these back: {names}" if names else ""

    async def _undo(self, job: RemoteJob[Any]) -> None:
        if not self.pointed:
            return
        hook, policy = self._hook or self._new_hook(), retries.CANCELLING_IN_TRIGGERER
        sheet = Sheet(*list(asdict(job).values())[:2])
        try:
            changed = await adrive(
                replace_configs(sheet, self.pointed, back=True),
                lambda call: hook.acall_with_backoff(call, about="the columns", policy=policy),
            )
        except Exception as error:  # noqa: BLE001  # whatever it is, the job has to be cancelled
            names = ", ".join(each.name for each in self.pointed)
            self.log.error("Could not point these columns back: %s (%s).", names, error)
            return
        for each in changed:
            self.log.warning("Not pointing %s back, as somebody has changed it.", each.name)
        if names := ", ".join(each.name for each in self.pointed if each not in changed):
            self.log.info("Pointed back, as the task was ended: %s.", names)


class PromptLayerScorecardTrigger(PromptLayerTrigger):
    """Wait in the triggerer until a scorecard has been calculated."""

    job_types = (SheetCalculation,)


class PromptLayerSheetImportTrigger(PromptLayerTrigger):
    """Wait in the triggerer until an import into a sheet has ended."""

    job_types = (SheetImport,)


class PromptLayerReportTrigger(PromptLayerTrigger):
    """Wait in the triggerer until a report has ended."""

    job_types = (FinalReport,)


class PromptLayerVersionTrigger(PromptLayerTrigger):
    """Wait in the triggerer until a release label moves, or until there is a newer version."""

    job_types = (VersionWatch,)

    def _until_ended(self, send: Sender, poller: Poller, job: RemoteJob[Any]) -> Awaitable[Any]:
        # A large answer, as that about a whole workflow, does not mean that the wait may be over.
        return adrive(poll_until_ended(poller, job.status_call()), send, self._on_decision)

    def _left(self, job: RemoteJob[Any]) -> str:
        return f"{job} {job.abandoned_phrase}."


class PromptLayerWorkflowTrigger(PromptLayerTrigger):
    """Wait in the triggerer until a workflow run has ended.

    :param workflow_version_execution_id: the run, for a wait without ``state``: one that begins in
        the triggerer, with no worker before it. Airflow renders this argument and
        ``promptlayer_conn_id`` then.
    :param timeout: seconds after which such a wait fails; None for never.
    :param airflow_timeout: seconds after which Airflow ends the deferral, counted like ``timeout``.
    :param end_from_trigger: end the task here if the run is a success; else a worker ends it.
    :param fail_on: what counts as a success, see :data:`.FailOn`.
    :param kwargs: how to wait, see :class:`.PromptLayerTrigger`.
    """

    job_types = (WorkflowRun,)

    timeout_after: datetime.datetime | None = None
    """When Airflow ends the deferral: set by the triggerer."""

    def __init__(
        self,
        *,
        workflow_version_execution_id: int | str | None = None,
        timeout: float | None = None,
        airflow_timeout: float | None = None,
        end_from_trigger: bool = False,
        fail_on: FailOn = "no_output",
        **kwargs: Unpack[TriggerKwargs],
    ) -> None:
        super().__init__(**kwargs)
        self.workflow_version_execution_id = workflow_version_execution_id
        self.timeout = timeout
        self.airflow_timeout = airflow_timeout
        self.end_from_trigger = end_from_trigger
        self.fail_on: FailOn = fail_on

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments that recreate the trigger."""
        path, kwargs = super().serialize()
        for name in ("workflow_version_execution_id", "timeout", "airflow_timeout"):
            if (value := getattr(self, name)) is not None:
                kwargs[name] = value
        if self.end_from_trigger:  # a triggerer of an earlier release does not know these
            kwargs |= {"end_from_trigger": True, "fail_on": self.fail_on}
        return path, kwargs

    def _new_state(self) -> PollState[WorkflowRun]:
        # The arguments were written when the DAG was parsed, so they cannot hold a point in time.
        # Airflow's own time-out can: Airflow sets it once for each try, and hands it to every
        # triggerer that takes the wait over.
        began_at = time.time()
        if self.airflow_timeout is not None and (ends := self.timeout_after) is not None:
            if ends.tzinfo is None:  # as some databases return it
                ends = ends.replace(tzinfo=datetime.UTC)
            began_at = ends.timestamp() - self.airflow_timeout
        deadline = math.inf if self.timeout is None else began_at + self.timeout
        run = WorkflowRun.of(self.workflow_version_execution_id)
        return PollState(run, began_at, deadline)

    async def ended(self, hook: PromptLayerHook, job: RemoteJob[Any]) -> TriggerEvent:
        """Return the event for a run that has ended, which ends the task if the run succeeded."""
        if self.end_from_trigger and await self._is_success(hook, job):
            self.log.info("%s has succeeded. The task ends here, without a worker.", job)
            metrics.count_wait(job.counted_as)
            return TaskSuccessEvent()
        return await super().ended(hook, job)

    async def _is_success(self, hook: PromptLayerHook, job: RemoteJob[Any]) -> bool:
        """Return whether the run is certainly a success; if not, a worker finds out."""
        try:
            results = await hook.acall(unless_large(job.fetch_call()))
            if results is None:
                self.log.info("A worker takes over, to read a large answer and end the task.")
                return False
            raise_for_outcome(results, self.fail_on)
        except PromptLayerError as error:
            self.log.info("A worker takes over, to end the task: %s", error)
            return False
        return bool(results.is_complete)


__all__ = [
    "PromptLayerReportTrigger",
    "PromptLayerScorecardTrigger",
    "PromptLayerSheetImportTrigger",
    "PromptLayerTableOperationTrigger",
    "PromptLayerVersionEventTrigger",
    "PromptLayerVersionTrigger",
    "PromptLayerWorkflowBatchTrigger",
    "PromptLayerWorkflowTrigger",
]
