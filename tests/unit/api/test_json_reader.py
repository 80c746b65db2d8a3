# SPDX-License-Identifier: Apache-2.0
"""The reader of JSON: what Python's parser says, and the same of what is too much for it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from airflow_provider_promptlayer.api.json_reader import MAX_DEPTH, loads

DEEPER_THAN_PYTHON_GOES = 3_000 if sys.version_info < (3, 12) else MAX_DEPTH - 100
"""Levels around a document that are too many for Python's own parser, where it has a limit."""

TEXTS = st.text(st.characters() | st.sampled_from('\\"/u,{}[]:🍵\ud83c\udf75'))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)
PIECES = st.sampled_from([*'[]{},:"\\-1.e', "\\u", "\\ud83c", "\\udf75", "null", "9" * 5_000])


def nested(depth: int, opening: str = "[", core: str = "1") -> str:
    return opening * depth + core + ("]" if opening == "[" else "}") * depth


def depth_of(value: Any) -> int:
    levels = 0
    while isinstance(value, (list, dict)):
        levels += 1
        value = value[0] if isinstance(value, list) else value["k"]
    return levels


def outcome(parse: Callable[..., Any], body: bytes, **how: Any) -> Any:
    try:
        return repr(parse(body, **how))  # NaN equals itself as text, and 1 is not 1.0
    except ValueError:
        return ValueError


def far_inside(body: bytes) -> Any:
    """Return the outcome of reading a document that many lists are around."""
    try:
        value = loads(b"[" * DEEPER_THAN_PYTHON_GOES + body + b"]" * DEEPER_THAN_PYTHON_GOES)
        for _ in range(DEEPER_THAN_PYTHON_GOES):
            (value,) = value  # a ValueError, too, where that was more than one document
    except ValueError:
        return ValueError
    return repr(value)


@settings(max_examples=50)
@given(JSON, st.sampled_from([None, 1]), st.booleans())
@example(["🍵" * 5, "\ud83c" * 3 + "\udf75", '\\"' * 9, "\\u0041"], None, True)
@example([-1.5e-10, 10**30, True, None, 0, -0.0, 1e300], None, True)
@example([float("-inf"), float("inf"), float("nan")], None, True)
def test_reads_what_python_writes(value: Any, indent: int | None, is_ascii: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=is_ascii)
    body = text.encode(errors="surrogatepass")
    assert far_inside(body) == outcome(loads, body) == outcome(json.loads, body)


@given(st.text('[]{},:"ab\\u0d8 \n-+.eE019truefalsnINy', max_size=30))
def test_reads_and_refuses_what_python_does(text: str) -> None:
    body = text.encode()
    assert far_inside(body) == outcome(loads, body) == outcome(json.loads, body)


@pytest.mark.parametrize(
    "text",
    [
        *("[1,]", "[[[1],],2]", '{"b":[[1],],"c":"d,"}', "[,1]", "[1,,2]", '{"a":1,}', '{"a" 1}'),
        *("{1:2}", "[1 2]", "1 2", "", " ", "[", '{"a":', "[01]", "[1.]", "[1e+]", "-", "[}"),
        *('{"a":1]', '["\\u12"]', '["a\nb"]', '"abc', '"abc\\'),
    ],
)
def test_refuses_what_is_nearly_json(text: str) -> None:
    body = text.encode()
    assert far_inside(body) == outcome(loads, body) == outcome(json.loads, body)


@settings(max_examples=60)
@given(JSON, st.integers(0), st.integers(0, 2), PIECES | st.binary(max_size=3))
def test_a_damaged_document_is_read_alike_at_any_depth(
    value: Any, place: int, cut: int, piece: str | bytes
) -> None:
    body = json.dumps({"k": value}, ensure_ascii=False).encode(errors="surrogatepass")
    place %= len(body) + 1
    body = body[:place] + (piece if isinstance(piece, bytes) else piece.encode()) + body[place:]
    body = body[:place] + body[place + cut :]
    if (found := outcome(loads, body)) is not ValueError:
        assert far_inside(body) == found


