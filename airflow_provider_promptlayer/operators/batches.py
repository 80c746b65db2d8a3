# SPDX-License-Identifier: Apache-2.0
"""The operator for many runs at once: one task, one wait, one list of results."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_provider_promptlayer import xcom
from airflow_provider_promptlayer.api.arguments import canonical, items, mapping, texts
from airflow_provider_promptlayer.api.batches import (
    Await,
    Batch,
    BatchLook,
    Stage,
    Start,
    WorkflowRuns,
    fingerprint,
    judge_batch,
    needed,
    shortfall,
)
from airflow_provider_promptlayer.api.endings import FailOn, check_fail_on, judge
from airflow_provider_promptlayer.api.events import read_event
from airflow_provider_promptlayer.api.subjects import Subject
from airflow_provider_promptlayer.api.workflows import WorkflowResults, run_workflow
from airflow_provider_promptlayer.exceptions import (
    PromptLayerAnswerTooLargeError,
    PromptLayerBatchFailedError,
    PromptLayerError,
    PromptLayerEventError,
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
    PromptLayerOutageError,
    PromptLayerRefusedError,
    PromptLayerRunFailedError,
    PromptLayerStartUncertainError,
    PromptLayerTransientError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.memory import BatchMemory
from airflow_provider_promptlayer.operators.workflows import origin
from airflow_provider_promptlayer.starting import ahead_of_execution_timeout, store_trouble
from airflow_provider_promptlayer.waiting import PromptLayerWaiter

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg
    from airflow.triggers.base import BaseTrigger

_ABOUT_THE_INPUT: Final = frozenset({400, 413, 422})
"""The refusals that another input may not meet."""

_TROUBLES: Final = 3
"""How many runs that could not be asked about end a look: it is no use to ask about the rest."""

_PATIENCE: Final = 60.0
"""Seconds for which a run is asked about in vain, once another one could not be read."""

_FINDINGS_NAMED: Final = 20


class PromptLayerRunWorkflowBatchOperator(PromptLayerWaiter[BatchLook]):
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
    moment, what goes on is waited for, and then the start is tried again.

    **Never two runs where one was meant**, for each input on its own, as
    :class:`.PromptLayerRunWorkflowOperator` has it. On Airflow 3.3 and later the task notes each
    start before it is sent, and each run. A retry goes back to the runs that go on or have
    succeeded, and starts those inputs anew whose run has failed; an input whose start was being
    sent when the worker died counts as failed until the task is cleared, because nobody can tell
    whether it has arrived. A task that is cleared before it has succeeded goes back in the same
    way, unless the input has changed; one that is cleared after it has succeeded runs all anew.
    Airflow 3.4 drops the notes when the task is cleared: such a task runs all anew, unless it is
    cleared with ``keep_task_state`` or together with its whole DAG run.

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
    :param metadata: strings to find the runs by in PromptLayer; ``airflow_batch_index``, which
        counts from 0, and those of :class:`.PromptLayerRunWorkflowOperator` are added where they
        are not given. Templated.
    :param workflow_label_name: run the version with this release label. Templated.
    :param workflow_version_number: run this version; excludes the label. Templated. Without
        either, the latest version runs.
    :param reattach: go back to the runs of an earlier try (Airflow 3.3 and later).
    :param nodes: return the outputs of these nodes alone. Templated.
    :param return_all_outputs: False returns the bare main outputs instead of all of them.
    :param fail_on: which ending of a run counts as a failure: ``"no_output"`` (no output node
        succeeded), ``"any_node"`` (that, or any node failed) or ``"never"``.
    :param timeout: seconds (or a ``timedelta``) for the whole batch, starts included. The runs go
        on.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`. ``mode="reschedule"`` is
        refused without ``deferrable``: each look would start the runs again.
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

    subject_type = WorkflowRuns
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
        reattach: bool = True,
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
        self.reattach = reattach
        self.nodes: Any = nodes
        self.return_all_outputs = return_all_outputs
        self.fail_on: FailOn = fail_on
        self._memory: BatchMemory | None = None
        self._batch: Batch | None = None  # once known
        self._began_at = self._deadline = 0.0
        self._outputs: dict[int, Any] = {}  # of the inputs that succeeded
        self._failures: dict[int, str] = {}  # of the inputs whose run is no success
        self._another_helps: set[int] = set()  # those of them for which another run may be one
        self._unread: set[int] = set()  # those of them whose run could not be asked about
        self._doubted: set[int] = set()  # inputs whose run was said to have ended, and goes on
        self._is_doubtful = False  # whether an outage was met that may be of one run alone
        self._size = 0
        self._findings: list[str] = []

    @property
    def batch(self) -> Batch:
        """The state of the batch, once it is known."""
        if self._batch is None:
            raise PromptLayerEventError("The task was resumed without its own notes.")
        return self._batch

    # --- the steps of a task ------------------------------------------------------------------

    def execute(self, context: Context) -> Any:
        """Start the runs, wait for them and return the results; raises as the base."""
        with self._airflow_errors():
            self._began_at = time.time()
            self._deadline = self._began_at + self.timeout
            self.identify(context)
            if self._memory is None:  # else a retry goes back to the runs
                self._deadline = min(self._deadline, ahead_of_execution_timeout(self, context))
            return self._to_the_end(context)

    def execute_complete(
        self, context: Context, event: Any = None, waiting: dict[str, Any] | None = None
    ) -> Any:
        """Go on after the triggerer has fired; raises what :meth:`execute` raises.

        :param event: the trigger's event.
        :param waiting: what this task left for itself when it deferred.
        """
        with self._airflow_errors():
            has_notes = waiting is not None
            if waiting is None:
                waiting = self._notes_from_elsewhere(context)
            if "batch" not in waiting:
                raise PromptLayerEventError("The task was resumed without its own notes.")
            self._began_at, self._deadline = waiting["started_at"], waiting["deadline"]
            batch = self._batch = Batch.read(waiting["batch"])
            subject = self._subject = WorkflowRuns(**waiting["subject"])
            # Without notes it is not known which of the runs were still going on.
            is_any = not has_notes and isinstance(event, dict)
            try:
                read_event(event, subject_id=str(event.get("id")) if is_any else subject.id)
            except PromptLayerOutageError:
                if subject.until or len(batch.going) + batch.count(Stage.ENDED) < 2:
                    raise
                self._is_doubtful = True  # it may be of one run alone: reading them tells
            if subject.until == 0:
                batch.end_all()  # if one has not, reading it will tell
            return self._to_the_end(context, outage_since=waiting["outage_since"])

    def resume_execution(
        self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context
    ) -> Any:
        """Come back from the triggerer."""
        self._memory = self._open_memory(context)
        return super().resume_execution(next_method, next_kwargs, context)

    def identify(self, context: Context) -> WorkflowRuns | None:
        """Check the inputs, and find what earlier tries have started; nothing is sent yet.

        :raises PromptLayerInvalidInputError: for an argument that cannot be sent.
        """
        fingerprints, unfit = self._check(context)
        self._memory = self._open_memory(context)
        batch = self._batch = (
            Batch.take_over([None] * len(fingerprints), fingerprints)
            if self._memory is None
            else self._memory.open(fingerprints)
        )
        for index in batch.at(Stage.LEFT):
            if index in unfit:
                batch.refused(index, unfit[index])
        if batch.going:
            self.log.info("Going back to %s runs of an earlier try.", len(batch.going))
            others = [
                i for i in batch.at(Stage.GOING) if batch.inputs[i].fingerprint != fingerprints[i]
            ]
            if others:
                self.log.warning(
                    "%s of them were started for another input than there is now, the first for "
                    "inputs[%s]. A retry keeps them; clear the task to start anew.",
                    len(others),
                    others[0],
                )
            self._keep(context)
        return WorkflowRuns(batch.going) if batch.going else None

    def _notes_from_elsewhere(self, context: Context) -> dict[str, Any]:
        # See the base. Inputs without a run may have been left or refused: nobody can tell here.
        pushed = xcom.pull_own(context, xcom.EXECUTION_IDS_KEY)
        if not pushed or None in pushed:
            raise PromptLayerEventError("The task was resumed without its own notes.")
        notes = super()._notes_from_elsewhere(context)
        batch = Batch.take_over([None] * len(pushed), self._check(context)[0])
        for index, run_id in enumerate(pushed):
            batch.starting(index)
            batch.started(index, run_id)
        return {**notes, "batch": batch.payload()}

    def recall(self, context: Context) -> WorkflowRuns | None:
        """Return the runs whose ids were pushed before the task left the worker."""
        pushed = xcom.pull_own(context, xcom.EXECUTION_IDS_KEY)
        ids = [each for each in pushed or () if each is not None]
        return WorkflowRuns(ids) if ids else None

    def look(self, subject: Subject[BatchLook]) -> BatchLook:
        """Look at runs, one after the other, until it is known whether to wait on.

        One run that cannot be asked about counts as one that goes on; the answer to another tells
        that PromptLayer is there.
        """
        batch, until = self.batch, subject.until if isinstance(subject, WorkflowRuns) else 0
        going = batch.at(Stage.GOING)
        go_on, answers, troubles = 0, 0, []
        for index in going:
            try:
                run = batch.run(index)
                look = self.hook.call(run.read() if index in self._doubted else run.peek())
            except PromptLayerTransientError as error:
                troubles.append(error)
                go_on += 1
            except (PromptLayerNotFoundError, PromptLayerAnswerTooLargeError):
                batch.ended(index)  # reading it tells why
            else:
                answers += 1
                go_on += not look.is_complete
                if look.is_complete:
                    batch.ended(index)
            if (answers and go_on > until) or len(troubles) == _TROUBLES:
                break
        if troubles and not answers:
            raise troubles[-1]
        return BatchLook(batch.count(Stage.GOING), until, *batch.ended_of_total)

    def trigger(self, subject: Subject[BatchLook], **how: Any) -> BaseTrigger:
        """Return the trigger that waits for the runs that still go on."""
        from airflow_provider_promptlayer.triggers.promptlayer import (
            PromptLayerWorkflowBatchTrigger,
        )

        ended, total = self.batch.ended_of_total
        return PromptLayerWorkflowBatchTrigger(
            workflow_version_execution_ids=self.batch.going,
            until=subject.until if isinstance(subject, WorkflowRuns) else 0,
            batch_id=str(subject.id),
            ended=ended,
            total=total,
            **how,
        )

    def notes(self) -> dict[str, Any]:
        """Return the state of the batch, as JSON."""
        return {"batch": self.batch.payload()}

    def record(self, context: Context, ending: BatchLook) -> None:  # noqa: ARG002
        """Push what went wrong with each input, before that is judged."""
        self._push(context, xcom.EXECUTION_IDS_KEY, self.batch.run_ids)
        self._push(context, xcom.ERRORS_KEY, self._errors)

    def judge(self, ending: BatchLook) -> None:  # noqa: ARG002
        """Apply ``min_success_rate``.

        :raises PromptLayerBatchFailedError: naming the first inputs that failed, and why.
        """
        judge_batch(self._errors, self.min_success_rate)

    def deliver(self, context: Context, ending: BatchLook) -> list[Any]:  # noqa: ARG002
        """Return the results."""
        if self.do_xcom_push and (hint := xcom.size_hint(self._size)):
            self.log.info("%s", hint)
        return self._results

    def may_retry(self, error: Exception) -> bool:
        """Return whether a retry can help, and cannot double what goes on or has succeeded."""
        batch = self._batch
        if self._memory is None:
            if batch is None:
                return not self._resumed and super().may_retry(error)
            not_to_be_doubled = batch.count(
                Stage.STARTING, Stage.GOING, Stage.ENDED, Stage.UNCERTAIN
            ) - len(self._another_helps)
            if not_to_be_doubled:
                return False
        if batch is not None and isinstance(error, PromptLayerBatchFailedError):
            attainable = len(self._outputs) + len(self._another_helps) + len(self._unread)
            return attainable >= needed(len(batch), self.min_success_rate)
        return super().may_retry(error)

    def on_kill(self) -> None:
        """Start no more, and say which runs go on."""
        self.hook.stop_starting()
        if self._batch is None:
            return
        going = ", ".join(map(str, self._batch.going))
        sending = ", ".join(map(str, self._batch.at(Stage.STARTING)))
        if going:
            self.log.warning(
                "The task is being stopped. These workflow runs go on at PromptLayer, which cannot "
                "cancel them: %s.",
                going,
            )
        if sending:
            self.log.warning("The start of input %s was being sent.", sending)

    # --- starting -----------------------------------------------------------------------------

    def _to_the_end(self, context: Context, outage_since: float | None = None) -> list[Any]:
        # New ones: an operator that dag.test() runs twice is copied, and copies share what it has.
        self._outputs, self._failures, self._findings, self._size = {}, {}, [], 0
        self._another_helps, self._unread, self._doubted = set(), set(), set()
        may_start = True
        while True:
            step = self.batch.plan(self.max_active_runs, may_start=may_start)
            if isinstance(step, Start):
                may_start = self._start_some(context)
                continue
            if isinstance(step, Await):
                self._wait_for_some(step.until, outage_since)
                outage_since = None
            elif self._collect():
                ending = BatchLook(0, 0, *self.batch.ended_of_total)
                results: list[Any] = self._finish(context, ending)
                return results
            may_start = True

    def _wait_for_some(self, until: int, outage_since: float | None) -> None:
        subject = self._subject = WorkflowRuns(self.batch.going, until)
        if self.batch.has_left:
            self.log.info(
                "%s runs go on; %s of %s inputs are left to start.",
                len(self.batch.going),
                len(self.batch.at(Stage.LEFT)),
                len(self.batch),
            )
        wait = self._new_wait(
            subject, self._began_at, deadline=self._deadline, outage_since=outage_since
        )
        try:
            self._wait_to_the_end(subject, wait)
        except PromptLayerOutageError:
            if until or not self.batch.count(Stage.ENDED):
                raise
            self._is_doubtful = True
            self.batch.end_all()  # it may be of one run alone: reading them tells

    @property
    def is_gone_back_to(self) -> bool:
        """Whether a later try finds the runs of this one."""
        return self._memory is not None

    @property
    def _is_contradicted(self) -> bool:
        return bool(self._doubted)  # the batch also comes back to start others

    def _start_some(self, context: Context) -> bool:
        """Start what may be started now; return False if that met trouble that may pass.

        :raises PromptLayerError: if it cannot pass, or nothing goes on that could be waited for.
        """
        try:
            while isinstance(step := self.batch.plan(self.max_active_runs), Start):
                if time.time() >= self._deadline:
                    raise PromptLayerWaitTimeoutError(
                        f"{len(self.batch.at(Stage.LEFT))} of {len(self.batch)} inputs were not "
                        f"started within {self.timeout:.0f} s."
                    )
                self._start(context, step.index)
        except PromptLayerError as error:
            going = self.batch.count(Stage.GOING)
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

    def _start(self, context: Context, index: int) -> None:
        """Start one input. Before its start is sent, it is noted that it is."""
        batch, memory = self.batch, self._memory
        arguments = self._arguments(context, index)
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
            batch.started(index, self.hook.run_workflow(self.workflow_id_or_name, **arguments))
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
        self.log.warning("Input %s: %s", index, batch.inputs[index].problem)

    def _keep(self, context: Context) -> None:
        """Keep the ids where they can be found, after each round of starts, however it ended."""
        try:
            if self._memory is not None:
                self._memory.write(self.batch)
        except Exception:
            self.log.exception("Could not note the runs for later tries.")
        try:
            self._push(context, xcom.EXECUTION_IDS_KEY, self.batch.run_ids)
        except Exception:
            self.log.exception("Could not push the ids of the runs to XCom.")

    # --- the inputs ---------------------------------------------------------------------------

    @cached_property
    def _inputs(self) -> list[dict[str, Any]]:
        """The inputs as they are sent.

        :raises PromptLayerInvalidInputError: if they are no list of mappings.
        """
        found = items("inputs", self.inputs)
        if found is None:
            raise PromptLayerInvalidInputError("inputs must be a list of mappings, not None.")
        return [
            {} if each is None else mapping(f"inputs[{index}]", each)
            for index, each in enumerate(found)
        ]

    def _check(self, context: Context) -> tuple[list[str], dict[int, str]]:
        """Return the fingerprints of the inputs, and why some of them cannot be sent.

        :raises PromptLayerInvalidInputError: if too few can for ``min_success_rate``, or another
            argument cannot be sent.
        """
        run_workflow(self.workflow_id_or_name, **{**self._common(context), "input_variables": {}})
        texts("nodes", self.nodes)
        fingerprints, unfit = self._fingerprints
        if len(fingerprints) - len(unfit) < needed(len(fingerprints), self.min_success_rate):
            raise PromptLayerInvalidInputError(
                f"{len(unfit)} of {len(fingerprints)} inputs cannot be sent, so nothing was "
                f"started: {next(iter(unfit.values()))}"
            )
        return fingerprints, unfit

    @cached_property
    def _fingerprints(self) -> tuple[list[str], dict[int, str]]:
        """The fingerprints of the inputs, and why some have none: they cannot be sent."""
        fingerprints, unfit = [], {}
        for index, each in enumerate(self._inputs):
            try:
                fingerprints.append(self._fingerprint(index, each))
            except PromptLayerInvalidInputError as error:
                fingerprints.append("")
                unfit[index] = str(error)
        return fingerprints, unfit

    def _fingerprint(self, index: int, variables: dict[str, Any]) -> str:
        """Return what tells the run of an input from that of another, or of another workflow."""
        of = [self.workflow_id_or_name, self.workflow_label_name, self.workflow_version_number]
        asked = {"of": [None if one is None else str(one) for one in of], "inputs": variables}
        return fingerprint(canonical(f"inputs[{index}]", asked))

    @cached_property
    def _moved(self) -> set[str]:
        """The inputs in whose place there was another one when this visit of a worker began."""
        now, _ = self._fingerprints
        begun = [each.fingerprint for each in self.batch.inputs]
        return {then for then, there in zip(begun, now, strict=True) if then != there}

    def _arguments(self, context: Context, index: int) -> dict[str, Any]:
        """Return the arguments of one start.

        :raises PromptLayerInvalidInputError: if there are more or fewer inputs than when the batch
            began.
        """
        inputs = self._inputs
        if len(inputs) != len(self.batch):
            raise PromptLayerInvalidInputError(
                f"There are {len(inputs)} inputs now and there were {len(self.batch)} when the "
                "batch began, so no more of them are started."
            )
        now = self._fingerprint(index, inputs[index])
        if now in self._moved:
            raise PromptLayerInvalidInputError(
                f"The inputs have moved since the batch began: inputs[{index}] was at another "
                "place, and would be run twice. No more of them are started."
            )
        self.batch.inputs[index].fingerprint = now  # of a template that tells the time, say
        common = self._common(context)
        common["metadata"] = {"airflow_batch_index": str(index), **common["metadata"]}
        return {**common, "input_variables": inputs[index]}

    def _common(self, context: Context) -> dict[str, Any]:
        return {
            "metadata": {**origin(context), **mapping("metadata", self.metadata)},
            "workflow_label_name": self.workflow_label_name,
            "workflow_version_number": self.workflow_version_number,
            "return_all_outputs": self.return_all_outputs,
        }

    # --- the results --------------------------------------------------------------------------

    def _collect(self) -> bool:
        """Read each run that has ended, once; return False if some have to be waited for."""
        batch, unread, answers = self.batch, dict[int, PromptLayerOutageError](), 0
        patience = min(self.max_outage, _PATIENCE)
        for index in batch.at(Stage.ENDED):
            if index in self._outputs or index in self._failures:
                continue
            is_gone = False
            try:
                results = self.hook.ask(
                    batch.run(index).read(),
                    about=batch.run(index).name,
                    # Whether one run alone cannot be read, the next ones tell soon.
                    max_outage=patience if unread or self._is_doubtful else self.max_outage,
                )
                answers += 1
                if not results.is_complete:
                    batch.goes_on(index)
                    self._doubted.add(index)  # else the next look says so again, at once
                    continue
                judge(results, self.fail_on)
                self._outputs[index] = self._output(results)
                continue
            except PromptLayerOutageError as error:
                unread[index] = error
                if self._outputs:  # what was read can be read again, unless it is an outage of all
                    good = batch.run(next(iter(self._outputs)))
                    self.hook.ask(good.peek(), about=good.name, max_outage=patience)
                    answers += 1
                elif len(unread) == _TROUBLES and not answers:
                    raise
                continue
            except PromptLayerRunFailedError as error:
                problem, another_helps = str(error), True
            except PromptLayerNotFoundError as error:
                problem, another_helps, is_gone = str(error), False, True
            except (PromptLayerAnswerTooLargeError, PromptLayerInvalidInputError) as error:
                problem, another_helps = str(error), False
            if (another_helps or is_gone) and batch.replace(index, is_gone=is_gone):
                self.log.info("Input %s is started anew: %s", index, problem)
                continue
            self._failures[index] = problem
            if another_helps:
                self._another_helps.add(index)
        if unread and not answers:
            raise next(iter(unread.values()))
        self._failures.update({index: str(error) for index, error in unread.items()})
        self._unread.update(unread)
        return not batch.count(Stage.GOING, Stage.LEFT)

    def _output(self, results: WorkflowResults) -> Any:
        """Return what is handed on of a run, in a form that Airflow can store."""
        findings = xcom.Findings(results)
        outputs = xcom.storable_outputs(xcom.select(results, self.nodes), results.nodes, findings)
        output = outputs.by_stored_name if self.return_all_outputs else outputs.final(results)
        self._size += outputs.size
        self._findings += [
            f"Workflow run {results.workflow_version_execution_id}: {line}"
            for line in findings.lines()[: _FINDINGS_NAMED - len(self._findings)]
        ]
        return output

    @property
    def _errors(self) -> list[str | None]:
        return [
            self._failures.get(index, each.problem) for index, each in enumerate(self.batch.inputs)
        ]

    @property
    def _results(self) -> list[Any]:
        return [self._outputs.get(index) for index in range(len(self.batch))]

    def _finish(self, context: Context, ending: BatchLook) -> Any:
        self.record(context, ending)
        if self.do_xcom_push:
            for line in self._findings:
                self.log.warning("%s", line)
        try:
            self.judge(ending)
        except PromptLayerBatchFailedError:
            self._push(context, xcom.RETURN_VALUE_KEY, self._results)
            raise
        if missing := shortfall(self._errors):
            self.log.warning("%s", missing)
        if self._memory is not None:
            try:
                self._memory.deliver()
            except Exception:
                self.log.exception("Could not note for later tries that the results went out.")
        return self.deliver(context, ending)

    def _open_memory(self, context: Context) -> BatchMemory | None:
        if not self.reattach:
            return None
        memory = BatchMemory.of(context)
        if memory is None and self.retries:
            self.log.info(
                "This Airflow cannot remember the runs across tries (3.3 and later can): a retry "
                "after a crash starts all of them again."
            )
        return memory


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
