# SPDX-License-Identifier: Apache-2.0
"""The operator for many runs at once: one task, one wait, one list of results."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from airflow_provider_promptlayer.api.arguments import texts
from airflow_provider_promptlayer.api.errors import (
    PromptLayerAnswerTooLargeError,
    PromptLayerError,
    PromptLayerEventError,
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
    PromptLayerOutageError,
    PromptLayerRefusedError,
    PromptLayerStartUncertainError,
    PromptLayerTransientError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.api.times import in_words
from airflow_provider_promptlayer.bases.batch_inputs import BatchInputs
from airflow_provider_promptlayer.bases.batch_results import MANY_TROUBLES, BatchResults
from airflow_provider_promptlayer.bases.kind import JobKind
from airflow_provider_promptlayer.bases.recording import store_trouble, write_with_retries
from airflow_provider_promptlayer.bases.submitter import (
    ahead_of_execution_timeout,
    reattach_or_durable,
)
from airflow_provider_promptlayer.bases.waiter import PromptLayerWaiter
from airflow_provider_promptlayer.operators.workflows import origin
from airflow_provider_promptlayer.outcomes.batches import (
    PromptLayerBatchFailedError,
    needed,
    raise_for_batch,
    shortfall,
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

_ABOUT_THE_INPUT: Final = frozenset({400, 413, 422})
"""The refusals that another input may not meet."""

_ABOUT: Final = "the batch of workflow runs"
"""What was started at a PromptLayer, for messages."""

_RUNS_NAMED: Final = 20


class PromptLayerRunWorkflowBatchOperator(PromptLayerWaiter[BatchStatus]):
    """Run a workflow for each of many inputs, wait for all of them, and push a list of results.

    A thousand mapped tasks cost Airflow a thousand worker starts, and another thousand when they
    come back from the triggerer. This is one task: it starts the runs one after the other, leaves
    the worker, and waits for all of them in one trigger.

    - ``return_value``: a list in the order of ``inputs``. For each, ``{node name: value}`` of every
      node that succeeded; the bare main output with ``return_all_outputs=False``; None where the
      input failed.
    - ``promptlayer_execution_ids``: the runs in the same order, None for an input without one. They
      are pushed before the task leaves the worker and after any trouble in starting.
    - ``promptlayer_errors``: what went wrong with each input as text; None where nothing did.

    All three are there too when the task fails because too few inputs succeeded.

    **An input that fails does not take the others along.** It fails if its run does, by
    ``fail_on``; if PromptLayer refuses it (400, 413, 422) or it cannot be sent; if the answer to
    its start is lost, or PromptLayer does not know its run any more. What concerns all (the key,
    an unknown workflow, the connection) ends the task at once, and the error says that the runs
    which were started go on. Where PromptLayer cannot be reached, or refuses more starts for the
    moment, the running ones are waited for, and then the start is tried again.

    **Never two runs where one was meant**, for each input on its own, as
    :class:`.PromptLayerRunWorkflowOperator` has it. On Airflow 3.3 and later the task notes each
    start before it is sent, and each run. A retry goes back to the runs that go on or have
    succeeded, and starts those inputs anew whose run has failed; an input whose start was being
    sent when the worker died counts as failed until a try has said so and the task is cleared
    then, because it is unknown whether it arrived. A task that is cleared before it has
    succeeded goes back in the same way, unless the input has changed; one that is cleared after it
    has succeeded runs all anew. Airflow 3.4 drops the notes when the task is cleared: such a task
    runs all anew, unless it is cleared with ``keep_task_state`` or together with its whole DAG run.

    **Inputs are recognized wherever they stand in the list**, which a retry, a clear or the way
    back from a deferral may render in another order, with more inputs or with fewer. The results
    are always in the order of the inputs as they are then.

    **No run is started for nothing.** Once ``min_success_rate`` cannot be reached any more, nothing
    more is started; the task waits for the runs that go on, and fails. When the time is up, what
    has ended is handed on all the same: the others are in ``promptlayer_errors``, with the ids of
    their runs, and ``min_success_rate`` decides whether the task succeeds.

    Before Airflow 3.3 there is no place for these notes. Once a run goes on or has succeeded, the
    task is not retried there, whatever happens; only a worker that dies can double runs, see
    :class:`.PromptLayerRunWorkflowOperator`.

    :param workflow_id_or_name: name or numeric id of the workflow. Templated.
    :param inputs: what the workflow takes, a mapping for each run: a list of them, that list as
        JSON, or the XCom of another task. Templated. Without any, the task succeeds with an empty
        list. All are checked before the first run is started; one that cannot be sent fails alone
        if ``min_success_rate`` allows for it.
    :param max_active_runs: how many runs may go on at a time; None starts all at once. The task
        comes back to a worker when half of these have ended, to start others.
    :param min_success_rate: the share of the inputs that has to succeed, from 0 to 1.
    :param metadata: strings to find the runs by in PromptLayer; ``airflow_batch_index``, the place
        from 0 on at which the task first saw the input, and those of
        :class:`.PromptLayerRunWorkflowOperator` are added where they are not given. Templated.
    :param workflow_label_name: run the version with this release label. Templated.
    :param workflow_version_number: run this version; excludes the label. Templated. Without
        either, the latest version runs.
    :param reattach: go back to the runs of an earlier try (Airflow 3.3 and later); True if left
        out.
    :param durable: Airflow's own name for ``reattach``.
    :param nodes: return the outputs of these nodes alone. Templated.
    :param return_all_outputs: False returns the bare main outputs instead of all of them.
    :param fail_on: which ending of a run counts as a failure: ``"no_output"`` (no output node
        succeeded), ``"any_node"`` (that, or any node failed) or ``"never"``.
    :param timeout: seconds (or a ``timedelta``) for the whole batch, starts included. The runs go
        on.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`. ``mode="reschedule"`` is
        refused without ``deferrable``: each poll would start the runs again.
    """

    template_fields: Sequence[str] = (
        "workflow_id_or_name",
        "inputs",
        "metadata",
        "workflow_label_name",
        "workflow_version_number",
        "nodes",
        "promptlayer_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"inputs": "json", "metadata": "json"}

    starts_what_it_waits_for = True

    def __init__(
        self,
        *,
        workflow_id_or_name: int | str | XComArg,
        inputs: Sequence[Mapping[str, Any]] | str | XComArg,
        max_active_runs: int | None = None,
        min_success_rate: float = 1.0,
        metadata: Mapping[str, Any] | str | XComArg | None = None,
        workflow_label_name: str | XComArg | None = None,
        workflow_version_number: int | str | XComArg | None = None,
        reattach: bool | None = None,
        durable: bool | None = None,
        nodes: Sequence[str] | XComArg | None = None,
        return_all_outputs: bool = True,
        fail_on: FailOn = "no_output",
        **kwargs: Any,
    ) -> None:
        if kwargs.get("multiple_outputs"):
            raise PromptLayerInvalidInputError("multiple_outputs is not taken: a list is returned.")
        super().__init__(**kwargs)
        check_fail_on(fail_on)
        _check_limits(max_active_runs, min_success_rate)
        self.workflow_id_or_name: Any = workflow_id_or_name
        self.inputs: Any = inputs  # rendered before it is used, as all template fields
        self.max_active_runs = max_active_runs
        self.min_success_rate = min_success_rate
        self.metadata: Any = metadata
        self.workflow_label_name: Any = workflow_label_name
        self.workflow_version_number: Any = workflow_version_number
        self.reattach = reattach_or_durable(reattach, durable)
        self.nodes: Any = nodes
        self.return_all_outputs = return_all_outputs
        self.fail_on: FailOn = fail_on
        self._task_state: BatchState | None = None
        self._batch: Batch | None = None  # once known
        self._inputs: BatchInputs | None = None  # once rendered
        self._results: BatchResults | None = None  # while there is a batch
        self._began_at = self._deadline = 0.0
        self._is_doubtful = False  # whether an outage was met that may be of one run alone

    @property
    def results(self) -> BatchResults:
        """What was fetched of the batch in this visit of a worker."""
        if self._results is None:
            self._results = BatchResults(
                self.hook,
                self.batch,
                fail_on=self.fail_on,
                nodes=self.nodes,
                return_all_outputs=self.return_all_outputs,
                max_outage=self.max_outage,
            )
        return self._results

    @property
    def batch(self) -> Batch:
        """The state of the batch, once it is known."""
        if self._batch is None:
            raise PromptLayerEventError("The task was resumed without the state of its wait.")
        return self._batch

    # --- the steps of a task ------------------------------------------------------------------

    def execute(self, context: Context) -> Any:
        """Start the runs, wait for them and return the results; raises as the base."""
        with self._airflow_errors():
            self._began_at = time.time()
            self._deadline = self._began_at + self.timeout
            self.get_job(context)
            if self._task_state is None:  # else a retry goes back to the runs
                self._deadline = min(self._deadline, ahead_of_execution_timeout(self, context))
            return self._to_the_end(context)

    def execute_complete(
        self, context: Context, event: Any = None, waiting: dict[str, Any] | None = None
    ) -> Any:
        """Go on after the triggerer has fired; raises what :meth:`execute` raises.

        :param event: the trigger's event.
        :param waiting: the state of the wait and the batch, as this task kept it when it deferred.
        """
        with self._airflow_errors():
            has_notes = waiting is not None
            if waiting is None:
                waiting = self._state_without_notes(context)
            state, batch = PollState.read(waiting, WorkflowRuns), read_batch(waiting.get("batch"))
            self._began_at, self._deadline = state.began_at, state.deadline
            self._batch = batch
            if state.base_url is not None:
                self._stay_at(state.base_url, _ABOUT)
            if self._task_state is not None:
                self._task_state.resume(state.base_url or self.hook.settings.base_url)
            self._job = job = state.job
            self._arrange(context)
            # Without notes it is not known which of the runs were still going on.
            is_any = not has_notes and isinstance(event, dict)
            try:
                read_event(event, external_id=str(event.get("id")) if is_any else job.id)
            except PromptLayerOutageError:
                if job.until or batch.count(Stage.RUNNING, *OVER) < 2:
                    raise
                self._is_doubtful = True  # it may be of one run alone: reading them tells
            except PromptLayerWaitTimeoutError:
                return self._finish_late(context)
            if job.until == 0:
                batch.end_all()  # if one has not, reading it will tell
            return self._to_the_end(context, outage_since=state.worker_outage(now=time.time()))

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Come back from the triggerer."""
        self._task_state = self._open_task_state(context)
        return super().resume_execution(next_method, next_kwargs, context)

    def get_job(self, context: Context) -> WorkflowRuns | None:
        """Check the inputs, and find what earlier tries have started; nothing is sent yet.

        :raises PromptLayerInvalidInputError: for an argument that cannot be sent.
        """
        inputs = self._inputs = self._new_inputs(context)
        inputs.check(self.min_success_rate)
        texts("nodes", self.nodes)
        self._task_state = self._open_task_state(context)
        base_url = self.hook.settings.base_url
        batch = self._batch = (
            Batch([Input(text) for text in inputs.fingerprints])
            if self._task_state is None
            else self._task_state.open(inputs.fingerprints, base_url)
        )
        self._stay_at(base_url, _ABOUT)
        self._refuse_unfit(batch, inputs)
        if batch.going:
            self.log.info("Going back to %s runs of an earlier try.", len(batch.going))
            others = [
                place
                for place, index in enumerate(batch.order)
                if batch.inputs[index].stage is Stage.RUNNING
                and batch.inputs[index].fingerprint != inputs.fingerprints[place]
            ]
            if others:
                self.log.warning(
                    "%s of them were started for another input than there is now, the first for "
                    "inputs[%s]. A retry keeps them; clear the task to start anew.",
                    len(others),
                    others[0],
                )
            self._keep(context)
        self._say_dropped(batch)
        if self._task_state is not None and self._task_state.left_elsewhere:
            self.log.warning(
                "Runs that an earlier try started at another PromptLayer are left to themselves: "
                "%s.",
                _some(self._task_state.left_elsewhere),
            )
        return WorkflowRuns(batch.going) if batch.going else None

    def _arrange(self, context: Context) -> None:
        """Take the inputs as they are rendered now, which may be in another order than before."""
        inputs = self._inputs = self._new_inputs(context)
        batch, dropped = self.batch, self.batch.dropped
        try:
            batch.arrange(inputs.fingerprints)
        except PromptLayerInvalidInputError as error:  # such as an XCom that is no more
            self.log.warning("%s The order of the inputs before the deferral is kept.", error)
            return
        self._refuse_unfit(batch, inputs)
        if batch.dropped != dropped:
            self._say_dropped(batch)

    @staticmethod
    def _refuse_unfit(batch: Batch, inputs: BatchInputs) -> None:
        for place, problem in inputs.unfit.items():
            if batch.inputs[batch.order[place]].stage is Stage.PENDING:
                batch.refused(batch.order[place], problem)

    def _say_dropped(self, batch: Batch) -> None:
        if dropped := batch.dropped:
            self.log.warning(
                "%s runs were started for inputs that are not in the list any more, and are left "
                "to themselves: %s.",
                len(dropped),
                _some(dropped),
            )

    def _state_without_notes(self, context: Context) -> dict[str, Any]:
        # See the base. Inputs without a run may have been left or refused: which, is unknown.
        pushed = xcom.pull_own(context, xcom.EXECUTION_IDS_KEY)
        if not pushed or None in pushed:
            raise PromptLayerEventError("The task was resumed without the state of its wait.")
        fingerprints = self._new_inputs(context).fingerprints
        if len(fingerprints) != len(pushed):
            raise PromptLayerEventError("The task was resumed without the state of its wait.")
        batch = Batch(
            [
                Input(text, Stage.RUNNING, run_id)
                for text, run_id in zip(fingerprints, pushed, strict=True)
            ]
        )
        return {**super()._state_without_notes(context), "batch": batch_payload(batch)}

    def restore_job(self, context: Context) -> WorkflowRuns | None:
        """Return the runs whose ids were pushed before the task left the worker."""
        pushed = xcom.pull_own(context, xcom.EXECUTION_IDS_KEY)
        ids = [each for each in pushed or () if each is not None]
        return WorkflowRuns(ids) if ids else None

    def poll(self, job: RemoteJob[BatchStatus]) -> BatchStatus:
        """Poll the runs, one after the other, until it is known whether to wait on.

        One run that cannot be asked about counts as one that goes on; the answer to another tells
        that PromptLayer is there.
        """
        batch, until = self.batch, job.until if isinstance(job, WorkflowRuns) else 0
        go_on, answers, troubles = 0, 0, []
        for index in batch.at(Stage.RUNNING):
            try:
                run = batch.run(index)
                is_contradicted = index in self.results.contradicted
                status = self.hook.call(run.fetch_call() if is_contradicted else run.status_call())
            except PromptLayerTransientError as error:
                troubles.append(error)
                go_on += 1
            except (PromptLayerNotFoundError, PromptLayerAnswerTooLargeError):
                batch.ended(index)  # reading it tells why
            else:
                answers += 1
                go_on += not status.is_complete
                if status.is_complete:
                    batch.ended(index)
            if (answers and go_on > until) or len(troubles) == MANY_TROUBLES:
                break
        if troubles and not answers:
            raise troubles[-1]
        return BatchStatus(batch.count(Stage.RUNNING), until, *batch.ended_of_total)

    def new_kind(self) -> JobKind[BatchStatus]:
        """Return batches of workflow runs."""
        return JobKind(
            job_types=(WorkflowRuns,),
            id_key=xcom.EXECUTION_IDS_KEY,
            trigger="PromptLayerWorkflowBatchTrigger",
            job_from_id=WorkflowRuns,
            raise_for_outcome=lambda _: raise_for_batch(self.results.errors, self.min_success_rate),
            result=lambda *_: self.results.in_order,
            metadata=lambda _: {
                xcom.EXECUTION_IDS_KEY: self.batch.run_ids,
                xcom.ERRORS_KEY: self.results.errors,
            },
            storage_warnings=lambda: self.results.findings,
        )

    def trigger(self, **how: Any) -> BaseTrigger:
        """Return the trigger that waits for the runs that still go on."""
        ended, total = self.batch.ended_of_total
        return super().trigger(ended=ended, total=total, **how)

    def _defer(
        self, job: RemoteJob[BatchStatus], poller: Poller, decision: PollDecision
    ) -> NoReturn:
        # The runs that have ended meanwhile are not polled again.
        until = job.until if isinstance(job, WorkflowRuns) else 0
        super()._defer(WorkflowRuns(self.batch.going, until), poller, decision)

    def resume_state(self) -> dict[str, Any]:
        """Return the state of the batch, as JSON."""
        return {"batch": batch_payload(self.batch)}

    def raise_for_outcome(self, ending: BatchStatus) -> None:
        """Apply ``min_success_rate``.

        :raises PromptLayerBatchFailedError: naming the first inputs that failed, and why.
        """
        self._note_reported()  # the errors have just been pushed
        super().raise_for_outcome(ending)

    def may_retry(self, error: Exception) -> bool:
        """Return whether a retry can help, and cannot double a run that is no failure."""
        batch = self._batch
        if self._task_state is None:
            if batch is None:
                return not self._resumed and super().may_retry(error)
            if batch.not_to_be_doubled:
                return False
        if batch is not None and isinstance(error, PromptLayerBatchFailedError):
            return batch.attainable >= self._needed
        return super().may_retry(error)

    def on_kill(self) -> None:
        """Start no more, and say which runs go on."""
        self.hook.stop_starting()
        if self._batch is None:
            return
        going = ", ".join(map(str, self._batch.going))
        if going:
            self.log.warning(
                "The task is being stopped. These workflow runs go on at PromptLayer, which cannot "
                "cancel them: %s.",
                going,
            )
        for index in self._batch.at(Stage.STARTING):
            self.log.warning(
                "Input %s: %s",
                self._batch.places[index],
                how_to_find(index, "the task is being stopped while its start is being sent."),
            )

    # --- starting -----------------------------------------------------------------------------

    def _to_the_end(self, context: Context, outage_since: float | None = None) -> list[Any]:
        # New ones: an operator that dag.test() runs twice is copied, and copies share what it has.
        self._results = None
        may_start = True
        try:
            while True:
                self._stop_if_out_of_reach()
                step = self.batch.plan(self.max_active_runs, may_start=may_start)
                if isinstance(step, Start):
                    may_start = self._start_some(context)
                    continue
                may_start = True
                if isinstance(step, WaitUntil):
                    self._wait_for_some(step.max_running, outage_since)
                    outage_since = None
                    continue
                self.results.fetch(is_doubtful=self._is_doubtful)
                if not self.batch.count(Stage.RUNNING, Stage.PENDING):
                    return self._finish(context, BatchStatus(0, 0, *self.batch.ended_of_total))
        except PromptLayerWaitTimeoutError:
            return self._finish_late(context)

    def _finish_late(self, context: Context) -> list[Any]:
        """Hand on what has ended, of a batch whose time is up.

        :raises PromptLayerWaitTimeoutError: if that is too little.
        """
        batch, time_given = self.batch, in_words(self._deadline - self._began_at)
        batch.end_all()  # which of them have not, reading them tells
        self.results.fetch_late()
        for index in batch.at(Stage.RUNNING):
            self.results.failures[index] = (
                f"{batch.run(index)} did not end within {time_given}. It goes on at PromptLayer."
            )
        for index in batch.at(Stage.PENDING):
            self.results.failures[index] = f"No run was started within {time_given}."
        try:
            return self._finish(
                context, BatchStatus(batch.count(Stage.RUNNING), 0, *batch.ended_of_total)
            )
        except PromptLayerBatchFailedError as error:
            raise PromptLayerWaitTimeoutError(
                f"The batch did not end within {time_given}. {error}"
            ) from error

    @property
    def _needed(self) -> int:
        """How many inputs have to succeed."""
        return needed(len(self.batch), self.min_success_rate)

    def _stop_if_out_of_reach(self) -> None:
        """Start nothing more if ``min_success_rate`` cannot be reached, and say so."""
        batch = self.batch
        if batch.count(Stage.PENDING) and batch.spare(self._needed) < batch.count(Stage.ENDED):
            self.results.judge_ended()
        if batch.count(Stage.PENDING) and batch.spare(self._needed) < 0:
            self.log.warning(
                "min_success_rate=%g cannot be reached any more, so the %s inputs that are left "
                "are not started. %s runs go on.",
                self.min_success_rate,
                len(batch.at(Stage.PENDING)),
                batch.count(Stage.RUNNING),
            )
            batch.withhold("not started, as min_success_rate could not be reached any more.")

    def _wait_for_some(self, until: int, outage_since: float | None) -> None:
        job = self._job = WorkflowRuns(self.batch.going, until)
        if self.batch.count(Stage.PENDING):
            self.log.info(
                "%s runs go on; %s of %s inputs are left to start.",
                len(self.batch.going),
                len(self.batch.at(Stage.PENDING)),
                len(self.batch),
            )
        state = PollState(job, self._began_at, self._deadline, outage_since=outage_since)
        try:
            self._poll_until_ended(state)
        except PromptLayerOutageError:
            if until or not self.batch.count(*OVER):
                raise
            self._is_doubtful = True
            self.batch.end_all()  # it may be of one run alone: reading them tells

    @property
    def reattaches_after_clear(self) -> bool:
        """Whether a later try finds the runs of this one."""
        return self._task_state is not None

    @property
    def _is_contradicted(self) -> bool:
        return bool(self.results.contradicted)  # the batch also comes back to start others

    def _start_some(self, context: Context) -> bool:
        """Start what may be started now; return False if that met trouble that may pass.

        :raises PromptLayerError: if it cannot pass, or nothing goes on that could be waited for.
        """
        try:
            self.hook.warm_up()
            while isinstance(step := self.batch.plan(self.max_active_runs), Start):
                if time.time() >= self._deadline:
                    raise PromptLayerWaitTimeoutError(
                        f"{len(self.batch.at(Stage.PENDING))} of {len(self.batch)} inputs were not "
                        f"started within {in_words(self.timeout)}."
                    )
                self._start(step.index)
                self._stop_if_out_of_reach()
        except PromptLayerError as error:
            going = self.batch.count(Stage.RUNNING)
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

    def _start(self, index: int) -> None:
        """Start one input. When all is ready for it, it is noted that its start is sent."""
        batch, memory = self.batch, self._task_state
        call = self.inputs_now.call(batch.places[index], index)
        batch.starting(index)
        if memory is not None:
            try:
                memory.write(batch, index)
            except Exception as error:
                batch.not_started(index)
                memory.mark(index)
                raise store_trouble(error) from error
            memory.mark(index)  # what becomes of it goes along with the next note
        try:
            batch.started(index, self.hook.start_run(call))
        except PromptLayerStartUncertainError as error:
            batch.uncertain(index, str(error))
        except PromptLayerRefusedError as error:
            if error.status not in _ABOUT_THE_INPUT:
                batch.not_started(index)
                raise
            batch.refused(index, str(error))
        except PromptLayerError:
            batch.not_started(index)  # certainly
            raise
        else:
            return
        self.log.warning("Input %s: %s", batch.places[index], batch.inputs[index].problem)

    def _keep(self, context: Context) -> None:
        """Keep the ids where they can be found, after each round of starts, however it ended."""
        batch, memory = self.batch, self._task_state
        try:
            if memory is not None:
                write_with_retries(
                    lambda: memory.write(batch), self.log, lambda: self.hook.is_stopping
                )
        except Exception:
            self.log.exception("Could not note the runs for later tries.")
        try:
            self._push(context, xcom.EXECUTION_IDS_KEY, batch.run_ids)
        except Exception:
            self.log.exception("Could not push the ids of the runs to XCom.")

    # --- the inputs and the results -----------------------------------------------------------

    @property
    def inputs_now(self) -> BatchInputs:
        """The inputs as they were rendered for this visit of a worker."""
        if self._inputs is None:
            raise PromptLayerEventError("The task was resumed without its inputs.")
        return self._inputs

    def _new_inputs(self, context: Context) -> BatchInputs:
        return BatchInputs(
            self.inputs,
            self.workflow_id_or_name,
            metadata=self.metadata,
            origin=origin(context),
            workflow_label_name=self.workflow_label_name,
            workflow_version_number=self.workflow_version_number,
            return_all_outputs=self.return_all_outputs,
        )

    def _finish(self, context: Context, ending: BatchStatus) -> list[Any]:
        try:
            results: list[Any] = super()._finish(context, ending)
        except PromptLayerBatchFailedError:
            self._push(context, xcom.RETURN_VALUE_KEY, self.results.in_order)
            raise
        if missing := shortfall(self.results.errors):
            self.log.warning("%s", missing)
        if self.do_xcom_push and (hint := xcom.size_hint(self.results.size)):
            self.log.info("%s", hint)
        if self._task_state is not None:
            try:
                self._task_state.deliver(self.batch)
            except Exception:
                self.log.exception("Could not note for later tries that the results went out.")
        return results

    def _note_reported(self) -> None:
        """Note that a person is told of the starts of which it is unknown whether they arrived.

        Only a clear after that says that somebody has looked.
        """
        news = self.batch.report_uncertain()
        if self._task_state is None or not news:
            return
        try:
            self._task_state.write(self.batch, *news)
        except Exception:
            self.log.exception("Could not note what a person is asked; the next try asks again.")

    def _open_task_state(self, context: Context) -> BatchState | None:
        if not self.reattach:
            return None
        memory = BatchState.of(context)
        if memory is None and self.retries:
            self.log.info(
                "This Airflow cannot remember the runs across tries (3.3 and later can): a retry "
                "after a crash starts all of them again."
            )
        return memory


def _some(run_ids: Sequence[int]) -> str:
    named = ", ".join(map(str, run_ids[:_RUNS_NAMED]))
    more = len(run_ids) - _RUNS_NAMED
    return named + (f" and {more} more" if more > 0 else "")


def _check_limits(max_active_runs: Any, min_success_rate: Any) -> None:
    if max_active_runs is not None and (
        isinstance(max_active_runs, bool)
        or not isinstance(max_active_runs, int)
        or max_active_runs < 1
    ):
        raise PromptLayerInvalidInputError(
            f"max_active_runs must be a positive integer or None, not {max_active_runs!r}."
        )
    if (
        isinstance(min_success_rate, bool)
        or not isinstance(min_success_rate, (int, float))
        or not 0 <= min_success_rate <= 1
    ):
        raise PromptLayerInvalidInputError(
            f"min_success_rate must be a number from 0 to 1, not {min_success_rate!r}."
        )
