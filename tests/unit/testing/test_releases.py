# SPDX-License-Identifier: Apache-2.0
"""Versions and release labels of prompt templates and workflows, with and without HTTP."""

from __future__ import annotations

import json

import pytest
from unit.testing.conftest import HELLO
from unit.testing.evaluations import checked

from airflow_provider_promptlayer.testing import (
    Column,
    LocalPromptLayer,
    Prompt,
    Reply,
    Sheet,
    Table,
    UnknownWorkflowError,
    Workflow,
)

REPLY = Prompt(
    "Reply", latest_version=5, labels={"prod": 3, "legal": 2}, protected_labels=["legal"]
)
GREET = [
    Workflow("Greet", HELLO, version=1, labels=["prod"], commit_message="one"),
    Workflow("Greet", HELLO, version=2, labels=["staging"], commit_message="two"),
]
LABELS = "/prompt-templates/Reply/labels"
COPY = "/rest/workflows/Greet"


@pytest.fixture
def client(serve):
    return serve(*GREET, prompts=[REPLY])


def send(client, method, path, body=None):
    sent = None if body is None else json.dumps(body).encode()
    return checked(method, path, client.send(method, path, sent))


def labels(client, path=LABELS):
    return send(client, "GET", path).json["release_labels"]


def label_id(client, label):
    return next(
        each["release_label_id"] for each in labels(client) if each["release_label"] == label
    )


def move(client, label, version):
    body = {"prompt_version_number": version}
    return send(client, "PATCH", f"/prompt-labels/{label_id(client, label)}", body)


def test_a_label_of_a_prompt_is_moved(client):
    moved = move(client, "prod", 5)
    assert (moved.status, moved.json["name"]) == (200, "prod")
    assert client.server.labels(prompt="Reply") == {"prod": 5, "legal": 2}
    (prod, _) = labels(client)
    assert prod["prompt_version_id"] == moved.json["prompt_version_id"]


def test_a_label_of_a_prompt_is_created(client):
    prompt_id = send(client, "GET", "/prompt-templates/Reply").json["id"]
    body = {"prompt_version_number": 4, "name": "eu"}
    created = send(client, "POST", f"/prompts/{prompt_id}/label", body)
    assert created.json["id"] == label_id(client, "eu")
    assert send(client, "GET", "/prompt-templates/Reply?label=eu").json["version"] == 4
    assert send(client, "POST", f"/prompts/{prompt_id}/label", body).status == 400


def test_a_protected_label_waits_for_approval(client):
    assert move(client, "legal", 5).status == 200
    assert move(client, "legal", 4).status == 200
    assert client.server.labels(prompt="Reply")["legal"] == 2
    client.server.approve_label("legal", prompt="Reply")
    assert client.server.labels(prompt="Reply")["legal"] == 4
    with pytest.raises(LookupError, match="no request to move the label 'legal'"):
        client.server.approve_label("legal", prompt="Reply")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PATCH", "/prompt-labels/1", {"prompt_version_number": 1}, 404),
        ("PATCH", "/prompt-labels/1", {}, 422),
        ("POST", "/prompts/1/label", {"prompt_version_number": 1, "name": "x"}, 404),
        ("GET", "/prompt-templates/Reply?version=6", None, 404),
        ("GET", "/prompt-templates/Rely/labels", None, 404),
        ("PATCH", COPY, {"base_version": 3}, 404),
        ("PATCH", COPY, {"nodes": {"Hello": None}}, 400),
        ("PATCH", COPY, {"commit_message": "x" * 73}, 422),
    ],
)
def test_what_is_refused(client, method, path, body, status):
    sent = None if body is None else json.dumps(body).encode()
    assert checked(method, path, client.send(method, path, sent)).status == status


def test_a_version_that_does_not_exist_gets_no_label(client):
    assert move(client, "prod", 6).status == 404
    assert client.server.labels(prompt="Reply")["prod"] == 3


