# SPDX-License-Identifier: Apache-2.0
"""Every kind of job, with one of each that succeeds, one that fails and one that never ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from airflow_provider_promptlayer.sensors.promptlayer import (
    PromptLayerReportSensor,
    PromptLayerScorecardSensor,
    PromptLayerTableOperationSensor,
    PromptLayerWorkflowSensor,
)
from airflow_provider_promptlayer.testing import (
    Column,
    Criterion,
    LocalPromptLayer,
    Node,
    Report,
    Scorecard,
    ScoredRow,
    Sheet,
    Table,
    Workflow,
)
from support.clocks import timed_by_polls

Fate = Literal["good", "bad", "never"]

SECRET = "what the customer wrote"
OUTPUTS = {"Notes": SECRET, "Answer": "true"}
"""Those of a good workflow run."""

BRIEF = 1e-6
"""Seconds that a job takes which ends: it has ended at the first poll, or, with ``by_polls``, at
the second one."""


def workflow(fate: Fate) -> Workflow:
    """Return a workflow whose runs have that fate."""
    return Workflow(
        fate,
        [
            Node("Notes", SECRET),
            Node(
                "Answer",
                "true",
                is_output_node=True,
                duration=math.inf if fate == "never" else BRIEF,
                status="FAILED" if fate == "bad" else "SUCCESS",
                error_message="too hot" if fate == "bad" else None,
            ),
        ],
    )


def sheet(fate: Fate, **changes: Any) -> Sheet:
    """Return a sheet whose operations and scorecard have that fate."""
    duration = math.inf if fate == "never" else BRIEF
    card = Scorecard(
        "Quality",
        [
            Criterion("Polite"),
            Criterion("Cites a source", verdict="fail", score=0.2, error_summary="1 of 3 fails.")
            if fate == "bad"
            else Criterion("Cites a source"),
        ],
        [
            ScoredRow("pass", 1.0),
            ScoredRow("fail", 0.1, reasons={"Cites a source": "The link leads nowhere."})
            if fate == "bad"
            else ScoredRow("pass", 1.0),
            ScoredRow("pass", 0.9),
        ],
        duration=duration,
        verdict="fail" if fate == "bad" else "pass",
        score=0.4 if fate == "bad" else 0.9,
        drift_summary={"delta": 0.1},
    )
    fields: dict[str, Any] = {
        "row_count": 3,
        "scorecard": card,
        "columns": [
            Column("Question", type="TEXT"),
            Column("Answer", cell_duration=duration, failing_rows=[1] if fate == "bad" else []),
        ],
        **changes,
    }
    return Sheet(fate, **fields)


SHEETS = {fate: sheet(fate) for fate in ("good", "bad", "never")}
TABLE = Table("Table", list(SHEETS.values()))
PIPELINES = {"good": 1, "bad": 2, "never": 3}
REPORTS = [
    Report("good", id=1, cells=4, duration=BRIEF, score=90.0, column_scores={"Is polite": 90.0}),
    Report("bad", id=2, cells=4, duration=BRIEF, failed_cells=4, score_calculation_error="No."),
    Report("never", id=3, cells=4, duration=math.inf),
]


Serve: TypeAlias = Callable[[LocalPromptLayer], LocalPromptLayer]
"""Start a server for the test, and have the default connection lead to it."""


def new_server(*more: Workflow, by_polls: bool = False) -> LocalPromptLayer:
    """Return a server that has one of each kind and fate.

    :param more: workflows besides these.
    :param by_polls: whether a second passes with each poll, and none without.
    """
    workflows = [workflow("good"), workflow("bad"), workflow("never"), *more]
    make = timed_by_polls if by_polls else LocalPromptLayer
    return make(workflows, tables=[TABLE], reports=REPORTS)


@dataclass(frozen=True)
class Kind:
    """A kind of job.

    :param name: what messages call one of it.
    :param waited_for: the end of the name of the hook's method.
    :param bad_says: what the message about a bad ending says.
    """

    name: str
    sensor: type
    waited_for: str
    ids: Callable[[Any], dict[str, Any]]
    start: Callable[[LocalPromptLayer, Fate], Any]
    id_of: Callable[[Any], Any]
    bad_says: tuple[str, ...]


def at_sheet(external_id: Any) -> dict[str, Any]:
    """Return the ids of an operation or a calculation; the sheet is that of its fate."""
    fate, _, its_id = external_id.partition(":")
    return {"table_id": TABLE.id, "sheet_id": SHEETS[fate].id, "its_id": its_id}


def _sheet_ids(name: str) -> Callable[[Any], dict[str, Any]]:
    def ids(external_id: Any) -> dict[str, Any]:
        found = at_sheet(external_id)
        found[name] = found.pop("its_id")
        return found

    return ids


def _workflow_id(value: Any) -> Any:
    return getattr(value, "workflow_version_execution_id", value)


def _evaluation_id(name: str) -> Callable[[Any], Any]:
    """Return how to find the id in what a hook's method or a sensor returns."""

    def id_of(value: Any) -> Any:
        if isinstance(value, dict):
            return value[name]
        return getattr(value[0] if isinstance(value, tuple) else value, name)

    return id_of


WORKFLOW_RUN = Kind(
    "workflow run",
    PromptLayerWorkflowSensor,
    "workflow_results",
    lambda external_id: {"workflow_version_execution_id": external_id},
    lambda server, fate: server.start_execution(fate),
    _workflow_id,
    ("'Answer'", "too hot"),
)
TABLE_OPERATION = Kind(
    "table operation",
    PromptLayerTableOperationSensor,
    "table_operation",
    _sheet_ids("operation_id"),
    lambda server, fate: f"{fate}:{server.start_operation(TABLE.id, SHEETS[fate].id)}",
    _evaluation_id("operation_id"),
    ("cells failed", "3 of 3 cells done, 1 failed"),
)
SCORECARD_CALCULATION = Kind(
    "scorecard calculation",
    PromptLayerScorecardSensor,
    "scorecard",
    _sheet_ids("calculation_id"),
    lambda server, fate: f"{fate}:{server.start_calculation(TABLE.id, SHEETS[fate].id)}",
    _evaluation_id("calculation_id"),
    (
        "the verdict is 'fail'",
        "'Cites a source' (fail, 0.2): 1 of 3 fails.",
        "row 1 (fail, 0.1): 'Cites a source': The link leads nowhere.",
    ),
)
REPORT = Kind(
    "report",
    PromptLayerReportSensor,
    "report",
    lambda external_id: {"report_id": external_id},
    lambda server, fate: server.start_report(PIPELINES[fate], fate),
    _evaluation_id("report_id"),
    ("no cell succeeded", "4 of 4 cells done, 4 failed", "PromptLayer says: No."),
)

KINDS = {kind.name: kind for kind in (WORKFLOW_RUN, TABLE_OPERATION, SCORECARD_CALCULATION, REPORT)}
EVALUATIONS = {name: kind for name, kind in KINDS.items() if kind is not WORKFLOW_RUN}


def own_id(external_id: Any) -> Any:
    """Return the bare id."""
    return external_id.partition(":")[2] if isinstance(external_id, str) else external_id
