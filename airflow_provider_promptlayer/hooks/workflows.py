# SPDX-License-Identifier: Apache-2.0
"""What can be asked of workflows: run one, get a run's results, wait for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_promptlayer.api.arguments import execution_id
from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.workflows import (
    StartedRun,
    WorkflowResults,
    WorkflowRun,
    run_workflow,
    workflow_results,
)
from airflow_provider_promptlayer.hooks.base import PromptLayerConnectionHook
from airflow_provider_promptlayer.outcomes.workflows import FailOn, check_fail_on, raise_for_outcome
from airflow_provider_promptlayer.polling.poller import DEFAULT_MAX_OUTAGE


class WorkflowMethods(PromptLayerConnectionHook):
    """The methods for workflows of :class:`.PromptLayerHook`."""

    def run_workflow(
        self,
        workflow_id_or_name: int | str,
        *,
        input_variables: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        workflow_label_name: str | None = None,
        workflow_version_number: int | str | None = None,
        return_all_outputs: bool = True,
    ) -> int:
        """Start a run of a workflow and return without waiting for it.

        PromptLayer has no idempotency key, so a second POST would be a second, billed run. It is
        sent again, a few times and with growing pauses, only when it certainly started nothing: no
        connection was made, or the answer was 429, or a 503 that says so.

        :param workflow_id_or_name: name or numeric id.
        :param input_variables: what the workflow takes; anything that JSON can hold.
        :param metadata: strings to find the run by in PromptLayer.
        :param workflow_label_name: run the version with this release label.
        :param workflow_version_number: run this version; excludes the label. Without either,
            the latest version runs.
        :param return_all_outputs: sent as it is; how results are read is said when they are.
        :returns: the run's ``workflow_version_execution_id``.
        :raises PromptLayerStartUncertainError: if a run may have been started and its id is not
            known.
        """
        call = run_workflow(
            workflow_id_or_name,
            input_variables=input_variables,
            metadata=metadata,
            workflow_label_name=workflow_label_name,
            workflow_version_number=workflow_version_number,
            return_all_outputs=return_all_outputs,
        )
        return self.start_run(call)

    def start_run(self, call: Call[StartedRun]) -> int:
        """Send a start that was built before; does what :meth:`run_workflow` does.

        :param call: from :func:`.run_workflow`.
        """
        return self._started(self.start(call))

    async def arun_workflow(
        self,
        workflow_id_or_name: int | str,
        *,
        input_variables: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        workflow_label_name: str | None = None,
        workflow_version_number: int | str | None = None,
        return_all_outputs: bool = True,
    ) -> int:
        """Do what :meth:`run_workflow` does, without blocking the event loop."""
        call = run_workflow(
            workflow_id_or_name,
            input_variables=input_variables,
            metadata=metadata,
            workflow_label_name=workflow_label_name,
            workflow_version_number=workflow_version_number,
            return_all_outputs=return_all_outputs,
        )
        return self._started(await self.astart(call))

    def get_workflow_results(
        self, workflow_version_execution_id: int | str, *, return_all_outputs: bool = True
    ) -> WorkflowResults:
        """Poll a run once. Does not wait, and does not raise for how it ended.

        :param workflow_version_execution_id: as int or digits in a string.
        :param return_all_outputs: False asks for the main output alone: ``nodes`` is then empty
            once the run has ended, and nothing tells whether it succeeded.
        """
        return self.call(
            workflow_results(workflow_version_execution_id, return_all_outputs=return_all_outputs)
        )

    async def aget_workflow_results(
        self, workflow_version_execution_id: int | str, *, return_all_outputs: bool = True
    ) -> WorkflowResults:
        """Do what :meth:`get_workflow_results` does, without blocking the event loop."""
        return await self.acall(
            workflow_results(workflow_version_execution_id, return_all_outputs=return_all_outputs)
        )

    def wait_for_workflow_results(
        self,
        workflow_version_execution_id: int | str,
        *,
        timeout: float,
        poke_interval: float | None = None,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        fail_on: FailOn = "no_output",
    ) -> WorkflowResults:
        """Wait for a run to end; for use inside ``@task`` functions. Holds the worker.

        Rides out failed polls, as the sensor does.

        :param timeout: seconds to wait at most.
        :param poke_interval: seconds between two polls; None for intervals that grow with the wait.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        :param fail_on: which ending counts as a failure, see :data:`FailOn`.
        :raises PromptLayerRunFailedError: if the run ended badly; has the results.
        :raises PromptLayerWaitTimeoutError: if the run did not end in time. It goes on.
        :raises PromptLayerOutageError: if PromptLayer was out of reach for too long.
        """
        run = WorkflowRun(execution_id(workflow_version_execution_id))
        check_fail_on(fail_on)
        results = self._wait_for(run, timeout, poke_interval, max_outage)
        raise_for_outcome(results, fail_on)
        return results

    async def await_for_workflow_results(
        self,
        workflow_version_execution_id: int | str,
        *,
        timeout: float,  # noqa: ASYNC109 - the twin of a blocking method
        poke_interval: float | None = None,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        fail_on: FailOn = "no_output",
    ) -> WorkflowResults:
        """Do what :meth:`wait_for_workflow_results` does, without blocking the event loop."""
        run = WorkflowRun(execution_id(workflow_version_execution_id))
        check_fail_on(fail_on)
        results = await self._await_for(run, timeout, poke_interval, max_outage)
        raise_for_outcome(results, fail_on)
        return results

    def _started(self, run: StartedRun) -> int:
        self.log.info("PromptLayer started workflow run %s.", run.workflow_version_execution_id)
        if run.warning:
            self.log.warning("PromptLayer warns: %s", run.warning)
        return run.workflow_version_execution_id
