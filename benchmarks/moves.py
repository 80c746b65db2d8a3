# SPDX-License-Identifier: Apache-2.0
"""How soon a DAG run is queued after a release label has moved, in a real Airflow.

    python -m benchmarks.moves [--quick]

Each label is that of a prompt of its own, so that each has polls of its own, every 30 s as asset
watchers poll where nothing else is said. The moves are spread over such an interval.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from airflow_provider_promptlayer.testing import LocalPromptLayer, Prompt
from benchmarks.alone import Say, run, say_nothing
from benchmarks.figures import Figure, Samples
from dev.airflow_stack import AirflowStack

DAGS = Path(__file__).parent / "moves_dags"
LABELS = 20
QUICK = 2
INTERVAL = 30.0
SECONDS = 300.0


def measure(*, quick: bool = False, say: Say = say_nothing) -> list[Figure]:
    """Start an Airflow with a watcher for each label, and move each label once.

    :param quick: few labels, to see whether the benchmark itself works.
    :param say: called with each line of progress.
    :raises StackError: if Airflow does not do what it should.
    """
    names = [f"bench_moves_{number}" for number in range(QUICK if quick else LABELS)]
    prompts = [Prompt(name, latest_version=2, labels={"prod": 1}) for name in names]
    with LocalPromptLayer([], prompts=prompts) as promptlayer:
        env = {"AIRFLOW_CONN_PROMPTLAYER_DEFAULT": promptlayer.airflow_connection_json}
        with AirflowStack(DAGS, env=env) as stack:
            stack.start_watchers(*names)
            stack.wait_for(
                lambda: all(stack.db.asset_states(name) for name in names),
                SECONDS,
                "each watcher to poll once",
            )
            say("each watcher has polled once")
            moved = {name: _move(promptlayer, name, len(names)) for name in names}
            say("each label has moved")
            stack.wait_for(
                lambda: all(stack.db.run_ids(name) for name in names), SECONDS, "the DAG runs"
            )
            late = [_queued_at(stack, name) - moved[name] for name in names]
    return [
        Figure(
            "seconds from the move of a label to the queued DAG run",
            "s",
            Samples.of(late),
            note=f"{len(names)} labels, polled every {INTERVAL:g} s less up to a fifth",
        )
    ]


def _move(promptlayer: LocalPromptLayer, name: str, count: int) -> float:
    """Move the label; return when, in seconds since the epoch, a part of the interval later."""
    when = time.time()
    promptlayer.move_label("prod", 2, prompt=name)
    time.sleep(INTERVAL / count)
    return when


def _queued_at(stack: AirflowStack, dag_id: str) -> float:
    """Return when the one run of the DAG was queued, in seconds since the epoch."""
    (row,) = stack.db.rows("SELECT queued_at FROM dag_run WHERE dag_id = :dag_id", dag_id=dag_id)
    return datetime.fromisoformat(row["queued_at"]).replace(tzinfo=UTC).timestamp()


if __name__ == "__main__":
    sys.exit(run("python -m benchmarks.moves", __doc__, measure))
