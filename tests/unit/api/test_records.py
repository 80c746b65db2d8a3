# SPDX-License-Identifier: Apache-2.0
"""The rows of a sheet as records: every form of answer, and what the fields are called."""

from __future__ import annotations

import math
from typing import Any

import pytest
from unit.api.answers import NOW, OTHER, SHEET, TABLE, answer

from airflow_provider_promptlayer.api.http import Call
from airflow_provider_promptlayer.api.records import RecordReader
from airflow_provider_promptlayer.api.rows import rows_page
from airflow_provider_promptlayer.api.tables import Sheet
from airflow_provider_promptlayer.exceptions import (
    PromptLayerInvalidInputError,
    PromptLayerNotFoundError,
    PromptLayerSheetChangedError,
    PromptLayerUnexpectedAnswerError,
)
from airflow_provider_promptlayer.polling.loop import drive, each_with_backoff
from airflow_provider_promptlayer.polling.retries import RetryPolicy

ROWS = f"/api/public/v2/tables/{TABLE}/sheets/{SHEET}/rows?limit=100"
FIRST = f"{ROWS}&include_columns=true"
LATER = f"{ROWS}&include_columns=false"
CARD = f"/api/public/v2/tables/{TABLE}/sheets/{SHEET}/scorecard"
METRICS = {
    "request_ids": [7, "8", 9],
    "price": 0.25,
    "latency_ms": 800,
    "input_tokens": 10,
    "output_tokens": None,
    "trace_ids": ["x"],
}


NO_RETRY = RetryPolicy(retries=lambda _: False)


def column_id(number: int) -> str:
    return f"c0000000-0000-4000-8000-00000000000{number}"


def column(number: int, title: str, type_: str = "TEXT") -> dict[str, Any]:
    return {"id": column_id(number), "title": title, "type": type_}


def page(*rows: dict[str, Any], **rest: Any) -> dict[str, Any]:
    """Return a page whose rows have these cells, by column."""
    data = [{"row_index": number, "cells": cells} for number, cells in enumerate(rows)]
    return {"data": data, "version": 3, "row_count": len(rows), "has_more": False, **rest}


def read(answers: dict[str, Any], **how: Any) -> tuple[list[dict[str, Any]], RecordReader]:
    """Read a sheet from answers by path; return its records, named, and the reader."""
    reader = RecordReader(Sheet(TABLE, SHEET), **how)

    def send(call: Call[Any]) -> Any:
        status, body = 200, answers[call.request.path]
        if isinstance(body, int):
            status, body = body, {"success": False, "message": "no"}
        return call.read(answer(status, body), NOW)

    found: list[dict[str, Any]] = []

    def send_page(call: Call[Any]) -> Any:
        reading = each_with_backoff(reader.read(call), about="a page", policy=NO_RETRY)
        page = drive(reading, send)
        found.extend(map(reader.named, reader.take(page, lambda _: True)))
        return page

    drive(reader.page_calls(), send_page)
    return found, reader


def one_cell(cell: dict[str, Any], type_: str = "PROMPT_TEMPLATE") -> dict[str, Any]:
    columns = [column(1, "A", type_)]
    (found,), _ = read({FIRST: page({column_id(1): cell}, columns=columns)})
    return found


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ({"value": "text"}, "text"),
        ({"value": {"value": True}}, True),
        ({"value": {"value": None}, "display_value": "shown"}, "shown"),
        ({"value": {"value": 1, "other": 2}}, {"value": 1, "other": 2}),
        ({"value": {"value": {"value": 1}}}, {"value": 1}),
        ({"value": 0}, 0),
        ({"value": "", "display_value": "shown"}, ""),
        ({"display_value": "shown"}, "shown"),
        ({}, None),
    ],
)
def test_the_value_of_a_cell(cell: dict[str, Any], value: Any) -> None:
    assert one_cell(cell, "TEXT") == {"row_index": 0, "A": value}


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ("completed", "completed"),
        ("COMPLETED", "completed"),
        ("error", "failed"),
        ("FAILED", "failed"),
        ("STALE ", "stale"),
        ("CANCELED", "cancelled"),
        ("Pondering", "pondering"),
        (7, None),
    ],
)
def test_the_status_is_one_word_in_either_vocabulary(status: Any, word: str | None) -> None:
    columns = [column(1, "A", "SCORE")]
    answers = {FIRST: page({column_id(1): {"status": status}}, columns=columns)}
    (found,), reader = read(answers)
    assert found["A_status"] == word
    assert reader.cell_counts == {word or "unknown": 1}


