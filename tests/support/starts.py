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
from support.kinds import PIPELINES, SHEETS, TABLE, Fate
from support.modes import Ending, FakeTaskInstance, Store, run_task


@dataclass(frozen=True)
class Start:
    """An operator that starts a job on the server of :func:`.kinds.new_server`.

    :param id_key: under which key the operator pushes the id to XCom.
    :param id_name: what PromptLayer calls the id.
    :param begin: starts the same elsewhere; returns the id.
    :param started: what was started, by id.
    """

    operator: type
    arguments: Callable[[Fate], dict[str, Any]]
    id_key: str
    id_name: str
    begin: Callable[[LocalPromptLayer, Fate], Any]
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


def at(fate: Fate) -> dict[str, Any]:
    """Return the ids of a sheet."""
    return {"table_id": TABLE.id, "sheet_id": SHEETS[fate].id}


RUN_WORKFLOW = Start(
    PromptLayerRunWorkflowOperator,
    lambda fate: {"workflow_id_or_name": fate},
    "promptlayer_execution_id",
    "workflow_version_execution_id",
    lambda server, fate: server.start_execution(fate),
    lambda server: server.executions,
)
RUN_TABLE = Start(
    PromptLayerRunTableOperator,
    at,
    "promptlayer_operation_id",
    "operation_id",
    lambda server, fate: server.start_operation(**at(fate)),
    lambda server: server.operations,
)
RUN_SCORECARD = Start(
    PromptLayerRunScorecardOperator,
    at,
    "promptlayer_calculation_id",
    "calculation_id",
    lambda server, fate: server.start_calculation(**at(fate)),
    lambda server: server.calculations,
)
RUN_REPORT = Start(
    PromptLayerRunReportOperator,
    lambda fate: {"report_id": PIPELINES[fate], "name": "nightly"},
    "promptlayer_report_id",
    "report_id",
    lambda server, fate: server.start_report(PIPELINES[fate], "nightly"),
    lambda server: server.reports,
)
STARTS = {
    "workflow run": RUN_WORKFLOW,
    "table operation": RUN_TABLE,
    "scorecard calculation": RUN_SCORECARD,
    "report": RUN_REPORT,
}
every_start = pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
every_evaluation = pytest.mark.parametrize(
    "start", [RUN_TABLE, RUN_SCORECARD, RUN_REPORT], ids=["table", "scorecard", "report"]
)
