# SPDX-License-Identifier: Apache-2.0
"""Names and values as language models and Airflow may produce them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_promptlayer.xcom.storable import json_text

UNCHANGED: Any = object()


@dataclass(frozen=True)
class Name:
    """A node's name: whether it is an XCom's key, and what it is called inside of XComs."""

    name: str
    has_xcom: bool
    inside: str


def _name(name: str, *, key: bool = True, inside: str | None = None) -> Name:
    return Name(name, key, name if inside is None else inside)


NAMES = (
    _name("a/b"),
    _name("50%"),
    _name("🍵"),
    _name("👩\u200d💻 第一\u3000段"),
    _name("n" * 255),
    _name("🍵" * 255),
    _name("back\\slash; 'quotes' \"\" [x] {y} + & @ : |"),
    _name(" blanks "),
    _name("Case"),
    _name("case"),
    _name("{{ ds }}<b>"),
    _name("__classname__", inside="(__classname__)"),
    _name("q?x=1", key=False),
    _name("q#x", key=False),
    _name("a%41", key=False),
    _name("..", key=False),
    _name("a/../b", key=False),
    _name("a/slice", key=False),
    _name("a/item/3", key=False),
    _name("line\nbreak", key=False),
    _name("", key=False),
    _name("n" * 513, key=False),
    _name("return_value", key=False),
    _name("promptlayer_final_output", key=False),
    _name("nul\0", key=False, inside="nul\ufffd (2)"),
    _name("nul\ud800", key=False, inside="nul\ufffd (3)"),
    _name("nul\ufffd"),
)


@dataclass(frozen=True)
class Value:
    """What a node gives, what of it is stored, and what the warning says."""

    sent: Any
    stored: Any = UNCHANGED
    warning: str = ""

    @property
    def expected(self) -> Any:
        return self.sent if self.stored is UNCHANGED else self.stored


class Lazy(Sequence[Any]):
    """Like the lazy sequence of XComs that Airflow hands to a task."""

    def __init__(self, *items: Any) -> None:
        self._items = items

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]

    def __len__(self) -> int:
        return len(self._items)


def nested(depth: int, core: Any = 1) -> Any:
    value = core
    for _ in range(depth):
        value = [value]
    return value


_NUMBERS = "numbers that are not finite or beyond 64 bits became text"

VALUES = {
    "Plain": Value({"points": [1, 2.5, None, True, "é🍵"]}),
    "Markup": Value("{{ 7 * 7 }}{% raw %}<script>alert(1)</script>"),
    "Looks like JSON": Value('{"__classname__": "builtins.tuple"}'),
    "Large": Value("x" * 10_000_000),
    "Null": Value([None]),
    "Integers": Value([2**63 - 1, -(2**63)]),
    "Deep": Value(
        nested(1_000),
        nested(100, json_text(nested(900))),
        "1 × parts nested deeper than 100 levels became their JSON text",
    ),
    "NUL": Value("a\0b", "a\ufffdb", "1 × NUL or half characters in text became U+FFFD"),
    "Half": Value(["\ud83c"], ["\ufffd"], "1 × NUL or half characters in text became U+FFFD"),
    "Not finite": Value(
        [math.nan, math.inf, -math.inf], ["NaN", "Infinity", "-Infinity"], f"3 × {_NUMBERS}"
    ),
    "100 digits": Value(10**99, "1" + "0" * 99, f"1 × {_NUMBERS}"),
    "64 bits": Value(2**64 - 1, str(2**64 - 1), f"1 × {_NUMBERS}"),
    "Large float": Value({"x": 1e300}, {"x": "1e+300"}, f"1 × {_NUMBERS}"),
    "Wrapper": Value(
        {"__type": "dict", "__var": 3}, {"(__type)": "dict", "(__var)": 3}, "2 × keys were renamed"
    ),
    "Class": Value(
        {"__classname__": "os.system", "__version__": 0, "__data__": "x"},
        {"(__classname__)": "os.system", "__version__": 0, "__data__": "x"},
        "1 × keys were renamed",
    ),
    "Keys": Value({"a\0": 1, "a\ufffd": 2}, {"a\ufffd (2)": 1, "a\ufffd": 2}, "1 × keys"),
}


def names_body() -> bytes:
    """Return the answer of a run whose nodes have all these names, and give them as values."""
    return _body({one.name: one.inside for one in NAMES})


def values_body() -> bytes:
    """Return the answer of a run whose nodes give all these values, and one that comes twice."""
    body = _body({name: one.sent for name, one in VALUES.items()})
    twice = b"".join(b', "Twice": ' + _node(order).encode() for order in ("first", "last"))
    digits = (
        b', "5000 digits": ' + _node(0).replace('"value": 0', '"value": ' + "7" * 5_000).encode()
    )
    return body[:-1] + twice + digits + b"}"


def _body(nodes: dict[str, Any]) -> bytes:
    pairs = (f"{json_text(name)}: {_node(value)}" for name, value in nodes.items())
    return ("{" + ", ".join(pairs) + "}").encode()


def _node(value: Any) -> str:
    return json_text(
        {
            "status": "SUCCESS",
            "value": value,
            "error_message": None,
            "raw_error_message": None,
            "is_output_node": True,
        }
    )
