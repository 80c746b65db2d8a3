# SPDX-License-Identifier: Apache-2.0
"""The example DAGs, and those of ./dags, on a real scheduler, triggerer and workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from live.runs import SECONDS, Run, begin, finish, held, watch
from support.needs import needs_on_kill

from airflow_provider_promptlayer.testing import LocalPromptLayer
from airflow_provider_promptlayer.version_compat import CLEAR_KEEPS_STATE
from dev.airflow_stack import AirflowStack

ENDLESS_TASKS = ("cells", "scorecard")


@pytest.fixture(scope="module")
def examples(stack: AirflowStack, promptlayer: LocalPromptLayer) -> dict[str, Run]:
    started = promptlayer.start_execution("Article pipeline", {"topic": "rain"})
    return finish(
        stack,
        {
            "promptlayer_run_and_use_output": {"input_variables": {"topic": "snow"}},
            "promptlayer_wait_for_execution": {"workflow_version_execution_id": started},
            "promptlayer_fan_out": {},
            "promptlayer_batch": {},
            "promptlayer_branch_on_output": {},
            "promptlayer_taskflow": {},
            "promptlayer_hook_in_task": {},
            "promptlayer_async_task": {},
            "promptlayer_deadline_alert": {},
        },
    )


class TestExamples:
    def test_run_and_use_output(
        self, examples: dict[str, Run], promptlayer: LocalPromptLayer
    ) -> None:
        run = examples["promptlayer_run_and_use_output"]
        assert run.state == "success"
        assert "Pausing task as DEFERRED" in run.log("write_article")
        xcoms = run.xcoms("write_article")
        assert xcoms["Summarize"] == "In short: snow is old and in fashion."
        assert xcoms["return_value"]["Translate"] == xcoms["promptlayer_final_output"]
        assert set(xcoms["promptlayer_node_statuses"].values()) == {"SUCCESS"}
        execution = promptlayer.executions[xcoms["promptlayer_execution_id"]]
        assert execution.metadata == {
            "airflow_dag_id": run.dag_id,
            "airflow_run_id": run.run_id,
            "airflow_task_id": "write_article",
            "airflow_map_index": "-1",
            "airflow_try_number": "1",
        }
        assert f"workflow run {xcoms['promptlayer_execution_id']}" in run.log("write_article")
        assert "Publishing: Kurz gesagt" in run.log("publish")

    def test_wait_for_execution(self, examples: dict[str, Run]) -> None:
        run = examples["promptlayer_wait_for_execution"]
        assert run.state == "success"
        assert set(run.xcoms("fetch")["return_value"]) == {"Summarize", "Translate"}
        assert run.xcoms("wait")["return_value"] == run.xcoms("fetch")["promptlayer_execution_id"]
        assert "In short: rain" in run.log("compare")

    def test_fan_out(self, examples: dict[str, Run]) -> None:
        run = examples["promptlayer_fan_out"]
        assert run.state == "success"
        assert [key for key in run.final if key[0] == "write_articles"] == [
            ("write_articles", index) for index in range(3)
        ]
        assert run.xcoms("gather")["return_value"] == [
            f"In short: {topic} is old and in fashion." for topic in ("tea", "coffee", "water")
        ]

    def test_batch(self, examples: dict[str, Run]) -> None:
        run = examples["promptlayer_batch"]
        assert run.state == "success"
        assert run.xcoms("gather")["return_value"] == [
            f"In short: {topic} is old and in fashion." for topic in ("tea", "coffee", "water")
        ]

    def test_taskflow(self, examples: dict[str, Run]) -> None:
        run = examples["promptlayer_taskflow"]
        assert run.state == "success"
        assert "Pausing task as DEFERRED" in run.log("write_article")
        assert run.xcoms("gather")["return_value"] == [
            f"In short: {topic} is old and in fashion."
            for topic in ("water", "tea", "coffee", "the history of tea", "the history of coffee")
        ]

    def test_hook_in_task(self, examples: dict[str, Run]) -> None:
        run = examples["promptlayer_hook_in_task"]
        assert run.state == "success"
        longer = run.xcoms("longer_summary")["return_value"]
        assert longer == "In short: coffee is old and in fashion."

    def test_async_task(self, examples: dict[str, Run]) -> None:
        run = examples["promptlayer_async_task"]
        assert run.state == "success"
        assert run.xcoms("longest")["return_value"] == "In short: coffee is old and in fashion."

    def test_deadline_alert(self, examples: dict[str, Run]) -> None:
        """It is in time, so the alert is not sent."""
        assert examples["promptlayer_deadline_alert"].state == "success"

    def test_branch_on_output(self, examples: dict[str, Run]) -> None:
        run = examples["promptlayer_branch_on_output"]
        assert run.state == "success"
        assert run.final["apologise", -1] == "success"
        assert run.final["answer", -1] == "skipped"
        assert "Answer question" not in run.xcoms("triage")
        assert run.xcoms("triage")["promptlayer_node_statuses"]["Answer question"] == "SKIPPED"

    def test_every_task_started_one_run(
        self, examples: dict[str, Run], promptlayer: LocalPromptLayer
    ) -> None:
        origins = [
            tuple(sorted((execution.metadata or {}).items()))
            for execution in promptlayer.executions.values()
            if execution.metadata
        ]
        assert len(origins) == len(set(origins))


@pytest.fixture(scope="module")
def endings(stack: AirflowStack, promptlayer: LocalPromptLayer) -> dict[str, Run]:
    broken = promptlayer.start_execution("Broken report", {"report": "r"})
    watched, hold = held(promptlayer, "Good")

    def let_go(runs: dict[str, Run]) -> None:
        seen = runs["live_modes"].seen
        if (
            "up_for_reschedule" in seen["reschedule", -1]
            and "failed" in seen["reschedule_late", -1]
        ):
            hold.remove()

    return finish(
        stack,
        {
            "live_failed_run": {},
            "live_watched_run": {"run": broken},
            "live_modes": {"run": watched},
            "live_mapped": {},
        },
        meanwhile=let_go,
    )


class TestEndings:
    def test_failed_run_is_retried_with_a_new_run(
        self, endings: dict[str, Run], promptlayer: LocalPromptLayer
    ) -> None:
        run = endings["live_failed_run"]
        assert run.final["started", -1] == "failed"
        assert "could not be published" in run.log("started")
        tries = [
            execution.metadata["airflow_try_number"]
            for execution in promptlayer.executions.values()
            if execution.metadata and execution.metadata["airflow_run_id"] == run.run_id
        ]
        assert tries == ["1", "2"]

    def test_statuses_of_a_failed_run_reach_an_alert(self, endings: dict[str, Run]) -> None:
        statuses = endings["live_failed_run"].xcoms("alert")["return_value"]
        assert statuses["Publish report"] == "FAILED"

    def test_watching_a_failed_run_uses_no_retries(self, endings: dict[str, Run]) -> None:
        run = endings["live_watched_run"]
        assert run.final["sensor", -1] == "failed"
        assert "up_for_retry" not in run.seen["sensor", -1]
        assert run.final["soft", -1] == "skipped"
        assert "could not be published" in run.log("soft")

    def test_timeout_uses_no_retries(self, endings: dict[str, Run]) -> None:
        run = endings["live_watched_run"]
        assert run.final["late", -1] == "failed"
        assert "up_for_retry" not in run.seen["late", -1]

    def test_modes_without_a_triggerer(self, endings: dict[str, Run]) -> None:
        run = endings["live_modes"]
        assert run.final["fetch_after_poke", -1] == "success"
        assert run.final["fetch_after_reschedule", -1] == "success"
        assert "up_for_reschedule" in run.seen["reschedule", -1]
        assert "deferred" not in set().union(*run.seen.values())

    def test_timeout_counts_from_the_first_reschedule(self, endings: dict[str, Run]) -> None:
        run = endings["live_modes"]
        assert run.final["reschedule_late", -1] == "failed"
        assert "up_for_reschedule" in run.seen["reschedule_late", -1]
        assert "did not end within 11 seconds" in run.log("reschedule_late")

    def test_sensor_is_mapped(self, endings: dict[str, Run]) -> None:
        run = endings["live_mapped"]
        assert run.final["sensor", 0] == run.final["sensor", 1] == "success"


GOOD_SHEET = "5c0a1e00-0000-4000-8000-000000000011"
BAD_SHEET = "Hard questions"
NIGHTLY = "promptlayer_nightly_evaluation"
PROMOTE = "promptlayer_run_evaluate_promote"


@pytest.fixture(scope="module")
def nights(
    stack: AirflowStack, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Run], dict[str, Run]]:
    """Runs on a sheet that passes, and on one that does not, at the same time."""
    reports = {"reports": f"file://{tmp_path_factory.mktemp('reports')}"}
    passing = begin(stack, {NIGHTLY: reports, PROMOTE: {}})
    failing = begin(
        stack, {NIGHTLY: {"sheet": BAD_SHEET, **reports}, PROMOTE: {"sheet": BAD_SHEET}}
    )
    watch(stack, [*passing.values(), *failing.values()])
    return passing, failing


@pytest.fixture(scope="module")
def passing(nights: tuple[dict[str, Run], dict[str, Run]]) -> dict[str, Run]:
    return nights[0]


@pytest.fixture(scope="module")
def failing(nights: tuple[dict[str, Run], dict[str, Run]]) -> dict[str, Run]:
    return nights[1]


class TestEvaluations:
    """The example DAGs on a sheet that passes, and on one that does not."""

    def test_a_night_that_passes(
        self, passing: dict[str, Run], promptlayer: LocalPromptLayer
    ) -> None:
        run = passing[NIGHTLY]
        assert run.state == "success"
        assert run.final["alert", -1] == "skipped"
        xcoms = run.xcoms("gate")
        assert (xcoms["promptlayer_score"], xcoms["promptlayer_verdict"]) == (0.93, "pass")
        assert xcoms["promptlayer_drift_summary"] == {"baseline_score": 0.91, "delta": 0.02}
        calculation = promptlayer.calculations[xcoms["promptlayer_calculation_id"]]
        assert calculation.sheet_id == GOOD_SHEET
        assert_reported(run, "0.93", "Passed", "67%")

    def test_a_night_that_fails(self, failing: dict[str, Run]) -> None:
        run = failing[NIGHTLY]
        assert run.state == "failed"
        assert run.final["alert", -1] == "success"
        assert run.final["snapshot", -1] == "upstream_failed"
        assert run.final["recalculate", -1] == "success"
        assert run.final["gate", -1] == "failed"
        assert "up_for_retry" not in run.seen["gate", -1]
        log = run.log("gate")
        assert "the verdict is 'fail', the score 0.41 is below min_score=0.8." in log
        assert "Failing criteria: 'Cites a source' (fail, 0.2): 2 of 3 rows fail." in log
        assert "row 1 (error, 0): The cell 'Answer' has failed; row 2 (fail, 0.23)" in log
        alert = run.log("alert")
        assert "The nightly evaluation scored 0.41 (fail). Criteria: " in alert
        assert "Cites a source" in alert
        assert_reported(run, "0.41", "Below the score that is needed, 0.8.", "2 of 3 rows fail")

    def test_promoted(self, passing: dict[str, Run], promptlayer: LocalPromptLayer) -> None:
        run = passing[PROMOTE]
        assert run.state == "success"
        labels = promptlayer.labels(workflow="Article pipeline")
        assert labels["prod"] > labels["staging"]  # it leads to a copy
        xcoms = run.xcoms("promote")
        assert xcoms["promptlayer_version"] == labels["prod"]
        assert xcoms["promptlayer_previous_version"] is None

    def test_not_promoted(self, failing: dict[str, Run]) -> None:
        run = failing[PROMOTE]
        assert run.state == "success"
        assert run.final["gate", -1] == run.final["promote", -1] == "skipped"
        assert "below min_score=0.8" in run.log("gate")


def assert_reported(run: Run, *texts: str) -> None:
    assert run.final["report", -1] == "success"
    path = run.xcoms("report")["return_value"]["path"]
    page = Path(urlsplit(path).path).read_text(encoding="utf-8")
    assert [text for text in texts if text not in page] == []


def endless(stack: AirflowStack, promptlayer: LocalPromptLayer) -> tuple[Run, list[Any]]:
    """Return a run whose tasks wait in the triggerer, and what each of them has started."""
    dag = "live_endless_evaluations"
    run = Run(stack, dag, stack.trigger_dag(dag))
    stack.wait_for(
        lambda: run.poll() or all("deferred" in run.seen[task, -1] for task in ENDLESS_TASKS),
        SECONDS,
        "both to be deferred",
    )
    started: list[Any] = [
        promptlayer.operations[run.xcoms("cells")["promptlayer_operation_id"]],
        promptlayer.calculations[run.xcoms("scorecard")["promptlayer_calculation_id"]],
    ]
    assert cancellations(promptlayer, started) == [False, False]
    # Airflow drops a trigger that no triggerer has taken over yet, without calling on_kill.
    stack.wait_for(
        lambda: all(polls(promptlayer, one) >= 2 for one in started),
        SECONDS,
        "the triggerer to poll",
    )
    return run, started


def polls(promptlayer: LocalPromptLayer, one: Any) -> int:
    return sum(one.id in request.raw_path for request in promptlayer.requests)


def cancellations(promptlayer: LocalPromptLayer, started: list[Any]) -> list[bool]:
    now: list[Any] = [
        promptlayer.operations[started[0].id],
        promptlayer.calculations[started[1].id],
    ]
    return [one.cancelled_at is not None for one in now]


def clear(run: Run) -> None:
    body = {
        "dry_run": False,
        "dag_run_id": run.run_id,
        "task_ids": ENDLESS_TASKS,
        "only_failed": False,
    }
    run.stack.api("POST", f"/api/v2/dags/{run.dag_id}/clearTaskInstances", body)


def end_all(run: Run) -> None:
    for task in ENDLESS_TASKS:
        path = f"/api/v2/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{task}"
        run.stack.api("PATCH", path, {"new_state": "failed"})


# Of this test and the next, each version from 3.3 on runs the one that is about its kind of clear.
@needs_on_kill
@pytest.mark.skipif(
    not CLEAR_KEEPS_STATE, reason="Airflow 3.4 and later drop the state of a task that is cleared"
)
def test_clearing_a_deferred_task_goes_back_to_what_it_has_started_and_ending_it_cancels(
    stack: AirflowStack, promptlayer: LocalPromptLayer
) -> None:
    run, started = endless(stack, promptlayer)

    clear(run)
    for task in ENDLESS_TASKS:
        # Airflow calls on_kill of the first trigger, as for a task that was ended.
        stack.wait_for(
            lambda task=task: (  # type: ignore[misc]
                "not cancelling it" in stack.task_log(run.dag_id, run.run_id, task, try_number=1)
            ),
            SECONDS,
            "on_kill of the trigger",
        )
        stack.wait_for(
            lambda task=task: "Going back to" in run.log(task),  # type: ignore[misc]
            SECONDS,
            "the second try",
        )
    before = [polls(promptlayer, one) for one in started]
    stack.wait_for(
        lambda: all(
            polls(promptlayer, one) >= many + 3 for one, many in zip(started, before, strict=True)
        ),
        SECONDS,
        "the triggerer to poll again",
    )
    assert set(run.final.values()) == {"deferred"}
    assert cancellations(promptlayer, started) == [False, False]

    end_all(run)
    stack.wait_for(lambda: all(cancellations(promptlayer, started)), SECONDS, "the cancellations")
    stack.wait_for(run.poll, SECONDS, "the run to end")
    assert set(run.final.values()) == {"failed"}
    assert (
        len([one for one in promptlayer.operations.values() if one.table_id == started[0].table_id])
        == 1
    )


@needs_on_kill
@pytest.mark.skipif(
    CLEAR_KEEPS_STATE, reason="Airflow 3.3 keeps the state of a task that is cleared"
)
def test_clearing_a_deferred_task_cancels_what_it_has_started_and_starts_another(
    stack: AirflowStack, promptlayer: LocalPromptLayer
) -> None:
    run, started = endless(stack, promptlayer)

    clear(run)
    stack.wait_for(lambda: all(cancellations(promptlayer, started)), SECONDS, "the cancellations")
    keys = {"cells": "promptlayer_operation_id", "scorecard": "promptlayer_calculation_id"}
    old = [one.id for one in started]

    def others() -> list[str]:
        found = [run.xcoms(task).get(key) for task, key in keys.items()]
        return [one for one in found if one and one not in old]

    stack.wait_for(lambda: len(others()) == 2, SECONDS, "the second try to start others")
    operation, calculation = others()
    assert promptlayer.operations[operation].cancelled_at is None
    assert promptlayer.calculations[calculation].cancelled_at is None
    end_all(run)
    stack.wait_for(run.poll, SECONDS, "the run to end")
