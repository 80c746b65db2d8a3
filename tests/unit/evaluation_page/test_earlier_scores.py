# SPDX-License-Identifier: Apache-2.0
"""The score over time on the page about an evaluation, and what has changed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.evaluation_pages import (
    BARE,
    CARD,
    HISTORY,
    KEPT,
    SOURCE,
    TABLE,
    judge,
    kept,
    report,
    save,
)
from support.modes import FakeTaskInstance

from airflow_provider_promptlayer.testing import (
    LocalPromptLayer,
    Reply,
)


def test_none(server: LocalPromptLayer, tmp_path: Path) -> None:
    judge(server)
    _, page = report(tmp_path)
    assert "evaluations" not in page.text
    assert "since" not in page.text
    assert page.count(role="img") == 0


def test_those_of_saved_versions(server: LocalPromptLayer, tmp_path: Path) -> None:
    judge(server, replace(CARD, score=0.91, verdict="pass"))
    save("monday")
    judge(server, replace(CARD, score=0.95, verdict="warn"))
    save("tuesday")
    judge(server)
    save("tonight, before the report")
    ending, page = report(tmp_path, min_score=0.8)
    assert ending.value["change"] == pytest.approx(-0.54)
    assert "▼ 0.54 since" in page.text
    assert "when it was 0.95" in page.text
    assert "Score over the last 3 evaluations" in page.text
    assert "those of the saved versions" in page.text
    assert page.values("aria-label") == {"Score over the last 3 evaluations, from 0.91 to 0.41"}
    assert "needed 0.8" in page.text
    # A dot each, and one in the legend.
    dots = [page.count(**{"class": f"d-{verdict}"}) for verdict in ("pass", "warn", "fail")]
    assert dots == [2, 2, 2]


def test_those_that_this_task_has_reported(server: LocalPromptLayer, tmp_path: Path) -> None:
    earlier: dict[str, Any] = {}
    better = replace(SOURCE, verdict_counts={"pass": 3, "fail": 1})
    for score, source in ((0.5, SOURCE), (0.6, better), (0.41, SOURCE)):
        card = replace(CARD, score=score, criteria=[CARD.criteria[0], source])
        judge(server, card)
        ti = FakeTaskInstance(earlier_xcoms=earlier)
        ending, page = report(tmp_path, ti=ti)
        earlier = json.loads(json.dumps(ti.xcoms))
    assert "▼ 0.19 since" in page.text
    assert "Score over the last 3 evaluations" in page.text
    assert "those that this task has reported" in page.text
    assert "Cites a source 3 of 4 rows fail. fail 25% ▼ 50 points 0.25" in page.text
    assert "Polite pass 100% unchanged 1" in page.text
    assert ending.value["criteria"][1]["change"] == -0.5
    # A task that is cleared does not compare the evaluation with itself.
    again, _ = report(tmp_path, ti=FakeTaskInstance(earlier_xcoms=earlier))
    assert len(earlier[HISTORY]["scores"]) == 3
    assert again.xcoms[HISTORY]["scores"][:-1] == earlier[HISTORY]["scores"][:-1]


def test_whoever_knows_more(server: LocalPromptLayer, tmp_path: Path) -> None:
    judge(server)
    save("monday")
    judge(server)
    ti = FakeTaskInstance(earlier_xcoms=kept(0.1))
    assert "those that this task" in report(tmp_path, ti=ti)[1].text
    assert "those of the saved versions" in report(tmp_path)[1].text


def test_at_most_thirty_are_kept(server: LocalPromptLayer, tmp_path: Path) -> None:
    judge(server)
    ti = FakeTaskInstance(earlier_xcoms=kept(*(number / 100 for number in range(50))))
    ending, page = report(tmp_path, ti=ti)
    assert "Score over the last 30 evaluations" in page.text
    assert len(ending.xcoms[HISTORY]["scores"]) == 30


@pytest.mark.parametrize(
    "unreadable",
    [{"version": 2, "scores": []}, KEPT, {**KEPT, "scores": [{"score": "x"}]}],
    ids=["another version", "no scores", "a text"],
)
def test_a_history_that_cannot_be_read(
    unreadable: Any, server: LocalPromptLayer, tmp_path: Path, log: Any
) -> None:
    judge(server)
    ti = FakeTaskInstance(earlier_xcoms={HISTORY: unreadable})
    report(tmp_path, ti=ti)
    assert f"The XCom {HISTORY} of an earlier DAG run" in log()


def test_scores_of_another_configuration(server: LocalPromptLayer, tmp_path: Path) -> None:
    judge(server, replace(CARD, criteria=[SOURCE]))
    save("monday")
    judge(server)
    ending, page = report(tmp_path)
    assert "the scorecard was configured otherwise then" in page.text
    assert ending.value["change"] is None


@pytest.mark.parametrize(
    "scores",
    [(1, 1), (0, 0), (-5, 3), (10**400, 0.5), (1e300, -1e300), (50, 100), (1e-9, 2e-9)],
    ids=["same", "zero", "negative", "countless", "huge", "percent", "tiny"],
)
def test_scores_of_any_scale(
    scores: tuple[float, float], server: LocalPromptLayer, tmp_path: Path
) -> None:
    judge(server)
    _, page = report(tmp_path, ti=FakeTaskInstance(earlier_xcoms=kept(*scores)))
    assert not {"nan", "inf"} & set(page.text.split())
    ys = [float(y) for y in page.values("y1") if y]
    assert all(0 <= y <= 184 for y in ys)


def test_those_of_another_sheet_are_not_shown(server: LocalPromptLayer, tmp_path: Path) -> None:
    judge(server)
    others = {HISTORY: {**kept(0.5, 0.6)[HISTORY], "sheet_id": BARE.id}}
    ending, page = report(tmp_path, ti=FakeTaskInstance(earlier_xcoms=others))
    assert "evaluations" not in page.text
    assert [each["score"] for each in ending.xcoms[HISTORY]["scores"]] == [0.41]


def test_those_of_a_history_of_unknown_content(server: LocalPromptLayer, tmp_path: Path) -> None:
    points = [
        {"score": {"score": 0.6, "verdict": "warn"}, "version_number": 3},
        {"aggregate_score": 0.5, "created_at": "yesterday", "what": ["is", {"this": None}]},
        {"score": "a text"},
        {},
    ]

    def answer(request: Any) -> Reply | None:
        path = request.raw_path.partition("?")[0]
        if path.endswith("/versions"):  # a list that leaves the scores out
            saved = [{"id": TABLE.id, "version_number": 3}]
            return Reply.of_json({"success": True, "data": saved, "has_more": False})
        if path.endswith("/versions/score-history"):
            return Reply.of_json({"success": True, "score_history": {"points": points}})
        return None

    judge(server)
    server.script(answer, method="GET", times=None)
    ending, page = report(tmp_path)
    assert [each["score"] for each in ending.xcoms[HISTORY]["scores"]] == [0.5, 0.6, 0.41]
    assert "– 0.6 warn yesterday 0.5 –" in page.text


@pytest.mark.parametrize(
    ("kind", "run"),
    [
        ("", {}),
        ("_unscheduled", {"run_type": "manual"}),
        ("_backfill", {"run_type": "backfill"}),
        ("_undated", {"run_type": "manual", "is_dated": False}),
    ],
    ids=["scheduled", "triggered for a date", "backfill", "triggered"],
)
def test_those_of_scheduled_and_of_triggered_runs(
    kind: str, run: dict[str, Any], server: LocalPromptLayer, tmp_path: Path
) -> None:
    """Airflow finds the last run of each kind, each of which misses some of the others."""

    def known(*days: int) -> dict[str, Any]:
        scores = [
            {
                "score": day / 10,
                "at": f"2025-01-0{day}T00:00:00Z",
                "calculation_id": None if day == 3 else f"calculation {day}",
                "pass_rates": {"Polite": day / 10} if day == days[-1] else {},
            }
            for day in days
        ]
        return {**KEPT, "scores": scores}

    judge(server)
    earlier = {
        HISTORY: known(1, 3, 5),
        f"{HISTORY}_unscheduled": known(1, 3),
        f"{HISTORY}_backfill": known(1, 2, 3),
        f"{HISTORY}_undated": known(3, 4, 5, 6),
    }
    ending, _ = report(tmp_path, ti=FakeTaskInstance(earlier_xcoms=earlier), **run)
    kept_now = ending.xcoms[f"{HISTORY}{kind}"]
    assert [each["score"] for each in kept_now["scores"]] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.41]
    assert ending.value["criteria"][0]["change"] == pytest.approx(1.0 - 0.6)


@pytest.mark.parametrize(
    ("histories", "merged"),
    [
        ([[0.51, 0.7]], [0.51, 0.7]),
        ([[0.51, 0.7], [0.7]], [0.51, 0.7]),
        ([[0.7], [0.51, 0.7]], [0.51, 0.7]),
        ([[0.51, 0.7, 0.52], [0.51, 0.7]], [0.51, 0.7, 0.52]),
        ([[0.7], [0.7], [0.7]], [0.7]),
        ([[0.7, 0.7], [0.7]], [0.7, 0.7]),
    ],
)
def test_those_without_a_date(
    histories: list[list[float]], merged: list[float], server: LocalPromptLayer, tmp_path: Path
) -> None:
    """0.51 and 0.52 are of the first and the second of January, 0.7 is of an unknown date."""
    kinds = [HISTORY, f"{HISTORY}_unscheduled", f"{HISTORY}_undated"]
    dates = {0.51: "2025-01-01T00:00:00Z", 0.52: "2025-01-02T00:00:00Z"}
    earlier = {
        kind: {**KEPT, "scores": [{"score": each, "at": dates.get(each)} for each in scores]}
        for kind, scores in zip(kinds, histories, strict=False)
    }
    judge(server)
    ending, _ = report(tmp_path, ti=FakeTaskInstance(earlier_xcoms=earlier))
    assert [each["score"] for each in ending.xcoms[HISTORY]["scores"]] == [*merged, 0.41]
    assert ending.value["change"] == pytest.approx(0.41 - merged[-1])
