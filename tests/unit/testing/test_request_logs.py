# SPDX-License-Identifier: Apache-2.0
"""Imports of request logs, and the prompt templates that they were made with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from unit.testing.evaluations import checked
from unit.testing.test_imports import OPERATION, state, texts
from unit.testing.test_sheets import COPY, SHEETS, TABLE, get, post

from airflow_provider_promptlayer.testing import LocalPromptLayer, RequestLog

MORNING = datetime(2026, 3, 1, tzinfo=UTC)


def at(hours):
    return (MORNING + timedelta(hours=hours)).isoformat()


def log(number, hours, **more):
    variables = {"question": f"Q{number}"}
    return RequestLog(
        number, start_time=MORNING + timedelta(hours=hours), input_variables=variables, **more
    )


LOGS = [
    log(1, 0, label="prod", version=2, tags=["a"], metadata={"customer": "acme"}, output="Yes."),
    log(2, 1, label="prod", version=3, tags=["a", "b"], metadata={"customer": "umbrella"}),
    log(3, 2, label="dev", version=3, scores={"helpful": 90}, price=0.5, status="ERROR"),
    log(4, 3, prompt="Other", metadata={"customer": "acme corp"}),
]
SHEET = f"{SHEETS}/{COPY.id}"
IMPORT = f"{SHEET}/imports/request-logs"


@pytest.fixture
def client(serve):
    return serve(tables=[TABLE], request_logs=LOGS)


def group(*filters, logic="AND"):
    keys = ("field", "operator", "value", "nested_key")
    return {
        "logic": logic,
        "filters": [
            each if isinstance(each, dict) else dict(zip(keys, each, strict=False))
            for each in filters
        ],
    }


def imported(client, **body):
    """The questions that an import into an empty sheet has found."""
    post(client, IMPORT, {"operation_id": OPERATION, **body}, 202)
    found = state(client)
    if found["status"] == "failed":
        assert found["error_message"] == "No requests found for the given criteria"
        return []
    return [row["question"] for row in texts(client, SHEET)]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ([("pl_id", "is", 3)], [3]),
        ([("pl_id", "in", [1, 4])], [1, 4]),
        ([("prompt_id", "is", LOGS[3].prompt_id)], [4]),
        ([("prompt_id", "is_not", LOGS[3].prompt_id)], [1, 2, 3]),
        ([("prompt_version_number", "gte", 3)], [2, 3]),
        ([("prompt_version_number", "lt", 2)], [4]),
        ([("cost", "between", [0.5, 1])], [3]),
        ([("tags", "contains", "b")], [2]),
        ([("tags", "is", "a")], [1, 2]),
        ([("tags", "in", ["b", "x"])], [2]),
        ([("tags", "is_empty")], [3, 4]),
        ([("metadata", "key_equals", "acme", "customer")], [1]),
        ([("metadata", "key_not_equals", "acme", "customer")], [2, 3, 4]),
        ([("metadata", "key_contains", "ACME", "customer")], [1, 4]),
        ([("output_text", "starts_with", "Y")], [1]),
        ([("status", "is", "ERROR")], [3]),
        ([("request_start_time", "after", at(1)), ("tags", "is_empty")], [3, 4]),
        ([("request_start_time", "before", at(1))], [1]),
        ([("request_start_time", "between", [at(1), at(2)])], [2, 3]),
        ([("request_start_time", "is", at(1))], [2]),
        ([("tags", "is", "b"), group(("pl_id", "is", 2), ("pl_id", "is", 4), logic="OR")], [2]),
        ([("engine", "gt", 5)], []),
    ],
)
def test_filters(client, filters, found):
    assert imported(client, filter_group=group(*filters)) == [f"Q{number}" for number in found]
    (only,) = client.server.imports
    assert (only.source, only.rows_added) == ("request_logs", len(found) or None)


def test_any_of_several_filters(client):
    either = group(("pl_id", "is", 1), ("tags", "is", "b"), logic="OR")
    assert imported(client, filter_group=either) == ["Q1", "Q2"]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"request_log_ids": [4, 2, 99]}, ["Q2", "Q4"]),
        ({"request_log_ids": [99]}, []),
        ({"filter_group": group(), "limit": 2}, ["Q1", "Q2"]),
        ({"filter_group": group(), "q": "q3"}, ["Q3"]),
        (
            {"filter_group": group(), "sort_by": "cost", "sort_order": "desc", "limit": 1},
            ["Q3"],
        ),
    ],
)
def test_other_choices(client, body, found):
    assert imported(client, **body) == found


def test_the_columns(client):
    fields = ["request_start_time", "scores"]
    body = {"request_log_ids": [1, 3], "variables_to_parse": ["question"], "include_fields": fields}
    imported(client, **body)
    assert texts(client, SHEET)[1] == {
        "Question": "",
        "question": "Q3",
        "output": "",
        "request_start_time": at(2),
        "scores": {"helpful": 90},
    }


def test_an_unknown_field_fails(client):
    body = {"operation_id": OPERATION, "request_log_ids": [1], "include_fields": ["colour"]}
    post(client, IMPORT, body, 202)
    assert state(client)["error_message"] == "Request logs have no field 'colour'"


@pytest.mark.parametrize(
    ("source", "rows"),
    [
        ({"start_time": at(1), "end_time": at(2)}, 2),
        ({"end_time": "2026-03-01T01:00:00"}, 2),
        ({"prompt_id": LOGS[0].prompt_id}, 3),
        ({"filter_group": group(("tags", "is", "a")), "limit": 1}, 1),
        ({"request_log_ids": [2, 3]}, 2),
        ({}, 4),
    ],
)
def test_a_new_sheet(client, source, rows):
    body = {"operation_id": OPERATION, "source": {"type": "request_logs", **source}}
    sheet = post(client, SHEETS, body, 202)["sheet"]
    assert state(client)["row_count"] == rows
    assert len(texts(client, f"{SHEETS}/{sheet['id']}")) == rows


def test_a_new_sheet_by_version_and_label(client):
    (label, _) = client.get("/prompt-templates/Support%20answer/labels").json["release_labels"]
    source = {"type": "request_logs", "prompt_version_id": label["prompt_version_id"]}
    post(client, SHEETS, {"operation_id": OPERATION, "source": source}, 202)
    assert state(client)["row_count"] == 2
    source = {"type": "request_logs", "prompt_label_id": label["release_label_id"]}
    post(client, SHEETS, {"operation_id": "x", "source": source}, 202)
    assert state(client, "x")["row_count"] == 2


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"request_log_ids": [1], "filter_group": group()},
        {"request_log_ids": []},
        {"request_log_ids": [0]},
        {"filter_group": None},
        {"filter_group": group(("scores", "gt", 1))},
        {"filter_group": group(("pl_id", "like", 1))},
        {"filter_group": group(("metadata", "key_equals", "x"))},
        {"filter_group": group(("tags", "key_equals", "x", "y"))},
        {"filter_group": group(("tags", "in", "x"))},
        {"filter_group": group(("cost", "between", [1]))},
        {"filter_group": group(("request_start_time", "gte", at(0)))},
        {"filter_group": group(("request_start_time", "after", "yesterday"))},
        {"filter_group": group(), "sort_by": "cost"},
        {"filter_group": group(), "limit": 50_001},
        {"filter_group": group(), "prompt_id": 1},
    ],
)
def test_a_request_that_is_refused(client, body):
    post(client, IMPORT, body, 400)
    assert client.server.imports == []


class TestPromptTemplates:
    @pytest.mark.parametrize(
        ("query", "version"), [({}, 3), ({"version": 2}, 2), ({"label": "prod"}, 3)]
    )
    def test_by_name_and_id(self, client, query, version):
        by_name = get(client, "/prompt-templates/Support%20answer", **query)
        assert by_name["id"] == LOGS[0].prompt_id
        assert (by_name["prompt_name"], by_name["version"]) == ("Support answer", version)
        assert get(client, f"/prompt-templates/{LOGS[0].prompt_id}", **query) == by_name

    def test_labels(self, client):
        labels = get(client, "/prompt-templates/Support%20answer/labels")["release_labels"]
        found = {each["release_label"]: each["prompt_version_number"] for each in labels}
        assert found == {"prod": 3, "dev": 3}

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("Nope", 404),
            ("Nope/labels", 404),
            ("Other?version=7", 404),
            ("Other?version=1&label=x", 422),
        ],
    )
    def test_refusals(self, client, path, status):
        path = f"/prompt-templates/{path}"
        assert checked("GET", path, client.get(path)).status == status


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RequestLog(0), "id must be >= 1"),
        (lambda: RequestLog(1, start_time=datetime(2026, 1, 1)), "needs a time zone"),
        (lambda: LocalPromptLayer(request_logs=LOGS[:1] * 2), "two request logs"),
    ],
)
def test_definitions_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_there_are_built_in_ones(serve):
    client = serve(tables=[TABLE])
    assert imported(client, filter_group=group(("tags", "is", "support"))) == [
        "Where is my invoice?",
        "How do I delete my account?",
    ]
