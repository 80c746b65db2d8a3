# SPDX-License-Identifier: Apache-2.0
"""Tasks whose process is killed in the middle of their first try, or that take too long."""

from __future__ import annotations

import os
import signal
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowOperator


class Dying(PromptLayerRunWorkflowOperator):
    """Dies once, at ``moment``: ``sent``, ``noted`` or ``resuming``."""

    def __init__(self, *, moment: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.moment = moment

    def execute(self, context: Any) -> Any:
        if self.moment == "sent" and context["ti"].try_number == 1:
            self.__dict__["hook"] = _DyingHook(self.promptlayer_conn_id)
        return super().execute(context)

    def get_job(self, context: Any) -> int:
        run_id = super().get_job(context)
        self._die_if("noted", context)
        return run_id

    def execute_complete(self, context: Any, event: Any = None, waiting: Any = None) -> Any:
        self._die_if("resuming", context)
        return super().execute_complete(context, event, waiting)

    def _die_if(self, moment: str, context: Any) -> None:
        if self.moment == moment and context["ti"].try_number == 1:
            os.kill(os.getpid(), signal.SIGKILL)


class _DyingHook(PromptLayerHook):
    def start_run(self, call: Any) -> int:
        run_id = super().start_run(call)
        os.kill(os.getpid(), signal.SIGKILL)
        return run_id


with DAG(dag_id="live_crashes", schedule=None, start_date=datetime(2026, 1, 1), catchup=False):
    for when in ("sent", "noted", "resuming"):
        Dying(
            task_id=when,
            moment=when,
            workflow_id_or_name="Brief wait",  # so that there is a deferral to resume from
            input_variables={"ticket": when},
            retries=2,
            retry_delay=timedelta(seconds=1),
        )
    PromptLayerRunWorkflowOperator(
        task_id="overdue",
        workflow_id_or_name="Never",
        poke_interval=timedelta(seconds=5),
        execution_timeout=timedelta(seconds=80),
        timeout=timedelta(seconds=100),  # ends it where execution_timeout does not count
        retries=2,
        retry_delay=timedelta(seconds=1),
    )