def test_what_a_calculated_cell_has_besides_its_value() -> None:
    assert one_cell({"status": "completed", "value": 1, "request_metrics": METRICS}) == {
        "row_index": 0,
        "A": 1,
        "A_status": "completed",
        "A_error": None,
        "A_price": 0.25,
        "A_latency_ms": 800,
        "A_input_tokens": 10,
        "A_output_tokens": None,
        "A_request_ids": [7, 9],
    }
    failed = one_cell({"error": "e", "error_message": "too hot", "request_metrics": None})
    assert failed["A_error"] == "too hot"
    assert one_cell({"error": "only this"})["A_error"] == "only this"


@pytest.mark.parametrize("wrong", [math.nan, math.inf, "1", True, -1 << 70, 10**400, [], {}])
def test_metrics_that_are_no_numbers_are_none(wrong: Any) -> None:
    metrics = dict.fromkeys(METRICS, wrong) | {"request_ids": [wrong]}
    found = one_cell({"request_metrics": metrics})
    assert (found["A_latency_ms"], found["A_request_ids"]) == (None, [])
    assert found["A_price"] == (float(-1 << 70) if wrong == -1 << 70 else None)
    assert type(found["A_price"]) in (float, type(None))  # as Parquet takes it


def test_no_two_fields_have_the_same_name() -> None:
    columns = [
        column(1, "A"),
        column(2, "a", "SCORE"),
        column(3, "A (2)"),
        column(4, "row_index"),
        column(5, " "),
        column(6, "A_status"),
        column(7, "A", "CODE_EXECUTION"),
    ]
    cells = {column_id(number): {"value": number} for number in range(1, 8)}
    (found,), reader = read({FIRST: page(cells, columns=columns)})
    values = {name: value for name, value in found.items() if value not in (None, 0)}
    assert values == {
        "A": 1,
        "a (3)": 2,
        "A (2)": 3,
        "row_index (2)": 4,
        column_id(5): 5,
        "A_status": 6,
        "A (4)": 7,
    }
    names = [field.name.casefold() for field in reader.fields]
    assert len(names) == len(set(names)) == len(found)


def test_columns_are_chosen_by_title_or_id_in_their_order() -> None:
    columns = [column(1, "A"), column(2, "B", "SCORE"), column(3, "B"), column(4, "C")]
    answers = {
        FIRST: page(
            {column_id(number): {"value": number} for number in range(1, 5)}, columns=columns
        )
    }
    (found,), _ = read(answers, columns=["C", column_id(2), "A"], details=False)
    assert list(found.items()) == [("row_index", 0), ("C", 4), ("B", 2), ("A", 1)]
    with pytest.raises(PromptLayerInvalidInputError, match=f"{column_id(2)}, {column_id(3)}"):
        read(answers, columns='["B"]')
    for unknown in ("D", column_id(9)):
        with pytest.raises(PromptLayerNotFoundError, match=unknown):
            read(answers, columns=[unknown])


@pytest.mark.parametrize("where", ["at the top", "in pagination"])
def test_pages_follow_each_other_by_either_cursor(where: str) -> None:
    more: dict[str, Any] = {"next_cursor": "a b&c\ud800", "has_more": True}
    first = page({}, columns=[], row_count=2) | (
        more if where == "at the top" else {"has_more": None, "pagination": more}
    )
    found, reader = read(
        {
            FIRST: first,
            f"{LATER}&cursor=a+b%26c%5Cud800": page({}, row_count=2, version=None),
        }
    )
    assert (len(found), reader.row_count, reader.version) == (2, 2, 3)


