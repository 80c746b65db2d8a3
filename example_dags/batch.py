# SPDX-License-Identifier: Apache-2.0
"""Run a workflow for each of many inputs in one task, and go on with what succeeded.

The task has one trigger, however many the inputs are. It fails if more than one in twenty fails.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowBatchOperator

with DAG(
    dag_id="promptlayer_batch",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    doc_md=__doc__,
    tags=["promptlayer", "example"],
):

    @task
    def list_topics() -> list[dict[str, str]]:
        return [{"topic": topic} for topic in ("tea", "coffee", "water")]

    write_articles = PromptLayerRunWorkflowBatchOperator(
        task_id="write_articles",
        workflow_id_or_name="Article pipeline",
        inputs=list_topics(),
        max_active_runs=100,
        min_success_rate=0.95,
    )

    @task
    def gather(articles: list[dict[str, Any] | None]) -> list[str]:
        # In the order of the inputs; None where one has failed.
        return [article["Summarize"] for article in articles if article is not None]

    gather(write_articles.output)
