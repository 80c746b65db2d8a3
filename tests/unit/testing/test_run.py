# SPDX-License-Identifier: Apache-2.0
"""POST /workflows/{workflow_name}/run."""

from __future__ import annotations

import json

import pytest

from airflow_provider_promptlayer.testing import Node, Workflow

HELLO = [Node("Hello", "hi", is_output_node=True)]
GREET = Workflow("Greet", HELLO)


def errors(reply):
    """The (loc, type) of each error; that msg is there is checked on the way."""
    assert reply.status == 422
    detail = reply.json["detail"]
    assert all(set(error) == {"loc", "msg", "type"} and error["msg"] for error in detail)
    return [(error["loc"], error["type"]) for error in detail]


def test_a_run_is_answered_201_and_recorded(serve):
    client = serve(GREET)
    reply = client.run(
        "Greet",
        {"input_variables": {"a": [1, None]}, "metadata": {"dag": "d"}, "return_all_outputs": True},
    )
    assert reply.status == 201
    assert reply.json == {
        "success": True,
        "message": "Workflow execution started",
        "warning": None,
        "workflow_version_execution_id": 1,
    }
    execution = client.server.executions[1]
    assert execution.workflow_name == "Greet"
    assert execution.version == 1
    assert execution.input_variables == {"a": [1, None]}
    assert execution.metadata == {"dag": "d"}
    assert execution.return_all_outputs is True
    assert execution.started_at == 1000.0


def test_two_identical_runs_are_two_executions(serve):
    client = serve(GREET)
    ids = {client.run("Greet").json["workflow_version_execution_id"] for _ in range(2)}
    assert ids == set(client.server.executions) == {1, 2}


def test_a_callback_url_makes_it_202(serve):
    client = serve(GREET)
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
    assert client.server.executions[1].workflow_name == name


def test_an_unencoded_slash_is_another_path(serve):
    client = serve(Workflow("a/b", HELLO))
    assert client.send("POST", "/workflows/a/b/run", b"{}").json == {"detail": "Not Found"}


def test_the_number_of_a_workflow_does_as_well_as_its_name(serve):
    client = serve(Workflow("Greet", HELLO, id=77), Workflow("78", HELLO))
    client.run("77")
    client.run("78")
    assert [run.workflow_name for run in client.server.executions.values()] == ["Greet", "78"]


def test_a_number_means_the_workflow_of_that_number_before_one_of_that_name(serve):
    client = serve(Workflow("12", HELLO), Workflow("Greet", HELLO, id=12))
    assert client.run("12").status == 201
    assert client.server.executions[1].workflow_name == "Greet"
    assert client.get("/workflows/12").json["workflow_name"] == "Greet"


def test_no_workflow_is_given_a_number_that_is_the_name_of_another(serve):
    client = serve(Workflow("Greet", HELLO), Workflow("1", HELLO))
    client.run("1")
    assert client.server.executions[1].workflow_name == "1"


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


@pytest.mark.parametrize(
    ("workflow", "body", "named"),
    [
        ("Nope", {}, "Nope"),
        ("9" * 5000, {}, "9"),
        ("Greet", {"workflow_version_number": 2}, "2"),
        ("Greet", {"workflow_version_number": -1}, "-1"),
        ("Greet", {"workflow_label_name": "prod"}, "prod"),
    ],
)
def test_what_does_not_exist_is_404(serve, workflow, body, named):
    client = serve(GREET)
    reply = client.run(workflow, body)
    assert reply.status == 404
    assert reply.json["success"] is False
    assert named in reply.json["message"]
    assert client.server.executions == {}


