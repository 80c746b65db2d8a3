# SPDX-License-Identifier: Apache-2.0
"""The load: rounds of 25 billed starts, each a run of the DAG `soak`.

Each start can be traced to the task that has asked for it: a run of a workflow has the task in its
metadata, and a round has a table, a workflow and a prompt of its own, which are called as its run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from airflow_provider_promptlayer.testing import (
    Column,
    LocalPromptLayer,
    Node,
    Prompt,
    Report,
    Scorecard,
    Sheet,
    Table,
    Workflow,
)

DAG_ID: Final = "soak"
MAPPED: Final = 5
BATCH: Final = 9
CELLS: Final = 4
ROWS: Final = 10
PER_ROUND: Final = 25
"""How many starts a round has: one for each marker, and one more for `again` and `doomed`."""

LABEL: Final = "prod"
SCORE: Final = 0.9
REPORT_SCORE: Final = 87.0
REPORT_ID: Final = 1

SINGLE: Final = ("run", "again", "doomed", "cells", "scorecard", "report", "load")
PROMOTIONS: Final = ("promote_prompt", "promote_workflow")


class Marker(NamedTuple):
    """The task, or the input of a batch, that is to start one job.

    `round` is the id of the DAG run; an index is -1 where there is none.
    """

    round: str
    task: str
    map_index: int = -1
    batch_index: int = -1


def rounds(runs: int, seed: int) -> list[str]:
    """Return the ids of the DAG runs that make at least so many billed starts."""
    return [f"soak-{seed}-{number}" for number in range(math.ceil(runs / PER_ROUND))]


def markers(round_id: str) -> Iterator[Marker]:
    """Yield all that is to start a job in a round."""
    for task in (*SINGLE, *PROMOTIONS):
        yield Marker(round_id, task)
    for index in range(MAPPED):
        yield Marker(round_id, "mapped", index)
    for index in range(BATCH):
        yield Marker(round_id, "batch", batch_index=index)


def new_server(
    round_ids: Sequence[str], clock: Callable[[], float], **how: Any
) -> LocalPromptLayer:
    """Return a server that has what the rounds need; `how` is for LocalPromptLayer."""
    return LocalPromptLayer(
        [*_workflows(), *(each for round_id in round_ids for each in _versions(round_id))],
        tables=[_table(each) for each in round_ids],
        reports=[
            Report(
                "Soak",
                id=REPORT_ID,
                cells=CELLS,
                duration=20.0,
                score=REPORT_SCORE,
                column_scores={"Right": REPORT_SCORE},
            )
        ],
        prompts=[Prompt(each, latest_version=2, labels={LABEL: 1}) for each in round_ids],
        import_duration=10.0,
        clock=clock,
        **how,
    )


def _workflows() -> list[Workflow]:
    seen = Counter[str]()

    def answer(inputs: Mapping[str, Any], _: Mapping[str, Any]) -> str:
        return f"answer to {inputs['question']}"

    def fail_first(inputs: Mapping[str, Any], values: Mapping[str, Any]) -> str:
        seen[inputs["question"]] += 1
        if seen[inputs["question"]] == 1:
            raise RuntimeError("the first run of each question fails")
        return answer(inputs, values)

    def fail(inputs: Mapping[str, Any], _: Mapping[str, Any]) -> str:
        raise RuntimeError(f"no answer to {inputs['question']}")

    return [
        Workflow(name, [Node("Answer", value, duration=duration, is_output_node=True)])
        for name, value, duration in (
            ("Short", answer, 15.0),
            ("Long", answer, 60.0),
            ("Failing first", fail_first, 15.0),
            ("Failing", fail, 15.0),
        )
    ]


def _versions(round_id: str) -> list[Workflow]:
    """Return the versions of a workflow of which the second is to be promoted."""
    nodes = [Node("Only")]
    return [Workflow(round_id, nodes, labels=[LABEL]), Workflow(round_id, nodes, version=2)]


def _table(round_id: str) -> Table:
    def sheet(title: str, column: Column, row_count: int, **more: Any) -> Sheet:
        # Those of two tables would have the same id, which follows from the title.
        identity = str(uuid5(NAMESPACE_URL, f"{round_id}/{title}"))
        return Sheet(title, [column], row_count, id=identity, **more)

    answer = Column("Answer", cell_duration=5.0)
    card = Scorecard(round_id, score=SCORE, queue_duration=5.0, duration=15.0)
    return Table(
        round_id,
        [
            sheet("Cells", answer, CELLS),
            sheet("Scorecard", answer, CELLS, scorecard=card),
            sheet("Load", Column("Question", type="TEXT"), 0),
        ],
    )
