# SPDX-License-Identifier: Apache-2.0
"""GET /workflow-version-execution-results, and the life of an execution seen through it."""

from __future__ import annotations

import math

import pytest

from airflow_provider_promptlayer.testing import Node, OnlyIf, Workflow

PATH = "/workflow-version-execution-results"


def statuses(reply):
    return {name: node["status"] for name, node in reply.json.items()}


def outcome(client, workflow_name="W", **inputs):
    """Start a run and give its node map."""
    return client.results(client.server.start_execution(workflow_name, inputs))


def test_nodes_move_from_queued_to_running_to_their_end(serve, clock):
    client = serve(
        Workflow(
            "W",
            [
                Node("Out", "done", duration=2, depends_on=["A", "B"], is_output_node=True),
                Node("A", "a", duration=1),
                Node("B", "b", duration=3),
            ],
        )
    )
    run = client.server.start_execution("W")
    seen = []
    for elapsed in (0, 0.999, 1, 2.999, 3, 4.999, 5, 1e9):
        clock.now = 1000 + elapsed
        reply = client.results(run)
        seen.append((elapsed, reply.status, *statuses(reply).values()))
    assert seen == [
        (0, 202, "QUEUED", "RUNNING", "RUNNING"),
        (0.999, 202, "QUEUED", "RUNNING", "RUNNING"),
        (1, 202, "QUEUED", "SUCCESS", "RUNNING"),
        (2.999, 202, "QUEUED", "SUCCESS", "RUNNING"),
        (3, 202, "RUNNING", "SUCCESS", "SUCCESS"),
        (4.999, 202, "RUNNING", "SUCCESS", "SUCCESS"),
        (5, 200, "SUCCESS", "SUCCESS", "SUCCESS"),
        (1e9, 200, "SUCCESS", "SUCCESS", "SUCCESS"),
    ]


def test_values_and_errors_show_only_when_a_node_has_ended(serve, clock):
    node = Node(
        "N",
        "v",
        status="FAILED",
        duration=1,
        is_output_node=None,
        error_message="for people",
        raw_error_message="for developers",
    )
    client = serve(Workflow("W", [node]))
    run = client.server.start_execution("W")
    assert client.results(run).json == {
        "N": {
            "status": "RUNNING",
            "value": None,
            "error_message": None,
            "raw_error_message": None,
            "is_output_node": None,
        }
    }
    clock.now += 1
    assert client.results(run).json == {
        "N": {
            "status": "FAILED",
            "value": "v",
            "error_message": "for people",
            "raw_error_message": "for developers",
            "is_output_node": None,
        }
    }


def test_while_running_the_map_is_sent_even_if_the_main_output_was_asked_for(serve):
    client = serve(Workflow("W", [Node("N", "v", duration=1, is_output_node=True)]))
    reply = client.results(client.server.start_execution("W"), return_all_outputs=False)
    assert reply.status == 202
    assert statuses(reply) == {"N": "RUNNING"}


@pytest.mark.parametrize(
    ("nodes", "body"),
    [
        ([Node("N", "AAA", is_output_node=True)], b'"AAA"'),
        (
            [
                Node("No", "no"),
                Node("Failed", "failed", status="FAILED", is_output_node=True),
                Node("Second", 2, is_output_node=True, depends_on=["First"]),
                Node("First", 1, is_output_node=True),
            ],
            b"2",
        ),
        ([Node("N", float("nan"), is_output_node=True)], b"NaN"),
        ([Node("N", "\ud800\x00é", is_output_node=True)], b'"\\ud800\\u0000\\u00e9"'),
        ([Node("N", 10**30, is_output_node=True)], b"1" + b"0" * 30),
    ],
)
def test_the_main_output_is_bare(serve, nodes, body):
    client = serve(Workflow("W", nodes))
    reply = client.results(client.server.start_execution("W"), return_all_outputs=False)
    assert (reply.status, reply.body) == (200, body)


