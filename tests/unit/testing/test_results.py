# SPDX-License-Identifier: Apache-2.0
"""GET /workflow-version-execution-results, and the life of an execution seen through it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from unit.testing.conftest import GREET, RESULTS

from airflow_provider_promptlayer.testing import Node, OnlyIf, Workflow


def statuses(reply):
    return {name: node["status"] for name, node in reply.json.items()}


@pytest.fixture
def start(serve):
    """Start a run of these nodes; return its client. The id of the run is 1."""

    def start(*nodes, inputs=None, **options):
        client = serve(Workflow("W", nodes, **options))
        assert client.server.start_execution("W", inputs) == 1
        return client

    return start


def test_nodes_move_from_queued_to_running_to_their_end(start, clock):
    client = start(
        Node("Out", "done", duration=2, depends_on=["A", "B"], is_output_node=True),
        Node("A", "a", duration=1),
        Node("B", "b", duration=3),
    )
    seen = []
    for elapsed in (0, 0.999, 1, 2.999, 3, 4.999, 5, 1e9):
        clock.now = 1000 + elapsed
        reply = client.results(1)
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


def test_values_and_errors_show_only_when_a_node_has_ended(start, clock):
    shown: dict[str, Any] = {
        "status": "FAILED",
        "value": "v",
        "error_message": "for people",
        "raw_error_message": "for developers",
        "is_output_node": None,
    }
    client = start(Node("N", duration=1, **shown))
    nothing = dict.fromkeys(shown)
    for return_all_outputs in (True, False):
        reply = client.results(1, return_all_outputs)
        assert (reply.status, reply.json) == (202, {"N": {**nothing, "status": "RUNNING"}})
    clock.now += 1
    assert client.results(1).json == {"N": shown}


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
        ([Node("N", math.nan, is_output_node=True)], b"NaN"),
        ([Node("N", "\ud800\x00é", is_output_node=True)], b'"\\ud800\\u0000\\u00e9"'),
        ([Node("N", 10**30, is_output_node=True)], b"1" + b"0" * 30),
    ],
)
def test_the_main_output_is_bare(start, nodes, body):
    reply = start(*nodes).results(1, return_all_outputs=False)
    assert (reply.status, reply.body) == (200, body)


@pytest.mark.parametrize("kind", ["no", "perhaps"])
def test_a_false_condition_skips_a_branch_and_the_nodes_after_it(start, kind):
    client = start(
        Node("Classify", lambda inputs, _: inputs["kind"]),
        Node("Yes", "y", only_if=OnlyIf("Classify", "yes"), is_output_node=True),
        Node("After yes", "ay", depends_on=["Yes"]),
        Node("No", "n", only_if=OnlyIf("Classify", "no"), is_output_node=True),
        Node("Join", lambda _, values: values, depends_on=["Yes", "No"]),
        inputs={"kind": kind},
    )
    reply = client.results(1)
    assert reply.status == 200
    matches = "SUCCESS" if kind == "no" else "SKIPPED"
    assert [*statuses(reply).values()] == ["SUCCESS", "SKIPPED", "SKIPPED", matches, matches]
    assert reply.json["Yes"]["value"] is None
    if kind == "no":
        assert reply.json["Join"]["value"] == {"Classify": "no", "Yes": None, "No": "n"}


def test_a_skipped_node_takes_no_time_but_waits_for_its_dependencies(start, clock):
    client = start(
        Node("A", 1, duration=2), Node("B", 2, duration=9, only_if=OnlyIf("A", equals=0))
    )
    assert statuses(client.results(1)) == {"A": "RUNNING", "B": "QUEUED"}
    clock.now += 2
    assert statuses(client.results(1)) == {"A": "SUCCESS", "B": "SKIPPED"}


def test_a_condition_on_a_node_that_did_not_succeed_does_not_hold(start):
    client = start(
        Node("Gate", 1),
        Node("A", 5, only_if=OnlyIf("Gate", equals=0)),
        Node("B", only_if=OnlyIf("A", equals=None), depends_on=["Gate"]),
    )
    assert statuses(client.results(1))["B"] == "SKIPPED"


@pytest.mark.parametrize("ending", ["FAILED", "CANCELLED", "success"])
def test_an_ending_other_than_success_or_skipped_skips_the_rest(start, ending):
    client = start(
        Node("Bad", status=ending),
        Node("Good"),
        Node("Both", depends_on=["Good", "Bad"]),
        Node("Then", depends_on=["Both"]),
    )
    reply = client.results(1)
    assert reply.status == 200
    assert [*statuses(reply).values()] == [ending, "SUCCESS", "SKIPPED", "SKIPPED"]


@pytest.mark.parametrize(
    ("node", "shown"),
    [
        (Node("N", "v", status="RUNNING"), "RUNNING"),
        (Node("N", "v", status="QUEUED"), "QUEUED"),
        (Node("N", "v", duration=math.inf), "RUNNING"),
    ],
)
def test_a_node_may_never_end(start, clock, node, shown):
    client = start(node, Node("After", depends_on=["N"]))
    clock.now += 1e12
    reply = client.results(1)
    assert reply.status == 202
    assert statuses(reply) == {"N": shown, "After": "QUEUED"}
    assert reply.json["N"]["value"] is None


def test_a_value_function_sees_inputs_and_ancestors_and_is_called_once(start):
    calls = []

    def value(inputs, values):
        calls.append((dict(inputs), dict(values)))
        return len(calls)

    client = start(
        Node("A", "a"),
        Node("Unrelated", "u"),
        Node("B", "b", depends_on=["A"]),
        Node("C", value, depends_on=["B"]),
        inputs={"x": 1},
    )
    assert [client.results(1).json["C"]["value"] for _ in range(3)] == [1, 1, 1]
    assert calls == [({"x": 1}, {"A": "a", "B": "b"})]


@pytest.mark.parametrize(
    ("function", "message"),
    [(lambda inputs, _: inputs["nope"], "nope"), (lambda *_: {1, 2}, "not JSON serializable")],
)
def test_a_value_function_that_goes_wrong_fails_its_node(start, function, message):
    node = start(Node("N", function)).results(1).json["N"]
    assert (node["status"], node["value"]) == ("FAILED", None)
    assert message in node["error_message"]
    assert "Error(" in node["raw_error_message"]


FAILING = [Node("N", status="FAILED", is_output_node=True), Node("M", "m")]


class TestNoSuccessfulOutput:
    @pytest.mark.parametrize(
        ("nodes", "endings"),
        [
            (FAILING, {"N": "FAILED", "M": "SUCCESS"}),
            ([Node("N", "v", is_output_node=None)], {"N": "SUCCESS"}),
            ([], {}),
        ],
    )
    @pytest.mark.parametrize("return_all_outputs", [True, False])
    def test_is_200_with_the_node_map_by_default(self, start, nodes, endings, return_all_outputs):
        reply = start(*nodes).results(1, return_all_outputs)
        assert (reply.status, statuses(reply)) == (200, endings)

    @pytest.mark.parametrize("status", [400, 500])
    def test_can_be_the_announced_error(self, serve, status):
        client = serve(
            Workflow("W", FAILING),
            Workflow("Own", FAILING, no_output_status=200),
            GREET,
            no_output_status=status,
        )
        failed, own, fine = map(client.server.start_execution, ("W", "Own", "Greet"))
        reply = client.results(failed)
        assert reply.status == status
        assert set(reply.json) == {"success", "message", "output"}
        assert reply.json["success"] is False
        assert [node["status"] for node in reply.json["output"].values()] == ["FAILED", "SUCCESS"]
        assert client.results(failed, return_all_outputs=False).json == reply.json
        assert [client.results(run).status for run in (own, fine)] == [200, 200]

    def test_waits_for_the_ending_of_all_nodes(self, start, clock):
        client = start(*FAILING, Node("Slow", duration=5), no_output_status=400)
        assert client.results(1).status == 202
        clock.now += 5
        assert client.results(1).status == 400


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (True, ["true", "1", "on", "t", "y", "yes", "TRUE", "Yes"]),
        (False, [None, "0", "off", "No"]),
    ],
)
def test_spellings_of_true_and_false(start, value, texts):
    client = start(Node("N", "v", is_output_node=True))
    for text in texts:
        query = {} if text is None else {"return_all_outputs": text}
        found = client.get(RESULTS, workflow_version_execution_id=1, **query).json
        assert (found == "v") is not value, text


RUN_ID = "workflow_version_execution_id"


def test_the_last_of_several_values_counts(start):
    client = start(Node("N", "v", is_output_node=True))
    assert client.send("GET", f"{RESULTS}?{RUN_ID}=x&{RUN_ID}=%201").json == "v"
