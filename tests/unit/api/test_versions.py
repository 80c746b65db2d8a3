# SPDX-License-Identifier: Apache-2.0
"""Saved versions of a sheet: the bytes of a request, and what each answer means."""

from __future__ import annotations

from typing import Any

import pytest
from unit.api.answers import NOW, OTHER, SHEET, TABLE, answer, body_of

from airflow_provider_promptlayer.api.tables import Sheet
from airflow_provider_promptlayer.api.versions import (
    SheetVersion,
    create_version,
    list_versions,
    score_history,
    version_of,
)
from airflow_provider_promptlayer.exceptions import (
    PromptLayerInvalidInputError,
    PromptLayerUnexpectedAnswerError,
)

WHERE = Sheet(TABLE, SHEET)
PATH = f"/api/public/v2/tables/{TABLE}/sheets/{SHEET}/versions"
VERSION: dict[str, Any] = {"id": OTHER.upper(), "sheet_id": SHEET, "version_number": 3}


def read(**fields: Any) -> SheetVersion:
    body = {"success": True, "version": {**VERSION, **fields}}
    return version_of(WHERE, OTHER).read(answer(200, body), NOW)


def test_requests() -> None:
    assert version_of(WHERE, OTHER.upper()).request.path == f"{PATH}/{OTHER}"
    assert list_versions(WHERE).request.path == f"{PATH}?limit=100&order=desc"
    following = list_versions(WHERE, cursor="a b", limit=2)
    assert following.request.path == f"{PATH}?limit=2&order=desc&cursor=a+b"
    call = create_version(WHERE, "nightly 2026-01-31")
    assert (call.request.method, call.request.path) == ("POST", PATH)
    assert body_of(call) == {"name": "nightly 2026-01-31"}
    assert body_of(create_version(WHERE, 20260131)) == {"name": "20260131"}  # type: ignore[arg-type]
    for name in ("", " ", "x" * 256, None):
        with pytest.raises(PromptLayerInvalidInputError, match="name must be a text of 1 to 255"):
            create_version(WHERE, name)  # type: ignore[arg-type]


def test_a_version_that_may_have_been_saved() -> None:
    body = {"success": True, "version": VERSION}
    assert create_version(WHERE, "a").read(answer(201, body), NOW).version_id == OTHER
    with pytest.raises(Exception, match="may have been saved"):
        create_version(WHERE, "a").read(answer(502, b"<html>"), NOW)


@pytest.mark.parametrize(
    "fields",
    [
        {"score": 0.9, "config_hash": "a"},
        {"score": {"aggregate_score": 0.9, "config_hash": "a"}},
        {"score": {"overall_score": 0.9}, "score_configuration": {"config_hash": "a"}},
        {"score": {"score": 0.9, "aggregate_score": None, "config_hash": "a"}},
    ],
    ids=str,
)
def test_forms_of_a_score(fields: dict[str, Any]) -> None:
    expected = SheetVersion(OTHER, 3, "nightly", None, 0.9, "a")
    assert read(name="nightly", **fields) == expected


@pytest.mark.parametrize("score", [None, {}, [], "0.9", True, {"score": {"score": 1}}], ids=str)
def test_a_version_without_a_readable_score(score: Any) -> None:
    assert read(score=score, created_at=7, name=7) == SheetVersion(OTHER, 3)


@pytest.mark.parametrize("fields", [{"id": "x"}, {"id": None}, {"version_number": "3"}], ids=str)
def test_an_answer_of_another_shape(fields: dict[str, Any]) -> None:
    with pytest.raises(PromptLayerUnexpectedAnswerError):
        read(**fields)


def test_score_history() -> None:
    points: list[Any] = [
        {"version_number": 2, "version_id": OTHER, "score": 0.8, "config_hash": "a"},
        {"version_number": 3},
        {"score": 0.7},
    ]
    body = {"success": True, "score_history": {"points": points}}
    call = score_history(WHERE)
    assert call.request.path == f"{PATH}/score-history?range=last_25&resolution=raw"
    assert call.read(answer(200, body), NOW) == (
        SheetVersion(None, None, score=0.7),
        SheetVersion(OTHER, 2, score=0.8, config_hash="a"),
    )
