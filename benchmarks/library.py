# SPDX-License-Identifier: Apache-2.0
"""Many runs by PromptLayer's own library, as a ``@task`` does them: in a pool of threads.

Runs in an environment of the library's own, without Airflow: this module imports neither Airflow
nor the provider.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.memory import peak_memory

THREADS = 8


def in_threads(url: str, api_key: str, workflow_id: int, runs: int) -> dict[str, float]:
    """Run a workflow so many times, and return the seconds, CPU seconds and megabytes that took."""
    from promptlayer import PromptLayer  # type: ignore[import-not-found]  # in its own environment

    logging.disable(logging.INFO)
    client = PromptLayer(api_key=api_key, base_url=url)

    def run(number: int) -> Any:
        return client.run_workflow(workflow_id, {"number": number}, return_all_outputs=True)

    run(-1)  # to warm up
    with ThreadPoolExecutor(THREADS) as threads, peak_memory() as peak:
        start, cpu = time.perf_counter(), time.process_time()
        results = list(threads.map(run, range(runs)))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    if any("Answer" not in each for each in results):
        raise AssertionError("a run has no result")
    return {"seconds": seconds, "cpu": cpu, "memory": peak() / 1e6}
