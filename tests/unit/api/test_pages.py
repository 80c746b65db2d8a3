# SPDX-License-Identifier: Apache-2.0
"""Lists that come page by page: where each form of answer has its cursor, and when they end."""

from __future__ import annotations

from typing import Any

import pytest
from unit.api.answers import NOW, answer

from airflow_provider_promptlayer.api.fields import Fields, object_call
from airflow_provider_promptlayer.api.http import Call, Request
from airflow_provider_promptlayer.api.pages import Page, read_page, visit_items
from airflow_provider_promptlayer.exceptions import PromptLayerUnexpectedAnswerError
from airflow_provider_promptlayer.polling.loop import drive


def page_call(cursor: str | None) -> Call[Page[str]]:
    path = "/list" if cursor is None else f"/list?cursor={cursor}"

    def build(fields: Fields) -> Page[str]:
        return read_page(fields, lambda item: item.text("name"), size=2)

    return object_call(Request("GET", path, "list the things"), build)


def page(*names: str, **rest: Any) -> dict[str, Any]:
    return {"data": [{"name": name} for name in names], **rest}


def names_on(pages: dict[str, dict[str, Any]], stop_at: str = "") -> list[str]:
    found: list[str] = []

    def visit(name: str) -> bool:
        found.append(name)
        return name == stop_at

    def send(call: Call[Any]) -> Any:
        return call.read(answer(200, pages[call.request.path]), NOW)

    drive(visit_items(page_call, visit), send)
    return found


@pytest.mark.parametrize(
    "where",
    [lambda fields: fields, lambda fields: {"pagination": fields}],
    ids=["at the top", "in pagination"],
)
@pytest.mark.parametrize(
    "end",
    [{"next_cursor": None, "has_more": False}, {"next_cursor": "x", "has_more": False}, {}],
    ids=["no cursor", "a cursor that leads nowhere", "a page that is not full"],
)
def test_a_list_of_two_pages(where: Any, end: dict[str, Any]) -> None:
    first = page("a", "b", **where({"next_cursor": "2", "has_more": True}))
    last = page(*("c", "d")[: 2 if end else 1], **where(end))
    found = names_on({"/list": first, "/list?cursor=2": last})
    assert found == ["a", "b", "c", "d"][: 4 if end else 3]
    assert names_on({"/list": first}, stop_at="b") == ["a", "b"]


@pytest.mark.parametrize(
    "rest",
    [{}, {"has_more": True}, {"pagination": {"has_more": True}}, {"next_cursor": 7}],
    ids=["a full page that says nothing", "more", "more in pagination", "a number as cursor"],
)
def test_a_page_that_leaves_open_how_the_list_goes_on(rest: dict[str, Any]) -> None:
    with pytest.raises(PromptLayerUnexpectedAnswerError, match="next_cursor"):
        names_on({"/list": page("a", "b", **rest)})


def test_a_cursor_that_leads_back() -> None:
    there = page("a", next_cursor="2")
    back = page("b", next_cursor="2")
    with pytest.raises(PromptLayerUnexpectedAnswerError, match="leads back to an earlier"):
        names_on({"/list": there, "/list?cursor=2": back})
