# SPDX-License-Identifier: Apache-2.0
"""Batches: one that just runs, and one whose process is killed between two starts."""

from __future__ import annotations

import json
import os
import signal
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowBatchOperator

SIZE = 20


class Dying(PromptLayerRunWorkflowBatchOperator):
    """Dies once, before or after the start of the eighth input."""

    def __init__(self, *, moment: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.moment = moment

    def execute(self, context: Any) -> Any:
        if context["ti"].try_number == 1:
            hook = _DyingHook(self.promptlayer_conn_id)
            hook.moment = self.moment
            self.__dict__["hook"] = hook
        return super().execute(context)


class _DyingHook(PromptLayerHook):
    moment = ""

    def start_run(self, call: Any, *how: Any) -> int:
        is_it = json.loads(call.request.body)["metadata"]["airflow_batch_index"] == "7"
        if is_it and self.moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        run_id = super().start_run(call, *how)
        if is_it and self.moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return run_id


with DAG(dag_id="live_batches", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):

    @task
    def tickets() -> list[dict[str, str]]:
        return [{"ticket": f"ticket {number}"} for number in range(SIZE)]

    PromptLayerRunWorkflowBatchOperator(
        task_id="plain", workflow_id_or_name="Brief wait", inputs=tickets()
    )
    PromptLayerRunWorkflowBatchOperator(
        task_id="few_at_a_time",
        workflow_id_or_name="Brief wait",
        inputs=[{"ticket": str(number)} for number in range(6)],
        max_active_runs=4,
        return_all_outputs=False,
    )
    for when in ("before", "after"):
        Dying(
            task_id=f"killed_{when}",
            moment=when,
            workflow_id_or_name="Brief wait",
            inputs=[{"ticket": str(number)} for number in range(SIZE)],
            min_success_rate=0.95,
            start_concurrency=1,  # so that one start alone is uncertain
            retries=2,
            retry_delay=timedelta(seconds=1),
        )
