# SPDX-License-Identifier: Apache-2.0
"""Waits that begin or end in a real triggerer: workers, callbacks, templates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from live.runs import SECONDS, Run, finish, held
from support.needs import needs_start_in_triggerer

from airflow_provider_promptlayer.testing import LocalPromptLayer
from airflow_provider_promptlayer.version_compat import STARTS_IN_TRIGGERER
from dev.airflow_config import AIRFLOW_3
from dev.airflow_stack import AirflowStack

WAYS = ("plain", "end", "start", "both")
RETURNING = ("plain", "start")
"""The ways in which a success ends in a worker."""
WORKERS_OF_A_SUCCESS = (
    {"plain": 2, "end": 1, "start": 1, "both": 0}
    if STARTS_IN_TRIGGERER
    else {"plain": 2, "end": 1, "start": 2, "both": 1}
)
WORKERS_OF_A_FAILURE = (
    {"plain": 2, "end": 2, "start": 1, "both": 1} if STARTS_IN_TRIGGERER else dict.fromkeys(WAYS, 2)
)


def workers(run: Run, task_id: str, map_index: int = -1) -> int:
    """Return how many worker processes have run the task: each begins its log with this line."""
    begins = "DAG bundles loaded" if AIRFLOW_3 else "Pre task execution logs"
    return run.log(task_id, map_index).count(begins)


@pytest.fixture(scope="module")
def ends(stack: AirflowStack, promptlayer: LocalPromptLayer) -> Run:
    """Runs that end while they are waited for, well and badly."""
    good, hold_good = held(promptlayer, "Good")
    bad, hold_bad = held(promptlayer, "Bad")
    waits = [(f"{kind}_{way}", -1) for kind in ("good", "bad", "soft") for way in WAYS]
    waits += [("mapped", 0), ("mapped", 1)]

    def let_go(runs: dict[str, Run]) -> None:
        if all("deferred" in runs["live_ends"].seen[wait] for wait in waits):
            hold_good.remove()
            hold_bad.remove()

    return finish(stack, {"live_ends": {"run": good, "broken": bad}}, meanwhile=let_go)["live_ends"]


class TestWorkers:
    @pytest.mark.parametrize("way", WAYS)
    def test_of_a_success(self, ends: Run, way: str) -> None:
        assert ends.final[f"good_{way}", -1] == "success"
        assert workers(ends, f"good_{way}") == WORKERS_OF_A_SUCCESS[way]
        assert ends.final[f"after_{way}", -1] == "success"

    @pytest.mark.parametrize("way", WAYS)
    def test_of_a_failure(self, ends: Run, way: str) -> None:
        assert ends.final[f"bad_{way}", -1] == "failed"
        assert workers(ends, f"bad_{way}") == WORKERS_OF_A_FAILURE[way]

    def test_of_mapped_tasks(self, ends: Run) -> None:
        for index in range(2):
            assert ends.final["mapped", index] == "success"
            assert workers(ends, "mapped", index) == 1


class TestWhatAFailureIs:
    """The same in every way: it ends in a worker."""

    @pytest.mark.parametrize("way", WAYS)
    def test_uses_no_retries_and_says_why(self, ends: Run, way: str) -> None:
        assert "up_for_retry" not in ends.seen[f"bad_{way}", -1]
        assert "no output node succeeded" in ends.log(f"bad_{way}")
        assert "too tired" in ends.log(f"bad_{way}")

    @pytest.mark.parametrize("way", WAYS)
    def test_is_skipped_softly(self, ends: Run, way: str) -> None:
        assert ends.final[f"soft_{way}", -1] == "skipped"

    @pytest.mark.parametrize("way", WAYS)
    def test_calls_back(self, ends: Run, way: str, callbacks: Path) -> None:
        lines = callbacks.read_text().splitlines()
        assert f"{ends.run_id} bad_{way} failure" in lines
        assert f"{ends.run_id} soft_{way} skipped" in lines


class TestWhatIsLeftOut:
    @pytest.mark.parametrize("way", WAYS)
    def test_the_id_is_returned_by_a_worker_alone(self, ends: Run, way: str) -> None:
        returned = ends.xcoms(f"good_{way}").get("return_value")
        assert (returned is not None) == (way in RETURNING)

    # Airflow 2 calls back from the DAG processor, whoever ended the task, as the docs say.
    @pytest.mark.skipif(not AIRFLOW_3, reason="Airflow 2 calls back of every success")
    @pytest.mark.parametrize("way", WAYS)
    def test_success_is_called_back_by_a_worker_alone(
        self, ends: Run, way: str, callbacks: Path
    ) -> None:
        line = f"{ends.run_id} good_{way} success"
        assert (line in callbacks.read_text().splitlines()) == (way in RETURNING)


@pytest.fixture(scope="module")
def templates(stack: AirflowStack, promptlayer: LocalPromptLayer) -> Run:
    run = promptlayer.start_execution("Article pipeline", {"topic": "rain"})
    dag = "live_ends_templates"
    return finish(stack, {dag: {"run": run}})[dag]


@needs_start_in_triggerer
class TestTemplates:
    @pytest.mark.parametrize("task_id", ["params", "conf", "pull", "output", "connection"])
    def test_are_rendered_in_the_triggerer(self, templates: Run, task_id: str) -> None:
        assert templates.final[task_id, -1] == "success"
        assert workers(templates, task_id) == 0

    def test_an_error_in_one_fails_the_task(self, templates: Run) -> None:
        assert templates.final["error", -1] == "failed"
        assert workers(templates, "error") == 1

    @pytest.mark.parametrize("task_id", ["no_number", "no_run", "no_connection"])
    def test_a_wrong_one_fails_the_task(self, templates: Run, task_id: str) -> None:
        assert templates.final[task_id, -1] == "failed"
        assert workers(templates, task_id) == 1


@dataclass
class Late:
    """A wait that began in a triggerer, which was killed; another one goes on with it."""

    run: Run
    polls: Callable[[], list[float]]
    """Returns when each poll of the wait arrived."""
    before: int
    """How many polls the killed triggerer had sent."""


@pytest.fixture(scope="session")
def late(stack: AirflowStack, promptlayer: LocalPromptLayer) -> Late:
    dag = "live_ends_late"
    never = promptlayer.start_execution("Never", {})
    run = Run(stack, dag, stack.trigger_dag(dag, {"run": never}))
    asked = str(never)

    def polls() -> list[float]:
        return [
            one.arrived_at
            for one in promptlayer.requests
            if one.query.get("workflow_version_execution_id") == asked
        ]

    stack.wait_for(lambda: len(polls()) > 1, SECONDS, "a poll from the triggerer")
    (name,) = [one.name for one in stack.components.running() if "triggerer" in one.name]
    stack.kill(name)
    late = Late(run, polls, before=len(polls()))
    stack.start_triggerer()
    return late


@needs_start_in_triggerer
def test_another_triggerer_goes_on_with_a_wait_that_no_worker_saw(
    stack: AirflowStack, late: Late
) -> None:
    stack.wait_for(
        lambda: late.run.poll() or len(late.polls()) > late.before, SECONDS, "its first poll"
    )
    assert len(late.polls()) > late.before


@needs_start_in_triggerer
@pytest.mark.last  # the rest of its minute passes while other tests run
def test_a_wait_that_no_worker_saw_keeps_its_deadline(stack: AirflowStack, late: Late) -> None:
    """The triggerer that takes over counts from the true beginning."""
    stack.wait_for(late.run.poll, SECONDS, "the wait to end")
    assert late.run.final["late", -1] == "failed"
    log = late.run.log("late")
    assert "did not end within 1 minute" in log
    assert "last seen" in log, "Airflow ended it, not the trigger"
    assert late.polls()[-1] < late.polls()[late.before] + 60, "it has counted anew"
    assert workers(late.run, "late") == 1


@pytest.fixture(scope="module")
def callbacks(stack: AirflowStack) -> Path:
    """Where the callbacks of the DAGs leave a line each."""
    return Path(stack.env["PROMPTLAYER_CALLBACKS"])
