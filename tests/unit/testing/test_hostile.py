# SPDX-License-Identifier: Apache-2.0
"""Hostile names and values, served as they are."""

from __future__ import annotations

import json
import math

import pytest

from airflow_provider_promptlayer.testing import Node, Workflow


def nested(depth, value=1):
    for level in range(depth):
        value = [value] if level % 2 else {"deeper": value}
    return value


SHALLOW = {
    "NaN": [math.inf, -math.inf, math.nan],
    "surrogate": "\ud800 and \udfff",
    "NUL": "\0",
    "100 digits": 10**100,
    "1 MB": "ü" * 1_000_000,
    "HTML": "<script>{{ macros }}</script>\x1b[31m",
}


@pytest.mark.parametrize("value", SHALLOW.values(), ids=SHALLOW.keys())
def test_values(serve, value):
    made = Node("Made", lambda inputs, values: value)
    client = serve(Workflow("W", [Node("N", value, is_output_node=True), made]))
    nodes = client.results(client.server.start_execution("W")).json
    # repr, because NaN is not equal to itself.
    assert [repr(node["value"]) for node in nodes.values()] == [repr(value)] * 2


@pytest.mark.parametrize(
    ("depth", "innermost"), [(1000, 1), (20_000, 1), (2000, {"": 1, "\0": 2, "a\nb": 3, '"': 4})]
)
def test_values_too_deep_for_pythons_json(serve, depth, innermost):
    value = nested(depth, innermost)
    made = Node("Made", lambda inputs, values: value)
    client = serve(Workflow("W", [Node("N", value, is_output_node=True), made]))
    reply = client.results(client.server.start_execution("W"))
    assert reply.status == 200
    text = reply.body.decode()
    assert text.count("deeper") == 2 * (depth // 2)
    assert text.count(json.dumps(innermost)) >= 2


NAMES = ["", " ", "a/b", "a?b", "a#b", "a%2Fb", "..", "a\nb", "\0\x1b[31m", "🎉", "x" * 5000]
NAMES += ["return_value", "Same", "same", "SAME", "\ud800", "{{ ds }}"]


def test_names(serve):
    nodes = [Node(name, number, is_output_node=True) for number, name in enumerate(NAMES)]
    client = serve(Workflow("W", nodes))
    assert [*client.results(client.server.start_execution("W")).json] == NAMES
    described = client.get("/workflows/W").json
    assert [node["name"] for node in described["nodes"]] == NAMES


def test_a_value_that_is_not_json_is_refused_at_any_depth():
    with pytest.raises(ValueError, match="not JSON"):
        Node("N", nested(3000, {1, 2}))
    circle: list[object] = []
    circle.append(nested(3000, circle))
    with pytest.raises(ValueError, match="Circular"):
        Node("N", circle)
