# SPDX-License-Identifier: Apache-2.0
"""GET /workflows and below."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from unit.testing.evaluations import checked

from airflow_provider_promptlayer.testing import Node, OnlyIf, Workflow

NODES = [
    Node("A", "x", node_type="VARIABLE"),
    Node("B", depends_on=["A"], only_if=OnlyIf("A", equals="x"), is_output_node=True),
]
THREE = [Workflow("b", NODES), Workflow("c", NODES), Workflow("a", NODES)]


@pytest.fixture
def client(serve):
    return serve(*THREE)


def names(reply):
    assert reply.status == 200
    return [item["name"] for item in reply.json["items"]]


def test_the_pages_of_a_listing(client):
    first = client.get("/workflows", page=1, per_page=2)
    assert names(first) == ["a", "c"]
    assert {key: value for key, value in first.json.items() if key != "items"} == {
        "page": 1,
        "per_page": 2,
        "total": 3,
        "pages": 2,
        "has_next": True,
        "has_prev": False,
        "next_num": 2,
        "prev_num": None,
    }
    last = client.get("/workflows", page=2, per_page=2)
    assert names(last) == ["b"]
    assert (last.json["has_next"], last.json["next_num"]) == (False, None)
    assert (last.json["has_prev"], last.json["prev_num"]) == (True, 1)
    assert names(client.get("/workflows", page=9)) == []
    assert client.get("/workflows").json["per_page"] == 30


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, "acb"),
        ({"sort_order": "asc"}, "bca"),
        ({"sort_by": "name"}, "cba"),
        ({"sort_by": "name", "sort_order": "asc"}, "abc"),
        ({"sort_by": "created_at", "sort_order": "asc"}, "bca"),
    ],
)
def test_the_order_of_a_listing(client, query, expected):
    assert "".join(names(client.get("/workflows", **query))) == expected


def test_an_item_of_a_listing_sums_up_all_versions(serve):
    client = serve(
        Workflow("W", NODES, id=9, version=3, labels=["staging"]),
        Workflow("W", NODES, version=2, labels=["prod"]),
    )
    assert client.get("/workflows").json["items"] == [
        {
            "id": 9,
            "workspace_id": 1,
            "user_id": None,
            "name": "W",
            "is_deleted": False,
            "latest_version_number": 3,
            "release_labels": ["staging", "prod"],
            "external_ids": [],
        }
    ]


def test_filters_of_the_right_type_are_taken(client):
    reply = client.get(
        "/workflows",
        created_after="2026-01-31T12:00:00Z",
        updated_before="2026-01-31T12:00:00+02:00",
        created_by_email="a@example.com",
        external_source="s",
        external_id="1",
    )
    assert len(names(reply)) == 3


def test_a_workflow_is_described_by_version_label_or_latest(serve):
    client = serve(
        Workflow("a/b", NODES, version=1, labels=["prod"], commit_message="first"),
        Workflow("a/b", NODES, version=2, required_input_variables={"x": "string"}),
    )
    path = f"/workflows/{quote('a/b', safe='')}"
    latest = checked("GET", path, client.get(path)).json
    assert (latest["workflow_name"], latest["version"], latest["success"]) == ("a/b", 2, True)
    assert latest["required_input_variables"] == {"x": "string"}
    assert latest["workflow"] == {
        "id": latest["workflow_id"],
        "name": "a/b",
        "required_input_variables": {"x": "string"},
    }
    assert client.get(path, version=2).json == latest
    first = client.get(path, label="prod").json
    assert (first["version"], first["commit_message"]) == (1, "first")
    assert first["release_labels"] == ["prod"]
    assert first["workflow_id"] == latest["workflow_id"]
    assert first["workflow_version_id"] != latest["workflow_version_id"]
    assert client.get(f"/workflows/{latest['workflow_id']}", version=1).json == first


def test_the_libraries_know_a_workflow_by_one_field(serve):
    workflow = Workflow("W", NODES, required_input_variables={"x": "string"})
    described = checked(
        "GET", "/workflows/W", serve(workflow, dialect="libraries").get("/workflows/W")
    ).json
    assert described.keys() == {"success", "workflow"}
    assert described["workflow"]["name"] == "W"
    assert described["workflow"]["required_input_variables"] == {"x": "string"}


def test_nodes_and_edges_are_described(serve):
    reply = serve(Workflow("W", NODES)).get("/workflows/W")
    described = checked("GET", "/workflows/W", reply).json
    a, b = described["nodes"]
    assert (a["name"], a["node_type"], a["is_output_node"]) == ("A", "VARIABLE", False)
    assert (b["name"], b["dependencies"], b["is_output_node"]) == ("B", ["A"], True)
    (edge,) = described["edges"]
    assert (edge["source_node_name"], edge["target_node_name"]) == ("A", "B")
    assert edge["conditionals"] == [{"operator": "equals", "value": "x"}]
    assert len({a["id"], b["id"], edge["id"]}) == 3


def test_the_labels_of_a_workflow(serve):
    client = serve(
        Workflow("W", NODES, version=1, labels=["prod", "eu"]),
        Workflow("W", NODES, version=2, labels=["staging"]),
    )
    labels = client.get("/workflows/W/labels").json["release_labels"]
    assert [(label["release_label"], label["workflow_version_number"]) for label in labels] == [
        ("prod", 1),
        ("eu", 1),
        ("staging", 2),
    ]
    assert len({label["release_label_id"] for label in labels}) == 3
    assert len({label["workflow_version_id"] for label in labels}) == 2
