# SPDX-License-Identifier: Apache-2.0
"""Watch a DAG run: the state of each task, and how much of Airflow's workers it occupies.

This does not rely on what Airflow says about deferral. Slots are summed from the metadata
database, and processes are counted among those of the scheduler, by the operating system.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from dev.airflow_stack import AirflowStack
from dev.watchdog import members

# LocalExecutor's processes wait under the first title, and run a task in a child with the second.
_WORKER, _EXECUTOR = "airflow worker -- ", "airflow worker -- LocalExecutor"


def busy_workers(stack: AirflowStack) -> int:
    """Count the processes that run a task right now (0 on macOS: no titles to tell them by)."""
    busy = 0
    for process in members(stack.component("scheduler").pid):
        with contextlib.suppress(psutil.Error):
            title = " ".join(process.cmdline())
            busy += title.startswith(_WORKER) and not title.startswith(_EXECUTOR)
    return busy


@dataclass
class Occupancy:
    """The sum of all samples."""

    seconds: dict[str, dict[str, float]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(float))
    )
    """Task → state → seconds."""
    peak_workers: int = 0
    deferred_samples: int = 0
    """How often nothing but deferred tasks was seen twice in a row."""
    deferred_with_worker: int = 0
    deferred_with_slot: int = 0


class Watch:
    """One run under observation; the more often `sample()` is called, the more exact the result."""

    def __init__(
        self,
        stack: AirflowStack,
        dag_id: str,
        run_id: str,
        on_change: Callable[[float, str, str], None],
    ) -> None:
        self._stack = stack
        self._dag_id = dag_id
        self._run_id = run_id
        self._on_change = on_change
        self._start = self._last = time.monotonic()
        self._states: dict[str, str] = {}
        self.seen = Occupancy()

    def sample(self) -> str | None:
        """Take one sample; return the run's state when that is final."""
        now = time.monotonic()
        for task, state in self._states.items():
            self.seen.seconds[task][state] += now - self._last
        self._last = now

        final = self._stack.db.dag_run_state(self._dag_id, self._run_id)
        states = self._task_states()
        slots, workers = self._stack.db.occupied_slots(), busy_workers(self._stack)
        self.seen.peak_workers = max(self.seen.peak_workers, workers)
        # Before and after, as the states may change while slots and processes are counted.
        if (
            _only_deferred(self._states)
            and _only_deferred(states)
            and states == self._task_states()
        ):
            self.seen.deferred_samples += 1
            self.seen.deferred_with_worker += workers > 0
            self.seen.deferred_with_slot += slots > 0

        for task, state in states.items():
            if self._states.get(task, "") != state:
                self._on_change(now - self._start, task, state)
        self._states = states
        return final if final in ("success", "failed") else None

    def _task_states(self) -> dict[str, str]:
        return {
            task if index < 0 else f"{task}[{index}]": state or ""
            for (task, index), state in self._stack.task_states(self._dag_id, self._run_id).items()
        }


def _only_deferred(states: dict[str, str]) -> bool:
    """Return whether some tasks wait deferred while the others have ended or not begun."""
    active = {state for state in states.values() if state not in ("", "success", "skipped")}
    return active == {"deferred"}
