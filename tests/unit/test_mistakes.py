# SPDX-License-Identifier: Apache-2.0
"""A mistake that can be seen when the DAG is parsed fails there, and not in the night."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowException
from support.arguments import NEEDED
from support.modes import FakeTaskInstance

from airflow_provider_promptlayer.exceptions import PromptLayerInvalidInputError
from airflow_provider_promptlayer.operators import promptlayer as operators
from airflow_provider_promptlayer.sensors import promptlayer as sensors

RUN = operators.PromptLayerRunWorkflowOperator
BATCH = operators.PromptLayerRunWorkflowBatchOperator
RESULTS = operators.PromptLayerWorkflowResultsOperator
RUN_TABLE = operators.PromptLayerRunTableOperator
RUN_SCORECARD = operators.PromptLayerRunScorecardOperator
RUN_REPORT = operators.PromptLayerRunReportOperator
LOAD = operators.PromptLayerLoadSheetOperator
IMPORT = operators.PromptLayerImportRequestLogsOperator
EXPORT = operators.PromptLayerExportSheetOperator
SNAPSHOT = operators.PromptLayerSnapshotSheetOperator
PROMOTE = operators.PromptLayerPromoteOperator
OF_RUN = sensors.PromptLayerWorkflowSensor
OF_TABLE = sensors.PromptLayerTableOperationSensor
OF_SCORECARD = sensors.PromptLayerScorecardSensor
OF_REPORT = sensors.PromptLayerReportSensor
OF_IMPORT = sensors.PromptLayerSheetImportSensor
OF_VERSION = sensors.PromptLayerVersionSensor


class Mistake(NamedTuple):
    """A value that an argument cannot have, and what the error says."""

    cls: Any
    name: str
    value: Any
    says: str


TEMPLATED = [
    *(
        Mistake(cls, name, value, says)
        for cls in (RUN, BATCH)
        for name, value, says in (
            ("workflow_id_or_name", "", "is empty"),
            ("workflow_id_or_name", 2.5, "must be a name or a number, not float"),
            ("workflow_version_number", "latest", "must be a positive integer"),
            ("metadata", {"a": 1}, r"metadata\['a'\] must be a string, not 1"),
            ("metadata", "team=tea", "metadata must be a mapping"),
            ("nodes", "Summarize", "nodes must be a list"),
            ("nodes", [1], "nodes must be a list of texts"),
        )
    ),
    Mistake(RUN, "input_variables", ["tea"], "input_variables must be a mapping"),
    Mistake(RUN, "input_variables", {1: "tea"}, "input_variables must be a mapping"),
    Mistake(BATCH, "inputs", "tea", "inputs must be a list"),
    Mistake(BATCH, "inputs", {"topic": "tea"}, "inputs must be a list"),
    *(
        Mistake(cls, "workflow_version_execution_id", value, "must be a positive integer")
        for cls in (RESULTS, OF_RUN)
        for value in (0, "run 7", True)
    ),
    Mistake(RESULTS, "nodes", "Summarize", "nodes must be a list"),
    *(
        Mistake(cls, name, value, says)
        for cls in (RUN_TABLE, RUN_SCORECARD, LOAD, EXPORT, SNAPSHOT, OF_TABLE, OF_SCORECARD)
        for name, value, says in (
            ("table", "", "table must be a text"),
            ("table_id", "Support answers", "table_id must be a UUID"),
            ("sheet", 2.5, "sheet must be a text"),
            ("sheet_id", "Regression set", "sheet_id must be a UUID"),
        )
    ),
    Mistake(RUN_TABLE, "columns", "Answer", "columns must be a list"),
    Mistake(RUN_TABLE, "column_ids", ["Answer"], r"column_ids\[0\] must be a UUID"),
    Mistake(RUN_TABLE, "row_ids", [-1], r"row_ids\[0\] must be a row number"),
    Mistake(RUN_TABLE, "row_ids", [], "row_ids is empty"),
    Mistake(RUN_TABLE, "statuses", ["DONE"], "statuses must be a list of"),
    Mistake(RUN_TABLE, "max_price", -1, "max_price must be"),
    Mistake(RUN_TABLE, "column_versions", {"Answer": 3}, "Answer.* must be a mapping"),
    Mistake(RUN_TABLE, "column_versions", {"Answer": {"label": "a", "version": 1}}, "not both"),
    Mistake(RUN_SCORECARD, "row_indices", ["first"], r"row_indices\[0\] must be a row number"),
    Mistake(RUN_SCORECARD, "step_ids", ["Polite"], r"step_ids\[0\] must be a UUID"),
    *(
        Mistake(cls, name, value, says)
        for cls in (RUN_SCORECARD, OF_SCORECARD)
        for name, value, says in (
            ("fail_on_verdict", ["bad"], "fail_on_verdict must be"),
            ("min_score", "high", "min_score must be a number"),
            ("max_drop", -0.1, "max_drop must be a number"),
        )
    ),
    *(
        Mistake(cls, name, value, says)
        for cls in (RUN_REPORT, OF_REPORT)
        for name, value, says in (
            ("report_id", "nightly", "report_id must be a positive integer"),
            ("min_score", 101, "min_score must be a number from 0 to 100"),
        )
    ),
    Mistake(RUN_REPORT, "name", "x" * 256, "name must be a text of 1 to 255"),
    Mistake(RUN_REPORT, "dataset_id", "cases", "dataset_id must be a positive integer"),
    Mistake(LOAD, "title", "", "title must be a text"),
    Mistake(LOAD, "rows", "a,b", "rows must be a list"),
    Mistake(LOAD, "columns", "Question", "columns must be a list"),
    Mistake(IMPORT, "start", "yesterday", "start must be a datetime"),
    Mistake(IMPORT, "tags", [1], "tags must be a list of texts"),
    Mistake(IMPORT, "metadata", {"a": []}, "must be a string, not list"),
    Mistake(IMPORT, "filter_group", ["a"], "filter_group must be a mapping"),
    Mistake(IMPORT, "request_ids", ["a"], r"request_ids\[0\] must be a positive"),
    Mistake(IMPORT, "limit", "many", "limit must be a positive integer"),
    Mistake(EXPORT, "to", "s3://bucket/rows.xlsx", "has none of them"),
    Mistake(EXPORT, "columns", "Answer", "columns must be a list"),
    Mistake(SNAPSHOT, "name", "", "name must be a text"),
    Mistake(PROMOTE, "version", "latest", "version must be a positive integer"),
    Mistake(PROMOTE, "expected_version", 0, "expected_version must be a positive integer"),
    Mistake(PROMOTE, "from_label", "", "from_label must be a text"),
    *(
        Mistake(cls, name, value, says)
        for cls in (PROMOTE, OF_VERSION)
        for name, value, says in (
            ("prompt", "", "prompt is empty"),
            ("workflow", 2.5, "workflow must be a name or a number"),
        )
    ),
    Mistake(OF_VERSION, "release_label", "", "release_label must be a text"),
    Mistake(OF_VERSION, "newer_than", "1.0", "newer_than must be the number of a version"),
    Mistake(OF_TABLE, "operation_id", "", "operation_id must be an id"),
    Mistake(OF_IMPORT, "operation_id", ".", "operation_id must be an id"),
    Mistake(OF_SCORECARD, "calculation_id", "the last", "calculation_id must be a UUID"),
]
"""Mistakes in arguments that may be templates, too."""

PLAIN = [
    *(
        Mistake(cls, name, value, f"{name} must be")
        for cls in (RUN, BATCH, RUN_TABLE, OF_RUN, OF_VERSION)
        for name, value in (
            ("poke_interval", 0),
            ("poke_interval", -1),
            ("timeout", -1),
            ("max_outage", -1),
            ("max_wait", 0),
        )
    ),
    *(
        Mistake(cls, "fail_on", "always", "fail_on must be one of")
        for cls in (RUN, BATCH, RESULTS, RUN_TABLE, RUN_REPORT, OF_RUN, OF_TABLE, OF_REPORT)
    ),
    Mistake(PROMOTE, "poke_interval", 0, "poke_interval must be"),
    Mistake(LOAD, "delimiter", ", ", "delimiter must be one character"),
    Mistake(LOAD, "on_empty", "ignore", "on_empty must be one of"),
    Mistake(EXPORT, "on_change", "ignore", "on_change must be one of"),
    Mistake(BATCH, "max_active_runs", 0, "max_active_runs must be"),
    Mistake(BATCH, "start_concurrency", 0, "start_concurrency must be"),
    Mistake(BATCH, "min_success_rate", 95, "min_success_rate must be"),
]
"""Mistakes in arguments that are never rendered."""

TOGETHER: list[tuple[Any, dict[str, Any], str]] = [
    *(
        (cls, {"workflow_label_name": "prod", "workflow_version_number": 3}, "exclude each other")
        for cls in (RUN, BATCH)
    ),
    (RUN, {"callback_url": "example.com", "wait_for_completion": False}, "must be a URL"),
    (RUN_SCORECARD, {"baseline": "approved"}, "baseline needs max_drop"),
    (RUN_TABLE, {"columns": ["A"], "column_ids": ["B"]}, "not both"),
    (LOAD, {"rows": None}, "not none"),
    (LOAD, {"file": "file:///rows.csv"}, "not both"),
    (IMPORT, {"request_ids": [1], "tags": ["a"]}, "request_ids name the logs"),
    (IMPORT, {"release_label": "prod"}, "release_label is one of a prompt"),
]
"""Arguments that contradict each other."""

OTHERS = {
    "table_id": "table",
    "sheet_id": "sheet",
    "workflow": "prompt",
    "from_label": "version",
}
"""An argument → the one that may not be given with it."""


def ids(mistake: Mistake) -> str:
    return f"{mistake.cls.__name__}-{mistake.name}-{str(mistake.value)[:20]}"


def make(cls: Any, task_id: str = "task", /, **arguments: Any) -> Any:
    without = {OTHERS.get(name) for name in arguments}
    needed = {name: value for name, value in NEEDED[cls].items() if name not in without}
    return cls(task_id=task_id, **{**needed, **arguments})


@pytest.mark.parametrize("mistake", [*TEMPLATED, *PLAIN], ids=ids)
def test_a_constant(mistake: Mistake) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match=mistake.says):
        make(mistake.cls, **{mistake.name: mistake.value})


@pytest.mark.parametrize(("cls", "arguments", "says"), TOGETHER)
def test_contradictions(cls: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(PromptLayerInvalidInputError, match=says):
        make(cls, **arguments)


@pytest.mark.parametrize(
    "mistake", {(each.cls, each.name): each for each in TEMPLATED}.values(), ids=ids
)
def test_what_is_rendered_later_is_not_judged_now(mistake: Mistake) -> None:
    with DAG("d", schedule=None):
        output = RUN(task_id="other", workflow_id_or_name="w").output
        for number, value in enumerate(
            ("{{ params.x }}", "{% if x %}1{% endif %}", output, output["a"], ["{{ x }}"], [output])
        ):
            make(mistake.cls, f"task_{number}", **{mistake.name: value})


@pytest.mark.parametrize(
    ("cls", "name", "fixed"),
    [
        (RUN, "callback_url", {"workflow_id_or_name": "good"}),
        (PROMOTE, "expected_version", {"version": 5}),
        (OF_VERSION, "newer_than", {"prompt": "Reply"}),
        (LOAD, "sheet", {"table": "Answers", "rows": [{"Question": "Why?"}]}),
        (IMPORT, "prompt", {"table": "Answers", "sheet": "Cases", "limit": 5}),
    ],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
def test_a_mapped_argument_without_a_value(cls: Any, name: str, fixed: dict[str, Any]) -> None:
    """Made from the output of a task that has returned None, it must not count as left out."""
    other = {"prompt": "Reply"} if cls is PROMOTE else {}  # or all instances would move one label
    with DAG("d", schedule=None):
        expanded = {key: [value] for key, value in other.items()}
        mapped = cls.partial(task_id="task", **fixed).expand(**{name: ["a", None]}, **expanded)
    context: Any = {"ti": FakeTaskInstance(map_index=1), "run_id": "manual__1"}
    with pytest.raises(AirflowException, match=f"{name} is None"):
        mapped.unmap({name: None, **other}).execute(context)
