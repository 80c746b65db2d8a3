# SPDX-License-Identifier: Apache-2.0
"""Scorecards, their calculations, and the rows of these."""

from __future__ import annotations

import pytest
from unit.testing.evaluations import (
    CARD,
    HERE,
    NOWHERE,
    PATH,
    TABLE,
    THERE,
    ask,
    assert_not_found,
    checked,
)

from airflow_provider_promptlayer.api.scorecards import (
    SheetCalculation,
    cancel_scorecard,
    recalculate_scorecard,
    scorecard,
    scorecard_row,
    scorecard_rows,
)
from airflow_provider_promptlayer.api.tables import Sheet
from airflow_provider_promptlayer.exceptions import PromptLayerRefusedError

PATH = f"{PATH}/scorecard"


@pytest.fixture
def client(serve):
    return serve(tables=[TABLE])


def calculated(client, **selection):
    """Start a calculation; return its id."""
    return ask(client, recalculate_scorecard(*HERE, **selection))


def test_from_queued_to_its_verdict(client, clock):
    calculation_id = calculated(client)
    seen = []
    for _ in range(4):
        status = ask(client, SheetCalculation(*HERE, calculation_id).fetch_call())
        seen.append((status.progress, status.is_complete))
        clock.now += 1.0
    assert seen == [
        ("queued", False),
        ("running", False),
        ("running", False),
        ("completed, verdict fail, score 0.4", True),
    ]
    assert status.drift_summary == {"delta": -0.5}
    summaries = status.criterion_summaries.values()
    assert [summary["title"] for summary in summaries] == ["Polite", "Cites"]
    assert client.server.calculations[calculation_id].was_posted


@pytest.mark.parametrize(
    ("verdict", "rows"), [("pass", [0]), ("fail", [1, 3]), (None, [0, 1, 2, 3])]
)
def test_rows_by_verdict_and_page(client, clock, verdict, rows):
    calculation_id = calculated(client)
    clock.now += 10
    found: list[int] = []
    cursor = None
    while not found or cursor is not None:
        call = scorecard_rows(
            Sheet(*HERE), calculation_id=calculation_id, verdict=verdict, cursor=cursor, limit=1
        )
        page = ask(client, call)
        assert page.verdict_counts == {"pass": 1, "fail": 2, "error": 1}
        (row,) = page.rows
        found.append(row.row_index)
        cursor = page.next_cursor
    assert found == rows


@pytest.mark.parametrize(
    ("row", "verdict", "reason"),
    [(1, "fail", {"evidence": "no link"}), (2, "error", {"error_message": "no cell"})],
)
def test_a_step_result_has_the_reason_where_it_belongs(client, clock, row, verdict, reason):
    calculated(client)
    clock.now += 10
    path = f"{PATH}/rows/{row}"
    nothing = dict.fromkeys(("score", "raw_value", "evidence", "error_message"))
    assert checked("GET", path, client.get(path)).json["step_results"] == {
        CARD.criteria[0].id: {**nothing, "verdict": "pass"},
        CARD.criteria[1].id: {**nothing, "verdict": verdict, **reason},
    }


def test_some_rows_and_steps(client, clock):
    selection = {"row_indices": [0, 2], "step_ids": [CARD.criteria[1].id.upper()]}
    reply = client.post(f"{PATH}/recalculate", selection)
    calculation_id = reply.json["calculation_id"]
    clock.now += 10
    status = ask(client, SheetCalculation(*HERE, calculation_id).fetch_call())
    assert list(status.criterion_summaries) == [CARD.criteria[1].id]
    page = ask(client, scorecard_rows(Sheet(*HERE)))
    assert (page.calculation_id, page.next_cursor) == (calculation_id, None)
    assert [row.row_index for row in page.rows] == [0, 2]
    assert_not_found(client, scorecard_row(Sheet(*HERE), 1))


def test_an_added_row_is_like_the_whole(client, clock):
    client.server.add_rows(*HERE, [{"Question": "Who?"}])
    calculated(client)
    client.server.add_rows(*HERE, [{"Question": "too late"}])
    clock.now += 10
    page = ask(client, scorecard_rows(Sheet(*HERE)))
    assert [row.row_index for row in page.rows] == [0, 1, 2, 3, 4]
    assert (page.rows[4].verdict, page.rows[4].score) == (CARD.verdict, CARD.score)
    card = ask(client, scorecard(Sheet(*HERE)))
    assert (card.scored_rows, card.total_rows) == (5, 5)


def test_the_scorecard_itself(client, clock):
    card = ask(client, scorecard(Sheet(*HERE)))
    assert (card.name, card.status, card.latest) == ("Quality", "ready", None)
    assert list(card.step_titles.values()) == ["Polite", "Cites"]
    calculation_id = calculated(client)
    clock.now += 10
    card = ask(client, scorecard(Sheet(*HERE)))
    assert card.latest.calculation_id == calculation_id
    assert (card.scored_rows, card.total_rows) == (4, 4)


def test_cancel_ends_all_that_are_active(client, clock):
    ids = [calculated(client), calculated(client)]
    assert len(set(ids)) == 2
    cancelled = ask(client, cancel_scorecard(Sheet(*HERE)))
    assert (cancelled.cancelled_count, cancelled.calculation_id) == (2, ids[1])
    clock.now += 60
    found = [ask(client, SheetCalculation(*HERE, each).fetch_call()).status for each in ids]
    assert found == ["cancelled"] * 2
    assert ask(client, cancel_scorecard(Sheet(*HERE))).calculation_id is None


def test_a_sheet_without_one(client):
    assert ask(client, scorecard(Sheet(*THERE))) is None
    with pytest.raises(PromptLayerRefusedError, match="not configured"):
        ask(client, recalculate_scorecard(*THERE))
    assert client.server.calculations == {}
    assert ask(client, scorecard_rows(Sheet(*THERE))).rows == ()


def test_an_unknown_one_is_404(client):
    assert_not_found(
        client,
        recalculate_scorecard(NOWHERE, NOWHERE),
        SheetCalculation(*HERE, NOWHERE).fetch_call(),
        scorecard(Sheet(TABLE.id, NOWHERE)),
        scorecard_row(Sheet(*HERE), 0),
        scorecard_rows(Sheet(*HERE), calculation_id=NOWHERE),
    )


def test_no_body_is_a_body(client):
    assert client.send("POST", f"{PATH}/recalculate").status == 202
    assert client.send("POST", f"{PATH}/cancel").json["cancelled_count"] == 1
