# SPDX-License-Identifier: Apache-2.0
"""The examples that promote and roll back: a label moves, a person approves, a bad night undoes."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from live.loop import PRODUCTION, PROMOTE, PROMPT, ROLL_BACK, STAGING, Loop, answer
from live.runs import SECONDS, Run
from support.needs import needs_task_state

from airflow_provider_promptlayer.testing import LocalPromptLayer, builtin_evaluations
from dev.airflow_stack import AirflowStack

# The first half waits for what the watcher keeps in the asset's state.
pytestmark = needs_task_state


@pytest.fixture(scope="session")
def promoted(
    stack: AirflowStack, promptlayer: LocalPromptLayer, early_loops: list[Future[Loop]]
) -> tuple[Loop, Run]:
    """The move of a label, and the DAG run that it has started: approved, and at its end."""
    loop = early_loops[0].result(SECONDS)
    (run_id,) = stack.wait_for(lambda: stack.db.run_ids(PROMOTE), SECONDS, "the event to start it")
    run = Run(stack, PROMOTE, run_id)
    assert promptlayer.labels(prompt=PROMPT)["prod"] == loop.in_production
    answer(run, "approve", "Approve")
    stack.wait_for(run.poll, SECONDS, "the promotion")
    return loop, run


@pytest.fixture(scope="session")
def bad_night(
    stack: AirflowStack, promptlayer: LocalPromptLayer, promoted: tuple[Loop, Run]
) -> Run:
    """A night after the promotion, in which the score has dropped. It has only begun."""
    stack.wait_for(promoted[0].night.poll, SECONDS, "the night before")
    assert promptlayer.labels(prompt=PROMPT)["prod"] == promoted[0].version
    table = builtin_evaluations().tables[0]
    (sheet,) = (sheet for sheet in table.sheets if sheet.title == "In production")
    assert sheet.scorecard
    promptlayer.use_scorecard(table.id, sheet.id, replace(sheet.scorecard, score=0.6))
    return Run(stack, ROLL_BACK, stack.trigger_dag(ROLL_BACK))


def payload(loop: Loop) -> dict[str, Any]:
    return {
        "prompt": PROMPT,
        "label": "staging",
        "version": loop.version,
        "previous_version": loop.version - 1,
    }


def test_a_move_of_the_label_starts_one_dag_run(
    stack: AirflowStack, promoted: tuple[Loop, Run]
) -> None:
    loop, run = promoted
    assert [event["payload"] for event in stack.db.asset_events(STAGING)] == [payload(loop)]
    assert stack.db.run_ids(PROMOTE) == [run.run_id]
    assert run.xcoms("new_version")["return_value"] == loop.version


def test_the_version_of_the_event_is_evaluated_and_promoted(promoted: tuple[Loop, Run]) -> None:
    loop, run = promoted
    assert run.state == "success", run.final
    assert "Pointed at other versions: column 'Answer'" in run.log("evaluate")
    moved = {"version": loop.version, "previous_version": loop.in_production}
    assert run.xcoms("promote")["return_value"] == {"label": "prod", **moved}
    for key, value in moved.items():
        assert run.xcoms("promote")[f"promptlayer_{key}"] == value
    assert loop.in_production != loop.version


def test_the_promotion_is_in_the_event_of_its_asset(
    stack: AirflowStack, promoted: tuple[Loop, Run]
) -> None:
    (event,) = stack.db.asset_events(PRODUCTION)
    assert event == promoted[1].xcoms("promote")["return_value"]


@pytest.mark.usefixtures("bad_night")
def test_a_night_that_passes_moves_no_label(promoted: tuple[Loop, Run]) -> None:
    night = promoted[0].night
    assert night.state == "success"
    assert night.final["snapshot", -1] == "success"
    assert night.final["roll_back", -1] == "skipped"


@pytest.mark.last  # the night passes while other tests run
def test_a_score_that_has_dropped_undoes_the_promotion_and_fails_the_night(
    promptlayer: LocalPromptLayer, promoted: tuple[Loop, Run], bad_night: Run
) -> None:
    bad_night.stack.wait_for(bad_night.poll, SECONDS, "the night to end")
    assert bad_night.final["gate", -1] == "failed"
    assert bad_night.final["roll_back", -1] == "success", bad_night.final
    assert bad_night.state == "failed"
    assert promptlayer.labels(prompt=PROMPT)["prod"] == promoted[0].in_production
