# SPDX-License-Identifier: Apache-2.0
"""The reader of large and deep documents: what Python's parser says, in steps of bounded size."""

from __future__ import annotations

import gc
import json
import math
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_promptlayer.api import json_body, json_steps

TEXTS = st.text(st.characters() | st.sampled_from('\\"/u,{}[]:🍵\ud83c\udf75'))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
)
WINDOWS = st.integers(1, 40)
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


def in_steps(body: bytes, window: int | None) -> tuple[Any, set[str]]:
    notes: set[str] = set()
    return outcome(json_steps.loads, body, note=notes.add, window=window), notes


def at_once(body: bytes) -> tuple[Any, set[str]]:
    assert len(body) <= json_body.LARGE
    notes: set[str] = set()
    return outcome(json_body.loads, body, note=notes.add), notes


# The same as Python's parser


@given(JSON, st.sampled_from([None, 1]), st.booleans(), WINDOWS)
@example(["🍵" * 5, "\ud83c" * 3 + "\udf75", '\\"' * 9, "\\u0041"], None, True, 1)
@example([-1.5e-10, 10**30, True, None, 0, -0.0, 1e300], None, True, 1)
@example([float("-inf"), float("inf"), float("nan")], None, True, 2)
def test_reads_what_python_writes(
    value: Any, indent: int | None, is_ascii: bool, window: int
) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=is_ascii)
    body = text.encode(errors="surrogatepass")
    assert outcome(json_steps.loads, body, window=window) == outcome(json.loads, body)


@given(st.text('[]{},:"ab\\u0d8 \n-+.eE019truefalsnINy', max_size=30), WINDOWS)
@example("[1,]", 1)
@example("[[[1],],2]", 2)
@example('{"b":[[1],],"c":"d,"}', 5)
@example("[,1]", 9)
@example("[1,,2]", 9)
@example('{"a":1,}', 1)
@example('{"a" 1}', 3)
@example("{1:2}", 3)
@example("[1 2]", 3)
@example("1 2", 1)
@example("", 1)
@example(" ", 1)
@example("[", 1)
@example('{"a":', 1)
@example("[01]", 1)
@example("[1.]", 1)
@example("[1e+]", 1)
@example("-", 1)
@example("[}", 1)
@example('{"a":1]', 1)
@example("]", 1)
@example('["\\u12"]', 3)
@example('["a\nb"]', 3)
@example('"abc', 2)
@example('"abc\\', 2)
def test_reads_and_refuses_what_python_does(text: str, window: int) -> None:
    body = text.encode()
    assert outcome(json_steps.loads, body, window=window) == outcome(json.loads, body)


@given(JSON, st.integers(0), st.integers(0, 2), PIECES | st.binary(max_size=3), WINDOWS)
def test_refuses_what_python_refuses(
    value: Any, place: int, cut: int, piece: str | bytes, window: int
) -> None:
    body = json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
    place %= len(body) + 1
    body = body[:place] + (piece if isinstance(piece, bytes) else piece.encode()) + body[place:]
    body = body[:place] + body[place + cut :]
    found, _ = in_steps(body, window)
    assert found == at_once(body)[0]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(["1", "[{}]", "8" * 4_301, "8" * 5_000]))
    ),
    st.sampled_from(["{%s}", '[{"a": 1}, {%s}]', '{"a": {%s}}']),
    st.integers(1, 6_000),
)
@example([("a", "8" * 5_000)], "{%s}", 4_500)
@example([("a", "[{}]"), ("b", "8" * 5_000)], "{%s}", 4_500)
def test_notes_the_same(pairs: list[tuple[str, str]], around: str, window: int) -> None:
    body = (around % ", ".join(f'"{key}": {value}' for key, value in pairs)).encode()
    assert in_steps(body, window) == at_once(body)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("window", [1, 2, 7, None])
def test_takes_any_encoding_of_json(encoding: str, window: int | None) -> None:
    value = {"é": ["🍵🍵", "\ud800", 1.5], "": [{"a": 1}, {"a": 2}]}
    body = json.dumps(value, ensure_ascii=False).encode(encoding, errors="surrogatepass")
    assert json_steps.loads(body, window=window) == value
    assert outcome(json_steps.loads, body[:-1], window=window) is ValueError


