# SPDX-License-Identifier: Apache-2.0
"""Pages about evaluations: what is judged, and how a page is written and read."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerEvaluationReportOperator
from airflow_provider_promptlayer.testing import (
    Column,
    Criterion,
    LocalPromptLayer,
    Scorecard,
    ScoredRow,
    Sheet,
    Table,
)
from support.modes import Ending, FakeTaskInstance, run_task

SOURCE = Criterion(
    "Cites a source",
    verdict="fail",
    score=0.25,
    error_summary="3 of 4 rows fail.",
    verdict_counts={"pass": 1, "fail": 3, "skipped": 2},
)
CARD = Scorecard(
    "Answer quality",
    [Criterion("Polite", verdict_counts={"pass": 4}), SOURCE, Criterion("Short")],
    [
        ScoredRow("pass", 1.0),
        ScoredRow("fail", 0.2, reasons={"Cites a source": "The link leads nowhere."}),
        ScoredRow("error", None, error_summary="The cell 'Answer' has failed."),
        ScoredRow("warn", 0.6, reasons={"Cites a source": "An overview."}),
    ],
    verdict="fail",
    score=0.41,
)
SHEET = Sheet(
    "Cases",
    [Column("Question", type="TEXT"), Column("Answer", is_stale=False)],
    rows=[{"Question": f"Why {number}?"} for number in range(4)],
    scorecard=CARD,
)
BARE = Sheet("No scorecard", [Column("Question", type="TEXT")], rows=[])
TABLE = Table("Support answers", [SHEET, BARE])
WHERE = TABLE.id, SHEET.id
DASHBOARD = "https://dashboard.example.com"
URL = f"{DASHBOARD}/workspace/1/smart-tables/{TABLE.id}?sheet={SHEET.id}"
USAGE = {"price": 1.234, "input_tokens": 9000, "output_tokens": 800, "requests": 120}
HISTORY = "promptlayer_score_history"
KEPT = {"version": 1, "sheet_id": SHEET.id}


class Page(HTMLParser):
    """A page as a browser reads it: its elements, and its text in one line."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._texts: list[str] = []
        self._is_style = False
        self.feed(self.source)
        self.text = " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._is_style = tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._is_style:
            self._texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._is_style = False

    def values(self, attribute: str) -> set[str | None]:
        return {given[attribute] for _, given in self.elements if attribute in given}

    def count(self, **attributes: str) -> int:
        return sum(attributes.items() <= given.items() for _, given in self.elements)


def report(
    folder: Path,
    *,
    ti: FakeTaskInstance | None = None,
    sheet: Sheet = SHEET,
    is_dated: bool = True,
    run_type: str = "scheduled",
    **arguments: Any,
) -> tuple[Ending, Page]:
    path = folder / "report.html"
    context: dict[str, Any] = {"dag_run": SimpleNamespace(run_type=run_type)}
    if is_dated:
        context["logical_date"] = "2026-11-26"
    how = {"table": TABLE.title, "sheet": sheet.title, "to": str(path), **arguments}
    ending = run_task(
        lambda: PromptLayerEvaluationReportOperator(task_id="task", **how), ti, **context
    )
    assert ending.kind == "success", ending
    return ending, Page(path)


def judge(server: LocalPromptLayer, card: Scorecard = CARD) -> str:
    """Calculate the scorecard; return the id of the calculation."""
    server.use_scorecard(*WHERE, card)
    hook = PromptLayerHook()
    try:
        calculation_id = hook.run_scorecard(*WHERE)
        hook.wait_for_scorecard(*WHERE, calculation_id, timeout=60, fail_on_verdict=())
    finally:
        hook.close()
    return calculation_id


def save(name: str) -> None:
    hook = PromptLayerHook()
    try:
        hook.save_version(*WHERE, name)
    finally:
        hook.close()


def kept(*scores: float) -> dict[str, Any]:
    return {HISTORY: {**KEPT, "scores": [{"score": score} for score in scores]}}
