# SPDX-License-Identifier: Apache-2.0
"""What Airflow's provider of OpenLineage gets from a task that has ended."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG, ObjectStoragePath
from support.kinds import SHEETS, TABLE, Fate, Serve, at, new_server
from support.modes import FakeTaskInstance, run_task

from airflow_provider_promptlayer.bases.lineage import file_dataset
from airflow_provider_promptlayer.operators.promptlayer import (
    PromptLayerEvaluationReportOperator,
    PromptLayerExportSheetOperator,
    PromptLayerImportRequestLogsOperator,
    PromptLayerLoadSheetOperator,
    PromptLayerRunReportOperator,
    PromptLayerRunScorecardOperator,
    PromptLayerRunTableOperator,
    PromptLayerRunWorkflowBatchOperator,
    PromptLayerRunWorkflowOperator,
    PromptLayerSnapshotSheetOperator,
)
from airflow_provider_promptlayer.sensors.promptlayer import PromptLayerVersionSensor
from airflow_provider_promptlayer.testing import LocalPromptLayer, Prompt, RequestLog

# Without it Airflow asks for nothing: the other tests of the oldest Airflow run in that way.
pytest.importorskip(
    "airflow.providers.openlineage", reason="the provider of OpenLineage is not installed here"
)

ASKED = "no verdict fail or error, a score of 0.5"
BAD_SCORECARD = [
    ("gate", False, ASKED, "completed, verdict fail, score 0.4"),
    ("Polite", True, None, "pass, score 1"),
    ("Cites a source", False, None, "fail, score 0.2"),
]
GOOD_SCORECARD = [
    ("gate", True, ASKED, "completed, verdict pass, score 0.9"),
    ("Polite", True, None, "pass, score 1"),
    ("Cites a source", True, None, "pass, score 1"),
]


@pytest.fixture
def server(serve: Serve) -> LocalPromptLayer:
    return serve(new_server())


def ended(operator: type, *, fate: str = "success", **arguments: Any) -> Any:
    """Run a task; return what the provider of OpenLineage finds in the task, as plain values."""
    made: list[Any] = []

    def make() -> Any:
        with DAG("dag", schedule=None, start_date=datetime.datetime(2026, 1, 1)):
            made.append(operator(task_id="task", **arguments))
        return made[-1]

    assert run_task(make).kind == fate
    manager = import_module("airflow.providers.openlineage.extractors.manager").ExtractorManager()
    states = import_module("airflow.utils.state").TaskInstanceState
    found = manager.extract_metadata(
        dagrun=SimpleNamespace(run_id="manual__1"),
        task=made[-1],
        task_instance_state={"success": states.SUCCESS, "skipped": states.SKIPPED}.get(
            fate, states.FAILED
        ),
        task_instance=FakeTaskInstance(),
    )
    query = found.run_facets.get("externalQuery")
    return SimpleNamespace(
        query=None if query is None else (query.externalQueryId, query.source),
        inputs={(each.namespace, each.name): _assertions(each) for each in found.inputs},
        outputs={(each.namespace, each.name): _rows(each) for each in found.outputs},
    )


def _assertions(dataset: Any) -> list[tuple[Any, ...]]:
    facet = (dataset.inputFacets or {}).get("dataQualityAssertions")
    return [
        (each.assertion, each.success, each.expected, each.actual)
        for each in ([] if facet is None else facet.assertions)
    ]


def _rows(dataset: Any) -> int | None:
    facet = (dataset.outputFacets or {}).get("outputStatistics")
    return None if facet is None else int(facet.rowCount)


def namespace(server: LocalPromptLayer) -> str:
    return server.url.replace("http://", "promptlayer://")


def sheet(server: LocalPromptLayer, fate: Fate = "good") -> tuple[str, str]:
    return namespace(server), f"tables/{TABLE.id}/sheets/{SHEETS[fate].id}"


class TestRun:
    def test_of_a_workflow(self, server: LocalPromptLayer, deferrable: bool) -> None:
        found = ended(
            PromptLayerRunWorkflowOperator,
            workflow_id_or_name="good",
            deferrable=deferrable,
            poke_interval=0.02,
        )
        assert found.query == ("1", namespace(server))
        assert (found.inputs, found.outputs) == ({}, {})

    @pytest.mark.parametrize(("fate", "arguments"), [("failed", {}), ("timeout", {"timeout": 0.1})])
    def test_that_does_not_succeed(
        self, fate: str, arguments: dict[str, Any], server: LocalPromptLayer, deferrable: bool
    ) -> None:
        found = ended(
            PromptLayerRunWorkflowOperator,
            fate=fate,
            workflow_id_or_name="never" if arguments else "bad",
            deferrable=deferrable,
            poke_interval=0.02,
            **arguments,
        )
        assert found.query == ("1", namespace(server))

    def test_that_has_a_page(
        self, server: LocalPromptLayer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        page = "https://example.com/runs/{workflow_version_execution_id}"
        connection = json.loads(server.airflow_connection_json) | {"extra": {"run_url": page}}
        monkeypatch.setenv("AIRFLOW_CONN_PROMPTLAYER_DEFAULT", json.dumps(connection))
        found = ended(PromptLayerRunWorkflowOperator, workflow_id_or_name="good", deferrable=False)
        assert found.query == ("1", "https://example.com/runs/1")

    def test_for_each_input_of_a_batch(self, server: LocalPromptLayer) -> None:
        found = ended(
            PromptLayerRunWorkflowBatchOperator,
            workflow_id_or_name="good",
            inputs=[{}, {}, {}],
            start_concurrency=1,
            poke_interval=0.02,
        )
        assert found.query == ("1,2,3", namespace(server))

    def test_of_a_report(self, server: LocalPromptLayer) -> None:
        found = ended(PromptLayerRunReportOperator, report_id=1, name="nightly", deferrable=False)
        assert found.query == (str(*server.reports), namespace(server))


class TestSheet:
    @pytest.mark.parametrize(
        ("fate", "soft_fail", "end", "assertions"),
        [
            ("good", False, "success", GOOD_SCORECARD),
            ("bad", False, "failed for good", BAD_SCORECARD),
            ("bad", True, "skipped", BAD_SCORECARD),
        ],
    )
    def test_that_is_judged(
        self,
        fate: Fate,
        soft_fail: bool,
        end: str,
        assertions: Any,
        server: LocalPromptLayer,
        deferrable: bool,
    ) -> None:
        found = ended(
            PromptLayerRunScorecardOperator,
            fate=end,
            soft_fail=soft_fail,
            min_score=0.5,
            deferrable=deferrable,
            poke_interval=0.02,
            **at(fate),
        )
        assert found.query == (str(*server.calculations), namespace(server))
        assert found.inputs == {sheet(server, fate): assertions}
        assert found.outputs == {}

    def test_that_was_not_judged(self, server: LocalPromptLayer) -> None:
        found = ended(
            PromptLayerRunScorecardOperator,
            fate="timeout",
            timeout=0.1,
            deferrable=False,
            poke_interval=0.02,
            **at("never"),
        )
        assert found.query == (str(*server.calculations), namespace(server))
        assert found.inputs == {}

    @pytest.mark.parametrize("fate", ["good", "bad"])
    def test_that_is_recalculated(self, fate: Fate, server: LocalPromptLayer) -> None:
        found = ended(
            PromptLayerRunTableOperator,
            fate="success" if fate == "good" else "failed for good",
            deferrable=False,
            **at(fate),
        )
        assert found.query == (str(*server.operations), namespace(server))
        assert found.outputs == {sheet(server, fate): None}

    def test_that_is_saved(self, server: LocalPromptLayer) -> None:
        found = ended(PromptLayerSnapshotSheetOperator, name="v", **at("good"))
        assert found.inputs == {sheet(server): []}


class TestRows:
    @pytest.mark.parametrize("of", [str, ObjectStoragePath])
    def test_loaded_from_a_file(
        self, of: Callable[[str], Any], server: LocalPromptLayer, tmp_path: Path, deferrable: bool
    ) -> None:
        (tmp_path / "cases.csv").write_text("Question\nWho?\nWhat?\n")
        found = ended(
            PromptLayerLoadSheetOperator,
            file=of(f"file://{tmp_path}/cases.csv"),
            deferrable=deferrable,
            poke_interval=0.02,
            **at("good"),
        )
        assert found.query == (server.imports[0].operation_id, namespace(server))
        assert found.inputs == {("file", f"{tmp_path}/cases.csv"): []}
        assert found.outputs == {sheet(server): 2}

    def test_loaded_from_an_xcom(self, server: LocalPromptLayer) -> None:
        found = ended(
            PromptLayerLoadSheetOperator,
            rows=[{"Question": "Who?"}],
            deferrable=False,
            poke_interval=0.02,
            **at("good"),
        )
        assert (found.inputs, found.outputs) == ({}, {sheet(server): 1})

    def test_sampled_from_request_logs(self, serve: Serve) -> None:
        server = serve(LocalPromptLayer(tables=[TABLE], request_logs=[RequestLog(1)]))
        found = ended(
            PromptLayerImportRequestLogsOperator,
            request_ids=[1],
            deferrable=False,
            poke_interval=0.02,
            **at("good"),
        )
        assert found.inputs == {(namespace(server), "request-logs"): []}
        assert found.outputs == {sheet(server): 1}

    def test_exported(self, server: LocalPromptLayer, tmp_path: Path) -> None:
        path = f"{tmp_path}/rows.jsonl"
        found = ended(PromptLayerExportSheetOperator, to=path, **at("good"))
        assert found.inputs == {sheet(server): []}
        assert found.outputs == {("file", path): 3}

    def test_in_a_page(self, server: LocalPromptLayer, tmp_path: Path) -> None:
        found = ended(PromptLayerEvaluationReportOperator, to=f"{tmp_path}/page.html", **at("good"))
        assert found.inputs == {sheet(server): []}
        assert found.outputs == {("file", f"{tmp_path}/page.html"): None}

    @pytest.mark.parametrize("fate", ["success", "failed for good"])
    def test_returned_alone(self, fate: str, server: LocalPromptLayer) -> None:
        where = at("good") | ({} if fate == "success" else {"columns": ["No such"]})
        found = ended(PromptLayerExportSheetOperator, fate=fate, return_rows=True, **where)
        assert found.inputs == ({sheet(server): []} if fate == "success" else {})
        assert found.outputs == {}


@pytest.mark.parametrize(
    ("operator", "fate", "arguments"),
    [
        (PromptLayerRunScorecardOperator, "success", at("good")),
        (PromptLayerRunScorecardOperator, "failed for good", at("bad")),
        (PromptLayerSnapshotSheetOperator, "success", at("good") | {"name": "v"}),
        (PromptLayerExportSheetOperator, "success", at("good") | {"return_rows": True}),
        (PromptLayerEvaluationReportOperator, "success", at("good") | {"to": "page.html"}),
    ],
)
def test_that_cannot_be_noted_changes_no_outcome(
    operator: Any,
    fate: str,
    arguments: dict[str, Any],
    server: LocalPromptLayer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    log: Callable[[], str],
) -> None:
    monkeypatch.chdir(tmp_path)

    class WithoutName(operator):  # type: ignore[misc]
        def dataset(self, **facts: Any) -> Any:
            raise ValueError(facts)

    found = ended(WithoutName, fate=fate, **arguments)
    assert (found.inputs, found.outputs) == ({}, {})
    assert "Could not note for OpenLineage" in log()


def test_a_watch_is_no_query(serve: Serve) -> None:
    serve(LocalPromptLayer(prompts=[Prompt("Reply", latest_version=3)]))
    found = ended(PromptLayerVersionSensor, prompt="Reply", newer_than=2, deferrable=False)
    assert (found.query, found.inputs, found.outputs) == (None, {}, {})


def test_a_task_that_has_sent_nothing(server: LocalPromptLayer) -> None:
    found = ended(
        PromptLayerRunWorkflowOperator,
        fate="failed",
        workflow_id_or_name="good",
        promptlayer_conn_id="none",
    )
    assert (found.query, found.inputs, found.outputs) == (None, {}, {})


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("s3://aws_default@bucket/a/b.csv", ("s3://bucket", "a/b.csv")),
        ("gs://bucket/b.csv", ("gs://bucket", "b.csv")),
        ("file:///a/b.csv", ("file", "/a/b.csv")),
        ("/a/b.csv", ("file", "/a/b.csv")),
        ("b.csv", ("file", str(Path("b.csv").absolute()))),
        ("b:v2.csv", ("file", str(Path("b:v2.csv").absolute()))),
        ("/a#1/b.csv", ("file", "/a#1/b.csv")),
        ("//server/a/b?.csv", ("file", "//server/a/b?.csv")),
        ("//[a/b.csv", ("file", "//[a/b.csv")),
        ("s3://bucket/a#1/b?.csv", ("s3://bucket", "a#1/b?.csv")),
        ("https://me:secret@host/a/b.csv?signature=secret", ("https://host", "a/b.csv")),
        ("HTTPS://host?signature=secret://", ("https://host", "")),
    ],
)
def test_name_of_a_file(path: str, name: tuple[str, str]) -> None:
    """As Airflow's own providers name the assets of files."""
    found = file_dataset(path)
    assert (found.namespace, found.name) == name
