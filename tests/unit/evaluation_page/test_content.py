# SPDX-License-Identifier: Apache-2.0
"""What is on the page about an evaluation, and in the XCom of its task."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import DAG
from support.arguments import AT_RUN_TIME
from support.connections import connect
from support.evaluation_pages import (
    BARE,
    CARD,
    HISTORY,
    SHEET,
    SOURCE,
    TABLE,
    URL,
    USAGE,
    WHERE,
    Page,
    judge,
    kept,
    report,
)
from support.modes import FakeTaskInstance, run_task

from airflow_provider_promptlayer.hooks.promptlayer import PromptLayerHook
from airflow_provider_promptlayer.operators.promptlayer import PromptLayerEvaluationReportOperator
from airflow_provider_promptlayer.testing import (
    Criterion,
    LocalPromptLayer,
    Reply,
    ScoredRow,
    Table,
)


def test_what_is_on_the_page_and_in_xcom(server: LocalPromptLayer, tmp_path: Path) -> None:
    calculation_id = judge(server)
    ending, page = report(tmp_path, usage=USAGE, min_score=0.8)
    for expected in (
        "Cases Support answers · judged by Answer quality 0.41 fail",
        "Below the score that is needed, 0.8.",
        "1 pass, 1 warn, 1 fail, 1 error of 4 rows",
        "Cost: $1.23 · 120 requests · 9,000 tokens in · 800 tokens out",
        "Polite pass 100% – 1",
        "Cites a source 3 of 4 rows fail. fail 25% – 0.25",
        "Short pass – – 1",
        # The worst first: what has no score, then the lowest scores.
        "Row 2 error The cell 'Answer' has failed. Question Why 2? Answer",
        "Row 1 fail 0.2 Cites a source : The link leads nowhere. Question Why 1? Answer",
        "Row 3 warn 0.6 Cites a source : An overview. Question Why 3? Answer",
    ):
        assert expected in page.text, page.text
    assert page.text.index("Row 2") < page.text.index("Row 1") < page.text.index("Row 3")
    assert "Row 0" not in page.text
    assert page.values("href") == {URL}
    assert ending.value == {
        "path": str(tmp_path / "report.html"),
        "score": 0.41,
        "verdict": "fail",
        "change": None,
        "calculation_id": calculation_id,
        "criteria": [
            criterion("Polite", "pass", 1.0, 1.0),
            criterion("Cites a source", "fail", 0.25, 0.25),
            criterion("Short", "pass", 1.0, None),
        ],
        "verdict_counts": {"pass": 1, "fail": 1, "error": 1, "warn": 1},
        "worst_rows": [2, 1, 3],
        "price": 1.234,
        "url": URL,
    }
    assert os.listdir(tmp_path) == ["report.html"]  # noqa: PTH208


def criterion(title: str, verdict: str, score: float, rate: float | None) -> dict[str, Any]:
    return {
        "title": title,
        "verdict": verdict,
        "score": score,
        "pass_rate": rate,
        "change": None,
    }


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"pass": 999, "fail": 1}, "> 99%"),
        ({"pass": 1, "error": 999}, "< 1%"),
        ({"pass": 2, "warn": 1, "skipped": 7}, "67%"),
        ({"fail": 3}, "0%"),
        ({"skipped": 3}, "–"),
        ({}, "–"),
    ],
    ids=["almost all", "almost none", "skipped rows", "none", "all skipped", "no rows"],
)
def test_the_pass_rate(
    counts: dict[str, int], says: str, server: LocalPromptLayer, tmp_path: Path
) -> None:
    short = Criterion("Short", score=None, verdict_counts=counts)
    judge(server, replace(CARD, criteria=[SOURCE, short]))
    assert f"Short pass {says} – –" in report(tmp_path)[1].text


@pytest.mark.parametrize(
    ("usage", "says"),
    [
        ({}, None),
        ({"usage": USAGE}, "Cost: $1.23 ·"),
        ({"usage": json.dumps(USAGE)}, "Cost: $1.23 ·"),
        ({"usage": {**USAGE, "price": 0.00012}}, "Cost: $0.00012 ·"),
        ({"usage": {**USAGE, "price": None}}, "Cost: unknown, as PromptLayer does not say · 120"),
        ({"usage": None}, "Cost: unknown, as PromptLayer does not say"),
        ({"usage": "null"}, "Cost: unknown, as PromptLayer does not say"),
        ({"usage": "None"}, "Cost: unknown, as PromptLayer does not say"),
    ],
    ids=["left out", "given", "as JSON", "tiny", "no price", "no XCom", "null", "None"],
)
def test_the_cost(
    usage: dict[str, Any], says: str | None, server: LocalPromptLayer, tmp_path: Path
) -> None:
    judge(server)
    _, page = report(tmp_path, **usage)
    assert ("Cost" not in page.text) if says is None else (says in page.text)


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("failed", "has not completed. Its status is failed . The judge is out of tokens."),
        ("completed", "No score"),
    ],
    ids=["failed", "no score"],
)
def test_an_evaluation_without_a_score(
    status: str, says: str, server: LocalPromptLayer, tmp_path: Path
) -> None:
    card = replace(
        CARD, score=None, verdict=None, status=status, error_summary="The judge is out of tokens."
    )
    server.use_scorecard(*WHERE, card)
    hook = PromptLayerHook()
    hook.run_scorecard(*WHERE)
    hook.close()
    ending, page = report(tmp_path, ti=FakeTaskInstance(earlier_xcoms=kept(0.5, 0.6)))
    assert says in page.text
    assert "Score over the last 2 evaluations" in page.text
    assert ending.value["score"] is None
    assert [each["score"] for each in ending.xcoms[HISTORY]["scores"]] == [0.5, 0.6]


def test_a_sheet_without_a_scorecard(server: LocalPromptLayer, tmp_path: Path) -> None:
    ending, page = report(tmp_path, sheet=BARE)
    assert "There is no evaluation to report. The sheet has no scorecard" in page.text
    assert (ending.value["score"], ending.value["calculation_id"]) == (None, None)


@pytest.mark.parametrize("empty", [None, ""], ids=["none", "empty"])
def test_a_gate_that_was_not_reached(empty: Any, server: LocalPromptLayer, tmp_path: Path) -> None:
    judge(server)  # of the night before
    ending, page = report(tmp_path, calculation_id=empty)
    assert "There is no evaluation to report. The scorecard was not calculated" in page.text
    assert ending.value["score"] is None


def test_a_chosen_calculation(server: LocalPromptLayer, tmp_path: Path) -> None:
    first = judge(server, replace(CARD, score=0.7))
    judge(server)
    ending, _ = report(tmp_path, calculation_id=first)
    assert (ending.value["calculation_id"], ending.value["score"]) == (first, 0.7)


def test_all_rows_pass(server: LocalPromptLayer, tmp_path: Path) -> None:
    judge(server, replace(CARD, rows=[ScoredRow()] * 4, verdict="pass", score=1.0))
    ending, page = report(tmp_path)
    assert "4 pass of 4 rows" in page.text
    assert "All judged rows have passed." in page.text
    assert ending.value["worst_rows"] == []


def test_a_thousand_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = [ScoredRow("fail" if n % 2 else "pass", (n % 997) / 1000) for n in range(1000)]
    sheet = replace(
        SHEET,
        rows=[{"Question": f"{n} " + "x" * 100_000 * (n == 1)} for n in range(1000)],
        scorecard=replace(CARD, rows=rows),
    )
    with LocalPromptLayer(tables=[Table(TABLE.title, [sheet], id=TABLE.id)]) as server:
        connect(server, monkeypatch)
        judge(server, replace(CARD, rows=rows))
        ending, page = report(tmp_path)
    assert ending.value["worst_rows"][:3] == [997, 1, 999]
    assert len(ending.value["worst_rows"]) == 10
    assert "500 pass, 500 fail of 1,000 rows" in page.text
    assert f"Question {'1 '}{'x' * 200}" in page.text
    assert "x" * 300 not in page.source
    assert len(page.source) < 60_000
    assert page.values("href") == set()  # the address of the dashboard is not known


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/versions", "The saved scores could not be read"),
        ("/rows", "The cells of the worst rows could not be read"),
        ("/scorecard/rows", "The verdicts of rows could not be read"),
    ],
)
def test_what_cannot_be_read_is_said_to_be_missing(
    path: str, says: str, server: LocalPromptLayer, tmp_path: Path, log: Any
) -> None:
    judge(server)
    prefix = f"/api/public/v2/tables/{TABLE.id}/sheets/{SHEET.id}{path}"
    server.script(Reply(404, '{"success": false}'), path_prefix=prefix, times=None)
    _, page = report(tmp_path)
    assert says in page.text
    assert "0.41 fail" in page.text
    assert f"The report is not complete. {says}" in log()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"to": "report.pdf"}, "ends with .html"),
        ({"to": ""}, "ends with .html"),
        ({"calculation_id": "None"}, "calculation_id must be a UUID"),
        ({"min_score": None}, "min_score must be a number"),
        ({"usage": "a lot"}, "usage must be a mapping"),
    ],
    ids=["ending", "empty", "calculation", "score", "usage"],
)
def test_wrong_arguments(
    arguments: dict[str, Any], says: str, server: LocalPromptLayer, tmp_path: Path
) -> None:
    how = {"table": TABLE.title, "sheet": SHEET.title, "to": f"{tmp_path}/a.html", **arguments}
    ending = run_task(
        lambda: PromptLayerEvaluationReportOperator(task_id="task", **how, **AT_RUN_TIME)
    )
    assert ending.kind == "failed for good"
    assert says in ending.message
    assert os.listdir(tmp_path) == []  # noqa: PTH208


def test_templates(server: LocalPromptLayer, tmp_path: Path) -> None:
    calculation_id = judge(server)
    with DAG("dag", schedule=None):
        task = PromptLayerEvaluationReportOperator(
            task_id="task",
            table="{{ table }}",
            sheet="{{ sheet }}",
            to="file://{{ folder }}/{{ ds }}.html",
            calculation_id="{{ calculation_id or '' }}",
            min_score="{{ min_score }}",
            usage="{{ usage | tojson }}",
        )
    context: Any = {
        "table": TABLE.title,
        "sheet": SHEET.title,
        "folder": tmp_path,
        "ds": "2026-11-26",
        "calculation_id": calculation_id,
        "min_score": 0.5,
        "usage": USAGE,
    }
    task.render_template_fields(context)
    task.execute({"ti": FakeTaskInstance()})  # type: ignore[typeddict-item]
    text = Page(tmp_path / "2026-11-26.html").text
    assert "Below the score that is needed, 0.5." in text
    assert "Cost: $1.23" in text


def test_of_the_hook_in_a_coroutine(server: LocalPromptLayer) -> None:
    calculation_id = judge(server)
    hook = PromptLayerHook()
    try:
        expected = hook.summarize_evaluation(*WHERE)
        found = asyncio.run(hook.asummarize_evaluation(*WHERE, calculation_id=calculation_id))
    finally:
        hook.close()
    assert found == expected
    assert found.current == found.history[-1]
