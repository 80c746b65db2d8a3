# SPDX-License-Identifier: Apache-2.0
"""Every operator that starts something and waits for it, with what it takes for each fate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerRunReportOperator,
    PromptLayerRunScorecardOperator,
    PromptLayerRunTableOperator,
    PromptLayerRunWorkflowOperator,
)
from support.kinds import PIPELINES, SHEETS, TABLE, Fate
from support.modes import Ending, FakeTaskInstance, Store, run_task


@dataclass(frozen=True)
class Start:
    """An operator that starts something on the server of :func:`.kinds.new_server`."""

    operator: type
    arguments: Callable[[Fate], dict[str, Any]]
    id_key: str

    def make(self, fate: Fate = "good", **arguments: Any) -> Any:
        """Return a task."""
        return self.operator(
            **{
                "task_id": "task",
                "poke_interval": 0.05,
                "retries": 2,
                **self.arguments(fate),
                **arguments,
            }
        )

    def run(
        self,
        store: Store | None,
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


STARTS = {
    "workflow run": Start(
        PromptLayerRunWorkflowOperator,
        lambda fate: {"workflow_id_or_name": fate},
        "promptlayer_execution_id",
    ),
    "table operation": Start(
        PromptLayerRunTableOperator,
        lambda fate: {"table_id": TABLE.id, "sheet_id": SHEETS[fate].id, "statuses": []},
        "promptlayer_operation_id",
    ),
    "scorecard calculation": Start(
        PromptLayerRunScorecardOperator,
        lambda fate: {"table_id": TABLE.id, "sheet_id": SHEETS[fate].id},
        "promptlayer_calculation_id",
    ),
    "report": Start(
        PromptLayerRunReportOperator,
        lambda fate: {"report_id": PIPELINES[fate], "name": "nightly"},
        "promptlayer_report_id",
    ),
}
