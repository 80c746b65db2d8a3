# SPDX-License-Identifier: Apache-2.0
"""Every operator that starts a job and waits for it, with what it takes for each fate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerRunReportOperator,
    PromptLayerRunScorecardOperator,
    PromptLayerRunTableOperator,
    PromptLayerRunWorkflowOperator,
)
from airflow_provider_promptlayer.testing import LocalPromptLayer
from support.kinds import (
    PIPELINES,
    REPORT,
    SCORECARD_CALCULATION,
    TABLE_OPERATION,
    WORKFLOW_RUN,
    Fate,
    Kind,
    at,
)
from support.modes import Ending, FakeTaskInstance, Store, run_task


@dataclass(frozen=True)
class Start:
    """An operator that starts a job on the server of :func:`.kinds.new_server`.

    :param id_key: under which key the operator pushes the id to XCom.
    :param started: returns the jobs that were started, by id.
    """

    kind: Kind
    operator: type
    arguments: Callable[[Fate], dict[str, Any]]
    id_key: str
    started: Callable[[LocalPromptLayer], dict[Any, Any]]

    def make(self, fate: Fate = "good", **arguments: Any) -> Any:
        """Return a task."""
        return self.operator(
            **{
                "task_id": "task",
                "poke_interval": 0.02,
                "retries": 2,
                **self.arguments(fate),
                **arguments,
            }
        )

    def run(
        self,
        store: Store | None = None,
        fate: Fate = "good",
        *,
        number: int = 1,
        max_tries: int = 2,
        carrier: str | None = None,
        **arguments: Any,
    ) -> Ending:
        """Run a try of the task.

        :param number: which try.
        :param max_tries: another one than before is that of a task that was cleared.
        :param carrier: the trace context; also another one after a clear.
        """
        return run_task(
            lambda: self.make(fate, **arguments),
            FakeTaskInstance(
                try_number=number,
                max_tries=max_tries,
                context_carrier=None if carrier is None else {"traceparent": carrier},
            ),
            **({} if store is None else {"task_state_store": store}),
        )


def deferred(
    task: Any, store: Store | None = None, ti: FakeTaskInstance | None = None
) -> TaskDeferred:
    """Let a task leave the worker."""
    context = {"ti": ti or FakeTaskInstance(max_tries=2), "run_id": "manual__1"}
    with pytest.raises(TaskDeferred) as deferral:
        task.execute(context if store is None else {**context, "task_state_store": store})
    return deferral.value


RUN_WORKFLOW = Start(
    WORKFLOW_RUN,
    PromptLayerRunWorkflowOperator,
    lambda fate: {"workflow_id_or_name": fate},
    "promptlayer_execution_id",
    lambda server: server.executions,
)
RUN_TABLE = Start(
    TABLE_OPERATION,
    PromptLayerRunTableOperator,
    at,
    "promptlayer_operation_id",
    lambda server: server.operations,
)
RUN_SCORECARD = Start(
    SCORECARD_CALCULATION,
    PromptLayerRunScorecardOperator,
    at,
    "promptlayer_calculation_id",
    lambda server: server.calculations,
)
RUN_REPORT = Start(
    REPORT,
    PromptLayerRunReportOperator,
    lambda fate: {"report_id": PIPELINES[fate], "name": "nightly"},
    "promptlayer_report_id",
    lambda server: server.reports,
)
STARTS = {start.kind.name: start for start in (RUN_WORKFLOW, RUN_TABLE, RUN_SCORECARD, RUN_REPORT)}
every_start = pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
every_evaluation = pytest.mark.parametrize(
    "start", [RUN_TABLE, RUN_SCORECARD, RUN_REPORT], ids=["table", "scorecard", "report"]
)
