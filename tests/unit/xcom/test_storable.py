# SPDX-License-Identifier: Apache-2.0
"""What a language model may write, and what of it is stored."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_promptlayer.api.json_reader import MAX_DEPTH as DEEPEST
from airflow_provider_promptlayer.api.json_reader import loads
from airflow_provider_promptlayer.xcom.storable import MAX_DEPTH, json_text, safe_keys, storable

HUGE = 10**100


def nested(depth: int, kind: str = "list", core: Any = "core") -> Any:
    value = core
    for level in range(depth):
        value = [value] if kind == "list" or (kind == "mixed" and level % 2) else {"k": value}
    return value


UNCHANGED: dict[str, Any] = {
    "null": None,
    "booleans": [True, False],
    "64 bits": [2**63 - 1, -(2**63), 0],
    "floats": [0.1, 1e18, 5e-324, -1e-300],
    "text": ["", "é🍵", "\ufffd", "\x01\x1b[31m\x7f\u2028", "x" * 1_000_000],
    "templates": ["{{ ds }}", "{% raw %}", "<script>alert(1)</script>"],
    "text that looks like JSON": ["[1]", '{"__classname__": "a"}', "NaN", "null"],
    "keys": {"": 1, " ": 2, "a.b/c": 3, "é": 4, "Case": 5, "case": 6},
    "keys that look reserved": {"__type": 1, "__version__": 2, "__data__": 3, "__var__": 4},
    "half a wrapper": {"__var": 1},
    "as deep as it may be": nested(MAX_DEPTH),
    "empty": [[], {}, ""],
}


@pytest.mark.parametrize("value", UNCHANGED.values(), ids=UNCHANGED.keys())
def test_what_can_be_stored_is_the_same_object(value: Any) -> None:
    before = json.dumps(value)
    stored = storable(value)
    assert stored.value is value
    assert stored.changes == ()
    assert json.dumps(value) == before


CHANGED: dict[str, tuple[Any, Any, str]] = {
    "NUL": ("a\0b", "a\ufffdb", "1 × NUL or half"),
    "NUL among others": ("é\0", "é\ufffd", "1 × NUL or half"),
    "lone surrogates": ("\ud800x\udc00", "\ufffdx\ufffd", "1 × NUL or half"),
    "two halves that fit": ("\ud83c\udf75", "🍵", "1 × NUL or half"),
    "NaN": (math.nan, "NaN", "1 × numbers"),
    "infinities": ([math.inf, -math.inf], ["Infinity", "-Infinity"], "2 × numbers"),
    "65 bits": ([2**63, -(2**63) - 1], [str(2**63), str(-(2**63) - 1)], "2 × numbers"),
    "100 digits": (HUGE, str(HUGE), "1 × numbers"),
    "large float": ([1e20, -1.5e300], ["1e+20", "-1.5e+300"], "2 × numbers"),
    "reserved key": ({"__classname__": "os"}, {"(__classname__)": "os"}, "1 × keys"),
    "another": ([{"__id__": 1}], [{"(__id__)": 1}], "1 × keys"),
    "wrapper": ({"__type": "d", "__var": 3}, {"(__type)": "d", "(__var)": 3}, "2 × keys"),
    "key that becomes reserved": ({"__id__": 1, "(__id__)": 2}, None, "1 × keys"),
    "key with NUL": ({"a\0": 1}, {"a\ufffd": 1}, "1 × keys"),
    "keys that become equal": (
        {"a\0": 1, "a\ud800": 2, "a\ufffd": 3, "a\ufffd (2)": 4},  # noqa: F601
        {"a\ufffd (3)": 1, "a\ufffd (4)": 2, "a\ufffd": 3, "a\ufffd (2)": 4},
        "2 × keys",
    ),
    "tuple": (("a", ("b",)), ["a", ["b"]], ""),
}


@pytest.mark.parametrize(("value", "becomes", "change"), CHANGED.values(), ids=CHANGED.keys())
def test_what_is_changed(value: Any, becomes: Any, change: str) -> None:
    stored = storable(value)
    if becomes is not None:
        assert stored.value == becomes
    if isinstance(value, (dict, list)):
        assert len(stored.value) == len(value)
    assert any(line.startswith(change) for line in stored.changes) or not change


@pytest.mark.parametrize("kind", ["list", "dict", "mixed"])
@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 1_000, 9_000])
def test_deep_parts_become_their_json_text(kind: str, depth: int) -> None:
    inner = nested(depth - MAX_DEPTH, kind, core="\0\ud800é")
    outer = storable(nested(MAX_DEPTH, kind, core=inner))
    text = outer.value
    for _ in range(MAX_DEPTH):
        text = text[0] if isinstance(text, list) else text["k"]
    assert isinstance(text, str)
    restored = loads(text.encode())
    for _ in range(depth - MAX_DEPTH):
        restored = restored[0] if isinstance(restored, list) else restored["k"]
    assert restored == "\0\ud800é"
    (change,) = outer.changes
    assert change.startswith("1 × parts nested deeper")


def test_shares_what_did_not_change() -> None:
    same = [{"x": 1}]
    value: list[Any] = [same, {"bad": math.nan, "good": same}]
    stored = storable(value).value
    assert stored == [same, {"bad": "NaN", "good": same}]
    assert stored[0] is same
    assert stored[1]["good"] is same
    assert math.isnan(value[1]["bad"])


def test_names_that_collide_stay_apart_in_great_numbers() -> None:
    names = [
        f"{first}{second}"
        for first in ("\0", "\ud800")
        for second in map(chr, range(0xD800, 0xDC00))
    ]
    lines = 0

    def count(*_: Any) -> Any:
        nonlocal lines
        lines += 1
        return count

    tracer = sys.gettrace()
    sys.settrace(count)
    try:
        new = safe_keys(dict.fromkeys(names).keys())
    finally:
        sys.settrace(tracer)
    assert len(set(new.values())) == len(new) == len(names)
    assert lines < 100 * len(names)  # and does not try each number for each name


def test_size_is_about_that_of_the_json() -> None:
    value = {"text": "é" * 10_000, "numbers": list(range(10_000)), "more": [{"a": None}] * 1_000}
    size = len(json.dumps(value, ensure_ascii=False).encode())
    assert size / 2 < storable(value).size < size * 2


def test_what_json_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="JSON has no set"):
        storable([{1, 2}])


ANY_TEXT = st.text(st.characters() | st.sampled_from("\0\ud83c\udf75"))
KEYS = ANY_TEXT | st.sampled_from(
    [
        "__classname__",
        "__version__",
        "__data__",
        "__id__",
        "__type",
        "__var",
        "__source",
        "__cache__",
    ]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**120), 10**120)
    | st.sampled_from([2**63 - 1, 2**63, 2**64, -(2**63), -(2**63) - 1, HUGE])
    | st.floats()
    | ANY_TEXT
    | KEYS
)
ANY_JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=30
)


@given(ANY_JSON, st.sampled_from([0, 3_000]))
def test_json_text_is_what_python_writes_at_any_depth(value: Any, depth: int) -> None:
    assert json_text(nested(depth, core=value)) == "[" * depth + json.dumps(value) + "]" * depth


@pytest.mark.parametrize("opening", ["[", '{"k":'])
@pytest.mark.parametrize("depth", [1_000, DEEPEST])
def test_json_text_of_deep_documents(opening: str, depth: int) -> None:
    text = opening * depth + "1" + ("]" if opening == "[" else "}") * depth
    assert "".join(json_text(loads(text.encode())).split()) == text


@given(ANY_JSON, st.sampled_from([0, 0, 0, 50, 98, 150, 1_000]))
@example({"__type": "dict", "__var": 3}, 0)
@example({"__type": "a.b", "__var": 3}, 0)
@example({"__classname__": "builtins.tuple", "__version__": 1, "__data__": [1]}, 0)
def test_whatever_is_stored_comes_back(value: Any, depth: int) -> None:
    stored = storable(nested(depth, "mixed", value)).value
    again = storable(stored)
    assert again.value is stored, "what is storable is left alone"
    assert stays_the_same(stored)
    text = json.dumps(stored, ensure_ascii=False, allow_nan=False)
    assert "\\u0000" not in text.replace("\\\\", "")
    text.encode()


def stays_the_same(stored: Any) -> bool:
    """Take the way of the installed Airflow: serializer, frame, JSON, database, and back."""
    try:
        from airflow.sdk.bases.xcom import BaseXCom
        from airflow.sdk.execution_time.comms import SetXCom, XComResult, _RequestFrame
    except ImportError:
        from airflow.models.xcom import BaseXCom  # type: ignore[no-redef]

        class Row:
            value = BaseXCom.serialize_value({"return": stored})

        result: Any = BaseXCom.deserialize_value(Row)
        return bool(result == {"return": stored})

    serialized: Any = BaseXCom.serialize_value({"return": stored})
    message = SetXCom(key="k", value=serialized, dag_id="d", run_id="r", task_id="t")
    _RequestFrame(id=1, body=message.model_dump()).as_bytes()
    sent = json.dumps(serialized, ensure_ascii=False, allow_nan=False).encode()
    answer = XComResult.model_validate_json(b'{"key": "k", "value": ' + sent + b"}")
    return bool(BaseXCom.deserialize_value(answer) == {"return": stored})
