# SPDX-License-Identifier: Apache-2.0
"""How a task starts many runs, each once, and waits for all of them: the base of the operator.

The task is a loop over :meth:`.Batch.plan`: start what may be started, wait for some runs, fetch
the results of those that have ended. Workers do all of this except most of the waiting. Each begins
with the state of the batch that the previous one left.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn

from airflow_provider_promptlayer.api.arguments import text_list, texts
from airflow_provider_promptlayer.api.errors import (
    PromptLayerError,
    PromptLayerEventError,
    PromptLayerInvalidInputError,
    PromptLayerOutageError,
    PromptLayerTransientError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.api.times import in_words
from airflow_provider_promptlayer.bases.batch_inputs import BatchInputs, check_limits, first_of
from airflow_provider_promptlayer.bases.batch_results import BatchResults
from airflow_provider_promptlayer.bases.batch_starts import BatchStarts
from airflow_provider_promptlayer.bases.kind import JobKind, ResultOnly
from airflow_provider_promptlayer.bases.lineage import Lineage
from airflow_provider_promptlayer.bases.reattacher import PromptLayerReattacher
from airflow_provider_promptlayer.outcomes.batches import (
    PromptLayerBatchFailedError,
    needed,
    raise_for_batch,
    tally,
)
from airflow_provider_promptlayer.outcomes.workflows import FailOn, check_fail_on
from airflow_provider_promptlayer.polling.event import read_event
from airflow_provider_promptlayer.polling.poller import PollDecision, Poller
from airflow_provider_promptlayer.polling.state import PollState
from airflow_provider_promptlayer.submission.batch import (
    Batch,
    BatchStatus,
    Start,
    WaitUntil,
    WorkflowRuns,
)
from airflow_provider_promptlayer.submission.batch_input import OVER, Input, Stage, how_to_find
from airflow_provider_promptlayer.submission.batch_persisted import batch_payload, read_batch
from airflow_provider_promptlayer.submission.task_state import BatchState
from airflow_provider_promptlayer.xcom import outputs as xcom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg
    from airflow.triggers.base import BaseTrigger

_ABOUT: Final = "the batch of workflow runs"
"""How messages name the job."""


@dataclass
class _Visit:
    """What a worker knows of a batch, until it defers."""

    batch: Batch
    starts: BatchStarts
    results: BatchResults
    began_at: float
    deadline: float


class PromptLayerBatchSubmitter(PromptLayerReattacher[BatchStatus]):
    """Base of a task that starts a run for each of many inputs.

    A subclass says what the inputs are: :meth:`new_inputs`.

    :param max_active_runs: how many runs may go on at a time; None for any number.
    :param start_concurrency: how many starts may be under way at a time.
    :param min_success_rate: the share of the inputs that has to succeed, from 0 to 1.
    :param nodes: return the outputs of these nodes alone.
    :param return_all_outputs: False returns the bare main outputs.
    :param fail_on: which outcome of a run counts as a failure.
    :param kwargs: how to wait, see :class:`.PromptLayerReattacher`.
    """

    state_type = BatchState
    started = "the runs"

    def __init__(
        self,
        *,
        max_active_runs: int | None = None,
        start_concurrency: int = 8,
        min_success_rate: float = 1.0,
        nodes: Sequence[str] | XComArg | None = None,
        return_all_outputs: bool = True,
        fail_on: FailOn = "no_output",
        **kwargs: Any,
    ) -> None:
        if kwargs.get("multiple_outputs"):
            raise PromptLayerInvalidInputError("multiple_outputs is refused: a list is returned.")
        super().__init__(**kwargs)
        check_fail_on(fail_on)
        check_limits(max_active_runs, start_concurrency, min_success_rate)
        self.max_active_runs = max_active_runs
        self.start_concurrency = start_concurrency
        self.min_success_rate = min_success_rate
        self.nodes: Any = nodes  # rendered before use, like all template fields
        self.return_all_outputs = return_all_outputs
        self.fail_on: FailOn = fail_on
        self.refuse_constants(nodes=text_list)
        self._task_state: BatchState | None = None
        self._visit: _Visit | None = None  # once the batch is known

    @abstractmethod
    def new_inputs(self, context: Context) -> BatchInputs:
        """Return the inputs, made from this task's rendered arguments; nothing is parsed yet."""

    def new_kind(self) -> JobKind[BatchStatus]:
        """Return batches of workflow runs."""

        def check(_: BatchStatus) -> None:
            self._now.starts.note_reported()  # the errors have just been pushed
            raise_for_batch(self._now.results.errors, self.min_success_rate)

        return JobKind(
            job_types=(WorkflowRuns,),
            id_key=xcom.EXECUTION_IDS_KEY,
            trigger="PromptLayerWorkflowBatchTrigger",
            job_from_id=WorkflowRuns,
            raise_for_outcome=check,
            outputs=lambda _: ResultOnly(
                self._now.results.in_order,
                {
                    xcom.EXECUTION_IDS_KEY: self._now.batch.run_ids,
                    xcom.ERRORS_KEY: self._now.results.errors,
                },
                self._now.results.warnings(),
            ),
            summary=lambda _: tally(self._now.results.errors),
            lineage=lambda _ending, _passed: Lineage(job_ids=self._now.batch.run_ids),
        )

    # --- the steps of a task ------------------------------------------------------------------

    def get_job(self, context: Context) -> WorkflowRuns:
        """Check the arguments and find the runs of earlier tries; nothing is sent yet.

        :raises PromptLayerInvalidInputError: for an argument that cannot be sent.
        """
        inputs = self.new_inputs(context)
        inputs.check(self.min_success_rate)
        texts("nodes", self.nodes)
        self._open_task_state(context)
        state = self._task_state
        base_url = self.hook.settings.base_url
        batch = (
            Batch([Input(text) for text in inputs.fingerprints])
            if state is None
            else state.open(inputs.fingerprints, base_url)
        )
        self._stay_at(base_url, _ABOUT)
        now = time.time()
        self._begin(context, batch, inputs, now, now + self.timeout)
        inputs.match(batch)
        if batch.going:
            self._keep(context)
        if state is not None and state.left_elsewhere:
            self.log.warning(
                "The task does not wait for runs that an earlier try started at another "
                "PromptLayer: %s.",
                first_of(state.left_elsewhere),
            )
        return WorkflowRuns(batch.going)

    def restore_job(self, context: Context) -> WorkflowRuns | None:
        """Return the runs whose ids were pushed before the task left the worker."""
        pushed = xcom.pull_own(context, xcom.EXECUTION_IDS_KEY)
        ids = [each for each in pushed or () if each is not None]
        return WorkflowRuns(ids) if ids else None

    def execute_complete(
        self, context: Context, event: Any = None, waiting: dict[str, Any] | None = None
    ) -> Any:
        """Go on after the triggerer has fired; raises what :meth:`execute` raises.

        :param event: the trigger's event.
        :param waiting: the state of the wait and the batch, as this task kept it when it deferred.
        """
        with self._airflow_errors(context):
            # Without notes it is unknown which of the runs the trigger has waited for.
            is_any = waiting is None and isinstance(event, dict)
            if waiting is None:
                waiting = self._state_without_notes(context)
            state = PollState.read(waiting, *self.kind.job_types)
            self._job = job = state.job
            self.restore_url(waiting)
            batch, inputs = read_batch(waiting.get("batch")), self.new_inputs(context)
            if state.base_url is not None:
                self._stay_at(state.base_url, _ABOUT)
            if self._task_state is not None:
                self._task_state.base_url = state.base_url or self.hook.settings.base_url
            visit = self._begin(context, batch, inputs, state.began_at, state.deadline)
            inputs.arrange(batch)
            try:
                read_event(event, external_id=str(event.get("id")) if is_any else job.id)
            except PromptLayerOutageError:
                if _until(job) or batch.count(Stage.RUNNING, *OVER) < 2:
                    raise
                visit.results.is_doubtful = True  # the outage may concern one run alone
            except PromptLayerWaitTimeoutError:
                return self._finish_late(context)
            if _until(job) == 0:
                batch.end_all()  # fetching the results finds the runs that have not ended
            return self._to_the_end(context, outage_since=state.worker_outage(now=time.time()))

    def on_kill(self) -> None:
        """Start no further run, and log which runs go on."""
        self.hook.stop_starting()
        if self._visit is None:
            return
        batch = self._visit.batch
        if batch.going:
            self.log.warning(
                "The task is being stopped. These workflow runs go on at PromptLayer, which cannot "
                "cancel them: %s.",
                ", ".join(map(str, batch.going)),
            )
        for index in batch.at(Stage.STARTING):
            self.log.warning(
                "Input %s: %s",
                batch.places[index],
                how_to_find(index, "the task is being stopped while it sends the start."),
            )

    def may_retry(self, error: Exception) -> bool:
        """Return whether a retry can help without repeating a run that has not failed."""
        batch = None if self._visit is None else self._visit.batch
        if self._task_state is None and (self._resumed if batch is None else batch.unrepeatable):
            return False
        if batch is not None and isinstance(error, PromptLayerBatchFailedError):
            return batch.attainable >= self._needed
        return super().may_retry(error)

    # --- what the base class calls ------------------------------------------------------------

    def poll(self, job: RemoteJob[BatchStatus]) -> BatchStatus:
        """Poll the runs, until it is clear whether the wait goes on."""
        return self._now.results.poll(_until(job))

    def trigger(self, **how: Any) -> BaseTrigger:
        """Return the trigger that waits for the runs that still go on."""
        status = self._now.batch.status()
        return super().trigger(ended=status.ended, total=status.total, **how)

    def resume_state(self) -> dict[str, Any]:
        """Return the state of the batch, as JSON."""
        return {"batch": batch_payload(self._now.batch)}

    @property
    def _is_contradicted(self) -> bool:
        return bool(self._now.results.contradicted)  # the task also resumes to start other inputs

    def _go_on(self, context: Context, job: RemoteJob[BatchStatus]) -> Any:  # noqa: ARG002
        return self._to_the_end(context)

    def _defer(
        self, job: RemoteJob[BatchStatus], poller: Poller, decision: PollDecision
    ) -> NoReturn:
        # The runs that have ended meanwhile are not polled again.
        super()._defer(WorkflowRuns(self._now.batch.going, _until(job)), poller, decision)

    def _state_without_notes(self, context: Context) -> dict[str, Any]:
        # Whether an input without a run was refused or not started yet is unknown.
        pushed = xcom.pull_own(context, xcom.EXECUTION_IDS_KEY)
        texts_now = self.new_inputs(context).fingerprints if pushed else []
        if not pushed or None in pushed or len(texts_now) != len(pushed):
            raise PromptLayerEventError("The task was resumed without the state of its wait.")
        runs = zip(texts_now, pushed, strict=True)
        batch = Batch([Input(text, Stage.RUNNING, run_id) for text, run_id in runs])
        return {**super()._state_without_notes(context), "batch": batch_payload(batch)}

    def _finish(self, context: Context, ending: BatchStatus) -> Any:
        results = self._now.results
        try:
            value = super()._finish(context, ending)
        except PromptLayerBatchFailedError:
            self._push(context, xcom.RETURN_VALUE_KEY, results.in_order)
            raise
        self.push_early(context, value)
        self._now.starts.note_delivered()
        return value

    def _advice(self, context: Context, error: PromptLayerError) -> str:  # noqa: ARG002
        if not isinstance(error, PromptLayerBatchFailedError):
            return ""
        return f"All errors are in the XCom {xcom.ERRORS_KEY}."

    # --- one visit of a worker ----------------------------------------------------------------

    @property
    def _now(self) -> _Visit:
        if self._visit is None:
            raise PromptLayerEventError("The task was resumed without the state of its wait.")
        return self._visit

    def _begin(
        self,
        context: Context,
        batch: Batch,
        inputs: BatchInputs,
        began_at: float,
        deadline: float,
    ) -> _Visit:
        must_end_by = self._must_end_by(context)
        deadline = min(deadline, must_end_by)
        results = BatchResults(
            self.hook,
            batch,
            self.fail_on,
            self.nodes,
            self.return_all_outputs,
            self.max_outage,
            must_end_by,
        )
        limits = deadline, self.max_outage
        starts = BatchStarts(
            self.hook, batch, inputs, self._task_state, self.start_concurrency, *limits
        )
        self._visit = _Visit(batch, starts, results, began_at, deadline)
        return self._visit

    def _to_the_end(self, context: Context, outage_since: float | None = None) -> Any:
        """Start, wait and fetch until every input has an outcome, or the time is up."""
        batch, results = self._now.batch, self._now.results
        may_start = True
        try:
            while True:
                self._stop_if_out_of_reach()
                step = batch.plan(self.max_active_runs, may_start=may_start)
                if isinstance(step, Start):
                    may_start = self._start_some(context)
                    continue
                may_start = True
                if isinstance(step, WaitUntil):
                    self._wait_for_some(step.max_running, outage_since)
                    outage_since = None
                    continue
                results.fetch()
                if not batch.count(Stage.RUNNING, Stage.PENDING):
                    return self._finish(context, batch.status())
        except PromptLayerWaitTimeoutError:
            return self._finish_late(context)

    def _finish_late(self, context: Context) -> Any:
        """Push the results of the runs that ended before the deadline of the batch.

        :raises PromptLayerWaitTimeoutError: if too few inputs succeeded.
        """
        visit = self._now
        visit.results.fetch_late(time_given := in_words(visit.deadline - visit.began_at))
        try:
            return self._finish(context, visit.batch.status())
        except PromptLayerBatchFailedError as error:
            raise PromptLayerWaitTimeoutError(
                f"The batch did not end within {time_given}. {error}"
            ) from error

    @property
    def _needed(self) -> int:
        """How many inputs have to succeed."""
        return needed(len(self._now.batch), self.min_success_rate)

    def _stop_if_out_of_reach(self) -> None:
        """Start no further run if ``min_success_rate`` cannot be reached, and log that."""
        batch = self._now.batch
        if not batch.count(Stage.PENDING):
            return
        if batch.spare(self._needed) < batch.count(Stage.ENDED):
            self._now.results.fetch_ended()
        if batch.spare(self._needed) < 0:
            self.log.warning(
                "min_success_rate=%g cannot be reached any more, so the %s remaining inputs are "
                "not started. %s runs go on.",
                self.min_success_rate,
                batch.count(Stage.PENDING),
                batch.count(Stage.RUNNING),
            )
            batch.withhold("not started, as min_success_rate could not be reached any more.")

    def _wait_for_some(self, max_running: int, outage_since: float | None) -> None:
        visit, batch = self._now, self._now.batch
        job = self._job = WorkflowRuns(batch.going, max_running)
        if left := batch.count(Stage.PENDING):
            self.log.info(
                "%s runs go on; %s of %s inputs are left to start.",
                len(batch.going),
                left,
                len(batch),
            )
        state = PollState(job, visit.began_at, visit.deadline, outage_since=outage_since)
        try:
            self._poll_until_ended(state)
        except PromptLayerOutageError:
            if max_running or not batch.count(*OVER):
                raise
            visit.results.is_doubtful = True  # the outage may concern one run alone
            batch.end_all()

    def _start_some(self, context: Context) -> bool:
        """Start all inputs that may be started now; return False after a failure that may pass.

        :raises PromptLayerError: for any other failure, or if there is no run to wait for.
        """
        visit, batch = self._now, self._now.batch
        try:
            self.hook.warm_up()
            visit.starts.start(self.max_active_runs, self._stop_if_out_of_reach)
        except PromptLayerError as error:
            going = batch.count(Stage.RUNNING)
            if going and isinstance(error, PromptLayerTransientError):
                self.log.warning("%s Waiting for some of the %s runs that go on.", error, going)
                return False
            if going:
                error.args = (
                    f"{error} {going} runs that were started go on at PromptLayer: "
                    f"see {xcom.EXECUTION_IDS_KEY}.",
                )
            raise
        finally:
            self._keep(context)
        return True

    def _keep(self, context: Context) -> None:
        """Record and push the ids of the runs; a failure is only logged."""
        self._now.starts.note()
        try:
            self._push(context, xcom.EXECUTION_IDS_KEY, self._now.batch.run_ids)
        except Exception:
            self.log.exception("Could not push the ids of the runs to XCom.")


def _until(job: RemoteJob[BatchStatus]) -> int:
    return job.until if isinstance(job, WorkflowRuns) else 0
