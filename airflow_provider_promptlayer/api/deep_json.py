# SPDX-License-Identifier: Apache-2.0
"""JSON nested deeper than Python's own parser and writer go, without recursion.

Both accept and produce what :mod:`json` does; they are slower, and so the second choice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

MAX_DEPTH: Final = 10_000
"""Levels beyond which a document is refused."""

_scan_string: Final[Callable[[str, int], tuple[str, int]]] = json.decoder.scanstring  # type: ignore[attr-defined]
_BLANKS: Final = re.compile(r"[ \t\n\r]*")
_NUMBER: Final = re.compile(r"(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_CONSTANTS: Final = {
    "null": None,
    "true": True,
    "false": False,
    "NaN": float("nan"),
    "Infinity": float("inf"),
    "-Infinity": float("-inf"),
}
_CONSTANT: Final = re.compile("|".join(_CONSTANTS))
_MISSING: Final = object()


def loads(
    text: str,
    *,
    parse_object: Callable[[list[tuple[str, Any]]], Any] = dict,
    parse_int: Callable[[str], Any] = int,
) -> Any:
    """Return what ``text`` says; the arguments mean what they mean to :func:`json.loads`.

    :raises ValueError: if it is no JSON, or nested deeper than :data:`MAX_DEPTH`.
    """
    open_ones: list[tuple[list[Any], str | None]] = []  # what is being filled, and its key outside
    items: list[Any] = []  # of the innermost: values of a list, pairs of an object
    key: str | None = None  # the next value's, if the innermost is an object
    at = _skip(text, 0)
    while True:
        value: Any = _MISSING
        opener = text[at : at + 1]
        if opener in ("[", "{"):
            if len(open_ones) == MAX_DEPTH:
                raise ValueError("nested too deeply")
            open_ones.append((items, key))
            items, is_object = [], opener == "{"
            at = _skip(text, at + 1)
            if text.startswith("}" if is_object else "]", at):
                value = parse_object([]) if is_object else []
                at += 1
                items, key = open_ones.pop()
            else:
                key, at = _key(text, at) if is_object else (None, at)
                continue
        else:
            value, at = _scalar(text, at, parse_int)
        # A value is complete; it may complete those around it.
        while True:
            at = _skip(text, at)
            if not open_ones:
                if at != len(text):
                    raise json.JSONDecodeError("Extra data", text, at)
                return value
            items.append(value if key is None else (key, value))
            mark = text[at : at + 1]
            if mark == ",":
                at = _skip(text, at + 1)
                if key is not None:
                    key, at = _key(text, at)
                break
            if mark != ("]" if key is None else "}"):
                raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
            value = items if key is None else parse_object(items)
            at += 1
            items, key = open_ones.pop()


def dumps(value: Any) -> str:
    """Return ``value`` as ASCII text that :func:`loads` and :func:`json.loads` take back.

    :param value: what a JSON parser returns.
    """
    try:
        return json.dumps(value)
    except RecursionError:
        return "".join(_written(value))


def _written(value: Any) -> Iterator[str]:
    open_ones: list[tuple[Iterator[Any], bool]] = []
    while True:
        if isinstance(value, (dict, list, tuple)) and value:
            is_object = isinstance(value, dict)
            open_ones.append((iter(value.items() if isinstance(value, dict) else value), is_object))
            yield "{" if is_object else "["
            separator = ""
        else:
            yield json.dumps(value)
            separator = ", "
        while open_ones:
            items, is_object = open_ones[-1]
            value = next(items, _MISSING)
            if value is not _MISSING:
                yield separator
                if is_object:
                    key, value = value
                    yield f"{json.dumps(key)}: "
                break
            yield "}" if is_object else "]"
            open_ones.pop()
            separator = ", "
        else:
            return


def _skip(text: str, at: int) -> int:
    blanks = _BLANKS.match(text, at)
    return blanks.end() if blanks else at


def _key(text: str, at: int) -> tuple[str, int]:
    if not text.startswith('"', at):
        message = "Expecting property name enclosed in double quotes"
        raise json.JSONDecodeError(message, text, at)
    key, at = _scan_string(text, at + 1)
    at = _skip(text, at)
    if not text.startswith(":", at):
        raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
    return key, _skip(text, at + 1)


def _scalar(text: str, at: int, parse_int: Callable[[str], Any]) -> tuple[Any, int]:
    if text.startswith('"', at):
        return _scan_string(text, at + 1)
    if number := _NUMBER.match(text, at):
        whole, fraction, exponent = number.groups()
        if fraction or exponent:
            return float(number.group()), number.end()
        return parse_int(whole), number.end()
    if constant := _CONSTANT.match(text, at):
        return _CONSTANTS[constant.group()], constant.end()
    raise json.JSONDecodeError("Expecting value", text, at)
