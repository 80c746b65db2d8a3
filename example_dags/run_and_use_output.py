# SPDX-License-Identifier: Apache-2.0
"""Run a workflow and use what it wrote in the next task.

In the params, `workflow` is its name, and `input_variables` are what it takes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_promptlayer.operators.promptlayer import PromptLayerRunWorkflowOperator

PARAMS: Any = {"workflow": "Article pipeline", "input_variables": {"topic": "tea"}}

with DAG(
    dag_id="promptlayer_run_and_use_output",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    params=PARAMS,
    # Hands {{ params.input_variables }} on as the mapping that it is, not as its text.
    render_template_as_native_obj=True,
    doc_md=__doc__,
    tags=["promptlayer", "example"],
):
    write_article = PromptLayerRunWorkflowOperator(
        task_id="write_article",
        workflow_id_or_name="{{ params.workflow }}",
        input_variables="{{ params.input_variables }}",
    )

    @task
    def publish(article: Any) -> None:
        print(f"Publishing: {article}")

    # The main output. One node's output has the node's name: write_article.output["Summarize"].
    publish(write_article.output["promptlayer_final_output"])
