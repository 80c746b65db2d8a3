# SPDX-License-Identifier: Apache-2.0
"""Imports of files into sheets."""

from __future__ import annotations

import base64
import json
import math

import pytest
from unit.testing.evaluations import NOWHERE, checked
from unit.testing.test_sheets import CASES, COPY, QUESTION, SHEET, SHEETS, TABLE, get, post

OPERATION = "0b1c9f2e-0000-4000-8000-000000000001"
IMPORT = f"{SHEET}/imports/file"


def file(content, name="cases.csv", **more):
    if isinstance(content, str):
        content = content.encode()
    return {"file_name": name, "file_content_base64": base64.b64encode(content).decode(), **more}


def state(client, operation_id=OPERATION):
    return get(client, f"{SHEETS}/operations/{operation_id}")["operation"]


def texts(client, path):
    """The values of the TEXT cells of a sheet, by title."""
    page = get(client, f"{path}/rows")
    titles = {each["id"]: each["title"] for each in page["columns"] if each["type"] == "TEXT"}
    return [
        {title: row["cells"][column]["value"] for column, title in titles.items()}
        for row in page["data"]
    ]


@pytest.fixture
def client(serve):
    return serve(tables=[TABLE], import_duration=2.0)


class TestAnImport:
    def test_takes_its_time_and_appends(self, client, clock):
        assert client.get(f"{SHEETS}/operations/{OPERATION}").status == 404
        started = post(
            client, IMPORT, file("Question,Topic\nWho?,x\n", operation_id=OPERATION), 202
        )
        assert started["operation_id"] == OPERATION
        assert started["operation"]["status"] == "pending"
        assert get(client, started["status_url"])["operation"]["status"] == "pending"
        clock.now += 1
        assert (state(client)["status"], state(client)["rows_added"]) == ("running", None)
        assert get(client, SHEET)["sheet"]["row_count"] == 3
        clock.now += 1
        found = state(client)
        assert (found["status"], found["rows_added"], found["row_count"]) == ("completed", 1, 4)
        assert texts(client, SHEET)[2:] == [
            {"Question": "", "Topic": ""},
            {"Question": "Who?", "Topic": "x"},
        ]
        assert get(client, SHEET)["sheet"]["version_count"] == 2
        assert [column.title for column in client.server.tables[0].sheets[0].columns] == [
            "Question",
            "Answer",
            "Is polite",
            "Topic",
        ]
        (only,) = client.server.imports
        assert (only.operation_id, only.table_id, only.sheet_id) == (OPERATION, TABLE.id, CASES.id)
        assert (only.rows_added, only.status, only.was_posted) == (1, "completed", True)

    def test_another_at_the_same_time_is_refused(self, client, clock):
        post(client, IMPORT, file("Question\na\n"), 202)
        post(client, IMPORT, file("Question\nb\n"), 409)
        post(client, IMPORT.replace(CASES.id, COPY.id), file("Question\nb\n"), 202)
        clock.now += 2
        post(client, IMPORT, file("Question\nb\n"), 202)
        assert [each.status for each in client.server.imports] == ["completed"] * 2 + ["pending"]

    def test_it_may_never_end(self, serve, clock):
        client = serve(tables=[TABLE], import_duration=math.inf)
        post(client, IMPORT, file("Question\na\n", operation_id=OPERATION), 202)
        clock.now += 1e9
        assert state(client)["status"] == "running"

    def test_quotes_and_line_breaks_belong_to_the_cell(self, client, clock):
        content = 'Question\r\n"a ""b"", c\nd"\r\n\r\n=cmd\r\n'
        client.server.start_import(TABLE.id, COPY.id, content.encode())
        clock.now += 2
        found = texts(client, f"{SHEETS}/{COPY.id}")
        assert found == [{"Question": 'a "b", c\nd'}, {"Question": "=cmd"}]
        assert not client.server.imports[0].was_posted

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("", "no header"),
            ("a,,c\n1,2,3\n", "Column 2 has an empty header"),
            ("a,b,a\n1,2,3\n", "header 'a' appears 2 times"),
            (f"{'x' * 256}\n1\n", "256 characters"),
            (",".join(map(str, range(1000))), "1000 columns"),
            (",".join(map(str, range(999))), "columns"),
            ("a,b\n1,2\n3\n", "Line 3 has 1 fields, expected 2"),
            ('a\n"b', "Invalid CSV in line 2"),
            ("a\n\0\n", "NUL"),
            ("a\nü".encode("utf-16"), "not valid UTF-8"),
            ("Answer\nx\n", "'Answer' is not a text column"),
        ],
    )
    def test_a_file_that_fails(self, client, clock, content, message):
        post(client, IMPORT, file(content or "\n", operation_id=OPERATION), 202)
        clock.now += 2
        assert state(client)["status"] == "failed"
        assert message in state(client)["error_message"]
        assert get(client, SHEET)["sheet"]["row_count"] == 3
        assert client.server.imports[0].rows_added is None

    def test_a_byte_order_mark_is_a_part_of_the_title(self, client, clock):
        post(client, IMPORT, file("\ufeffQuestion\nx\n"), 202)
        clock.now += 2
        assert texts(client, SHEET)[3] == {"Question": "", "\ufeffQuestion": "x"}

    @pytest.mark.parametrize(
        "body",
        [
            {},
            file("a\n", "cases.json"),
            {**file("a\n"), "file_content_base64": "?"},
            {**file("a\n"), "file_content_base64": ""},
            file("a\n", colour=1),
            file("a\n", f"{'x' * 252}.csv"),
        ],
    )
    def test_a_request_that_is_refused(self, client, body):
        post(client, IMPORT, body, 400)
        assert client.server.imports == []

    def test_a_file_that_is_too_large_is_refused(self, client, monkeypatch):
        limit = "airflow_provider_promptlayer.testing.evaluations.imports._LARGEST_FILE"
        monkeypatch.setattr(limit, 9)
        post(client, IMPORT, file("Question\na"), 400)
        post(client, IMPORT, file("Question\n"), 202)


