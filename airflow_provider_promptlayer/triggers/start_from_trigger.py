# SPDX-License-Identifier: Apache-2.0
"""A wait that begins in the triggerer, with no worker before it.

The trigger's arguments were written when the DAG was parsed, so they cannot hold a point in time.
Airflow's own time-out of the deferral can: Airflow sets it once for each try, keeps it in the
database, and hands it to every triggerer that takes the wait over. The beginning of the wait is
computed from that time-out.
"""

from __future__ import annotations

import datetime
import time
from typing import Any

from airflow_provider_promptlayer.api.arguments import execution_id
from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.polling.state import PollState
from airflow_provider_promptlayer.triggers.promptlayer import PromptLayerWorkflowTrigger


class PromptLayerStartFromTrigger(PromptLayerWorkflowTrigger):
    """Wait for a workflow run of a task that no worker has run so far.

    Airflow renders ``workflow_version_execution_id`` and ``promptlayer_conn_id`` before it runs.

    :param timeout: seconds after which the wait fails.
    :param airflow_timeout: seconds after which Airflow ends the deferral, from the same beginning.
    :param kwargs: those of :class:`.PromptLayerWorkflowTrigger` but for ``state``.
    """

    timeout_after: datetime.datetime | None = None
    """When Airflow ends the deferral: set by the triggerer."""

    def __init__(self, *, timeout: float, airflow_timeout: float, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.timeout = timeout
        self.airflow_timeout = airflow_timeout

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments that make it anew."""
        path, kwargs = super().serialize()
        return path, {
            **kwargs,
            "timeout": self.timeout,
            "airflow_timeout": self.airflow_timeout,
        }

    def _new_state(self) -> PollState[WorkflowRun]:
        began_at = time.time()
        if (ends := self.timeout_after) is not None:
            if ends.tzinfo is None:  # as some databases return it
                ends = ends.replace(tzinfo=datetime.UTC)
            began_at = ends.timestamp() - self.airflow_timeout
        run = WorkflowRun(execution_id(self.workflow_version_execution_id))
        return PollState(run, began_at, began_at + self.timeout)
