# SPDX-License-Identifier: Apache-2.0
"""The triggers, one for each kind of thing to wait for."""

from __future__ import annotations

from typing import Any

from airflow.triggers.base import TaskSuccessEvent, TriggerEvent

from airflow_provider_promptlayer.api.arguments import execution_id
from airflow_provider_promptlayer.api.endings import FailOn, judge
from airflow_provider_promptlayer.api.subjects import Subject
from airflow_provider_promptlayer.api.workflows import WorkflowRun
from airflow_provider_promptlayer.exceptions import PromptLayerError
from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.triggers.base import PromptLayerTrigger


class PromptLayerWorkflowTrigger(PromptLayerTrigger):
    """Wait in the triggerer until a workflow run has ended.

    :param workflow_version_execution_id: the run.
    :param end_from_trigger: end the task here if the run is a success; all else goes to a worker.
    :param fail_on: what counts as a success, see :data:`..api.endings.FailOn`.
    :param kwargs: how to wait, see :class:`.base.PromptLayerTrigger`.
    """

    def __init__(
        self,
        *,
        workflow_version_execution_id: int | str,
        end_from_trigger: bool = False,
        fail_on: FailOn = "no_output",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.workflow_version_execution_id = workflow_version_execution_id
        self.end_from_trigger = end_from_trigger
        self.fail_on: FailOn = fail_on

    def ids(self) -> dict[str, Any]:
        """Return the run's id."""
        return {"workflow_version_execution_id": self.workflow_version_execution_id}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class's path and the arguments that make it anew."""
        path, kwargs = super().serialize()
        if self.end_from_trigger:  # a triggerer of an earlier release does not know these
            kwargs |= {"end_from_trigger": True, "fail_on": self.fail_on}
        return path, kwargs

    def subject(self) -> WorkflowRun:
        """Return the run."""
        return WorkflowRun(execution_id(self.workflow_version_execution_id))

    async def ended(self, hook: PromptLayerHook, subject: Subject[Any]) -> TriggerEvent:
        """Return the event for a run that has ended: the end of the task, if that is sure."""
        if self.end_from_trigger and await self._is_success(hook, subject):
            self.log.info("%s has ended well. The task ends here, without a worker.", subject)
            return TaskSuccessEvent()
        return await super().ended(hook, subject)

    async def _is_success(self, hook: PromptLayerHook, subject: Subject[Any]) -> bool:
        """Return whether the run is a success for certain; where not, a worker finds out."""
        try:
            results = await hook.acall(subject.read())
            judge(results, self.fail_on)
        except PromptLayerError as error:
            self.log.info("A worker takes over, to end the task: %s", error)
            return False
        return bool(results.is_complete)