@pytest.mark.parametrize("body", [b'["\xff"]', b'["\xf0\x9f\x8d"]', b"[1]\xc3"])
def test_refuses_what_is_no_text(body: bytes) -> None:
    with pytest.raises(UnicodeDecodeError):
        json_steps.loads(body, window=2)


# Deep


@pytest.mark.parametrize("opening", ["[", '{"k":'])
@pytest.mark.parametrize("depth", [1_000, 5_000, json_steps.MAX_DEPTH])
def test_reads_deep_documents(opening: str, depth: int) -> None:
    limit = sys.getrecursionlimit()
    text = nested(depth, opening)
    assert depth_of(json_body.loads(text.encode())) == depth
    assert sys.getrecursionlimit() == limit


@pytest.mark.parametrize(
    "text",
    [
        nested(json_steps.MAX_DEPTH + 1),
        nested(json_steps.MAX_DEPTH - 100, core=f"1,{' ' * 3 * json_steps.WINDOW}{nested(101)}, 2"),
        f"[{nested(json_steps.MAX_DEPTH)}, 2, {' ' * json_body.LARGE} 3]",
        nested(json_steps.MAX_DEPTH + 1, '{"k":'),
        nested(25_000),  # which Python 3.14 takes
        nested(100_000, '{"k":'),
        nested(1_000_000),
    ],
    ids=["just", "in a row", "beside others", "objects", "further", "far objects", "far"],
)
def test_refuses_what_is_too_deep(text: str) -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        json_body.loads(text.encode())


def test_brackets_in_a_string_are_no_depth() -> None:
    value = ["[{" * json_steps.MAX_DEPTH, [[]] * json_steps.MAX_DEPTH]
    assert json_body.loads(json.dumps(value).encode()) == value


