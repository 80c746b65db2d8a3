# SPDX-License-Identifier: Apache-2.0
"""DAG runs of the live tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_promptlayer.testing import LocalPromptLayer, Reply
from airflow_provider_promptlayer.testing.faults.script import Script
from dev.airflow_stack import AirflowStack

SECONDS = 900.0


@dataclass
class Run:
    """One DAG run: its final state, and every state in which its tasks were seen."""

    stack: AirflowStack
    dag_id: str
    run_id: str
    state: str | None = None
    seen: dict[tuple[str, int], set[str | None]] = field(default_factory=lambda: defaultdict(set))

    def poll(self) -> str | None:
        for task, state in self.stack.task_states(self.dag_id, self.run_id).items():
            self.seen[task].add(state)
        state = self.stack.db.dag_run_state(self.dag_id, self.run_id)
        self.state = state if state in ("success", "failed") else None
        return self.state

    @property
    def final(self) -> dict[tuple[str, int], str | None]:
        return self.stack.task_states(self.dag_id, self.run_id)

    def xcoms(self, task_id: str, map_index: int = -1) -> dict[str, Any]:
        return self.stack.xcoms(self.dag_id, self.run_id, task_id, map_index)

    def log(self, task_id: str, map_index: int = -1) -> str:
        return self.stack.task_log(self.dag_id, self.run_id, task_id, map_index)


def held(promptlayer: LocalPromptLayer, workflow: str) -> tuple[int, Script]:
    """Start a run of a workflow that ends at once; it seems to go on until the script is removed.

    No fixed duration is long enough for a slow machine to begin all of its waits.
    """
    run_id = promptlayer.start_execution(workflow)
    return run_id, promptlayer.script(Reply(202, "{}"), execution_id=run_id, times=None)


def begin(stack: AirflowStack, dags: Mapping[str, Mapping[str, Any]]) -> dict[str, Run]:
    """Trigger these DAGs with these conf."""
    return {dag: Run(stack, dag, stack.trigger_dag(dag, conf)) for dag, conf in dags.items()}


def finish(
    stack: AirflowStack,
    dags: Mapping[str, Mapping[str, Any]],
    seconds: float = SECONDS,
    meanwhile: Callable[[dict[str, Run]], object] = lambda _: None,
) -> dict[str, Run]:
    """Run these DAGs with these conf at the same time, and return once all have ended.

    :param meanwhile: called after each poll of the runs.
    """
    runs = begin(stack, dags)
    watch(stack, [*runs.values()], seconds, lambda: meanwhile(runs))
    return runs


def watch(
    stack: AirflowStack,
    runs: list[Run],
    seconds: float = SECONDS,
    meanwhile: Callable[[], object] = lambda: None,
) -> None:
    """Poll these runs until all have ended."""

    def all_ended() -> bool:
        ends = [run.poll() for run in runs]  # polls each, ended or not
        meanwhile()
        return all(ends)

    stack.wait_for(all_ended, seconds, f"the runs of {[run.dag_id for run in runs]}")


@dataclass
class ObjectStorage:
    """A second Airflow, whose XCom backend keeps large values in files of a folder."""

    folder: Path
    run: Future[Run]
    """A run of the DAG with hostile data."""
