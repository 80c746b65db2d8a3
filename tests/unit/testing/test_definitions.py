# SPDX-License-Identifier: Apache-2.0
"""Definitions in Python and in files, the built-in ones, and how mistakes are reported."""

from __future__ import annotations

import json
import math
import re
import tomllib
from dataclasses import MISSING
from dataclasses import fields as fields_of
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_promptlayer.testing import (
    Column,
    Criterion,
    LocalPromptLayer,
    Node,
    OnlyIf,
    Prompt,
    Report,
    RequestLog,
    RequestMetrics,
    Scorecard,
    ScoredRow,
    Sheet,
    Table,
    Template,
    Workflow,
    builtin_evaluations,
    builtin_workflows,
    load_definitions,
    load_workflows,
)

ROOT = Path(__file__).parents[3]
ID = "5c0a1e00-0000-4000-8000-000000000001"


def served(*workflows, **options):
    return LocalPromptLayer(workflows, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Node(None), "a node needs a name"),  # type: ignore[arg-type]  # refused
        (lambda: Node("N", {1, 2}), "node 'N': the value is not JSON"),
        (lambda: Node("N", duration=-1), "node 'N': duration is -1"),
        (lambda: Node("N", duration=math.nan), "node 'N': duration is nan"),
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
        (lambda: served(Workflow("W", []), Workflow("W", [])), "version number is defined twice"),
        (
            lambda: served(
                Workflow("W", [], labels=["x"]), Workflow("W", [], version=2, labels=["x"])
            ),
            "release label is defined twice",
        ),
        (
            lambda: served(Workflow("W", [], id=1), Workflow("W", [], id=2, version=2)),
            "different ids",
        ),
        (lambda: served(Workflow("V", [], id=1), Workflow("W", [], id=1)), "same id"),
        (lambda: Column(""), "a column needs a name"),
        (lambda: Column("C", id="x"), "column 'C': id is 'x', must be a UUID"),
        (lambda: Column("C", cell_duration=math.nan), "column 'C': cell_duration is nan"),
        (lambda: Criterion("C", verdict="bad"), "criterion 'C': the verdict is 'bad'"),
        (lambda: ScoredRow("PASS"), "a row of a scorecard: the verdict is 'PASS'"),
        (lambda: Scorecard("S", duration=-1), "scorecard 'S': duration is -1"),
        (lambda: Scorecard("S", [Criterion("A"), Criterion("A")]), "two criteria have the same id"),
        (
            lambda: Scorecard("S", rows=[ScoredRow(reasons={"Polite": "no"})]),
            "scorecard 'S': a row names the criterion 'Polite': unknown",
        ),
        (lambda: Sheet("S", row_count=-1), "sheet 'S': row_count is -1"),
        (
            lambda: Sheet("S", [Column("A")], rows=[{"B": 1}]),
            "sheet 'S': a row names the column 'B': unknown",
        ),
        (
            lambda: Sheet("S", [Column("A"), Column("A", id=ID)], rows=[{"A": 1}]),
            "a row names the column 'A': two columns have that title",
        ),
        (lambda: Sheet("S", [Column("A"), Column("A")]), "sheet 'S': two columns"),
        (lambda: Table("T", [Sheet("S"), Sheet("S")]), "table 'T': two sheets"),
        (lambda: Report("R", id=0), "report 'R': id is 0"),
        (lambda: Report("R", cells=2, failed_cells=3), "failed_cells is 3 of 2 cells"),
        (lambda: served(tables=[Table("T"), Table("T")]), "two tables have the id"),
        (
            lambda: served(reports=[Report("A", id=1), Report("B", id=1)]),
            "two reports have the same id",
        ),
    ],
)
def test_a_mistake_is_one_clear_line(make, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_an_id_that_was_given_is_chosen_for_nothing_else():
    server = served(
        Workflow("A", []),
        Workflow("B", [], id=1),
        reports=[Report("A", is_blueprint=False), Report("B", id=1)],
    )
    assert server.start_execution("1") == 1
    assert server.executions[1].workflow_name == "B"
    assert set(server.reports) == {2}
    assert server.start_report(1, "n") == 3


def test_ids_are_derived_and_stay_the_same():
    assert Table("T").id == Table("T").id != Table("U").id
    assert str(UUID(Table("T").id)) == Table("T").id
    assert Table("T", id=ID.upper()).id == ID
    assert str(UUID(Column("\ud800").id)) == Column("\ud800").id


BUILTIN = "\n".join(
    (files("airflow_provider_promptlayer.testing") / f"builtin_{name}.toml").read_text("utf-8")
    for name in ("workflows", "evaluations")
)


def test_the_built_in_files_can_be_copied_and_json_says_the_same(tmp_path):
    (tmp_path / "d.toml").write_text(BUILTIN)
    (tmp_path / "d.json").write_text(json.dumps(tomllib.loads(BUILTIN)))
    from_toml = load_definitions(tmp_path / "d.toml")
    assert from_toml == (builtin_workflows(), builtin_evaluations())
    assert load_definitions(str(tmp_path / "d.json")) == from_toml
    assert load_workflows(tmp_path / "d.json") == from_toml.workflows
    evaluations = files("airflow_provider_promptlayer.testing") / "builtin_evaluations.toml"
    (tmp_path / "d.toml").write_text(evaluations.read_text())
    assert load_definitions(tmp_path / "d.toml") == ((), builtin_evaluations())
    assert LocalPromptLayer().workflow_names == [workflow.name for workflow in builtin_workflows()]
    assert LocalPromptLayer([]).workflow_names == []


def test_keys_are_arguments_and_text_with_placeholders_is_a_template(tmp_path):
    (tmp_path / "d.toml").write_text(
        """
        reports = [{ name = "R", cells = 3, score = 50 }]
        [[workflows]]
        name = "W"
        version = 4
        labels = ["prod"]
        no_output_status = 400
        required_input_variables = { topic = "string" }
        nodes = [
            { name = "A", duration = 1, value = "About {topic}" },
            { name = "B", only_if = { node = "A", equals = 1 }, value = { n = 1 } },
        ]
        """
    )
    nodes = [
        Node("A", Template("About {topic}"), duration=1),
        Node("B", {"n": 1}, only_if=OnlyIf("A", 1)),
    ]
    workflow = Workflow(
        "W",
        nodes,
        version=4,
        labels=["prod"],
        no_output_status=400,
        required_input_variables={"topic": "string"},
    )
    evaluations = ((), (Report("R", cells=3, score=50),), (), ())
    assert load_definitions(tmp_path / "d.toml") == ((workflow,), evaluations)


def node_file(**node):
    return {"workflows": [{"name": "W", "nodes": [{"name": "N", **node}]}]}


def sheet_file(**sheet):
    return {"tables": [{"title": "T", "sheets": [{"title": "S", **sheet}]}]}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "the file: Input should be an object"),
        ({}, "the file defines nothing"),
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
        (sheet_file(colour=1), "tables[0].sheets[0].colour: unknown key"),
        (
            sheet_file(scorecard={"name": 1}),
            "tables[0].sheets[0].scorecard.name: Input should be a valid string",
        ),
        ({"reports": [{"name": "R", "id": 0}]}, "report 'R': id is 0"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_with_its_name(tmp_path, document, message):
    path = tmp_path / "definitions.json"
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        load_definitions(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("w.toml", "[[workflows"),
        ("w.json", "{"),
        ("w.yaml", "a: b"),
        ("w.toml", "workflows = [{ name = 'W', nodes = [{ name = 'N', value = 1979-05-27 }] }]"),
    ],
)
def test_a_file_that_cannot_be_parsed_is_a_value_error(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=name):
        load_workflows(tmp_path / name)