@pytest.mark.parametrize(
    ("second", "error"),
    [
        (page({}, row_count=2, version=4), PromptLayerSheetChangedError),
        (page({}, row_count=3), PromptLayerUnexpectedAnswerError),
        (page({}, {}, row_count=2), PromptLayerUnexpectedAnswerError),
        (page({}, next_cursor="x", has_more=True), PromptLayerUnexpectedAnswerError),
        (page({}, has_more=True), PromptLayerUnexpectedAnswerError),
        (page(*[{}] * 100, has_more=None), PromptLayerUnexpectedAnswerError),
        ({"data": [{"row_index": 1}]}, PromptLayerUnexpectedAnswerError),
        ({"data": [{"row_index": 1, "cells": {"a": 1}}]}, PromptLayerUnexpectedAnswerError),
        ({"data": [{"cells": {}}]}, PromptLayerUnexpectedAnswerError),
        (400, PromptLayerSheetChangedError),
        (404, PromptLayerNotFoundError),
    ],
)
def test_a_second_page_that_does_not_follow_the_first(second: Any, error: type[Exception]) -> None:
    first = page({}, columns=[], row_count=2, next_cursor="x", has_more=True)
    with pytest.raises(error):
        read({FIRST: first, f"{LATER}&cursor=x": second})


def test_columns_have_to_be_on_the_first_page() -> None:
    with pytest.raises(PromptLayerUnexpectedAnswerError, match="has no list of columns"):
        read({FIRST: page({})})
    assert rows_page(Sheet(TABLE, SHEET)).request.purpose == f"list the rows of sheet {SHEET}"


def card(status: str = "completed") -> dict[str, Any]:
    return {
        "scorecard": {
            "id": "card",
            "status": "active",
            "steps": [{"id": "s1", "title": "Polite"}, {"id": "s2", "title": "Polite"}],
        },
        "latest_calculation": {"id": OTHER, "status": status},
    }


def score(index: int, verdict: str | None, **rest: Any) -> dict[str, Any]:
    return {"row_index": index, "aggregate_score": 0.5, "aggregate_verdict": verdict, **rest}


def test_scores_join_the_rows_of_their_page() -> None:
    query = f"calculation_id={OTHER}"
    steps = {"s1": {"evidence": "Rude."}, "s2": {"raw_value": {"reasoning": "Curt."}}, "s3": 7}
    rows_ = page({}, {}, {}, {}, columns=[])
    rows_["data"] = rows_["data"][1:]  # row 0 was deleted, say
    rows_["row_count"] = 3
    found, _ = read(
        {
            FIRST: rows_,
            CARD: card(),
            f"{CARD}/rows?limit=100&{query}&cursor=0": {
                "rows": [
                    score(1, "fail"),
                    score(3, "pass", step_results={"s1": {"evidence": "Kind."}}),
                    score(4, "fail"),  # of the next page, which asks for its reason
                ],
            },
            f"{CARD}/rows/1?{query}": score(
                1, "fail", step_results=steps, error_summary={"message": "One step."}
            ),
        },
        scorecard=True,
    )
    assert [list(record.values())[1:] for record in found] == [
        ["fail", 0.5, {"Polite": "Rude.", "s2": "Curt."}, "One step."],
        [None, None, None, None],
        ["pass", 0.5, {"Polite": "Kind."}, None],
    ]


def test_scores_may_be_on_more_pages_than_their_rows() -> None:
    rows_ = page({}, {}, {}, columns=[])
    rows_["data"][2]["row_index"] = 3  # row 2 was deleted, and its score was not
    known = {"step_results": {"s1": {"evidence": "Rude."}}}  # so there is no request for them
    pages = f"{CARD}/rows?limit=100&calculation_id={OTHER}"
    found, _ = read(
        {
            FIRST: rows_,
            CARD: card(),
            pages: {"rows": [score(0, "pass"), score(1, "fail", **known)], "next_cursor": 1},
            f"{pages}&cursor=1": {"rows": [score(2, "pass"), score(3, "warn")], "next_cursor": 3},
            f"{CARD}/rows/3?calculation_id={OTHER}": score(3, "warn"),
        },
        scorecard=True,
    )
    assert [record["scorecard_verdict"] for record in found] == ["pass", "fail", "warn"]
    assert found[1]["scorecard_reasons"] == {"Polite": "Rude."}


@pytest.mark.parametrize(
    ("answered", "error"),
    [
        ({"scorecard": None}, PromptLayerInvalidInputError),
        (card() | {"latest_calculation": None}, PromptLayerInvalidInputError),
        (card("running"), PromptLayerSheetChangedError),
        (card("failed"), PromptLayerInvalidInputError),
        (card("cancelled"), PromptLayerInvalidInputError),
    ],
)
def test_scores_need_a_calculation_that_has_completed(
    answered: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        read({FIRST: page({}, columns=[]), CARD: answered}, scorecard=True)