def test_a_false_condition_skips_a_branch_and_what_hangs_on_it(serve):
    client = serve(
        Workflow(
            "W",
            [
                Node("Classify", lambda inputs, _: inputs["kind"]),
                Node("Yes", "y", only_if=OnlyIf("Classify", "yes"), is_output_node=True),
                Node("After yes", "ay", depends_on=["Yes"]),
                Node("No", "n", only_if=OnlyIf("Classify", "no"), is_output_node=True),
                Node("Join", lambda _, values: values, depends_on=["Yes", "No"]),
            ],
        )
    )
    reply = outcome(client, kind="no")
    assert reply.status == 200
    assert statuses(reply) == {
        "Classify": "SUCCESS",
        "Yes": "SKIPPED",
        "After yes": "SKIPPED",
        "No": "SUCCESS",
        "Join": "SUCCESS",
    }
    assert reply.json["Yes"]["value"] is None
    assert reply.json["Join"]["value"] == {"Classify": "no", "Yes": None, "No": "n"}
    assert set(statuses(outcome(client, kind="perhaps")).values()) == {"SUCCESS", "SKIPPED"}


def test_a_skipped_node_takes_no_time_but_waits_for_what_it_depends_on(serve, clock):
    client = serve(
        Workflow(
            "W",
            [Node("A", 1, duration=2), Node("B", 2, duration=9, only_if=OnlyIf("A", equals=0))],
        )
    )
    run = client.server.start_execution("W")
    assert statuses(client.results(run)) == {"A": "RUNNING", "B": "QUEUED"}
    clock.now += 2
    assert statuses(client.results(run)) == {"A": "SUCCESS", "B": "SKIPPED"}


def test_a_condition_on_a_node_that_did_not_succeed_does_not_hold(serve):
    nodes = [
        Node("Gate", 1),
        Node("A", 5, only_if=OnlyIf("Gate", equals=0)),
        Node("B", only_if=OnlyIf("A", equals=None), depends_on=["Gate"]),
    ]
    assert statuses(outcome(serve(Workflow("W", nodes))))["B"] == "SKIPPED"


@pytest.mark.parametrize("ending", ["FAILED", "CANCELLED", "success"])
def test_whatever_ended_neither_well_nor_skipped_skips_the_rest(serve, ending):
    nodes = [
        Node("Bad", status=ending),
        Node("Good"),
        Node("Both", depends_on=["Good", "Bad"]),
        Node("Then", depends_on=["Both"]),
    ]
    reply = outcome(serve(Workflow("W", nodes)))
    assert reply.status == 200
    assert list(statuses(reply).values()) == [ending, "SUCCESS", "SKIPPED", "SKIPPED"]


@pytest.mark.parametrize(
    ("node", "shown"),
    [
        (Node("N", "v", status="RUNNING"), "RUNNING"),
        (Node("N", "v", status="QUEUED"), "QUEUED"),
        (Node("N", "v", duration=math.inf), "RUNNING"),
    ],
)
def test_a_node_may_never_end(serve, clock, node, shown):
    client = serve(Workflow("W", [node, Node("After", depends_on=["N"])]))
    run = client.server.start_execution("W")
    clock.now += 1e12
    reply = client.results(run)
    assert reply.status == 202
    assert statuses(reply) == {"N": shown, "After": "QUEUED"}
    assert reply.json["N"]["value"] is None


def test_a_value_function_sees_inputs_and_ancestors_and_is_called_once(serve):
    calls = []

    def value(inputs, values):
        calls.append((dict(inputs), dict(values)))
        return len(calls)

    nodes = [
        Node("A", "a"),
        Node("Unrelated", "u"),
        Node("B", "b", depends_on=["A"]),
        Node("C", value, depends_on=["B"]),
    ]
    client = serve(Workflow("W", nodes))
    run = client.server.start_execution("W", {"x": 1})
    assert [client.results(run).json["C"]["value"] for _ in range(3)] == [1, 1, 1]
    assert calls == [({"x": 1}, {"A": "a", "B": "b"})]


@pytest.mark.parametrize(
    ("function", "message"),
    [(lambda inputs, _: inputs["nope"], "nope"), (lambda *_: {1, 2}, "not JSON serializable")],
)
def test_a_value_function_that_goes_wrong_fails_its_node(serve, function, message):
    node = outcome(serve(Workflow("W", [Node("N", function)]))).json["N"]
    assert (node["status"], node["value"]) == ("FAILED", None)
    assert message in node["error_message"]
    assert "Error(" in node["raw_error_message"]


FAILING = [Node("N", status="FAILED", is_output_node=True), Node("M", "m")]