@pytest.mark.parametrize(
    ("body", "location", "kind"),
    [
        ({"metadata": {"ok": "x", "k": 1}}, ["body", "metadata", "k"], "string_type"),
        ({"metadata": {"k": None}}, ["body", "metadata", "k"], "string_type"),
        ({"metadata": []}, ["body", "metadata"], "dict_type"),
        ({"input_variables": None}, ["body", "input_variables"], "dict_type"),
        ({"input_variables": "x"}, ["body", "input_variables"], "dict_type"),
        ({"return_all_outputs": "true"}, ["body", "return_all_outputs"], "bool_type"),
        ({"return_all_outputs": None}, ["body", "return_all_outputs"], "bool_type"),
        ({"return_all_outputs": 1}, ["body", "return_all_outputs"], "bool_type"),
        ({"workflow_label_name": 5}, ["body", "workflow_label_name"], "string_type"),
        ({"workflow_version_number": "5"}, ["body", "workflow_version_number"], "int_type"),
        ({"workflow_version_number": True}, ["body", "workflow_version_number"], "int_type"),
        ({"workflow_version_number": 1.0}, ["body", "workflow_version_number"], "int_type"),
        (
            {"workflow_version_number": 2**63},
            ["body", "workflow_version_number"],
            "less_than_equal",
        ),
        ({"workflow_version_number": 1, "workflow_label_name": "x"}, ["body"], "value_error"),
        ({"callback_url": "nowhere"}, ["body", "callback_url"], "url_parsing"),
        ({"callback_url": "ftp://example.com"}, ["body", "callback_url"], "url_scheme"),
        ({"callback_url": "http://[1"}, ["body", "callback_url"], "url_parsing"),
        ([], ["body"], "model_attributes_type"),
        ("text", ["body"], "model_attributes_type"),
    ],
)
def test_a_wrong_body_is_422_and_starts_nothing(serve, body, location, kind):
    client = serve(GREET)
    assert errors(client.run("Greet", body)) == [(location, kind)]
    assert client.server.executions == {}


def test_all_mistakes_are_reported_at_once(serve):
    reply = serve(GREET).run("Greet", {"metadata": {"a": 1, "b": 2}, "callback_url": 3})
    assert errors(reply) == [
        (["body", "metadata", "a"], "string_type"),
        (["body", "metadata", "b"], "string_type"),
        (["body", "callback_url"], "string_type"),
    ]


@pytest.mark.parametrize(
    ("body", "position"),
    [
        (b"{", 1),
        (b"{'a': 1}", 1),
        (b'{"a": 1,', 8),
        (b"\xff\xfe\xfd", 0),
        (b"[" * 100_000, 0),
        (b'{"input_variables": {"n": ' + b"9" * 5000 + b"}}", 0),
    ],
)
def test_malformed_json_is_422(serve, body, position):
    reply = serve(GREET).send("POST", "/workflows/Greet/run", body)
    assert errors(reply) == [(["body", position], "json_invalid")]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_declared_json_is_422(serve, content_type):
    reply = serve(GREET).send("POST", "/workflows/Greet/run", b"{}", content_type=content_type)
    assert errors(reply) == [(["body"], "model_attributes_type")]


@pytest.mark.parametrize("content_type", ["Application/JSON; charset=utf-8", "application/x+json"])
def test_declarations_of_json_are_taken(serve, content_type):
    reply = serve(GREET).send("POST", "/workflows/Greet/run", b"{}", content_type=content_type)
    assert reply.status == 201


def test_no_body_is_422(serve):
    assert errors(serve(GREET).send("POST", "/workflows/Greet/run", b"")) == [(["body"], "missing")]


def test_undeclared_fields_are_ignored(serve):
    assert serve(GREET).run("Greet", {"colour": "red"}).status == 201


def test_megabytes_of_input_are_taken(serve):
    client = serve(GREET)
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
    assert reply.status == 201
    assert reply.json["warning"] == warning


def test_who_asks_for_a_stream_is_told_to_poll(serve):
    reply = serve(GREET).send("POST", "/ws-token-request-library?capability=workflows:1:run:x")
    assert (reply.status, reply.json["success"]) == (404, False)
    assert "no stream" in reply.json["message"]
    assert "GET /workflow-version-execution-results" in reply.json["message"]


def test_input_nobody_should_send_arrives_whole(serve):
    client = serve(Workflow("Echo", [Node("Echo", lambda inputs, _: inputs["x"])]))
    value = ["\ud800", "\x00", 2**80, float("inf"), float("-inf"), {"": None}]
    client.run("Echo", {"input_variables": {"x": value, "\ud800": 1}})
    assert client.server.executions[1].input_variables == {"x": value, "\ud800": 1}
    assert client.results(1).json["Echo"]["value"] == value
    assert json.dumps(value) in client.results(1).body.decode("ascii")