def test_the_c_parser_is_not_tried_at_every_level(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    scanner = json_steps._scanner

    def counting(**hooks: Any) -> Callable[[str, int], Any]:
        scan = scanner(**hooks)

        def call(text: str, at: int) -> Any:
            if text[at] in "[{":
                tried.append(at)
            return scan(text, at)

        return call

    monkeypatch.setattr(json_steps, "_scanner", counting)
    body = nested(900, core="1, " * json_body.LARGE + "1").encode()
    json_body.loads(body)
    assert 0 < len(tried) < 150  # each costs up to a window


@pytest.mark.parametrize("text", ["{}", "{ }", "{},1", "{},[]", '{},{"a":1}'])
@pytest.mark.parametrize("outline", [False, True])
def test_empty_objects_are_not_read_one_by_one(
    text: str, skeleton: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python takes microseconds for each of them, and a body may have millions."""
    read = 0
    members = json_steps._Reader._members

    def counting(self: Any, *args: Any) -> Any:
        nonlocal read
        read += 1
        return members(self, *args)

    monkeypatch.setattr(json_steps._Reader, "_members", counting)
    json_body.loads(f"[{','.join([text] * 200_000)}]".encode(), skeleton=skeleton)
    assert read < 2_000


def test_reads_what_follows_something_deep() -> None:
    deep = nested(3_000)
    body = f'[{deep}, {{"a": {deep}, "b": [1, 2]}}, {{"c": 3}}]'.encode()
    first, second, third = json_body.loads(body)
    assert (depth_of(first), depth_of(second.pop("a"))) == (3_000, 3_000)
    assert (second, third) == ({"b": [1, 2]}, {"c": 3})


@pytest.mark.parametrize("depth", [0, 3_000])
def test_notes_what_could_not_be_taken_as_it_was_sent(depth: int) -> None:
    notes: list[str] = []
    core = '{"a": 1, "b\\u001b": 2, "b\\u001b": %s, "a": NaN}' % ("7" * 5_000)
    value = json_body.loads(nested(depth, core=core).encode(), note=notes.append)
    for _ in range(depth):
        (value,) = value
    assert math.isnan(value["a"])
    assert value["b\x1b"] == "7" * 5_000
    assert set(notes) == {
        "an integer of 5000 digits became text",
        *(
            f"the key {key} occurs twice in one object, the last counts"
            for key in ("'a'", r"'b\x1b'")
        ),
    }


# In steps


ROW = {"id": 1234567, "tags": ["one", "two"], "usage": {"in": 1234, "out": 0.5}, "none": None}
LARGE = {
    "strings": ["word, 🍵 \n" * 50_000, "word\\" * 100_000],
    "blanks": json.loads("[" + " " * 400_000 + "]"),
    "objects": [ROW] * 5_000,
    "numbers": [[*range(100_000)], [0.1234567] * 50_000],
    "lists": [[[1], [2, [3]]]] * 20_000,
    "empty objects": [{}] * 100_000,
    "empty objects among others": [{}, 1, [], {"a": {}}, "x"] * 20_000,
    "short strings": ['a, "b" {c}'] * 40_000,
    "an object": {f"key {number}": ROW for number in range(5_000)},
    "in one list": [1, "a", ROW, [ROW], None] * 5_000,
    "long": int("7" * 4_000),
    "nodes": {"A": {"status": "SUCCESS", "value": [ROW] * 5_000, "is_output_node": True}},
}


@pytest.mark.parametrize("shape", LARGE)
@pytest.mark.parametrize("is_ascii", [True, False])
@pytest.mark.parametrize("indent", [None, 2])
def test_the_c_parser_gets_windows_only(
    shape: str, is_ascii: bool, indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_to_c: list[int] = []

    def watched(scan: Callable[[str, int], Any]) -> Callable[[str, int], Any]:
        def call(text: str, at: int) -> Any:
            given_to_c.append(len(text) - at)
            return scan(text, at)

        return call

    scanner, scan_string = json_steps._scanner, json_steps._scan_string
    monkeypatch.setattr(json_steps, "_scanner", lambda **hooks: watched(scanner(**hooks)))
    monkeypatch.setattr(json_steps, "_scan_string", watched(scan_string))
    body = json.dumps(LARGE[shape], ensure_ascii=is_ascii, indent=indent).encode()
    assert json_body.loads(b" " * json_body.LARGE + body) == LARGE[shape]
    assert 0 < max(given_to_c) <= 2 * json_steps.WINDOW + 2  # and two brackets


def test_small_documents_are_left_to_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_steps, "loads", None)
    assert json_body.loads(b"[1" + b" " * (json_body.LARGE - 3) + b"]") == [1]


@pytest.mark.parametrize(
    "text", ["word " * 2_000_000, "\n" * 5_000_000, "é" * 5_000_000, "🍵" * 2_500_000]
)
def test_a_string_is_held_once(text: str) -> None:
    body = json.dumps([text], ensure_ascii=False).encode()
    tracemalloc.start()
    try:
        (found,) = json_body.loads(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == text
    assert peak < 1.2 * sys.getsizeof(text)


# The outline


def test_an_outline_keeps_how_far_a_run_is() -> None:
    nodes: dict[str, Any] = {
        "A": {"status": "SUCCESS", "value": [ROW] * 50_000, "error_message": "x" * 1_000_000},
        "B": {"status": "RUNNING", "value": {"rows": [ROW] * 5_000, "n": {"o": 1}}},
        "C": {"status": "QUEUED", "value": None},
    }
    body = json.dumps(nodes).encode()
    tracemalloc.start()
    try:
        skeleton = json_body.loads(body, skeleton=True)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert {name: node["status"] for name, node in skeleton.items()} == {
        name: node["status"] for name, node in nodes.items()
    }
    assert skeleton["A"]["error_message"].startswith("x" * 1_000)
    assert len(skeleton["A"]["error_message"]) < 100_000
    assert skeleton["A"]["value"] == []
    assert peak < len(body) / 10


@pytest.mark.parametrize("value", ["x" * 1_000_000, [ROW] * 10_000, {"rows": [ROW] * 10_000}])
def test_an_outline_is_checked_as_a_whole(value: Any) -> None:
    body = json.dumps(value).encode()
    json_body.loads(body, skeleton=True)
    for damaged in (body[:-1], body + b"]", body[:600_000] + b"\x00" + body[600_000:]):
        assert outcome(json_body.loads, damaged, skeleton=True) is ValueError


def test_an_outline_does_not_busy_the_garbage_collector() -> None:
    body = json.dumps([ROW] * 50_000).encode()
    passes: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            passes.append(info["generation"])

    gc.callbacks.append(note)
    try:
        json_body.loads(body, skeleton=True)
    finally:
        gc.callbacks.remove(note)
    assert len([generation for generation in passes if generation > 0]) <= 2
