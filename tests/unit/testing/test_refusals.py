# SPDX-License-Identifier: Apache-2.0
"""Requests that are refused, and how: 422 with a list of mistakes, 400 with a message, 404, 405."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from unit.testing.conftest import GREET, RESULTS
from unit.testing.evaluations import NOWHERE, PATH, REPORTS, SHEET, TABLE, checked

RUN = "/workflows/Greet/run"
LIST = "/workflows"
REPORT = "/reports/7/run"
OPERATIONS, ROWS = f"{PATH}/operations", f"{PATH}/rows"
CARD = f"{PATH}/scorecard"
RUN_ID, ALL = "workflow_version_execution_id", "return_all_outputs"


@pytest.fixture
def client(serve):
    return serve(GREET, tables=[TABLE], reports=REPORTS)


def send(client, target, body):
    """GET without a body; POST bytes as they are, anything else as JSON."""
    method = "GET" if body is None else "POST"
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    reply = client.send(method, target, body)
    server = client.server
    started = server.executions, server.operations, server.calculations, {*server.reports} - {8}
    assert not any(started)
    is_described = not target.startswith(("/workflow", "/reports/x"))
    return checked(method, target, reply) if is_described else reply


def errors(reply):
    """The (loc, type) of each error; that msg is there is checked on the way."""
    assert reply.status == 422
    detail = reply.json["detail"]
    assert all(set(error) == {"loc", "msg", "type"} and error["msg"] for error in detail)
    return [(error["loc"], error["type"]) for error in detail]


@pytest.mark.parametrize(
    ("target", "body", "location", "kind"),
    [
        (RUN, {"metadata": {"ok": "x", "k": 1}}, ["body", "metadata", "k"], "string_type"),
        (RUN, {"metadata": {"k": None}}, ["body", "metadata", "k"], "string_type"),
        (RUN, {"metadata": []}, ["body", "metadata"], "dict_type"),
        (RUN, {"input_variables": None}, ["body", "input_variables"], "dict_type"),
        (RUN, {"input_variables": "x"}, ["body", "input_variables"], "dict_type"),
        (RUN, {ALL: "true"}, ["body", ALL], "bool_type"),
        (RUN, {ALL: None}, ["body", ALL], "bool_type"),
        (RUN, {ALL: 1}, ["body", ALL], "bool_type"),
        (RUN, {"workflow_label_name": 5}, ["body", "workflow_label_name"], "string_type"),
        (RUN, {"workflow_version_number": "5"}, ["body", "workflow_version_number"], "int_type"),
        (RUN, {"workflow_version_number": True}, ["body", "workflow_version_number"], "int_type"),
        (RUN, {"workflow_version_number": 1.0}, ["body", "workflow_version_number"], "int_type"),
        (RUN, {"workflow_version_number": 2**63}, ["body", "workflow_version_number"], "less_"),
        (RUN, {"workflow_version_number": 1, "workflow_label_name": "x"}, ["body"], "value_error"),
        (RUN, {"callback_url": "nowhere"}, ["body", "callback_url"], "url_parsing"),
        (RUN, {"callback_url": "ftp://example.com"}, ["body", "callback_url"], "url_scheme"),
        (RUN, {"callback_url": "http://[1"}, ["body", "callback_url"], "url_parsing"),
        (RUN, [], ["body"], "model_attributes_type"),
        (RUN, "text", ["body"], "model_attributes_type"),
        (RUN, b"", ["body"], "missing"),
        (RUN, b"{", ["body", 1], "json_invalid"),
        (RUN, b"{'a': 1}", ["body", 1], "json_invalid"),
        (RUN, b'{"a": 1,', ["body", 8], "json_invalid"),
        (RUN, b"\xff\xfe\xfd", ["body", 0], "json_invalid"),
        (RUN, b"[" * 100_000, ["body", 0], "json_invalid"),
        (RUN, b'{"input_variables": ' + b"9" * 5000 + b"}", ["body", 0], "json_invalid"),
        (REPORT, {}, ["body", "name"], "missing"),
        (REPORT, {"name": ""}, ["body", "name"], "string_too_short"),
        (REPORT, {"name": "x" * 256}, ["body", "name"], "string_too_long"),
        (REPORT, {"name": None}, ["body", "name"], "string_type"),
        (REPORT, {"name": "n", "dataset_id": "1"}, ["body", "dataset_id"], "int_type"),
        (REPORT, {"name": "n", "refresh_dataset": "yes"}, ["body", "refresh_dataset"], "bool_type"),
        ("/reports/x", None, ["path", "report_id"], "int_parsing"),
        (RESULTS, None, ["query", RUN_ID], "missing"),
        (f"{RESULTS}?{RUN_ID}=", None, ["query", RUN_ID], "int_parsing"),
        (f"{RESULTS}?{RUN_ID}=x", None, ["query", RUN_ID], "int_parsing"),
        (f"{RESULTS}?{RUN_ID}=1.5", None, ["query", RUN_ID], "int_parsing"),
        (f"{RESULTS}?{RUN_ID}=%D9%A1", None, ["query", RUN_ID], "int_parsing"),
        (f"{RESULTS}?{RUN_ID}={2**63}", None, ["query", RUN_ID], "less_than_equal"),
        (f"{RESULTS}?{RUN_ID}=-{2**63 + 1}", None, ["query", RUN_ID], "greater_than_equal"),
        (f"{RESULTS}?{RUN_ID}={'9' * 5000}", None, ["query", RUN_ID], "int_parsing"),
        (
            f"{RESULTS}?{RUN_ID}=1&return_all_outputs=",
            None,
            ["query", "return_all_outputs"],
            "bool",
        ),
        (
            f"{RESULTS}?{RUN_ID}=1&return_all_outputs=2",
            None,
            ["query", "return_all_outputs"],
            "bool",
        ),
        (f"{LIST}?page=0", None, ["query", "page"], "greater_than_equal"),
        (f"{LIST}?page=x", None, ["query", "page"], "int_parsing"),
        (f"{LIST}?per_page=0", None, ["query", "per_page"], "greater_than_equal"),
        (f"{LIST}?per_page=101", None, ["query", "per_page"], "less_than_equal"),
        (f"{LIST}?sort_by=colour", None, ["query", "sort_by"], "literal_error"),
        (f"{LIST}?sort_order=down", None, ["query", "sort_order"], "literal_error"),
        (f"{LIST}?created_after=yesterday", None, ["query", "created_after"], "datetime"),
        (f"{LIST}?updated_before=", None, ["query", "updated_before"], "datetime"),
        (f"{LIST}?external_id=1", None, ["query"], "value_error"),
        (f"{LIST}/Greet?version=0", None, ["query", "version"], "greater_than_equal"),
        (f"{LIST}/Greet?version=x", None, ["query", "version"], "int_parsing"),
        (f"{LIST}/Greet?version=1&label=prod", None, ["query"], "value_error"),
    ],
)
def test_422(client, target, body, location, kind):
    ((found, its_kind),) = errors(send(client, target, body))
    assert found == location
    assert its_kind.startswith(kind)


def test_a_422_reports_all_mistakes_at_once(client):
    body = {"metadata": {"a": 1, "b": 2}, "callback_url": 3}
    assert errors(send(client, RUN, body)) == [
        (["body", "metadata", "a"], "string_type"),
        (["body", "metadata", "b"], "string_type"),
        (["body", "callback_url"], "string_type"),
    ]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_declared_json_is_422(client, content_type):
    reply = client.send("POST", RUN, b"{}", content_type=content_type)
    assert errors(reply) == [(["body"], "model_attributes_type")]


@pytest.mark.parametrize(
    ("target", "body", "message"),
    [
        (OPERATIONS, b"", "body is required"),
        (OPERATIONS, b"{", "not valid JSON"),
        (OPERATIONS, [], "not a JSON object"),
        (OPERATIONS, {"colour": 1}, "unknown field 'colour'"),
        (OPERATIONS, {"operation": "delete"}, "invalid operation"),
        (OPERATIONS, {"operation": None}, "invalid operation"),
        (OPERATIONS, {"column_ids": ["x"]}, "invalid column_ids"),
        (OPERATIONS, {"column_ids": "x"}, "invalid column_ids"),
        (OPERATIONS, {"row_ids": [-1]}, "invalid row_ids"),
        (OPERATIONS, {"row_ids": [True]}, "invalid row_ids"),
        (OPERATIONS, {"statuses": ["stale"]}, "invalid statuses"),
        (OPERATIONS, {"confirmation_token": 1, "row_ids": [1.5]}, "row_ids, invalid confirmation_"),
        (f"{CARD}/recalculate", {"row_indices": None}, "invalid row_indices"),
        (f"{CARD}/recalculate", {"row_indices": [4]}, "row_indices has a row that does not exist"),
        (f"{CARD}/recalculate", {"step_ids": [1]}, "invalid step_ids"),
        (f"{CARD}/recalculate", {"step_ids": [NOWHERE]}, "step_ids has a step of another"),
        (f"{CARD}/recalculate", {"x": 1}, "unknown field 'x'"),
        (f"{CARD}/rows?limit=0", None, "query parameter limit"),
        (f"{CARD}/rows?limit=101", None, "query parameter limit"),
        (f"{CARD}/rows?limit=x", None, "query parameter limit"),
        (f"{CARD}/rows?cursor=-1", None, "query parameter cursor"),
        (f"{CARD}/rows?verdict=bad", None, "query parameter verdict"),
        (f"{CARD}/calculations/x", None, "calculation_id is not a valid UUID"),
        (CARD.replace(SHEET.id, "x"), None, "sheet_id is not a valid UUID"),
        (OPERATIONS.replace(TABLE.id, "1"), None, "table_id is not a valid UUID"),
        (f"{ROWS}?limit=0", None, "query parameter limit"),
        (f"{ROWS}?limit=101", None, "query parameter limit"),
        (f"{ROWS}?limit=ten", None, "query parameter limit"),
        (f"{ROWS}?order=up", None, "query parameter order"),
        (f"{ROWS}?cursor=", None, "query parameter cursor"),
        (f"{ROWS}?cursor=2", None, "query parameter cursor"),
        (f"{ROWS}?cursor=asc--1", None, "query parameter cursor"),
        (f"{ROWS}?cursor=asc-2&order=desc", None, "query parameter cursor"),
        (f"{ROWS}?cursor=%C3%BC", None, "query parameter cursor"),
        (f"{ROWS}?include_columns=none", None, "query parameter include_columns"),
        (f"{ROWS}?include_row_count=2", None, "query parameter include_row_count"),
        (f"{ROWS}?include_system_columns=", None, "query parameter include_system_columns"),
        (f"{ROWS}?include_execution_metadata_aggregates=+", None, "_metadata_aggregates"),
    ],
)
def test_400(client, target, body, message):
    reply = send(client, target, body)
    assert (reply.status, reply.json["success"]) == (400, False)
    assert message in reply.json["message"]


@pytest.mark.parametrize(
    ("target", "body", "named"),
    [
        ("/workflows/Nope/run", {}, "Nope"),
        (f"/workflows/{'9' * 5000}/run", {}, "9"),
        (RUN, {"workflow_version_number": 2}, "2"),
        (RUN, {"workflow_version_number": -1}, "-1"),
        (RUN, {"workflow_label_name": "prod"}, "prod"),
        *(
            (f"{RESULTS}?{RUN_ID}={unknown}", None, str(unknown))
            for unknown in (0, -1, 7, 2**63 - 1, -(2**63))
        ),
        ("/workflows/Greet?version=3", None, "3"),
        ("/workflows/Greet?label=nope", None, "nope"),
        ("/workflows/nope/labels", None, "nope"),
        (ROWS.replace(TABLE.id, NOWHERE), None, "Table not found"),
        (ROWS.replace(SHEET.id, NOWHERE), None, "Sheet not found"),
    ],
)
def test_404_of_an_unknown_name_or_id(client, target, body, named):
    reply = send(client, target, body)
    assert (reply.status, reply.json["success"]) == (404, False)
    assert named in reply.json["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nowhere",
        "/workflows/",
        "/workflows//run",
        "//workflows",
        "/%ff",
        "/workflows/a/b/run",
    ],
)
def test_404_of_an_unknown_path(client, path):
    reply = client.get(path)
    assert (reply.status, reply.json) == (404, {"detail": "Not Found"})


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", RUN, "POST"),
        ("POST", LIST, "GET"),
        ("DELETE", f"{LIST}/{quote('a/b', safe='')}", "GET"),
        ("PUT", RESULTS, "GET"),
    ],
)
def test_405(client, method, path, allowed):
    reply = client.send(method, path)
    assert (reply.status, reply.json) == (405, {"detail": "Method Not Allowed"})
    assert reply.headers["allow"] == allowed


@pytest.mark.parametrize("key", [None, "", "pl_local_kez", "PL_LOCAL_KEY", "pl_local_key2"])
def test_401_comes_before_all_of_these(client, key):
    targets = [
        ("GET", f"{LIST}?page=x"),
        ("GET", f"{LIST}/Greet"),
        ("GET", f"{LIST}/Greet/labels"),
        ("POST", RUN),
        ("DELETE", RUN),
        ("GET", RESULTS),
        ("GET", "/nowhere"),
        ("POST", OPERATIONS),
        ("POST", REPORT),
    ]
    for method, target in targets:
        reply = client.send(method, target, b"{" if method == "POST" else None, key=key)
        assert reply.status == 401
        assert reply.json == {"success": False, "message": "Invalid API key"}
        assert client.server.requests[-1].key_was_right is False