def test_a_workflow_is_copied_and_the_label_moved(client):
    body = {"base_version": 1, "commit_message": "again", "release_labels": ["staging", "eu"]}
    copied = send(client, "PATCH", COPY, body)
    assert copied.status == 201
    assert (copied.json["version_number"], copied.json["base_version"]) == (3, 1)
    assert copied.json["release_labels"] == ["staging", "eu"]
    assert client.server.labels(workflow="Greet") == {"prod": 1, "staging": 3, "eu": 3}
    latest = send(client, "GET", "/workflows/Greet").json
    assert (latest["version"], latest["commit_message"]) == (3, "again")
    assert [node["name"] for node in latest["nodes"]] == ["Hello"]
    assert send(client, "GET", "/workflows/Greet?version=2").json["release_labels"] == []
    assert len(labels(client, "/workflows/Greet/labels")) == 3
    # The latest by default, and each request makes another copy.
    assert send(client, "PATCH", COPY, {}).json["base_version"] == 3


def test_a_protected_label_of_a_workflow(client):
    client.server.protect_label("prod", workflow="Greet")
    body = {"base_version": 2, "release_labels": ["prod"]}
    assert send(client, "PATCH", COPY, body).json["release_labels"] == []
    assert client.server.labels(workflow="Greet")["prod"] == 1
    client.server.approve_label("prod", workflow="Greet")
    assert client.server.labels(workflow="Greet")["prod"] == 3


@pytest.mark.parametrize("acted_on", [True, False])
def test_a_fault_may_keep_a_patch_from_taking_effect(client, acted_on):
    client.server.script(Reply(502, ""), method="PATCH", acted_on=acted_on)
    assert client.send("PATCH", COPY, b"{}").status == 502
    latest = send(client, "GET", "/workflows/Greet").json["version"]
    assert latest == (3 if acted_on else 2)


def test_versions_and_labels_without_http(client):
    server = client.server
    assert server.add_version(prompt="Reply") == 6
    assert server.add_version(workflow="Greet") == 3
    server.move_label("prod", 6, prompt="Reply")
    server.move_label("new", 3, workflow="Greet")
    assert server.labels(prompt="Reply")["prod"] == 6
    assert server.labels(workflow="Greet")["new"] == 3
    with pytest.raises(LookupError, match="no prompt 'Rely'"):
        server.labels(prompt="Rely")
    with pytest.raises(UnknownWorkflowError):
        server.labels(workflow="Gret")
    with pytest.raises(ValueError, match="give a prompt or a workflow"):
        server.labels()


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        (lambda: [Prompt("")], "needs a name"),
        (lambda: [Prompt("P", latest_version=0)], "latest_version"),
        (lambda: [Prompt("P", labels={"prod": 2})], "'prod' leads to no version"),
        (lambda: [Prompt("P", protected_labels="prod")], "protected_labels is a list"),
        (lambda: [Prompt("P"), Prompt("P")], "two prompts are called 'P'"),
    ],
)
def test_definitions_that_make_no_sense(prompts, says):
    with pytest.raises(ValueError, match=says):
        LocalPromptLayer([], prompts=prompts())


def test_a_column_gets_another_configuration(serve):
    columns = [
        Column("Question", type="TEXT"),
        Column("Answer", config={"template": {"name": "Reply"}}, is_stale=False),
        Column("Other", is_stale=False),
    ]
    table = Table("Support", [Sheet("Answers", columns, row_count=2)])
    client = serve(tables=[table])
    path = f"/api/public/v2/tables/{table.id}/sheets/{table.sheets[0].id}/columns"
    config = {"template": {"name": "Reply", "label": "staging"}}
    changed = send(client, "PATCH", f"{path}/{columns[1].id}", {"config": config}).json
    assert changed["column"]["config"] == config
    assert changed["affected_column_ids"] == [columns[1].id, columns[2].id]
    again = send(client, "PATCH", f"{path}/{columns[1].id}", {"config": config}).json
    assert not again["requires_recalculation"]
    assert [each["config"] for each in send(client, "GET", path).json["data"]] == [{}, config, {}]
    nowhere = client.send("PATCH", f"{path}/{table.id}", json.dumps({"config": {}}).encode())
    assert nowhere.status == 404
    operations = path.replace("columns", "operations")
    assert send(client, "POST", operations, {}).json["cell_count"] == 4


def test_the_built_in_prompt_is_that_of_the_built_in_sheet():
    with LocalPromptLayer() as server:
        assert server.labels(prompt="Support reply") == {"prod": 1, "staging": 2}
        (answer,) = (each for each in server.tables[0].sheets[0].columns if each.title == "Answer")
    assert answer.config == {"template": {"name": "Support reply"}}