@pytest.mark.parametrize("after", ["]", "}", ",", ",1", "1", '"', "[]", "\0"])
def test_nothing_may_follow_a_deep_document(after: str) -> None:
    with pytest.raises(ValueError, match="Extra data"):
        loads((nested(DEEPER_THAN_PYTHON_GOES) + after).encode())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("depth", [1, DEEPER_THAN_PYTHON_GOES])
def test_takes_any_encoding_of_json(encoding: str, depth: int) -> None:
    value = {"é": ["🍵🍵", "\ud800", 1.5], "": [{"a": 1}, {"a": 2}]}
    text = nested(depth, core=json.dumps(value, ensure_ascii=False))
    body = text.encode(encoding, errors="surrogatepass")
    found = loads(body)
    for _ in range(depth):
        (found,) = found
    assert found == value
    assert outcome(loads, body[:-1]) is ValueError


@pytest.mark.parametrize("body", [b'["\xff"]', b'["\xf0\x9f\x8d"]', b"[1]\xc3"])
def test_refuses_invalid_text(body: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        loads(body)


@pytest.mark.parametrize("opening", ["[", '{"k":'])
@pytest.mark.parametrize("depth", [1_000, 5_000, MAX_DEPTH])
def test_reads_deep_documents(opening: str, depth: int) -> None:
    limit = sys.getrecursionlimit()
    assert depth_of(loads(nested(depth, opening).encode())) == depth
    assert sys.getrecursionlimit() == limit


@pytest.mark.parametrize(
    "text",
    [
        nested(MAX_DEPTH + 1),
        nested(MAX_DEPTH + 1, core=""),
        nested(MAX_DEPTH - 100, core=f"1, {nested(101)}, 2"),
        f"[{nested(MAX_DEPTH)}, 2]",
        nested(MAX_DEPTH + 1, '{"k":'),
        nested(25_000),  # which Python 3.14 takes
        nested(100_000, '{"k":'),
        nested(1_000_000),
    ],
    ids=["just", "empty", "in a row", "beside others", "objects", "further", "far objects", "far"],
)
def test_refuses_what_is_too_deep(text: str) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        loads(text.encode())


def test_brackets_in_a_string_are_no_depth() -> None:
    value = ["[{" * MAX_DEPTH, [[]] * MAX_DEPTH]
    assert loads(json.dumps(value).encode()) == value


def test_reads_what_follows_something_deep() -> None:
    deep = nested(3_000)
    body = f'[{deep}, {{"a": {deep}, "b": [1, 2]}}, {{"c": 3}}]'.encode()
    first, second, third = loads(body)
    assert (depth_of(first), depth_of(second.pop("a"))) == (3_000, 3_000)
    assert (second, third) == ({"b": [1, 2]}, {"c": 3})


@pytest.mark.parametrize("depth", [0, DEEPER_THAN_PYTHON_GOES])
@pytest.mark.parametrize("digits", [4_000, 5_000])
def test_notes_what_could_not_be_taken_as_it_was_sent(depth: int, digits: int) -> None:
    notes: list[str] = []
    core = '{"a": 1, "b\\u001b": 2, "b\\u001b": %s, "a": NaN}' % ("7" * digits)
    value = loads(nested(depth, core=core).encode(), note=notes.append)
    for _ in range(depth):
        (value,) = value
    assert math.isnan(value["a"])
    is_too_long = digits > 4_300
    assert value["b\x1b"] == ("7" * digits if is_too_long else int("7" * digits))
    assert sorted(notes) == [
        *(["an integer of 5000 digits became text"] if is_too_long else []),
        "the key 'a' occurs twice in one object, the last counts",
        r"the key 'b\x1b' occurs twice in one object, the last counts",
    ]


@pytest.mark.parametrize("depth", [0, DEEPER_THAN_PYTHON_GOES])
def test_notes_of_a_hostile_document_are_few_and_different(depth: int) -> None:
    notes: list[str] = []
    same = '"k":0,' * 1_000
    others = ",".join(f'"{number}":0,"{number}":0' for number in range(1_000))
    loads(nested(depth, core=f"{{{same}{others}}}").encode(), note=notes.append)
    assert len(notes) == len(set(notes)) == 100
    assert "'k'" in notes[0]


def test_reads_such_a_document_without_notes() -> None:
    assert loads(b'{"a": 1, "a": ' + b"7" * 5_000 + b"}") == {"a": "7" * 5_000}
