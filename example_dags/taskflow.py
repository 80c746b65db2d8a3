# SPDX-License-Identifier: Apache-2.0
"""Run workflows with what functions return: one run, one for each item of a list, and a batch.

A function returns the input variables, and its task the outputs of the run.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

with DAG(
    dag_id="promptlayer_taskflow",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    doc_md=__doc__,
    tags=["promptlayer", "example"],
):

    @task
    def list_topics() -> list[str]:
        return ["tea", "coffee"]

    # The function returns the input variables; the task returns the outputs of the run.
    @task.promptlayer_workflow(workflow_id_or_name="Article pipeline")
    def write_article(topic: str) -> dict[str, str]:
        return {"topic": topic}

    # One task and one trigger for the whole list.
    @task.promptlayer_batch(workflow_id_or_name="Article pipeline", min_success_rate=0.5)
    def write_long_articles(topics: Any) -> list[dict[str, str]]:
        return [{"topic": f"the history of {topic}"} for topic in topics]

    @task
    def gather(first: Any, others: Any, batch: Any) -> list[str]:
        articles = [first, *others, *(each for each in batch if each is not None)]
        return [article["Summarize"] for article in articles]

    topics = list_topics()
    first = write_article("water")
    others = write_article.override(task_id="write_others").expand(topic=topics)
    gather(first, others, write_long_articles(topics))
