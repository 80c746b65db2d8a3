# SPDX-License-Identifier: Apache-2.0
"""What may be defined, in Python and in files, and how mistakes are reported."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_promptlayer.testing import (
    LocalPromptLayer,
    Node,
    OnlyIf,
    Template,
    Workflow,
    builtin_workflows,
    load_workflows,
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Node(None), "a node needs a name"),  # type: ignore[arg-type]  # refused
        (lambda: Node("N", {1, 2}), "node 'N': the value is not JSON"),
        (lambda: Node("N", duration=-1), "node 'N': duration is -1"),
        (lambda: Node("N", duration=float("nan")), "node 'N': duration is nan"),
        (lambda: Node("N", depends_on="A"), "node 'N': depends_on is a list"),
        (lambda: Workflow("", []), "a workflow needs a name"),
        (lambda: Workflow("W", [], version=0), "workflow 'W': version is 0"),
        (lambda: Workflow("W", [], id=0), "workflow 'W': id is 0"),
        (lambda: Workflow("W", [], labels="prod"), "workflow 'W': labels is a list"),
        (lambda: Workflow("W", [], no_output_status=404), "workflow 'W': no_output_status"),
        (lambda: Workflow("W", [Node("A"), Node("A")]), "two nodes are called 'A'"),
        (
            lambda: Workflow("W", [Node("A", depends_on=["B"])]),
            "workflow 'W': node 'A' depends on 'B', which does not exist",
        ),
        (lambda: Workflow("W", [Node("A", only_if=OnlyIf("B", 1))]), "depends on 'B'"),
        (lambda: Workflow("W", [Node("A", depends_on=["A"])]), "in a circle: 'A' -> 'A'"),
        (
            lambda: Workflow("W", [Node("A", depends_on=["B"]), Node("B", only_if=OnlyIf("A", 1))]),
            "in a circle",
        ),
        (lambda: LocalPromptLayer([Workflow("W", [])] * 2), "version number is defined twice"),
        (
            lambda: LocalPromptLayer(
                [Workflow("W", [], labels=["x"]), Workflow("W", [], version=2, labels=["x"])]
            ),
            "release label is defined twice",
        ),
        (
            lambda: LocalPromptLayer([Workflow("W", [], id=1), Workflow("W", [], id=2, version=2)]),
            "different ids",
        ),
        (lambda: LocalPromptLayer([Workflow("V", [], id=1), Workflow("W", [], id=1)]), "same id"),
    ],
)
def test_mistakes_are_one_clear_line(make, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_ids_that_are_given_are_not_given_out_again():
    server = LocalPromptLayer([Workflow("A", []), Workflow("B", [], id=1), Workflow("C", [])])
    assert server.start_execution("1") == 1
    assert server.executions[1].workflow_name == "B"


TOML = """
[[workflows]]
name = "W"
version = 4
labels = ["prod"]
no_output_status = 400
required_input_variables = { topic = "string" }
[[workflows.nodes]]
name = "First step"
duration = 1
value = "About {topic}"
[[workflows.nodes]]
name = "B"
only_if = { node = "First step", equals = "About tea" }
is_output_node = true
value = { text = "<{First step}>", n = 1 }
"""
AS_JSON = {
    "workflows": [
        {
            "name": "W",
            "version": 4,
            "labels": ["prod"],
            "no_output_status": 400,
            "required_input_variables": {"topic": "string"},
            "nodes": [
                {"name": "First step", "duration": 1, "value": "About {topic}"},
                {
                    "name": "B",
                    "only_if": {"node": "First step", "equals": "About tea"},
                    "is_output_node": True,
                    "value": {"text": "<{First step}>", "n": 1},
                },
            ],
        }
    ]
}


def test_toml_and_json_say_the_same(tmp_path, serve, clock):
    (tmp_path / "w.toml").write_text(TOML)
    (tmp_path / "w.json").write_text(json.dumps(AS_JSON))
    from_toml = load_workflows(tmp_path / "w.toml")
    assert from_toml == load_workflows(str(tmp_path / "w.json"))
    (workflow,) = from_toml
    assert (workflow.version, workflow.labels, workflow.no_output_status) == (4, ("prod",), 400)
    client = serve(workflow)
    client.server.start_execution("W", {"topic": "tea"})
    clock.now += 1
    assert client.results(1, return_all_outputs=False).json == {"text": "<About tea>", "n": 1}


def node_file(**node):
    return {"workflows": [{"name": "W", "nodes": [{"name": "N", **node}]}]}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "the file: Input should be an object"),
        ({}, "workflows: the key is missing"),
        ({"workflows": {}}, "workflows: Input should be a valid array"),
        ({"workflows": [1]}, "workflows[0]: Input should be an object"),
        ({"workflows": [{"name": "W"}]}, "workflows[0].nodes: the key is missing"),
        ({"workflows": [{"name": "W", "nodes": []}] * 2}, "version number is defined twice"),
        (node_file(durration=1), "workflows[0].nodes[0].durration: unknown key"),
        (node_file(duration="1"), "nodes[0].duration: Input should be a valid number"),
        (node_file(is_output_node=1), "is_output_node: Input should be a valid boolean"),
        (node_file(depends_on=[1]), "depends_on[0]: Input should be a valid string"),
        (node_file(only_if={"node": "A"}), "only_if.equals: the key is missing"),
        (node_file(depends_on=["X"]), "depends on 'X'"),
    ],
)
def test_mistakes_in_a_file_are_one_line_with_its_name(tmp_path, document, message):
    path = tmp_path / "definitions.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_workflows(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("w.toml", "[[workflows"),
        ("w.json", "{"),
        ("w.yaml", "a: b"),
        ("w.toml", TOML.replace("n = 1", "n = 1979-05-27")),
    ],
)
def test_a_file_that_cannot_be_parsed_is_a_value_error(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=name):
        load_workflows(tmp_path / name)


NULL_OUTPUT = {"workflows": [{"name": "W", "nodes": [{"name": "N", "is_output_node": None}]}]}


def test_json_can_say_null_where_the_api_can(tmp_path):
    (tmp_path / "w.json").write_text(json.dumps(NULL_OUTPUT))
    (workflow,) = load_workflows(tmp_path / "w.json")
    assert workflow.nodes[0].is_output_node is None


@pytest.mark.parametrize(
    ("template", "result"),
    [
        ("{x}", {"a": [1]}),
        ("x is {x}", 'x is {"a": [1]}'),
        ("{text} and {text}", "tea and tea"),
        ("{Some node}", "node value"),
        ("{both}", "input wins"),
        ("{missing} stays", "{missing} stays"),
        ("{{text}}", "{tea}"),
        ("{}{ {", "{}{ {"),
        ('{"a": {"b": 1}}', '{"a": {"b": 1}}'),
        ("{x.__class__}{x[a]}{text!r}{text:>99}", "{x.__class__}{x[a]}{text!r}{text:>99}"),
        ("{tricky}", "{text}"),
        ("<{tricky}>", "<{text}>"),
        ({"{text}": ["{text}", 1, None]}, {"{text}": ["tea", 1, None]}),
    ],
)
def test_placeholders(template, result):
    inputs = {"x": {"a": [1]}, "text": "tea", "both": "input wins", "tricky": "{text}"}
    assert Template(template)(inputs, {"Some node": "node value", "both": "no"}) == result


@given(text=st.text(), value=st.text())
def test_a_template_is_total_and_only_replaces(text, value):
    assert Template(text)({}, {}) == text
    assert Template("<{name}>" + text)({"name": value}, {}).startswith(f"<{value}>")


def test_text_in_python_is_no_template(serve):
    client = serve(Workflow("W", [Node("N", "{x}", is_output_node=True)]))
    client.server.start_execution("W", {"x": 1})
    assert client.results(1, return_all_outputs=False).json == "{x}"


@pytest.mark.parametrize(
    ("name", "inputs", "seconds", "endings", "main_output"),
    [
        (
            "Article pipeline",
            {"topic": "Tea"},
            5.0,
            {"Extract": "SUCCESS", "Summarize": "SUCCESS", "Translate": "SUCCESS"},
            "Kurz gesagt: Tea ist alt und in Mode. (Aus: In short: Tea is old and in fashion.)",
        ),
        (
            "Triage ticket",
            {"ticket": "It broke."},
            3.0,
            {
                "Classify": "SUCCESS",
                "Answer question": "SKIPPED",
                "Draft apology": "SUCCESS",
                "Log ticket": "SUCCESS",
            },
            "We are sorry to hear this: It broke.",
        ),
        (
            "Broken report",
            {"report": "Q3"},
            2.0,
            {
                "Render report": "SUCCESS",
                "Publish report": "FAILED",
                "Announce report": "SKIPPED",
            },
            None,
        ),
    ],
)
def test_the_built_in_workflows(serve, clock, name, inputs, seconds, endings, main_output):
    client = serve()
    started = client.run(name, {"input_variables": inputs})
    assert (started.status, started.json["warning"]) == (201, None)
    clock.now += seconds - 0.001
    assert client.results(1).status == 202
    clock.now += 0.001
    reply = client.results(1)
    assert reply.status == 200
    assert {node: result["status"] for node, result in reply.json.items()} == endings
    bare = client.results(1, return_all_outputs=False).json
    assert bare == (reply.json if main_output is None else main_output)


def test_the_built_in_workflows_are_those_of_a_server_given_none():
    assert LocalPromptLayer().workflow_names == [workflow.name for workflow in builtin_workflows()]
    assert LocalPromptLayer([]).workflow_names == []
