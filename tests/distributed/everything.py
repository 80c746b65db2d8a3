# SPDX-License-Identifier: Apache-2.0
"""A run of the DAG with each kind of work, and what holds of it whatever was cut meanwhile."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from live.runs import SECONDS, Run
from support.clocks import Clock

from airflow_provider_promptlayer.testing import (
    Column,
    LocalPromptLayer,
    Node,
    Scorecard,
    ScoredRow,
    Sheet,
    Table,
    Workflow,
)
from dev.cluster import Cluster

DAG_ID: Final = "distributed_everything"
RUNS, INPUTS, ROWS = 6, 6, 20
HELD_SECONDS: Final = 1e6
SHEETS: Final = ("whole", "airflow", "promptlayer", "redis", "all")
UNCERTAIN: Final = ("PromptLayerStartUncertainError", "may be going on")
"""One of these is in the log of a task that asks a person to look for a run."""


def held() -> Workflow:
    """Return a workflow whose runs go on until the clock is set forward."""
    node = Node(
        "Only", lambda inputs, _: inputs["number"], duration=HELD_SECONDS, is_output_node=True
    )
    return Workflow("Held", [node])


TABLE: Final = Table(
    "Cases",
    [
        Sheet(
            title,
            [Column("Question", type="TEXT"), Column("Answer", cell_duration=0.05)],
            rows=[{"Question": "The first?"}],
            scorecard=Scorecard(title, rows=[ScoredRow(score=0.9)], score=0.9, duration=2.0),
        )
        for title in SHEETS
    ],
)
"""A sheet for each test."""


@dataclass
class Everything:
    """One run of the DAG."""

    cluster: Cluster
    clock: Clock
    sheet: str
    file: Path
    run: Run

    @classmethod
    def begin(cls, cluster: Cluster, clock: Clock, sheet: str, folder: Path) -> Everything:
        file = folder / f"{sheet}.jsonl"
        conf = {
            "sheet": sheet,
            "file": f"file://{file}",
            "runs": RUNS,
            "inputs": INPUTS,
            "rows": ROWS,
        }
        run = Run(cluster.stack, DAG_ID, cluster.stack.trigger_dag(DAG_ID, conf))
        return cls(cluster, clock, sheet, file, run)

    @property
    def promptlayer(self) -> LocalPromptLayer:
        return self.cluster.promptlayer

    def starts(self) -> Counter[tuple[str, int]]:
        """Return how often PromptLayer has started a run for each task, or input of the batch."""
        found: Counter[tuple[str, int]] = Counter()
        for origin, count in self.promptlayer.posts_by_origin().items():
            if origin.airflow_run_id == self.run.run_id:
                index = origin.airflow_batch_index or origin.airflow_map_index
                found[origin.airflow_task_id, int(index)] += count
        return found

    def machine_at_work(self) -> str:
        """Wait until a machine has a wait in its triggerer and one in its worker; return it."""

        def found() -> str | None:
            hosts = {
                row["hostname"]
                for row in self.cluster.stack.db.rows(
                    "SELECT job.hostname FROM task_instance AS ti"
                    " JOIN trigger ON trigger.id = ti.trigger_id"
                    " JOIN job ON job.id = trigger.triggerer_id WHERE ti.run_id = :run_id",
                    run_id=self.run.run_id,
                )
            }
            starts = self.starts()
            for number, machine in enumerate(self.cluster.machines, 1):
                if machine in hosts and starts[f"in_worker_{number}", -1]:
                    return machine
            return None

        return self.cluster.stack.wait_for(found, SECONDS, "waits on a machine") or ""

    def finish(self) -> None:
        """Let the runs end at PromptLayer, also those that are started yet; wait for the end."""

        def has_ended() -> bool:
            self.clock.skip(HELD_SECONDS)
            return self.run.poll() is not None

        self.cluster.stack.wait_for(has_ended, SECONDS, "the DAG run to end")

    def check(self) -> None:
        """Nothing is doubled, lost, stuck, or a false success; print what is uncertain."""
        final = self.run.final
        assert set(final.values()) <= {"success", "failed", "upstream_failed"}, final
        asking = {task for task, state in final.items() if state == "failed"}
        for task_id, index in asking:
            assert _asks(self.run.log(task_id, index)), (task_id, index)
        assert set(self.starts().values()) == {1}, self.starts()
        self._check_runs(final)
        self._check_batch(final)
        self._check_sheet(final)
        print(  # noqa: T201 - shown with -s: what the notes of a release quote
            f"\n{self.sheet}: {len(final)} tasks, {self._retries()} retries, asking: {asking or 0}"
        )

    def _retries(self) -> int:
        found = self.cluster.stack.db.rows(
            "SELECT sum(try_number - 1) AS retries FROM task_instance WHERE run_id = :run_id",
            run_id=self.run.run_id,
        )
        return int(found[0]["retries"])

    def _check_runs(self, final: dict[tuple[str, int], str | None]) -> None:
        waiting = [(f"in_worker_{number}", -1) for number in (1, 2)]
        for task_id, index in [*waiting, *(("run", index) for index in range(RUNS))]:
            if final[task_id, index] == "success":
                xcoms = self.run.xcoms(task_id, index)
                assert xcoms["return_value"] == {"Only": index}
                self._is_of(xcoms["promptlayer_execution_id"], task_id, index)

    def _check_batch(self, final: dict[tuple[str, int], str | None]) -> None:
        xcoms = self.run.xcoms("batch")
        if final["batch", -1] == "success":
            assert xcoms["return_value"] == [{"Only": index} for index in range(INPUTS)]
        starts = self.starts()
        for index, execution in enumerate(xcoms["promptlayer_execution_ids"]):
            if execution is not None:
                self._is_of(execution, "batch", index)
            elif starts["batch", index]:
                assert _asks(xcoms["promptlayer_errors"][index])

    def _is_of(self, execution: int, task_id: str, index: int) -> None:
        """The run is the one that was started for this task, and not another's."""
        origin = self.promptlayer.executions[execution].origin
        assert origin.airflow_run_id == self.run.run_id
        assert origin.airflow_task_id == task_id
        assert int(origin.airflow_batch_index or origin.airflow_map_index) == index

    def _check_sheet(self, final: dict[tuple[str, int], str | None]) -> None:
        (sheet_id,) = [one.id for one in TABLE.sheets if one.title == self.sheet]
        server = self.promptlayer
        imports = [one for one in server.imports if one.sheet_id == sheet_id]
        jobs: dict[str, Sequence[object]] = {
            "load": imports,
            "recalculate": [one for one in server.operations.values() if one.sheet_id == sheet_id],
            "gate": [one for one in server.calculations.values() if one.sheet_id == sheet_id],
        }
        for task_id, started in jobs.items():
            assert len(started) <= 1, started
            assert started or final[task_id, -1] != "success", task_id
        if final["load", -1] == "success":
            assert [one.rows_added for one in imports] == [ROWS]
        if final["export", -1] == "success":
            lines = self.file.read_text(encoding="utf-8").splitlines()
            questions = [json.loads(line)["Question"] for line in lines]
            assert questions == ["The first?", *(f"{number}?" for number in range(ROWS))]
            assert {json.loads(line)["Answer_status"] for line in lines} == {"completed"}


def _asks(text: str) -> bool:
    return any(words in text for words in UNCERTAIN)