def test_json_can_say_null_where_the_api_can(tmp_path):
    (tmp_path / "w.json").write_text(json.dumps(node_file(is_output_node=None)))
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


@given(text=st.text(max_size=40), value=st.text(max_size=40))
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
            {"Render report": "SUCCESS", "Publish report": "FAILED", "Announce report": "SKIPPED"},
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


SECTIONS = {
    "workflows": Workflow,
    "workflows.nodes": Node,
    "tables": Table,
    "tables.sheets": Sheet,
    "tables.sheets.columns": Column,
    "tables.sheets.columns.metrics": RequestMetrics,
    "tables.sheets.scorecard": Scorecard,
    "tables.sheets.scorecard.criteria": Criterion,
    "tables.sheets.scorecard.rows": ScoredRow,
    "reports": Report,
    "request_logs": RequestLog,
    "prompts": Prompt,
}


def test_the_reference_has_every_key_with_its_default():
    page = (ROOT / "docs" / "reference" / "definitions.md").read_text("utf-8")
    _, *sections = re.split(r"^## `\[+([a-z_.]+)\]+`$", page, flags=re.MULTILINE)
    documented = dict(zip(sections[::2], sections[1::2], strict=True))
    assert documented.keys() == SECTIONS.keys()
    for name, section in documented.items():
        rows = re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", section, re.MULTILINE)
        expected = [(field.name, in_toml(field)) for field in fields_of(SECTIONS[name])]
        assert (name, rows) == (name, expected)


def in_toml(field):
    """The default as the reference writes it."""
    if field.default is MISSING:
        return "required"
    if isinstance(field.default, RequestMetrics):
        return "its defaults"
    if isinstance(field.default, datetime):
        return f"`{field.default.isoformat()}`"
    return "—" if field.default is None else f"`{json.dumps(field.default)}`"


def test_inf_never_ends(tmp_path):
    path = tmp_path / "endless.toml"
    path.write_text('[[workflows]]\nname = "W"\nnodes = [{ name = "N", duration = inf }]\n')
    (workflow,) = load_definitions(path).workflows
    assert workflow.nodes[0].duration == math.inf
