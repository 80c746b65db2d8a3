# SPDX-License-Identifier: Apache-2.0
"""The sensor: waits for a run that something else started."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_promptlayer.api.arguments import execution_id
from airflow_provider_promptlayer.api.workflows import WorkflowResults, WorkflowRun
from airflow_provider_promptlayer.workflow_waiting import PromptLayerWorkflowWaiter

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context, XComArg


class PromptLayerWorkflowSensor(PromptLayerWorkflowWaiter):
    """Wait until a workflow run has ended, and fail if it ended badly.

    Looks once in the worker, then waits in the triggerer; with ``deferrable=False`` in the worker
    (``mode="poke"``) or between reschedules (``mode="reschedule"``). A run that has ended cannot
    get better, so its failure does not use up the task's retries.

    :param workflow_version_execution_id: the run, as int or digits in a string. Templated.
    :param promptlayer_conn_id: id of the Airflow connection. Templated.
    :param deferrable: wait in the triggerer, without holding a worker.
    :param fail_on: ``"no_output"`` (no output node succeeded), ``"any_node"`` (that, or any node
        failed) or ``"never"``.
    :param poke_interval: seconds (or a ``timedelta``) between two looks, kept to exactly. None for
        a pace that fits the work: the first looks come soon, then ever more rarely.
    :param timeout: seconds (or a ``timedelta``) after which the wait fails; the run goes on.
    :param max_outage: seconds (or a ``timedelta``) for which PromptLayer may be out of reach.
    :param kwargs: what Airflow's sensors take, such as ``mode``, ``soft_fail``, ``never_fail``,
        ``exponential_backoff`` and ``max_wait``.
    :returns: the id of the run, so that tasks can be chained.
    """

    template_fields: Sequence[str] = (
        "workflow_version_execution_id",
        "promptlayer_conn_id",
    )

    def __init__(
        self, *, workflow_version_execution_id: int | str | XComArg, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.workflow_version_execution_id = workflow_version_execution_id

    def identify(self, context: Context) -> WorkflowRun:  # noqa: ARG002
        """Return the run whose id was given.

        :raises PromptLayerInvalidInputError: if it is not a positive integer.
        """
        return WorkflowRun(execution_id(self.workflow_version_execution_id))

    def recall(self, context: Context) -> WorkflowRun:
        """Return the run whose id was given, which does not change."""
        return self.identify(context)

    def deliver(self, context: Context, ending: WorkflowResults) -> int:  # noqa: ARG002
        """Return the id of the run."""
        return ending.workflow_version_execution_id
