# SPDX-License-Identifier: Apache-2.0
"""POST /workflows/{workflow_name}/run."""

from __future__ import annotations

import json

import pytest
from unit.testing.conftest import GREET, HELLO

from airflow_provider_promptlayer.testing import Node, Workflow


@pytest.fixture
def client(serve):
    return serve(GREET)


def names_run(client):
    return [run.workflow_name for run in client.server.executions.values()]


def test_a_run_is_answered_201_and_recorded(client):
    body = {"input_variables": {"a": [1, None]}, "metadata": {"dag": "d"}}
    reply = client.run("Greet", {**body, "return_all_outputs": True, "not declared": 1})
    assert reply.status == 201
    assert reply.json == {
        "success": True,
        "message": "Workflow execution started",
        "warning": None,
        "workflow_version_execution_id": 1,
    }
    execution = client.server.executions[1]
    assert (execution.workflow_name, execution.version) == ("Greet", 1)
    assert execution.input_variables == {"a": [1, None]}
    assert execution.metadata == {"dag": "d"}
    assert execution.return_all_outputs is True
    assert execution.started_at == 1000.0


def test_two_identical_runs_are_two_executions(client):
    ids = {client.run().json["workflow_version_execution_id"] for _ in range(2)}
    assert ids == set(client.server.executions) == {1, 2}


def test_a_callback_url_makes_it_202(client):
    reply = client.run("Greet", {"callback_url": "https://example.com/hook"})
    assert reply.status == 202
    assert reply.json["message"] == "Workflow execution accepted"
    assert client.server.executions[1].callback_url == "https://example.com/hook"


@pytest.mark.parametrize(
    "name",
    ["a b", "a/b", "/run", "a?b#c", "50%", "%2F", "labels", "..", ".", "🧪 naïve", "a+b&c=d", " "],
)
def test_a_name_is_one_segment_whatever_it_holds(serve, name):
    client = serve(Workflow(name, HELLO), GREET)
    assert client.run(name).status == 201
    assert names_run(client) == [name]


def test_an_id_comes_before_a_name_and_no_chosen_id_is_a_name(serve):
    client = serve(
        Workflow("Greet", HELLO, id=77),
        Workflow("77", HELLO),  # never meant by "77"
        Workflow("78", HELLO),
        Workflow("1", HELLO),  # so that no workflow gets this id
    )
    for id_or_name in ("77", "78", "1"):
        assert client.run(id_or_name).status == 201
    assert names_run(client) == ["Greet", "78", "1"]
    assert client.get("/workflows/77").json["workflow_name"] == "Greet"


def test_version_and_label_choose_and_the_latest_is_the_default(serve):
    client = serve(
        Workflow("Greet", HELLO, version=2, labels=["prod"]),
        Workflow("Greet", HELLO, version=10),
        Workflow("Greet", HELLO, version=1, labels=["old"]),
    )
    for body in (
        {},
        {"workflow_version_number": 1},
        {"workflow_label_name": "prod", "workflow_version_number": None},
    ):
        assert client.run("Greet", body).status == 201
    assert [run.version for run in client.server.executions.values()] == [10, 1, 2]


JSON = "application/json"
NOT_JSON = "model_attributes_type"


@pytest.mark.parametrize("content_type", ["Application/JSON; charset=utf-8", "application/x+json"])
def test_declarations_of_json_are_taken(client, content_type):
    reply = client.send("POST", "/workflows/Greet/run", b"{}", content_type=content_type)
    assert reply.status == 201


def test_megabytes_of_input_are_taken(client):
    assert client.run("Greet", {"input_variables": {"text": "x" * 3_000_000}}).status == 201
    assert len(client.server.executions[1].input_variables["text"]) == 3_000_000


@pytest.mark.parametrize(
    ("given", "warning"),
    [
        ({"topic": 1, "tone": 2}, None),
        ({"topic": 1}, "Missing input variables: tone."),
        ({"topic": 1, "tone": 2, "x": 3}, "Unused input variables: x."),
        ({"x": 1}, "Missing input variables: topic, tone. Unused input variables: x."),
    ],
)
def test_missing_and_unused_variables_are_a_warning(serve, given, warning):
    client = serve(
        Workflow("Greet", HELLO, required_input_variables={"topic": "string", "tone": "string"})
    )
    reply = client.run("Greet", {"input_variables": given})
    assert (reply.status, reply.json["warning"]) == (201, warning)


def test_a_request_for_a_stream_is_told_to_poll(client):
    reply = client.send("POST", "/ws-token-request-library?capability=workflows:1:run:x")
    assert (reply.status, reply.json["success"]) == (404, False)
    assert "no stream" in reply.json["message"]
    assert "GET /workflow-version-execution-results" in reply.json["message"]


def test_hostile_input_arrives_whole(serve):
    client = serve(Workflow("Echo", [Node("Echo", lambda inputs, _: inputs["x"])]))
    value = ["\ud800", "\x00", 2**80, float("inf"), float("-inf"), {"": None}]
    client.run("Echo", {"input_variables": {"x": value, "\ud800": 1}})
    assert client.server.executions[1].input_variables == {"x": value, "\ud800": 1}
    assert client.results(1).json["Echo"]["value"] == value
    assert json.dumps(value) in client.results(1).body.decode("ascii")
