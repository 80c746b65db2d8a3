# SPDX-License-Identifier: Apache-2.0
"""Waiting for a workflow run: the base of the sensor and the operators for workflows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_promptlayer.api.workflows import WorkflowResults, WorkflowRun
from airflow_provider_promptlayer.bases.waiter import PromptLayerWaiter
from airflow_provider_promptlayer.outcomes.workflows import (
    FailOn,
    PromptLayerRunFailedError,
    check_fail_on,
    raise_for_outcome,
)

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger


class PromptLayerWorkflowWaiter(PromptLayerWaiter[WorkflowResults]):
    """Base of everything that waits for a workflow run.

    :param fail_on: which ending counts as a failure, see :data:`.FailOn`.
    :param kwargs: how to wait, see :class:`.PromptLayerWaiter`.
    """

    job_type = WorkflowRun

    def __init__(self, *, fail_on: FailOn = "no_output", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_fail_on(fail_on)
        self.fail_on: FailOn = fail_on

    def trigger(self, **how: Any) -> BaseTrigger:
        """Return the trigger that waits for a run."""
        from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerWorkflowTrigger

        return PromptLayerWorkflowTrigger(**how)

    def raise_for_outcome(self, ending: WorkflowResults) -> None:
        """Apply ``fail_on``.

        :raises PromptLayerRunFailedError: naming each failed node.
        """
        try:
            raise_for_outcome(ending, "any_node" if self.fail_on == "never" else self.fail_on)
        except PromptLayerRunFailedError as error:
            if self.fail_on != "never":
                raise
            self.log.warning("%s It counts as a success, as fail_on is 'never'.", error)
