# SPDX-License-Identifier: Apache-2.0
"""Tell failures apart: which of them are retried, and what people are told about each.

In the params, the `workflow` gets the `topic`; `table` and `sheet` are the titles of what is
judged. An alert is a line of the failed task's log that begins with ALERT.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_promptlayer.exceptions import (
    PromptLayerAuthError,
    PromptLayerEvaluationFailedError,
    PromptLayerOutageError,
    PromptLayerRunFailedError,
    PromptLayerStartUncertainError,
    PromptLayerWaitTimeoutError,
)
from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerRunScorecardOperator,
    PromptLayerRunWorkflowOperator,
)

# The operators decide what a retry can help with. A gate that has failed, a start that is uncertain
# and a time-out fail for good. For the rest, Airflow 3.3 and later ask a policy.
try:
    from airflow.providers.common.compat.sdk import ExceptionRetryPolicy, RetryAction, RetryRule
except ImportError:
    POLICY: dict[str, Any] = {}
else:
    rules = [
        # Another run costs money, and the workflow is the same. By default a retry starts one.
        RetryRule(PromptLayerRunFailedError, RetryAction.FAIL, reason="the run has failed"),
        RetryRule(PromptLayerAuthError, RetryAction.FAIL, reason="the key is refused"),
        RetryRule(PromptLayerOutageError, retry_delay=timedelta(minutes=30), reason="an outage"),
    ]
    POLICY = {"retry_policy": ExceptionRetryPolicy(rules=rules)}

WHAT_TO_DO = {
    PromptLayerStartUncertainError: "may have been started: look for it before you clear the task",
    PromptLayerRunFailedError: "has failed: correct the workflow or its input",
    PromptLayerEvaluationFailedError: "does not pass: do not release this version",
    PromptLayerWaitTimeoutError: "is late, and goes on: give it more time",
    PromptLayerOutageError: "cannot be seen, as PromptLayer is out of reach: clear the task later",
}


def tell(context: Any) -> None:
    """Send an alert; here, to the log."""
    error = context.get("exception")
    advice = [text for its_class, text in WHAT_TO_DO.items() if isinstance(error, its_class)]
    if advice:
        print(f"ALERT: {error.external_id or 'a job'} {advice[0]}. {error.url or ''}")
    else:
        print(f"ALERT: the task has failed: {error}")


# Those of the local PromptLayer. Give your own.
PARAMS: Any = {
    "workflow": "Article pipeline",
    "topic": "tea",
    "table": "Support answers",
    "sheet": "Regression set",
}

with DAG(
    dag_id="promptlayer_tell_failures_apart",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    params=PARAMS,
    default_args={"retries": 2, "on_failure_callback": tell, **POLICY},
    doc_md=__doc__,
    tags=["promptlayer", "example"],
):
    run = PromptLayerRunWorkflowOperator(
        task_id="run",
        workflow_id_or_name="{{ params.workflow }}",
        input_variables={"topic": "{{ params.topic }}"},
        timeout=timedelta(minutes=30),
    )
    gate = PromptLayerRunScorecardOperator(
        task_id="gate", table="{{ params.table }}", sheet="{{ params.sheet }}", min_score=0.8
    )
    run >> gate
