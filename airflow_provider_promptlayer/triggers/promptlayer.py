# SPDX-License-Identifier: Apache-2.0
"""The triggers, one for each kind of thing to wait for."""

from __future__ import annotations

from typing import Any

from airflow_provider_promptlayer.api.arguments import execution_id
from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.triggers.base import PromptLayerTrigger


class PromptLayerWorkflowTrigger(PromptLayerTrigger):
    """Wait in the triggerer until a workflow run has ended.

    :param workflow_version_execution_id: the run.
    :param kwargs: how to wait, see :class:`.base.PromptLayerTrigger`.
    """

    def __init__(self, *, workflow_version_execution_id: int | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.workflow_version_execution_id = workflow_version_execution_id

    def ids(self) -> dict[str, Any]:
        """Return the run's id."""
        return {"workflow_version_execution_id": self.workflow_version_execution_id}

    def subject(self) -> WorkflowRun:
        """Return the run."""
        return WorkflowRun(execution_id(self.workflow_version_execution_id))
