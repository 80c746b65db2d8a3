# SPDX-License-Identifier: Apache-2.0
"""Hostile names and values, from PromptLayer's answer to a downstream task, in a real Airflow."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from live.runs import SECONDS, ObjectStorage, Run, finish
from support.hostile import NAMES, VALUES
from support.raw_server import RawPromptLayer

from airflow_provider_promptlayer.api.text import one_line
from airflow_provider_promptlayer.xcom.outputs import storable_key
from dev.airflow_config import AIRFLOW_3, AIRFLOW_VERSION
from dev.airflow_stack import AirflowStack

OWN = {
    "promptlayer_execution_id",
    "promptlayer_final_output",
    "promptlayer_node_statuses",
    "return_value",
}
STORED = {
    **{name: value.expected for name, value in VALUES.items()},
    "Twice": "last",
    "5000 digits": "7" * 5_000,
}
DAG = "live_hostile"


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def digests(values: dict[str, Any]) -> list[list[str]]:
    return [[name, digest(value)] for name, value in sorted(values.items())]


def has_xcom(name: str) -> bool:
    return not ("/" in name and AIRFLOW_VERSION[:2] == (3, 0))


@pytest.fixture(scope="module")
def run(stack: AirflowStack, raw_promptlayer: RawPromptLayer) -> Run:
    return finish(stack, {DAG: {}})[DAG]


def warnings(run: Run, task_id: str) -> list[str]:
    """Return what the task's log says of single nodes; Airflow 3 writes JSON, Airflow 2 text."""
    lines = [line for line in run.log(task_id).splitlines() if "Node " in line]
    return [json.loads(line)["event"] if line.startswith("{") else line for line in lines]


class TestNames:
    def test_no_task_fails_and_no_run_is_repeated(
        self, run: Run, raw_promptlayer: RawPromptLayer
    ) -> None:
        assert run.state == "success", run.log("names") + run.log("values")
        assert sorted(raw_promptlayer.started) == ["names", "values"]

    def test_every_name_is_its_own_key_or_none(self, run: Run) -> None:
        keys = {one.name for one in NAMES if one.has_xcom and has_xcom(one.name)}
        assert keys == {one.name for one in NAMES if storable_key(one.name)}
        xcoms = run.xcoms("names")
        assert set(xcoms) == keys | OWN
        for one in NAMES:
            if one.name in keys:
                assert xcoms[one.name] == one.inside

    def test_every_value_is_in_return_value(self, run: Run) -> None:
        xcoms = run.xcoms("names")
        assert xcoms["return_value"] == {one.inside: one.inside for one in NAMES}
        assert xcoms["promptlayer_node_statuses"] == {one.inside: "SUCCESS" for one in NAMES}

    def test_downstream_is_handed_each_under_its_name(self, run: Run) -> None:
        single, everything = run.xcoms("receive_names")["return_value"]
        assert single == digests({one.name: one.inside for one in NAMES if storable_key(one.name)})
        assert everything == digests({one.inside: one.inside for one in NAMES})

    def test_one_warning_for_each_that_has_no_key_or_another_name(self, run: Run) -> None:
        odd = [one for one in NAMES if one.inside != one.name or not storable_key(one.name)]
        lines = warnings(run, "names")
        assert len(lines) == len(odd)
        for one in odd:
            assert sum(f"Node {one_line(repr(one.name), 80)} " in line for line in lines) == 1, one


class TestValues:
    def test_all_are_stored(self, run: Run) -> None:
        xcoms = run.xcoms("values")
        assert set(xcoms) == set(STORED) | OWN
        for name, value in STORED.items():
            assert xcoms[name] == value, name
            assert type(xcoms[name]) is type(value), name
        assert xcoms["return_value"] == STORED

    def test_downstream_is_handed_them(self, run: Run) -> None:
        single, everything = run.xcoms("receive_values")["return_value"]
        assert single == digests(STORED)
        assert everything == digests(STORED)

    def test_nothing_is_rendered(self, run: Run) -> None:
        assert run.xcoms("literally")["return_value"] == [VALUES["Markup"].sent] * 2

    def test_one_warning_for_each_that_was_changed(self, run: Run) -> None:
        lines = warnings(run, "values")
        changed = {name: value for name, value in VALUES.items() if value.warning}
        assert len(lines) == len(changed)
        for name, value in changed.items():
            assert sum(f"Node '{name}'" in line and value.warning in line for line in lines) == 1

    def test_what_the_parser_changed_is_named(self, run: Run) -> None:
        log = run.log("values")
        assert "the key 'Twice' occurs twice" in log
        assert "an integer of 5000 digits became text" in log

    def test_hint_at_object_storage(self, run: Run) -> None:
        assert run.log("values").count("[common.io] xcom_objectstorage_path") == 1
        assert "xcom_objectstorage_path" not in run.log("names")


def is_read_again(value: Any) -> bool:
    """Return whether this backend, on Airflow 2, parses a text that it has parsed before."""
    if AIRFLOW_3 or not isinstance(value, str):
        return False
    try:
        json.loads(value)
    except ValueError:
        return value.isdigit()  # of which Python converts 4,300
    return True


@pytest.fixture(scope="module")
def stored(object_storage: ObjectStorage) -> Run:
    run = object_storage.run.result()
    run.stack.wait_for(run.poll, SECONDS, "the run to end")
    return run


class TestObjectStorage:
    """Airflow's own XComObjectStorageBackend, on a local folder."""

    def test_large_values_are_in_files(self, stored: Run, object_storage: ObjectStorage) -> None:
        assert stored.state == "success", stored.log("values")
        files = [file for file in object_storage.folder.rglob("*") if file.is_file()]
        contents = [json.loads(file.read_text()) for file in files]
        assert all(file.stat().st_size > 1_000_000 for file in files)
        assert STORED["Large"] in contents
        assert STORED in contents

    def test_downstream_reads_them_whole(self, stored: Run) -> None:
        single, everything = stored.xcoms("receive_values")["return_value"]
        handed = {name: value for name, value in STORED.items() if not is_read_again(value)}
        assert [pair for pair in single if pair[0] in handed] == digests(handed)
        assert everything == digests(STORED)

    def test_no_hint(self, stored: Run) -> None:
        assert "xcom_objectstorage_path" not in stored.log("values")
