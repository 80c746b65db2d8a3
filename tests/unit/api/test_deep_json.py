# SPDX-License-Identifier: Apache-2.0
"""The parser and writer for what is nested too deeply for Python's own: they must agree."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_promptlayer.api import deep_json, json_body

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
)


def nested(depth: int, opening: str = "[", core: str = "1") -> str:
    return opening * depth + core + ("]" if opening == "[" else "}") * depth


def depth_of(value: Any) -> int:
    levels = 0
    while isinstance(value, (list, dict)):
        levels += 1
        value = value[0] if isinstance(value, list) else value["k"]
    return levels


def outcome(parse: Any, text: str) -> Any:
    try:
        return repr(parse(text))  # NaN equals itself as text, and 1 is not 1.0
    except ValueError:
        return ValueError


@given(JSON, st.sampled_from([None, 1]))
def test_reads_what_python_writes(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    assert outcome(deep_json.loads, text) == outcome(json.loads, text)


@given(st.text('[]{},:"ab\\u0d8 \n-+.eE019truefalsnINy', max_size=30))
@example("[1,]")
@example('{"a":1,}')
@example('{"a" 1}')
@example("{1:2}")
@example("[1 2]")
@example("1 2")
@example("")
@example("[")
@example('{"a":')
@example("01")
@example("-")
@example("[}")
@example('{"a":1]')
@example("]")
def test_reads_and_refuses_what_python_does(text: str) -> None:
    assert outcome(deep_json.loads, text) == outcome(json.loads, text)


@given(JSON)
def test_written_piece_by_piece_is_what_python_writes(value: Any) -> None:
    assert "".join(deep_json._written(value)) == json.dumps(value)


@pytest.mark.parametrize("opening", ["[", '{"k":'])
@pytest.mark.parametrize("depth", [1_000, 5_000, deep_json.MAX_DEPTH])
def test_parses_deep_documents(opening: str, depth: int) -> None:
    limit = sys.getrecursionlimit()
    text = nested(depth, opening)
    value = json_body.loads(text.encode())
    assert depth_of(value) == depth
    assert "".join(deep_json.dumps(value).split()) == text
    assert sys.getrecursionlimit() == limit


@pytest.mark.parametrize("depth", [deep_json.MAX_DEPTH + 1, 1_000_000])
def test_refuses_what_is_too_deep(depth: int) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        json_body.loads(nested(depth).encode())


@pytest.mark.parametrize("depth", [0, 3_000])
def test_notes_what_could_not_be_taken_as_it_was_sent(depth: int) -> None:
    notes: list[str] = []
    core = '{"a": 1, "b\\u001b": 2, "b\\u001b": %s, "a": NaN}' % ("7" * 5_000)
    value = json_body.loads(nested(depth, core=core).encode(), note=notes.append)
    for _ in range(depth):
        (value,) = value
    assert math.isnan(value["a"])
    assert value["b\x1b"] == "7" * 5_000
    assert notes[0] == "an integer of 5000 digits became text"
    assert set(notes[1:]) == {
        f"the key {key} occurs twice in one object, the last counts" for key in ("'a'", r"'b\x1b'")
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-le"])
def test_deep_documents_in_any_encoding_of_json(encoding: str) -> None:
    assert depth_of(json_body.loads(nested(3_000, core='"é🍵"').encode(encoding))) == 3_000
