# SPDX-License-Identifier: Apache-2.0
"""Run a workflow once for each of a list of inputs, and gather the outputs.

Each input is a mapped task: it has its own log, and can be cleared by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowOperator

with DAG(
    dag_id="promptlayer_fan_out",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    doc_md=__doc__,
    tags=["promptlayer", "example"],
):

    @task
    def list_topics() -> list[dict[str, str]]:
        return [{"topic": topic} for topic in ("tea", "coffee", "water")]

    write_articles = PromptLayerRunWorkflowOperator.partial(
        task_id="write_articles",
        workflow_id_or_name="Article pipeline",
        max_active_tis_per_dagrun=16,
    ).expand(input_variables=list_topics())

    @task
    def gather(summaries: Iterable[str]) -> list[str]:
        return list(summaries)

    # The output of the node "Summarize" of each run, in the order of the inputs.
    gather(write_articles.output["Summarize"])
