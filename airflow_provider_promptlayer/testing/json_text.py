# SPDX-License-Identifier: Apache-2.0
"""JSON values as text, however hostile: nested deeper than Python's own encoder goes.

The local server can send all that PromptLayer can: NaN and the infinities, lone surrogates (as
escapes), integers of thousands of digits, any depth.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

JsonValue: TypeAlias = Any
"""Any value that ``dumps`` takes."""


def dumps(value: JsonValue) -> str:
    """Return a value as JSON text in ASCII; raise as ``json.dumps`` does for what is not JSON."""
    try:
        return json.dumps(value)
    except RecursionError:
        return "".join(_tokens(value))


def _tokens(value: JsonValue) -> Iterator[str]:
    """Encode with an explicit stack instead of Python's call stack."""
    # For each open container: its identity, the items that remain, and its closing token.
    # json.dumps detects circles, but only down to the depth at which it gave up.
    stack: list[tuple[int, Iterator[tuple[str, Any]], str]] = []
    open_containers: set[int] = set()
    pending: Any = value
    while True:
        if isinstance(pending, dict | list | tuple):
            if id(pending) in open_containers:
                raise ValueError("Circular reference detected")
            open_containers.add(id(pending))
            is_object = isinstance(pending, dict)
            yield "{" if is_object else "["
            stack.append((id(pending), _items(pending), "}" if is_object else "]"))
        else:
            yield json.dumps(pending)
        while stack:
            container, items, end = stack[-1]
            item = next(items, None)
            if item is not None:
                separator_and_key, pending = item
                yield separator_and_key
                break
            yield end
            open_containers.discard(container)
            stack.pop()
        else:
            return


def _items(container: Any) -> Iterator[tuple[str, Any]]:
    is_object = isinstance(container, dict)
    for number, item in enumerate(container.items() if is_object else container):
        separator = ", " if number else ""
        if is_object:
            key, value = item
            # json.dumps writes keys that are not text as text: 1 as "1", true as "true".
            yield separator + json.dumps({key: 0})[1:-2], value
        else:
            yield separator, item
