# SPDX-License-Identifier: Apache-2.0
"""Workflow runs as a kind of job: what the sensor and the operators share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_promptlayer.api.workflows import WorkflowResults, WorkflowRun
from airflow_provider_promptlayer.bases.kind import JobKind, Push, ResultOnly
from airflow_provider_promptlayer.bases.waiter import PromptLayerWaiter
from airflow_provider_promptlayer.outcomes.workflows import (
    FailOn,
    PromptLayerRunFailedError,
    check_fail_on,
    raise_for_outcome,
)
from airflow_provider_promptlayer.xcom import outputs as xcom


class WorkflowTask(PromptLayerWaiter[WorkflowResults]):
    """Base of the tasks that wait for a workflow run; those say what the arguments mean."""

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
            may_resubmit=lambda _: True,
        )


class RunOutputs:
    """The outputs of one run, which go to XCom in a form that Airflow can store.

    :param nodes: whose outputs to push; None for those of all nodes.
    :param return_all_outputs: False returns the bare main output.
    :param push_node_xcoms: whether each node has an XCom of its own.
    """

    def __init__(
        self,
        results: WorkflowResults,
        nodes: Sequence[str] | None,
        *,
        return_all_outputs: bool,
        push_node_xcoms: bool,
    ) -> None:
        self.metadata = {xcom.NODE_STATUSES_KEY: xcom.statuses(results.nodes)}
        self._results = results
        self._nodes = nodes
        self._returns_all = return_all_outputs
        self._pushes_nodes = push_node_xcoms
        self._warnings = xcom.StorageWarnings(results)
        self._size = 0

    def push(self, push: Push) -> Any:
        """Push the outputs; return the task's result.

        :raises PromptLayerInvalidInputError: for a node that the run does not have.
        """
        results = self._results
        selected = xcom.select(results, self._nodes)
        outputs = xcom.storable_outputs(selected, results.nodes, self._warnings)
        self._size = outputs.size
        if self._pushes_nodes:
            for name, value in outputs.by_node.items():
                self._push_node(name, value, push)
        final_output = outputs.final(results)
        push(xcom.FINAL_OUTPUT_KEY, final_output)
        return outputs.by_stored_name if self._returns_all else final_output

    def warnings(self) -> list[str]:
        """Return the lines to log about the values in XCom."""
        hint = xcom.size_hint(self._size)
        return [*self._warnings.lines(), *([hint] if hint else [])]

    def _push_node(self, name: str, value: Any, push: Push) -> None:
        is_kept = xcom.storable_key(name)
        try:
            if is_kept:
                push(name, value)
        except UnicodeError:  # dag.test() takes names in ASCII alone
            is_kept = False
        if not is_kept:
            where = "; its value is in return_value" if self._returns_all else ""
            self._warnings.add(
                name,
                "has no XCom of its own, because Airflow cannot keep one under that name" + where,
            )
