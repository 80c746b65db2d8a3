# SPDX-License-Identifier: Apache-2.0
"""Call PromptLayer from a function of one's own, for what no operator does.

The function holds a worker while it waits, and a retry would start other runs.
"""

from __future__ import annotations

from datetime import datetime

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook

with DAG(
    dag_id="promptlayer_hook_in_task",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    doc_md=__doc__,
    tags=["promptlayer", "example"],
) as dag:
    # Without retries, as each would start two more runs: an operator goes back to its own.
    @task(retries=0)
    def longer_summary(topics: list[str]) -> str:
        hook = PromptLayerHook()  # of the connection promptlayer_default
        runs = [
            hook.run_workflow("Article pipeline", input_variables={"topic": topic})
            for topic in topics
        ]
        # Holds the worker meanwhile, which an operator does not.
        results = [hook.wait_for_workflow_results(run, timeout=600) for run in runs]
        summaries: list[str] = [found.outputs["Summarize"] for found in results]
        return max(summaries, key=len)

    longer_summary(["tea", "coffee"])
