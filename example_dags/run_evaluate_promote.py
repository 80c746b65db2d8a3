# SPDX-License-Identifier: Apache-2.0
"""Run a workflow over a list of inputs, evaluate, and promote it or leave it as it is.

In the params, `table` and `sheet` are titles, and `min_score` is what the version has to score.
Below it, `promote` is skipped.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerPromoteOperator,
    PromptLayerRunScorecardOperator,
    PromptLayerRunTableOperator,
    PromptLayerRunWorkflowBatchOperator,
)

WORKFLOW = "Article pipeline"  # give your own

PARAMS: Any = {"table": "Support answers", "sheet": "Regression set", "min_score": 0.8}

with DAG(
    dag_id="promptlayer_run_evaluate_promote",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    doc_md=__doc__,
    tags=["promptlayer", "example"],
):

    @task
    def list_topics() -> list[dict[str, str]]:
        return [{"topic": topic} for topic in ("tea", "coffee")]

    @task
    def staged_version() -> int:
        """Return the version to run and to promote, wherever staging is moved meanwhile."""
        return PromptLayerHook().get_labels(workflow=WORKFLOW)["staging"]

    version = staged_version()

    # One task for all of them: a thousand mapped ones would be two thousand workers.
    run = PromptLayerRunWorkflowBatchOperator(
        task_id="run",
        workflow_id_or_name=WORKFLOW,
        workflow_version_number=version,
        inputs=list_topics(),
    )

    evaluate = PromptLayerRunTableOperator(
        task_id="evaluate",
        table="{{ params.table }}",
        sheet="{{ params.sheet }}",
        statuses="all",  # a new version of the workflow makes no cell stale
        fail_on="never",  # the scorecard says what a row without an answer is worth
    )

    # What does not pass is no failure here: everything downstream is skipped.
    gate = PromptLayerRunScorecardOperator(
        task_id="gate",
        table="{{ params.table }}",
        sheet="{{ params.sheet }}",
        min_score="{{ params.min_score }}",
        soft_fail=True,
    )

    # A rollback is the same operator: its version is previous_version of this task's result.
    promote = PromptLayerPromoteOperator(
        task_id="promote", workflow=WORKFLOW, version=version, release_label="prod"
    )

    run >> evaluate >> gate >> promote
