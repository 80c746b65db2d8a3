# SPDX-License-Identifier: Apache-2.0
"""Tables and sheets: listed, described, created; their columns and the data of their rows."""

from __future__ import annotations

from typing import Any

import pytest
from unit.testing.evaluations import NOWHERE, checked

from airflow_provider_promptlayer.testing import Column, RequestMetrics, Sheet, Table

TABLES = "/api/public/v2/tables"
COLUMNS = [
    Column("Question", type="TEXT"),
    Column("Answer", failing_rows=[1], metrics=RequestMetrics(price=0.25, latency_ms=None)),
    Column("Is polite", type="LLM_ASSERTION", is_stale=False),
]
ROWS: list[dict[str, Any]] = [
    {"Question": "Why?", "Answer": "Because."},
    {"Question": {"de": "Warum?"}},
    {},
]
CASES = Sheet("Cases", COLUMNS, rows=ROWS)
COPY = Sheet("Cases", COLUMNS, rows=[], id="5c0a1e00-0000-4000-8000-0000000000aa")
TABLE = Table("Support answers", [CASES, COPY])
TWIN = Table("Support ANSWERS", id="5c0a1e00-0000-4000-8000-0000000000bb")
OTHER = Table("Other")
SHEETS = f"{TABLES}/{TABLE.id}/sheets"
SHEET = f"{SHEETS}/{CASES.id}"
QUESTION, ANSWER, POLITE = (column.id for column in COLUMNS)


@pytest.fixture
def client(serve):
    return serve(tables=[TABLE, TWIN, OTHER])


def get(client, path, **query):
    reply = checked("GET", path, client.get(path, **query))
    assert reply.status == 200, reply.json
    return reply.json


def post(client, path, body, status=201):
    reply = checked("POST", path, client.post(path, body))
    assert reply.status == status, reply.json
    return reply.json


def pages(client, path, **query):
    """All items of a list, page by page."""
    found: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        page = get(client, path, **query, **cursor)
        found += page["data"]
        if not page["has_more"]:
            assert page["next_cursor"] is None
            return found
        cursor = {"cursor": page["next_cursor"]}


class TestTables:
    @pytest.mark.parametrize(
        ("query", "titles"),
        [
            ({}, ["Other", "Support ANSWERS", "Support answers"]),
            ({"order": "asc"}, ["Support answers", "Support ANSWERS", "Other"]),
            ({"name": "support answers"}, ["Support ANSWERS", "Support answers"]),
            ({"name": "t a"}, ["Support ANSWERS", "Support answers"]),
            ({"name": "nothing"}, []),
        ],
    )
    def test_a_list_by_part_of_the_title(self, client, query, titles):
        assert [table["title"] for table in pages(client, TABLES, limit=1, **query)] == titles

    def test_a_cursor_is_for_the_same_filters(self, client):
        cursor = get(client, TABLES, limit=1, name="a")["next_cursor"]
        assert client.get(TABLES, name="b", cursor=cursor).status == 400
        assert client.get(TABLES, name="a", cursor=cursor).status == 200

    def test_one(self, client):
        table = get(client, f"{TABLES}/{TABLE.id.upper()}")["table"]
        assert (table["title"], table["sheet_count"]) == (TABLE.title, 2)
        assert table["sheet_row_counts"] == {CASES.id: 3, COPY.id: 0}
        assert client.get(f"{TABLES}/{NOWHERE}").status == 404

    def test_titles_are_not_unique(self, client):
        created = [post(client, TABLES, {"title": "Other"})["table"] for _ in range(2)]
        assert [each["id"] for each in pages(client, TABLES, name="other")] == [
            created[1]["id"],
            created[0]["id"],
            OTHER.id,
        ]

    def test_a_new_one_has_a_blank_sheet_unless_told(self, client):
        created = checked("POST", TABLES, client.send("POST", TABLES)).json
        sheet = f"{TABLES}/{created['table']['id']}/sheets/{created['default_sheet']['id']}"
        assert created["table"]["title"] == "Untitled Table"
        rows = get(client, f"{sheet}/rows")
        (column,) = rows["columns"]
        assert (column["title"], column["type"]) == ("Column A", "TEXT")
        (row,) = rows["data"]
        assert row["cells"][column["id"]]["value"] == ""
        body = {"title": "T", "folder_id": 3, "create_default_sheet": False}
        empty = post(client, TABLES, body)
        assert empty["table"]["sheet_count"] == 0
        assert "default_sheet" not in empty
        (found,) = pages(client, TABLES, folder_id=3)
        assert found["id"] == empty["table"]["id"]


class TestSheets:
    def test_a_list(self, client):
        sheets = pages(client, SHEETS, limit=1)
        assert [(each["id"], each["row_count"]) for each in sheets] == [(CASES.id, 3), (COPY.id, 0)]
        assert [sheet["index"] for sheet in sheets] == [0, 1]
        assert get(client, SHEET)["sheet"] == sheets[0]

    def test_a_blank_one_at_its_place(self, client):
        sheet = post(client, SHEETS, {"title": "Cases", "index": 0})["sheet"]
        assert (sheet["row_count"], sheet["index"]) == (1, 0)
        assert [each["id"] for each in pages(client, SHEETS)] == [sheet["id"], CASES.id, COPY.id]
        assert post(client, SHEETS, {})["sheet"]["title"] == "Sheet 4"

    def test_an_operation_needs_a_source(self, client):
        post(client, SHEETS, {"operation_id": "x"}, status=400)
        assert len(pages(client, SHEETS)) == 2

    @pytest.mark.parametrize("path", [f"{TABLES}/{NOWHERE}/sheets", f"{SHEETS}/{NOWHERE}"])
    def test_an_unknown_one(self, client, path):
        assert checked("GET", path, client.get(path)).status == 404


