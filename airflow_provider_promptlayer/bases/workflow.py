# SPDX-License-Identifier: Apache-2.0
"""Workflow runs as a kind of job: what the sensor and the operators share."""

from __future__ import annotations

from typing import Any

from airflow_provider_promptlayer.api.workflows import WorkflowResults, WorkflowRun
from airflow_provider_promptlayer.bases.kind import JobKind, ResultOnly
from airflow_provider_promptlayer.bases.waiter import PromptLayerWaiter
from airflow_provider_promptlayer.outcomes.workflows import (
    FailOn,
    PromptLayerRunFailedError,
    check_fail_on,
    raise_for_outcome,
)
from airflow_provider_promptlayer.xcom import outputs as xcom


class WorkflowTask(PromptLayerWaiter[WorkflowResults]):
    """Base of the tasks that wait for a workflow run; they say what the arguments mean."""

    def __init__(self, *, fail_on: FailOn = "no_output", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_fail_on(fail_on)
        self.fail_on: FailOn = fail_on

    def new_kind(self) -> JobKind[WorkflowResults]:
        """Return workflow runs; the result of the task is the run's id."""

        def check(results: WorkflowResults) -> None:
            try:
                raise_for_outcome(results, "any_node" if self.fail_on == "never" else self.fail_on)
            except PromptLayerRunFailedError as error:
                if self.fail_on != "never":
                    raise
                self.log.warning("%s It counts as a success, as fail_on is 'never'.", error)

        return JobKind(
            job_types=(WorkflowRun,),
            id_key=xcom.EXECUTION_ID_KEY,
            trigger="PromptLayerWorkflowTrigger",
            job_from_id=WorkflowRun,
            raise_for_outcome=check,
            outputs=lambda results: ResultOnly(results.workflow_version_execution_id),
            summary=lambda results: results.summary,
            may_resubmit=lambda outcome: isinstance(outcome, WorkflowResults),
        )
