# SPDX-License-Identifier: Apache-2.0
"""The DAG of the soak does what the accounting expects, and each start is traced to its task."""

from __future__ import annotations

import json
import time
from collections import Counter
from importlib.util import module_from_spec, spec_from_file_location
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import requests
from airflow.providers.common.compat.sdk import DAG

import dev.soak
from airflow_provider_promptlayer.testing import LocalPromptLayer
from airflow_provider_promptlayer.testing.faults.script import Request
from dev.soak.faults import FAULTS, Faults
from dev.soak.load import BATCH, MAPPED, PER_ROUND, Marker, markers, new_server, rounds
from dev.soak.plan import AWAY, EVERY_SECONDS, Kill, plan
from dev.soak.records import read_log, read_starts

ROUND = "soak-1-0"


def dag() -> DAG:
    spec = spec_from_file_location("soak_dag", Path(dev.soak.__file__).parent / "dags" / "soak.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    found: DAG = module.dag
    return found


def test_the_dag_has_the_tasks_that_are_accounted_for() -> None:
    found = dag()
    expected = Counter(marker.task for marker in markers(ROUND))
    assert set(found.task_ids) == set(expected)
    mapped: Any = found.get_task("mapped")
    batch: Any = found.get_task("batch")
    assert len(mapped.expand_input.value["input_variables"]) == MAPPED
    assert len(batch.inputs) == BATCH
    assert (expected["mapped"], expected["batch"]) == (MAPPED, BATCH)
    assert expected.total() + len({"again", "doomed"}) == PER_ROUND


@pytest.mark.parametrize(("runs", "count"), [(1, 1), (PER_ROUND, 1), (PER_ROUND + 1, 2)])
def test_there_are_rounds_enough(runs: int, count: int) -> None:
    assert len(set(rounds(runs, seed=1))) == count


def test_rounds_share_no_sheet() -> None:
    tables = new_server(rounds(10 * PER_ROUND, seed=1), time.time).tables
    ids = [sheet.id for table in tables for sheet in table.sheets]
    assert len(set(ids)) == len(ids) == 30


@pytest.fixture
def server() -> Any:
    with new_server([ROUND], time.time) as running:
        yield running


def post(server: LocalPromptLayer, path: str, body: Any, method: str = "POST") -> None:
    answer = requests.request(
        method,
        server.url + path,
        json=body,
        headers={"X-API-KEY": server.api_key},
        timeout=30,
    )
    answer.raise_for_status()


def test_each_start_is_traced_to_its_task(server: LocalPromptLayer) -> None:
    faults = Faults(1)
    server.script(faults, times=None)
    (table,) = (each for each in server.tables if each.title == ROUND)
    sheets = {
        sheet.title: f"/api/public/v2/tables/{table.id}/sheets/{sheet.id}" for sheet in table.sheets
    }
    origin = {"airflow_dag_id": "soak", "airflow_run_id": ROUND}
    for task, index, more in (("mapped", "3", {}), ("batch", "-1", {"airflow_batch_index": "7"})):
        metadata = {**origin, "airflow_task_id": task, "airflow_map_index": index, **more}
        body = {"input_variables": {"question": "q"}, "metadata": metadata}
        post(server, "/workflows/Short/run", body)
    post(server, f"{sheets['Cells']}/operations", {})
    post(server, f"{sheets['Scorecard']}/scorecard/recalculate", {})
    post(server, "/reports/1/run", {"name": ROUND})
    csv = {"file_name": "a.csv", "file_content_base64": "UXVlc3Rpb24KcQo="}
    post(server, f"{sheets['Load']}/imports/file", csv)
    label = requests.get(
        f"{server.url}/prompt-templates/{ROUND}/labels",
        headers={"X-API-KEY": server.api_key},
        timeout=30,
    ).json()["release_labels"][0]["release_label_id"]
    post(server, f"/prompt-labels/{label}", {"prompt_version_number": 2}, "PATCH")
    copy = {"base_version": 2, "commit_message": "", "release_labels": ["prod"]}
    post(server, f"/rest/workflows/{ROUND}", copy, "PATCH")

    starts = list(read_starts(server, faults.writes, [ROUND]))
    assert {start.marker for start in starts} == {
        Marker(ROUND, "mapped", 3),
        Marker(ROUND, "batch", batch_index=7),
        *(
            Marker(ROUND, task)
            for task in (
                "cells",
                "scorecard",
                "report",
                "load",
                "promote_prompt",
                "promote_workflow",
            )
        ),
    }
    assert {start.marker for start in starts} <= set(markers(ROUND))
    assert len(starts) == 8


def test_a_question_of_the_failing_workflow_fails_at_first(server: LocalPromptLayer) -> None:
    numbers = [server.start_execution("Failing first", {"question": "q"}) for _ in range(2)]
    assert [server.executions[each].plan[0].status for each in numbers] == ["FAILED", "SUCCESS"]


class TestLog:
    def test_the_error_of_the_last_try(self, tmp_path: Path) -> None:
        folder = tmp_path / "dag_id=soak" / f"run_id={ROUND}" / "task_id=mapped" / "map_index=2"
        folder.mkdir(parents=True)
        for number, message in ((1, "early"), (2, "middle"), (10, "late")):
            error = {"exc_type": "RuntimeError", "exc_value": message}
            line = json.dumps({"event": "Task failed", "error_detail": [error]})
            (folder / f"attempt={number}.log").write_text(f"no JSON\n{line}\n{{}}\n")
        text, reason = read_log(tmp_path, Marker(ROUND, "mapped", 2))
        assert reason == "RuntimeError: late"
        assert all(message in text for message in ("early", "middle", "late"))

    def test_a_task_that_was_killed_says_nothing(self, tmp_path: Path) -> None:
        assert read_log(tmp_path, Marker(ROUND, "run")) == ("", "no error in the log of try 0")


class TestSeed:
    def test_the_same_kills(self) -> None:
        assert list(islice(plan(7), 50)) == list(islice(plan(7), 50))
        assert list(islice(plan(7), 50)) != list(islice(plan(8), 50))

    def test_each_victim_comes_equally_often(self) -> None:
        kills = list(islice(plan(7), 3 * len(AWAY)))
        assert Counter(kill.victim for kill in kills) == dict.fromkeys(AWAY, 3)
        assert [kill.at for kill in kills[:3]] == [EVERY_SECONDS * n for n in (1, 2, 3)]

    def test_which_of_several(self) -> None:
        chosen = {Kill(0, "worker", each, 0).choose("ab") for each in (0.0, 0.4999, 0.5, 0.9999)}
        assert chosen == {"a", "b"}

    def test_the_same_faults_of_gets_alone(self) -> None:
        def faults(seed: int) -> list[Any]:
            rule = Faults(seed)
            met = [rule(Request("GET", "/workflows")) for _ in range(10_000)]
            assert rule.met.total() == sum(each is not None for each in met)
            return met

        met = faults(7)
        assert met == faults(7)
        assert met != faults(8)
        assert all(fault in met for fault in FAULTS.values())
        assert 200 < sum(each is not None for each in met) < 400
        assert all(Faults(7)(Request("POST", "/reports/1/run")) is None for _ in range(100))
