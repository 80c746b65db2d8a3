# SPDX-License-Identifier: Apache-2.0
"""The links of tasks, and what callbacks get of failures, as a real Airflow has them."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from live.runs import Run, finish
from support.needs import HAS_RETRY_POLICIES, needs_retry_policies

from airflow_provider_promptlayer.testing import LocalPromptLayer
from dev.airflow_config import AIRFLOW_3
from dev.airflow_stack import AirflowStack

LINKED = "https://dashboard.example.com"


@pytest.fixture(scope="module")
def runs(stack: AirflowStack, promptlayer: LocalPromptLayer) -> dict[str, Run]:
    # A run that has failed is retried for minutes where no policy says otherwise.
    failing = {"workflow": "Bad"} if HAS_RETRY_POLICIES else {"sheet": "Hard questions"}
    return finish(stack, {"live_links": {}, "promptlayer_tell_failures_apart": failing})


def link(run: Run, task_id: str, map_index: int = -1) -> str | None:
    """Return the URL of the button, as Airflow's API tells it to the user interface.

    Airflow 2 has no API server here; its webserver reads the same XCom.
    """
    if not AIRFLOW_3:
        found = run.xcoms(task_id, map_index).get("promptlayer_url")
        return None if found is None else str(found)
    path = f"/api/v2/dags/{run.dag_id}/dagRuns/{quote(run.run_id)}/taskInstances/{task_id}/links"
    answer = run.stack.api("GET", f"{path}?map_index={map_index}")
    (url,) = answer["extra_links"].values()
    return None if url is None else str(url)


class TestLinks:
    @pytest.mark.parametrize(("task_id", "state"), [("export", "success"), ("gate", "failed")])
    def test_to_a_sheet(self, runs: dict[str, Run], task_id: str, state: str) -> None:
        run = runs["live_links"]
        assert run.final[task_id, -1] == state
        url = link(run, task_id)
        assert re.fullmatch(rf"{LINKED}/workspace/1/smart-tables/\S+\?sheet=\S+", str(url))
        assert url == run.xcoms(task_id)["promptlayer_url"]
        assert str(url) in run.log(task_id)

    @pytest.mark.parametrize("index", [0, 1])
    def test_to_the_run_of_a_mapped_task(self, runs: dict[str, Run], index: int) -> None:
        run = runs["live_links"]
        run_id = run.xcoms("mapped", index)["promptlayer_execution_id"]
        assert link(run, "mapped", index) == f"{LINKED}/runs/{run_id}"

    def test_none_where_the_address_is_not_known(self, runs: dict[str, Run]) -> None:
        run = runs["live_links"]
        assert run.final["unlinked", -1] == "success"
        assert link(run, "unlinked") is None
        assert "promptlayer_url" not in run.xcoms("unlinked")


@needs_retry_policies
def test_a_policy_and_a_callback_tell_that_a_run_has_failed(runs: dict[str, Run]) -> None:
    run = runs["promptlayer_tell_failures_apart"]
    assert run.final == {("run", -1): "failed", ("gate", -1): "upstream_failed"}
    log = run.log("run")
    assert "too tired" in log
    assert "the run has failed" in log
    run_id = run.xcoms("run")["promptlayer_execution_id"]
    assert f"ALERT: {run_id} has failed: correct the workflow or its input." in log
    assert log.count("PromptLayer started workflow run") == 1


# There the policy ends the run with a failure, and the gate is not reached.
@pytest.mark.skipif(HAS_RETRY_POLICIES, reason="the test before covers it")
def test_a_callback_tells_that_an_evaluation_has_failed(runs: dict[str, Run]) -> None:
    run = runs["promptlayer_tell_failures_apart"]
    assert run.final == {("run", -1): "success", ("gate", -1): "failed"}
    calculation_id = run.xcoms("gate")["promptlayer_calculation_id"]
    assert f"ALERT: {calculation_id} does not pass: do not release this version." in run.log("gate")
