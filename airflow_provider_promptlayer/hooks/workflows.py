# SPDX-License-Identifier: Apache-2.0
"""The hook's methods for workflows: start a run, get its results, wait for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.workflows import (
    StartedRun,
    WorkflowResults,
    WorkflowRun,
    check_inputs,
    run_workflow,
)
from airflow_provider_promptlayer.hooks.base import PromptLayerConnectionHook, Wait, twins
from airflow_provider_promptlayer.outcomes.workflows import FailOn, check_fail_on, raise_for_outcome
from airflow_provider_promptlayer.polling import retries
from airflow_provider_promptlayer.polling.loop import Loop, ask_with_backoff, poll_until_ended
from airflow_provider_promptlayer.polling.poller import DEFAULT_MAX_OUTAGE, Poller
from airflow_provider_promptlayer.polling.retries import RetryPolicy


class WorkflowMethods(PromptLayerConnectionHook):
    """The methods for workflows of :class:`.PromptLayerHook`."""

    def _run_workflow(
        self,
        workflow_id_or_name: int | str,
        *,
        input_variables: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        workflow_label_name: str | None = None,
        workflow_version_number: int | str | None = None,
        return_all_outputs: bool = True,
        callback_url: str | None = None,
    ) -> Loop[int]:
        """Start a run of a workflow and return without waiting for it.

        PromptLayer has no idempotency key, so a second POST would be a second, billed run. The POST
        is sent again, a few times and with growing pauses, only if it certainly started nothing: no
        connection was made, or the answer was 429, or a 503 that says so.

        :param workflow_id_or_name: name or numeric id.
        :param input_variables: the workflow's input; anything that JSON can hold.
        :param metadata: strings to find the run by in PromptLayer.
        :param workflow_label_name: run the version with this release label.
        :param workflow_version_number: run this version; excludes the label. Without either,
            the latest version runs.
        :param return_all_outputs: sent as it is; it does not change how results are read.
        :param callback_url: where PromptLayer posts the results when the run ends.
        :returns: the run's ``workflow_version_execution_id``.
        :raises PromptLayerStartUncertainError: if a run may have been started and its id is not
            known.
        """
        return self._start_run(
            run_workflow(
                workflow_id_or_name,
                input_variables=input_variables,
                metadata=metadata,
                workflow_label_name=workflow_label_name,
                workflow_version_number=workflow_version_number,
                return_all_outputs=return_all_outputs,
                callback_url=callback_url,
            )
        )

    run_workflow, arun_workflow = twins(_run_workflow)

    def _check_workflow_inputs(
        self,
        workflow_id_or_name: int | str,
        *,
        input_variables: Mapping[str, Any] | None = None,
        workflow_label_name: str | None = None,
        workflow_version_number: int | str | None = None,
        max_outage: float = DEFAULT_MAX_OUTAGE,
    ) -> Loop[None]:
        """Return if a run would have all input variables that the workflow requires.

        Arguments: :meth:`run_workflow`. Passes where PromptLayer does not say what is required.

        :param max_outage: seconds for which PromptLayer may be out of reach.
        :raises PromptLayerInvalidInputError: naming those that are missing.
        """
        call = check_inputs(
            workflow_id_or_name,
            input_variables=input_variables,
            workflow_label_name=workflow_label_name,
            workflow_version_number=workflow_version_number,
        )
        policy = retries.POLLING.within(max_outage)
        return ask_with_backoff(Poller.of_call("the inputs of the workflow", policy), call)

    check_workflow_inputs, acheck_workflow_inputs = twins(_check_workflow_inputs)

    def start_run(self, call: Call[StartedRun], policy: RetryPolicy | None = None) -> int:
        """Send a start that is built already, as :meth:`run_workflow` does.

        :param call: from :func:`.run_workflow`.
        :param policy: when to send it again; None for ``SUBMITTING``.
        """
        return self._run(self._start_run(call, policy))

    def _start_run(self, call: Call[StartedRun], policy: RetryPolicy | None = None) -> Loop[int]:
        run = yield from self._submit(call, policy)
        self.log.info("PromptLayer started workflow run %s.", run.workflow_version_execution_id)
        if run.warning:
            self.log.warning("PromptLayer warns: %s", run.warning)
        return run.workflow_version_execution_id

    def _get_workflow_results(
        self, workflow_version_execution_id: int | str, *, return_all_outputs: bool = True
    ) -> Loop[WorkflowResults]:
        """Poll a run once. Does not wait, and does not raise for how it ended.

        :param workflow_version_execution_id: as int or digits in a string.
        :param return_all_outputs: False asks for the main output alone: ``nodes`` is then empty
            once the run has ended, and nothing tells whether it succeeded.
        """
        run = WorkflowRun.of(workflow_version_execution_id)
        results: WorkflowResults = yield run.results_call(return_all_outputs=return_all_outputs)
        return results

    get_workflow_results, aget_workflow_results = twins(_get_workflow_results)

    def _wait_for_workflow_results(
        self,
        workflow_version_execution_id: int | str,
        *,
        timeout: float,
        poke_interval: float | None = None,
        max_outage: float = DEFAULT_MAX_OUTAGE,
        fail_on: FailOn = "no_output",
    ) -> Wait[WorkflowResults]:
        """Wait for a run to end; for use inside ``@task`` functions. Holds the worker.

        Retries failed polls, as the sensor does.

        :param timeout: seconds to wait at most.
        :param poke_interval: seconds between two polls; None for intervals that grow with the wait.
        :param max_outage: seconds for which PromptLayer may be out of reach.
        :param fail_on: which ending counts as a failure, see :data:`FailOn`.
        :raises PromptLayerRunFailedError: if ``fail_on`` calls for it; has the results.
        :raises PromptLayerWaitTimeoutError: if the run did not end in time. It goes on.
        :raises PromptLayerOutageError: if PromptLayer was out of reach for too long.
        """
        run = WorkflowRun.of(workflow_version_execution_id)
        check_fail_on(fail_on)
        poller = self._new_poller(run, timeout, poke_interval, max_outage)

        def loop() -> Loop[WorkflowResults]:
            results = yield from poll_until_ended(poller, run.fetch_call())
            raise_for_outcome(results, fail_on)
            return results

        return Wait(poller, loop())

    wait_for_workflow_results, await_for_workflow_results = twins(_wait_for_workflow_results)