@pytest.mark.parametrize(
    ("nodes", "endings"),
    [
        (FAILING, {"N": "FAILED", "M": "SUCCESS"}),
        ([Node("N", "v", is_output_node=None)], {"N": "SUCCESS"}),
        ([], {}),
    ],
)
@pytest.mark.parametrize("return_all_outputs", [True, False])
def test_no_successful_output_is_200_with_the_node_map_by_default(
    serve, nodes, endings, return_all_outputs
):
    client = serve(Workflow("W", nodes))
    run = client.server.start_execution("W")
    reply = client.results(run, return_all_outputs)
    assert (reply.status, statuses(reply)) == (200, endings)


@pytest.mark.parametrize("status", [400, 500])
def test_no_successful_output_can_be_the_announced_error(serve, status):
    client = serve(
        Workflow("W", FAILING),
        Workflow("Own", FAILING, no_output_status=200),
        Workflow("Fine", [Node("N", "v", is_output_node=True)]),
        no_output_status=status,
    )
    reply = outcome(client)
    assert reply.status == status
    assert set(reply.json) == {"success", "message", "output"}
    assert reply.json["success"] is False
    assert {name: node["status"] for name, node in reply.json["output"].items()} == {
        "N": "FAILED",
        "M": "SUCCESS",
    }
    assert client.results(1, return_all_outputs=False).json == reply.json
    assert outcome(client, "Own").status == 200
    assert outcome(client, "Fine").status == 200


def test_the_announced_error_waits_for_the_ending(serve, clock):
    nodes = [*FAILING, Node("Slow", duration=5)]
    client = serve(Workflow("W", nodes, no_output_status=400))
    run = client.server.start_execution("W")
    assert client.results(run).status == 202
    clock.now += 5
    assert client.results(run).status == 400


@pytest.mark.parametrize("text", ["true", "1", "on", "t", "y", "yes", "TRUE", "Yes"])
def test_spellings_of_true(serve, text):
    client = serve(Workflow("W", [Node("N", "v", is_output_node=True)]))
    client.server.start_execution("W")
    reply = client.get(PATH, workflow_version_execution_id=1, return_all_outputs=text)
    assert statuses(reply) == {"N": "SUCCESS"}


@pytest.mark.parametrize("query", [{}, *({"return_all_outputs": t} for t in ("0", "off", "No"))])
def test_spellings_of_false(serve, query):
    client = serve(Workflow("W", [Node("N", "v", is_output_node=True)]))
    client.server.start_execution("W")
    assert client.get(PATH, workflow_version_execution_id=1, **query).json == "v"


@pytest.mark.parametrize(
    ("query", "field", "kind"),
    [
        ("", "workflow_version_execution_id", "missing"),
        ("workflow_version_execution_id=", "workflow_version_execution_id", "int_parsing"),
        ("workflow_version_execution_id=x", "workflow_version_execution_id", "int_parsing"),
        ("workflow_version_execution_id=1.5", "workflow_version_execution_id", "int_parsing"),
        ("workflow_version_execution_id=%D9%A1", "workflow_version_execution_id", "int_parsing"),
        (f"workflow_version_execution_id={2**63}", "workflow_version_execution_id", "less_than_e"),
        (f"workflow_version_execution_id=-{2**63 + 1}", "workflow_version_execution_id", "greater"),
        (
            f"workflow_version_execution_id={'9' * 5000}",
            "workflow_version_execution_id",
            "int_parsing",
        ),
        ("workflow_version_execution_id=1&return_all_outputs=", "return_all_outputs", "bool_pars"),
        ("workflow_version_execution_id=1&return_all_outputs=2", "return_all_outputs", "bool_pars"),
    ],
)
def test_a_wrong_query_is_422(serve, query, field, kind):
    reply = serve().send("GET", f"{PATH}?{query}")
    assert reply.status == 422
    (error,) = reply.json["detail"]
    assert error["loc"] == ["query", field]
    assert error["type"].startswith(kind)
    assert error["msg"]


@pytest.mark.parametrize("unknown", [0, -1, 7, 2**63 - 1, -(2**63)])
def test_an_unknown_execution_is_404(serve, unknown):
    reply = serve().results(unknown)
    assert reply.status == 404
    assert reply.json["success"] is False
    assert str(unknown) in reply.json["message"]


def test_the_last_of_several_values_counts(serve):
    client = serve(Workflow("W", [Node("N", "v", is_output_node=True)]))
    client.server.start_execution("W")
    reply = client.send(
        "GET", f"{PATH}?workflow_version_execution_id=x&workflow_version_execution_id=%201"
    )
    assert reply.json == "v"
