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
    PromptLayerSheetImportSensor,
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


def at(fate: Fate) -> dict[str, Any]:
    """Return the ids of a sheet whose jobs have that fate."""
    return {"table_id": TABLE.id, "sheet_id": SHEETS[fate].id}


@dataclass(frozen=True)
class Kind:
    """A kind of job.

    :param name: what messages call a job of it.
    :param waited_for: the end of the name of the hook's method.
    :param id_name: what PromptLayer calls the id.
    :param begin: starts a job without a request; returns its id.
    :param bad_says: what the message about a bad ending says.
    :param place: returns the ids besides its own that a job has.
    """

    name: str
    sensor: type
    waited_for: str
    id_name: str
    begin: Callable[[LocalPromptLayer, Fate], Any]
    bad_says: tuple[str, ...]
    place: Callable[[Fate], dict[str, Any]] = lambda _: {}

    def start(self, server: LocalPromptLayer, fate: Fate) -> dict[str, Any]:
        """Start a job; return its ids, as the sensor and the hook take them."""
        return {**self.place(fate), self.id_name: self.begin(server, fate)}

    def id_of(self, result: Any) -> Any:
        """Return the id in what the sensor or the method of the hook returns."""
        found = result[0] if isinstance(result, tuple) else result
        if isinstance(found, dict):
            return found[self.id_name]
        return getattr(found, self.id_name, found)


WORKFLOW_RUN = Kind(
    "workflow run",
    PromptLayerWorkflowSensor,
    "workflow_results",
    "workflow_version_execution_id",
    lambda server, fate: server.start_execution(fate),
    ("'Answer'", "too hot"),
)
TABLE_OPERATION = Kind(
    "table operation",
    PromptLayerTableOperationSensor,
    "table_operation",
    "operation_id",
    lambda server, fate: server.start_operation(**at(fate)),
    ("cells failed", "3 of 3 cells done, 1 failed"),
    at,
)
SCORECARD_CALCULATION = Kind(
    "scorecard calculation",
    PromptLayerScorecardSensor,
    "scorecard",
    "calculation_id",
    lambda server, fate: server.start_calculation(**at(fate)),
    (
        "the verdict is 'fail'",
        "'Cites a source' (fail, 0.2): 1 of 3 fails.",
        "row 1 (fail, 0.1): 'Cites a source': The link leads nowhere.",
    ),
    at,
)
REPORT = Kind(
    "report",
    PromptLayerReportSensor,
    "report",
    "report_id",
    lambda server, fate: server.start_report(PIPELINES[fate], fate),
    ("no cell succeeded", "4 of 4 cells done, 4 failed", "PromptLayer says: No."),
)

IMPORT = Kind(
    "import",
    PromptLayerSheetImportSensor,
    "import",
    "operation_id",
    lambda server, fate: server.start_import(
        **at(fate),
        content=b"Question,Question\n,\n" if fate == "bad" else b"Question\nWhy?\n",
        duration=math.inf if fate == "never" else BRIEF,
    ),
    ("has failed:",),
    at,
)

KINDS = {
    kind.name: kind
    for kind in (WORKFLOW_RUN, TABLE_OPERATION, SCORECARD_CALCULATION, REPORT, IMPORT)
}
EVALUATIONS = {name: kind for name, kind in KINDS.items() if kind is not WORKFLOW_RUN}
