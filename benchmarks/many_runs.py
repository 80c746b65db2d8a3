# SPDX-License-Identifier: Apache-2.0
"""A thousand runs at 150 ms a request: as a batch, and by PromptLayer's own library in threads.

Both do so in a process of their own, without the rest of Airflow, so that the time is that of the
requests. The batch is the operator as a worker runs it, with its notes for later tries in a
dictionary: one visit starts all runs and defers, the trigger polls until they have ended, and
another visit reads the results. The library waits for each run in a thread; its runs end at once,
because with longer ones it would measure how long they are.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any, Final

from benchmarks.child import ROOT, in_child
from benchmarks.figures import Figure, Goal, Samples
from benchmarks.library import THREADS
from benchmarks.memory import peak_memory
from benchmarks.run_server import LATENCY_SECONDS, WORKFLOW_ID, running_workflows
from benchmarks.server import API_KEY

RUNS: Final = 1_000
_ROUNDS: Final = 2
_AGAINST: Final = f"PromptLayer's own library in {THREADS} threads"
_LIBRARY_PYTHON: Final = ROOT / ".venv" / "promptlayer" / "bin" / "python"


def measure() -> list[Figure]:
    """Return the figures of this module."""
    batches, libraries = list[dict[str, float]](), list[dict[str, float]]()
    for _ in range(_ROUNDS):
        with running_workflows() as address:
            batches.append(in_child("many_runs.as_batch", address.environment(), runs=RUNS))
        with running_workflows() as address:
            libraries.append(
                in_child(
                    "library.in_threads",
                    {"SSL_CERT_FILE": address.ca_file},
                    _LIBRARY_PYTHON,
                    url=address.url,
                    api_key=API_KEY,
                    workflow_id=WORKFLOW_ID,
                    runs=RUNS,
                )
            )
    ours, theirs = (
        {key: Samples.of([one[key] for one in rounds]) for key in rounds[0]}
        for rounds in (batches, libraries)
    )
    title = f"{RUNS:,} runs, each answer {LATENCY_SECONDS * 1000:.0f} ms late"
    return [
        Figure(f"{title}: all started", "s", ours["starts"], goal=Goal(25, "ours")),
        Figure(f"{title}: all results read", "s", ours["results"], goal=Goal(12, "ours")),
        Figure(
            f"{title}: seconds, start to results",
            "s",
            ours["seconds"],
            _AGAINST,
            theirs["seconds"],
            Goal(0.5, "ratio"),
            note="the library's runs end at once; ours with the time of the trigger in between",
        ),
        Figure(f"{title}: CPU", "s", ours["cpu"], _AGAINST, theirs["cpu"]),
        Figure(
            f"{title}: memory over idle",
            "MB",
            ours["memory"],
            _AGAINST,
            theirs["memory"],
            Goal(60, "ours"),
        ),
    ]


def as_batch(runs: int) -> dict[str, float]:
    """Run a workflow so many times; in a process of its own."""
    logging.disable(logging.INFO)
    _run_batch(1)  # to warm up
    with peak_memory() as peak:
        cpu = time.process_time()
        took = _run_batch(runs)
        cpu = time.process_time() - cpu
    return {**took, "seconds": sum(took.values()), "cpu": cpu, "memory": peak() / 1e6}


def _run_batch(runs: int) -> dict[str, float]:
    """Return the seconds of each of the three parts."""
    from airflow.sdk.exceptions import TaskDeferred

    context: Any = {"ti": _TaskInstance(), "run_id": "bench", "task_state_store": _Notes()}
    clock = [time.perf_counter()]
    try:
        _operator(runs).execute(context)
    except TaskDeferred as left:
        deferral = left
    else:
        raise AssertionError("the batch did not defer")
    clock.append(time.perf_counter())
    event = asyncio.run(_first_event(deferral.trigger))
    clock.append(time.perf_counter())
    kwargs = {**(deferral.kwargs or {}), "event": event.payload}
    results = _operator(runs).resume_execution(deferral.method_name, kwargs, context)
    clock.append(time.perf_counter())
    if len(results) != runs or None in results:
        raise AssertionError("a run has no result")
    names = ("starts", "noticing", "results")
    return {
        name: after - before for name, before, after in zip(names, clock, clock[1:], strict=False)
    }


def _operator(runs: int) -> Any:
    from airflow_provider_promptlayer.operators.promptlayer import (
        PromptLayerRunWorkflowBatchOperator,
    )

    inputs = [{"number": number} for number in range(runs)]
    return PromptLayerRunWorkflowBatchOperator(
        task_id="batch",
        workflow_id_or_name=WORKFLOW_ID,
        inputs=inputs,
        defer_after=0,  # as after a start of many runs, which takes longer than usual
    )


async def _first_event(trigger: Any) -> Any:
    return await anext(trigger.run())


class _TaskInstance:
    """What the operator touches of a task instance; its XComs go nowhere."""

    dag_id, run_id, task_id, map_index, try_number, max_tries = "bench", "bench", "batch", -1, 1, 0

    def xcom_push(self, key: str, value: Any) -> None:
        json.dumps({key: value})

    def xcom_pull(self, **_: Any) -> Any:
        return None


class _Notes(dict[str, Any]):
    """The task state store, which takes JSON."""

    def set(self, key: str, value: Any) -> None:
        self[key] = json.dumps(value)

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self[key]) if key in self else default

    def delete(self, key: str) -> None:
        self.pop(key, None)