class TestANewSheet:
    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("c.csv", "Question,Topic\nWho?,x\nWhy?,\n"),
            ("c.JSON", json.dumps([{"Question": "Who?", "Topic": "x"}, {"Question": "Why?"}])),
        ],
    )
    def test_has_what_the_file_has(self, client, clock, name, content):
        source = file(content, name, type="file")
        body = {"title": "Cases", "operation_id": OPERATION, "source": source}
        started = post(client, SHEETS, body, 202)
        sheet = started["sheet"]
        assert (sheet["title"], sheet["row_count"], sheet["index"]) == ("Cases", 0, 2)
        clock.now += 2
        assert state(client)["row_count"] == 2
        assert texts(client, f"{SHEETS}/{sheet['id']}") == [
            {"Question": "Who?", "Topic": "x"},
            {"Question": "Why?", "Topic": ""},
        ]

    @pytest.mark.parametrize("content", ["{", "{}", "[1]", "[" * 100_000, "[]"])
    def test_json_that_fails(self, client, clock, content):
        source = file(content, "c.json", type="file")
        post(client, SHEETS, {"operation_id": OPERATION, "source": source}, 202)
        clock.now += 2
        assert state(client)["status"] == "failed"

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({"title": "x" * 256}, 422),
            ({"source": {"type": "folder"}}, 422),
            ({"source": file("a", "c.xlsx", type="file")}, 400),
        ],
    )
    def test_that_is_refused(self, client, body, status):
        post(client, SHEETS, body, status)
        assert get(client, f"{SHEETS.removesuffix('/sheets')}")["table"]["sheet_count"] == 2


class TestARepeatedOperation:
    @pytest.mark.parametrize(
        ("policy", "status", "times"), [("same", 202, 1), ("conflict", 409, 1), ("again", 202, 2)]
    )
    @pytest.mark.parametrize("is_new", [False, True])
    def test_is_what_the_server_is_told(self, serve, policy, status, times, is_new):
        client = serve(tables=[TABLE], repeated_import=policy)
        path, body = IMPORT, file("Question\nWho?\n", operation_id=OPERATION)
        if is_new:
            path = SHEETS
            body = {"operation_id": OPERATION, "source": file("Question\nWho?\n", type="file")}
        first = post(client, path, body, 202)
        assert state(client)["status"] == "completed"
        second = post(client, path, body, status)
        if policy == "same":
            assert second["operation"]["status"] == "completed"
        assert is_new == (first.get("sheet", {}).get("id") not in (None, CASES.id))
        assert sum(each.rows_added or 0 for each in client.server.imports) == times
        assert len(get(client, SHEETS)["data"]) == 2 + (times if is_new else 0)

    def test_is_another_in_another_table(self, client):
        post(client, IMPORT, file("Question\na\n", operation_id=OPERATION), 202)
        table = post(client, "/api/public/v2/tables", {})
        path = f"/api/public/v2/tables/{table['table']['id']}/sheets"
        sheet = f"{path}/{table['default_sheet']['id']}"
        assert client.get(f"{path}/operations/{OPERATION}").status == 404
        post(client, f"{sheet}/imports/file", file("a\nb\n", operation_id=OPERATION), 202)
        assert len(client.server.imports) == 2


def test_the_form_of_the_libraries(serve, clock):
    client = serve(tables=[TABLE], import_duration=1.0, dialect="libraries")
    seen = [client.post(IMPORT, file("Question\na\n", operation_id=OPERATION)).json]
    for _ in range(2):
        clock.now += 0.5
        seen.append(client.get(f"{SHEETS}/operations/{OPERATION}").json)
    assert [each["operation"]["status"] for each in seen] == ["queued", "running", "succeeded"]


def test_an_unknown_sheet(client):
    path = IMPORT.replace(CASES.id, NOWHERE)
    assert checked("POST", path, client.post(path, file("a\n"))).status == 404
    assert QUESTION in get(client, f"{SHEET}/rows")["data"][0]["cells"]
