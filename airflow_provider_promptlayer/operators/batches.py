# SPDX-License-Identifier: Apache-2.0
"""The operator for many runs at once: one task, one wait, one list of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from airflow_provider_promptlayer.api.arguments import items, text_mapping
from airflow_provider_promptlayer.api.links import Page
from airflow_provider_promptlayer.bases.batch import PromptLayerBatchSubmitter
from airflow_provider_promptlayer.bases.batch_inputs import BatchInputs
from airflow_provider_promptlayer.operators.workflows import origin, refuse_version

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg

    from airflow_provider_promptlayer.bases.arguments import RunWorkflowBatchKwargs


class PromptLayerRunWorkflowBatchOperator(PromptLayerBatchSubmitter):
    """Run a workflow for each of many inputs, wait for all runs, and return a list of results.

    A thousand mapped tasks cost Airflow a thousand worker starts, and another thousand when they
    come back from the triggerer. This is one task: it starts the runs, eight at a time, leaves the
    worker, and waits for all of them in one trigger.

    - ``return_value``: a list in the order of ``inputs``. For each, ``{node name: value}`` of every
      node that succeeded; the bare main output with ``return_all_outputs=False``; None where the
      input failed.
    - ``promptlayer_execution_ids``: the runs in the same order, None for an input without one. They
      are pushed before the task leaves the worker, and when a start has failed.
    - ``promptlayer_errors``: why each input failed, as text; None where it did not.

    The task pushes all three also when it fails because too few inputs succeeded.

    **A failed input does not fail the others.** An input fails if its run does, by ``fail_on``; if
    it cannot be sent or PromptLayer refuses it (400, 413, 422); if the answer to its start is lost,
    or PromptLayer does not know its run any more. An error that all inputs would meet (the key, an
    unknown workflow, the connection) ends the task at once, and says that the runs which were
    started go on. While PromptLayer cannot be reached, or refuses more starts for the moment, the
    task waits for the runs that go on, and then tries the start again.

    **Never two runs where one was meant**, for each input alone, as
    :class:`.PromptLayerRunWorkflowOperator` has it. On Airflow 3.3 and later the task notes each
    start before it is sent, and each run. A retry goes back to the runs that go on or have
    succeeded, and starts again the inputs whose run has failed. Where the worker died while it sent
    starts, at most ``start_concurrency`` of them, it is unknown whether these arrived: their inputs
    fail, their errors say how to look for the runs, and clearing the task after that starts the
    inputs again. A task that is cleared before it
    has succeeded goes back to its runs as a retry does, but not to those of inputs that have
    changed; one that is cleared after it has succeeded starts all runs anew. Airflow 3.4 drops the
    notes when the task is cleared: such a task starts all runs anew, unless it is cleared with
    ``keep_task_state`` or together with its whole DAG run.

    **Inputs are recognized wherever they stand in the list**, which a retry, a clear or the end of
    a deferral may render in another order, with more inputs or with fewer. The results are in the
    order of the list that was rendered last.

    **No run is started for nothing.** Once ``min_success_rate`` cannot be reached any more, the
    task starts no more runs, waits for those that go on, and fails. When the time is up, the task
    returns the results of the runs that have ended. The others are in ``promptlayer_errors``, with
    the ids of their runs, and ``min_success_rate`` decides whether the task succeeds.

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
    :param start_concurrency: how many starts may be under way at a time. After a 429 the task sends
        half as many, and later more again. The first start is sent alone, as a wrong key or an
        unknown workflow concerns them all.
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
    :param fail_on: which outcome of a run counts as a failure: ``"no_output"`` (no output node
        succeeded), ``"any_node"`` (that, or any node failed) or ``"never"``.
    :param timeout: seconds (or a ``timedelta``) for the whole batch, starts included. The runs are
        not cancelled.
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

    def __init__(
        self,
        *,
        workflow_id_or_name: int | str | XComArg,
        inputs: Sequence[Mapping[str, Any]] | str | XComArg,
        metadata: Mapping[str, Any] | str | XComArg | None = None,
        workflow_label_name: str | XComArg | None = None,
        workflow_version_number: int | str | XComArg | None = None,
        **kwargs: Unpack[RunWorkflowBatchKwargs],
    ) -> None:
        super().__init__(**kwargs)
        self.workflow_id_or_name: Any = workflow_id_or_name
        self.inputs: Any = inputs
        self.metadata: Any = metadata
        self.workflow_label_name: Any = workflow_label_name
        self.workflow_version_number: Any = workflow_version_number
        refuse_version(self)
        self.refuse_constants(metadata=text_mapping)
        if not isinstance(inputs, list):  # a long one would take time at each parse
            self.refuse_constants(inputs=items)

    @property
    def page(self) -> Page:
        """The web page of the workflow."""
        return Page("workflow", (self.workflow_id_or_name,))

    def new_inputs(self, context: Context) -> BatchInputs:
        """Return the inputs, each with what is sent along."""
        return BatchInputs(
            self.inputs,
            self.workflow_id_or_name,
            self.metadata,
            origin(context),
            {
                "workflow_label_name": self.workflow_label_name,
                "workflow_version_number": self.workflow_version_number,
                "return_all_outputs": self.return_all_outputs,
            },
            self.log,
        )
