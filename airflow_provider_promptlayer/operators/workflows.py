# SPDX-License-Identifier: Apache-2.0
"""The operators for workflows: start a run, or wait for one, and push its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from airflow_provider_promptlayer.api.arguments import (
    mapping,
    path_segment,
    positive,
    text_list,
    text_mapping,
    texts,
    web_address,
)
from airflow_provider_promptlayer.api.errors import PromptLayerInvalidInputError
from airflow_provider_promptlayer.api.job import RemoteJob
from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.api.workflows import (
    WorkflowResults,
    refuse_two_versions,
    run_workflow,
)
from airflow_provider_promptlayer.bases.kind import JobKind, Submission
from airflow_provider_promptlayer.bases.submitter import PromptLayerSubmitter
from airflow_provider_promptlayer.bases.workflow import WorkflowTask
from airflow_provider_promptlayer.xcom.outputs import NodeOutput, RunOutputs, select

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_promptlayer.bases.arguments import (
        RunResultsKwargs,
        RunWorkflowKwargs,
    )


class _PushesOutputs(WorkflowTask):
    """What the two operators share: the arguments that say which outputs go to XCom."""

    def __init__(
        self,
        *,
        nodes: Sequence[str] | XComArg | None = None,
        return_all_outputs: bool = True,
        push_node_xcoms: bool = True,
        **kwargs: Any,
    ) -> None:
        if kwargs.get("multiple_outputs"):
            # Airflow would push each node again, and cut or mix up names that cannot be keys.
            raise PromptLayerInvalidInputError(
                "multiple_outputs is not taken: every node has an XCom with push_node_xcoms=True."
            )
        super().__init__(**kwargs)
        self.nodes: Any = nodes  # rendered before it is used, as all template fields
        self.return_all_outputs = return_all_outputs
        self.push_node_xcoms = push_node_xcoms
        self.refuse_constants(nodes=text_list)

    @property
    def output(self) -> Any:
        """What the task returns, for another task; ``output["Summarize"]`` is that of a node."""
        return NodeOutput(self)

    def new_kind(self) -> JobKind[WorkflowResults]:
        """Return workflow runs, whose outputs are pushed."""
        kind, nodes = super().new_kind(), texts("nodes", self.nodes)

        def check(results: WorkflowResults) -> None:
            kind.raise_for_outcome(results)
            if nodes is not None:
                select(results, nodes)  # refuses those that the run does not have

        def outputs(results: WorkflowResults) -> RunOutputs:
            return RunOutputs(
                results,
                nodes,
                return_all_outputs=self.return_all_outputs,
                push_node_xcoms=self.push_node_xcoms,
            )

        return replace(kind, raise_for_outcome=check, outputs=outputs)


class PromptLayerWorkflowResultsOperator(_PushesOutputs):
    """Wait for a workflow run if it has not ended yet, then push its outputs to XCom.

    - ``return_value``: ``{node name: value}`` of every node that succeeded; the bare main output
      with ``return_all_outputs=False``.
    - one XCom for each of these nodes, under its name: ``op.output["Summarize"]``.
    - ``promptlayer_final_output``, ``promptlayer_node_statuses``, ``promptlayer_execution_id``.

    Waits as :class:`.PromptLayerWorkflowSensor` does and takes its arguments. A run that has ended
    cannot get better, so its failure does not use up the task's retries.

    :param workflow_version_execution_id: the run, as int or digits in a string. Templated.
    :param nodes: push the outputs of these nodes alone. Templated.
    :param return_all_outputs: False returns the bare main output instead of all of them.
    :param push_node_xcoms: whether to push one XCom for each node.
    """

    template_fields: Sequence[str] = (
        "workflow_version_execution_id",
        "nodes",
        "promptlayer_conn_id",
    )

    def __init__(
        self,
        *,
        workflow_version_execution_id: int | str | XComArg,
        **kwargs: Unpack[RunResultsKwargs],
    ) -> None:
        super().__init__(**kwargs)
        self.workflow_version_execution_id = workflow_version_execution_id
        self.refuse_constants(workflow_version_execution_id=positive)

    def get_job(self, context: Context) -> RemoteJob[WorkflowResults]:
        """Return the run whose id was given, and push that id."""
        run = self.kind.job_from_id(self.workflow_version_execution_id)
        self._push(context, self.kind.id_key, run.id)
        return run


class PromptLayerRunWorkflowOperator(_PushesOutputs, PromptLayerSubmitter[WorkflowResults]):
    """Start a run of a workflow, wait for it, and push its outputs to XCom.

    The run's id is in the log and in XCom (``promptlayer_execution_id``) before anything else can
    fail. At the end the task pushes what :class:`PromptLayerWorkflowResultsOperator` pushes.

    **Never two runs where one was meant.** A start is sent again only when it certainly did not
    arrive. On Airflow 3.3 and later the task records its run in the task state store (one record
    for each mapped index), so a try after a crash, a time-out or an outage goes back to that run,
    and starts another only if the run has failed. A task that is cleared before its outputs have
    gone out does the same, unless its workflow or its input is another one by then; a task that is
    cleared after a success starts a new run. Airflow 3.4 drops the record when a task is cleared,
    unless with ``keep_task_state`` or together with its whole DAG run. Two cases need a person:

    - The worker dies while the start is being sent, or the record cannot be read (another release
      wrote it, or a state backend that this worker lacks). The next try starts nothing, also after
      a clear, and says how to look for the run. Clearing the task after that starts another.
    - The store cannot be written for a minute after the start. The log has the run's id; the next
      try starts nothing and points to that log.

    Before Airflow 3.3 there is no such record. A task is retried there only where that cannot
    double a run: after a start that was refused or did not arrive, and after a run that has failed.
    With retries, a run is doubled only if

    - the worker dies, or ``execution_timeout`` strikes, between the start and the end of the wait
      in the worker (with ``deferrable``, until the deferral, so that ``defer_after`` is 0 there
      unless you set it; and again while resuming);
    - Airflow cannot store the task's result at the very end;
    - on Airflow 2, ``execution_timeout`` passes while no triggerer is there. It goes on counting
      while the task is deferred, so the wait ends a minute before it (or a quarter of it), without
      a retry.

    :param workflow_id_or_name: name or numeric id of the workflow. Templated.
    :param input_variables: what the workflow takes: a mapping, also as JSON or as a template
        renders it. Templated.
    :param metadata: strings to find the run by in PromptLayer; ``airflow_dag_id``,
        ``airflow_run_id``, ``airflow_task_id``, ``airflow_map_index`` and
        ``airflow_try_number`` are added where they are not given. Templated.
    :param workflow_label_name: run the version with this release label. Templated.
    :param workflow_version_number: run this version; excludes the label. Templated. Without
        either, the latest version runs.
    :param check_inputs: ask PromptLayer first, by one more request, which input variables the
        workflow requires, and fail without a run, and a bill, if one is missing.
    :param callback_url: where PromptLayer posts the results when the run ends, with
        ``wait_for_completion=False`` alone: the task waits by polling. Templated.
    :param wait_for_completion: False returns the run's id as soon as it is started.
    :param reattach: go back to the run of an earlier try (Airflow 3.3 and later); True if left out.
    :param durable: Airflow's own name for ``reattach``.
    :param nodes: push the outputs of these nodes alone. Templated.
    :param return_all_outputs: False returns the bare main output instead of all of them.
    :param push_node_xcoms: whether to push one XCom for each node.
    :param kwargs: how to wait, see :class:`.PromptLayerWorkflowSensor`. ``mode="reschedule"`` is
        refused without ``deferrable``: each poll would start another run.
    """

    template_fields: Sequence[str] = (
        "workflow_id_or_name",
        "input_variables",
        "metadata",
        "workflow_label_name",
        "workflow_version_number",
        "callback_url",
        "nodes",
        "promptlayer_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "input_variables": "json",
        "metadata": "json",
    }

    def __init__(
        self,
        *,
        workflow_id_or_name: int | str | XComArg,
        input_variables: Mapping[str, Any] | str | XComArg | None = None,
        metadata: Mapping[str, Any] | str | XComArg | None = None,
        workflow_label_name: str | XComArg | None = None,
        workflow_version_number: int | str | XComArg | None = None,
        check_inputs: bool = False,
        callback_url: str | XComArg | None = None,
        **kwargs: Unpack[RunWorkflowKwargs],
    ) -> None:
        super().__init__(**kwargs)
        if callback_url is not None and self.wait_for_completion:
            raise PromptLayerInvalidInputError(
                "callback_url is for runs that the task does not wait for: set "
                "wait_for_completion=False, or leave callback_url out."
            )
        self.check_inputs = check_inputs
        self.callback_url: Any = callback_url
        self.note_given("callback_url")
        self.workflow_id_or_name: Any = workflow_id_or_name
        self.input_variables: Any = input_variables
        self.metadata: Any = metadata
        self.workflow_label_name: Any = workflow_label_name
        self.workflow_version_number: Any = workflow_version_number
        refuse_version(self)
        self.refuse_constants(
            input_variables=mapping, metadata=text_mapping, callback_url=web_address
        )

    def new_submission(self, context: Context) -> Submission:
        """Return the start of a run."""
        self.refuse_missing()
        where_from = origin(context)
        metadata = {**where_from, **mapping("metadata", self.metadata)}
        call = run_workflow(
            self.workflow_id_or_name,
            input_variables=self.input_variables,
            metadata=metadata,
            workflow_label_name=self.workflow_label_name,
            workflow_version_number=self.workflow_version_number,
            return_all_outputs=self.return_all_outputs,
            callback_url=self.callback_url,
        )

        def how_to_find(try_number: int | None) -> str:
            named = {key: metadata[key] for key in where_from if key != "airflow_try_number"}
            if try_number is not None:
                named["airflow_try_number"] = str(try_number)
            shown = ", ".join(f"{key}={one_line(repr(text), 260)}" for key, text in named.items())
            return f"look in PromptLayer for a run with the metadata {shown}"

        return Submission(
            call,
            how_to_find,
            not_input=("metadata", "return_all_outputs"),
            send=lambda: self.hook.start_run(call),
        )

    def prepare_start(self) -> None:
        """Check the input variables, if that is asked for."""
        if self.check_inputs:
            self.hook.check_workflow_inputs(
                self.workflow_id_or_name,
                input_variables=self.input_variables,
                workflow_label_name=self.workflow_label_name,
                workflow_version_number=self.workflow_version_number,
                max_outage=self.max_outage,
            )


def refuse_version(task: Any) -> None:
    """Refuse arguments that cannot say which version of a workflow runs, as they are written."""
    task.refuse_constants(
        workflow_id_or_name=lambda _, value: path_segment(value),
        workflow_version_number=positive,
    )
    if task.are_constant("workflow_label_name", "workflow_version_number"):
        refuse_two_versions(task.workflow_label_name, task.workflow_version_number)


def origin(context: Context) -> dict[str, str]:
    """Return where a run comes from, as metadata by which it is found in PromptLayer."""
    ti = context["ti"]
    return {
        "airflow_dag_id": ti.dag_id,
        "airflow_run_id": ti.run_id,
        "airflow_task_id": ti.task_id,
        "airflow_map_index": str(ti.map_index),
        "airflow_try_number": str(ti.try_number),
    }