class TestRows:
    def test_text_has_its_value_and_a_computed_cell_once_it_is_completed(self, client):
        first, second, third = (row["cells"] for row in get(client, f"{SHEET}/rows")["data"])
        assert (first[QUESTION]["value"], first[QUESTION]["status"]) == ("Why?", "completed")
        assert second[QUESTION]["value"] == {"de": "Warum?"}
        assert second[QUESTION]["display_value"] == '{"de": "Warum?"}'
        assert third[QUESTION]["value"] == ""
        assert (first[ANSWER]["value"], first[ANSWER]["status"]) == (None, "stale")
        assert "request_metrics" not in first[ANSWER]

        client.server.start_operation(TABLE.id, CASES.id)
        first, second, third = (row["cells"] for row in get(client, f"{SHEET}/rows")["data"])
        assert first[ANSWER]["value"] == "Because."
        assert third[ANSWER]["value"] == "Answer 2"
        assert first[ANSWER]["last_computed_version"] == 2
        assert second[ANSWER]["error_message"]
        assert "request_metrics" not in second[ANSWER]

    def test_only_prompts_have_metrics(self, client):
        client.server.start_operation(TABLE.id, CASES.id)
        page = get(client, f"{SHEET}/rows", include_execution_metadata_aggregates=True)
        cells = [row["cells"] for row in page["data"]]
        metrics = cells[0][ANSWER]["request_metrics"]
        assert (metrics["price"], metrics["latency_ms"]) == (0.25, None)
        assert metrics["request_ids"] != cells[2][ANSWER]["request_metrics"]["request_ids"]
        assert "request_metrics" not in cells[0][POLITE]
        totals = page["execution_metadata_aggregates"]["sheet"]["by_metric"]
        assert (totals["price"]["sum"], totals["price"]["count"]) == (0.5, 2)
        assert (totals["latency_ms"]["count"], totals["latency_ms"]["avg"]) == (0, None)
        by_column = page["execution_metadata_aggregates"]["by_column_id"]
        assert {each["source_column_id"] for each in by_column.values()} == {ANSWER}

    def test_columns_by_page(self, client):
        columns = pages(client, f"{SHEET}/columns", limit=2)
        assert [column["title"] for column in columns] == ["Question", "Answer", "Is polite"]

    def test_added_ones_are_stale_and_raise_the_version(self, client):
        client.server.start_operation(TABLE.id, CASES.id)
        body = {"count": 2, "values": [{QUESTION: "Who?"}, {}, {QUESTION: "ignored"}]}
        added = post(client, f"{SHEET}/rows", body)
        assert (added["rows_created"], added["row_indices"]) == (2, [3, 4])
        assert (added["row_count"], added["version"]) == (5, 3)
        cells = added["rows"][0]["cells"]
        assert (cells[QUESTION]["value"], cells[ANSWER]["status"]) == ("Who?", "stale")
        assert cells[POLITE]["status"] == "stale"
        assert post(client, f"{SHEET}/rows", {})["row_count"] == 6

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"count": 0}, 422),
            ({"count": 101}, 422),
            ({"values": [{NOWHERE: 1}]}, 400),
            ({"values": [{ANSWER: 1}]}, 400),
        ],
    )
    def test_values_that_are_refused(self, client, body, status):
        post(client, f"{SHEET}/rows", body, status)
        assert get(client, SHEET)["sheet"]["row_count"] == 3

    def test_a_sheet_that_changes_between_two_pages(self, client):
        first = get(client, f"{SHEET}/rows", limit=2)
        client.server.add_rows(TABLE.id, CASES.id, [{"Question": "New?"}])
        second = get(client, f"{SHEET}/rows", limit=2, cursor=first["next_cursor"])
        assert second["version"] == first["version"] + 1
        assert [row["row_index"] for row in second["data"]] == [2, 3]

    def test_the_form_of_the_libraries(self, serve):
        client = serve(tables=[TABLE], dialect="libraries")
        client.server.start_operation(TABLE.id, CASES.id)
        page = client.get(f"{SHEET}/rows", limit=2).json
        assert page.keys().isdisjoint({"next_cursor", "has_more"})
        cell = page["data"][0]["cells"][ANSWER]
        assert (cell["status"], cell["value"]) == ("COMPLETED", {"value": "Because."})
        assert page["data"][1]["cells"][ANSWER]["status"] == "FAILED"
        rest = client.get(f"{SHEET}/rows", cursor=page["pagination"]["next_cursor"]).json
        assert [row["row_index"] for row in rest["data"]] == [2]
        assert client.get(TABLES).json.keys() == {"data", "pagination"}
