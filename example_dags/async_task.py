# SPDX-License-Identifier: Apache-2.0
"""Call PromptLayer from an async function of one's own: many runs at once, in one worker.

Most methods of the hook have a twin whose name begins with `a`. The function holds a worker while
it waits, and a retry would start other runs. Airflow takes an async function as a task from 3.2 on.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook

HAS_ASYNC_TASKS = not airflow_version.startswith(("2.", "3.0.", "3.1."))


async def longest_summary(topics: list[str]) -> str:
    hook = PromptLayerHook()  # of the connection promptlayer_default

    async def summary(topic: str) -> str:
        run = await hook.arun_workflow("Article pipeline", input_variables={"topic": topic})
        found = await hook.await_for_workflow_results(run, timeout=600)
        return str(found.outputs["Summarize"])

    return max(await asyncio.gather(*map(summary, topics)), key=len)


with DAG(
    dag_id="promptlayer_async_task",
    schedule=None,
    start_date=datetime(2026, 1, 1),
    catchup=False,
    doc_md=__doc__,
    tags=["promptlayer", "example"],
) as dag:
    # Without retries, as each would start three more runs: an operator goes back to its own.
    if HAS_ASYNC_TASKS:

        @task(retries=0)
        async def longest(topics: list[str]) -> str:
            return await longest_summary(topics)

        longest(["tea", "coffee", "water"])

    else:

        @task(task_id="longest", retries=0)
        def in_a_loop(topics: list[str]) -> str:
            return asyncio.run(longest_summary(topics))

        in_a_loop(["tea", "coffee", "water"])
