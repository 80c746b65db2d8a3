# SPDX-License-Identifier: Apache-2.0
"""Shapes to hold JSON against.

A shape is a type, a set of words, a predicate, a list of one shape, a tuple of alternatives, None
for null, or an object: a dict of names (``name?`` may be missing) to shapes. An object takes no
other names, unless it has the name ``...``, as in ``additionalProperties``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TEXT = (str, None)
OBJECT = {"...": True}
OBJECT_OR_NULL = (OBJECT, None)

UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def uuid(value: Any) -> bool:
    return isinstance(value, str) and UUID_TEXT.fullmatch(value) is not None


def number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def row(value: Any) -> bool:
    return conforms(value, int) and value >= 0


def counts(value: Any) -> bool:
    return isinstance(value, dict) and all(conforms(item, int) for item in value.values())


def conforms(value: Any, shape: Any) -> bool:
    return not problem(value, shape)


def problem(value: Any, shape: Any, where: str = "the body") -> str:
    """Return what is wrong with a value, or nothing."""
    match shape:
        case None:
            right = value is None
        case tuple():
            right = any(conforms(value, alternative) for alternative in shape)
        case list():
            if isinstance(value, list):
                found = (problem(v, shape[0], f"{where}[{i}]") for i, v in enumerate(value))
                return next(filter(None, found), "")
            right = False
        case dict():
            if isinstance(value, dict):
                return _problem_of_object(value, shape, where)
            right = False
        case set():
            right = isinstance(value, str) and value in shape
        case type():
            right = isinstance(value, shape) and (shape is bool or not isinstance(value, bool))
        case _:
            right = shape(value)
    return "" if right else f"{where} is {value!r}"


def _problem_of_object(value: dict[str, Any], shape: Mapping[str, Any], where: str) -> str:
    names = {name.rstrip("?"): inner for name, inner in shape.items() if name != "..."}
    for name in shape:
        if not name.endswith("?") and name != "..." and name not in value:
            return f"{where} has no {name}"
    for name, item in value.items():
        if name in names:
            if found := problem(item, names[name], f"{where}.{name}"):
                return found
        elif "..." not in shape:
            return f"{where} has the undeclared {name}"
    return ""
